"""Where audio lies: the samples of one connection on the samples of the session. Pure.

The upstream counts from the first sample that it was sent on a connection; a caller counts from the first one
it ever sent. Between the two lie where the connection took up the session's audio, and the silence that the
gateway inserted to keep it open. All positions are whole samples; seconds exist at the edges only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionClock:
    """The session's samples in seconds. `offset_s` is where the first sample lies (`initial_audio_offset`)."""

    hz: int
    offset_s: float = 0.0

    def seconds(self, position: int) -> float:
        """Where a sample lies, in seconds from the start of the caller's timeline."""
        return self.offset_s + position / self.hz

    def duration_s(self, samples: int) -> float:
        return samples / self.hz

    def samples(self, duration_s: float) -> int:
        return round(duration_s * self.hz)


SLACK_S = 0.5
"""A time may lie so far behind what was sent before it is taken for one of another count: recognisers round."""


class Timeline:
    """One connection's audio."""

    def __init__(self, base: int, hz: int, sent_before: int = 0) -> None:
        """`base`: the session's sample that the connection's first one is. `sent_before`: samples that the
        session's earlier connections were sent; an upstream whose times do not restart counts on from there."""
        self.base = base
        self._hz = hz
        self._sent_before = sent_before
        self._origin = 0
        self._sent = 0
        self._silences: list[tuple[int, int]] = []
        """(where on the connection, how long), in order."""

    def __repr__(self) -> str:
        return f"<Timeline {self.base}+{self._sent} silences={len(self._silences)}>"

    @property
    def position(self) -> int:
        """The session's sample that will be sent next."""
        return self.base + self._sent

    @property
    def connection_samples(self) -> int:
        """All that was sent on the connection, inserted silence included."""
        return max(0, self._sent) + sum(length for _, length in self._silences)

    def drops(self, lead_in: int) -> None:
        """The decoder at the other end will drop that many samples first. Call before anything was sent."""
        self._sent = -lead_in

    def sent(self, samples: int) -> None:
        """The caller's audio was sent."""
        self._sent += samples

    def inserted(self, samples: int) -> None:
        """Silence of the gateway's own was sent."""
        at = self.connection_samples
        if self._silences and sum(self._silences[-1]) == at:
            at, length = self._silences.pop()
            samples += length  # one after the other: one silence
        self._silences.append((at, samples))

    def notice(self, seconds: float) -> None:
        """The latest time of a frame. One that lies behind all that was sent shows that the upstream counts on."""
        behind = round(seconds * self._hz) - self.connection_samples
        if not self._origin and behind > SLACK_S * self._hz:
            self._origin = self._sent_before

    def to_session(self, seconds: float) -> int:
        """The session's sample for a time on the connection.

        A time within inserted silence is where the silence was put in. Times outside of what was sent are
        drawn to its ends: no word was said where nothing was heard.
        """
        at = round(seconds * self._hz) - self._origin
        inserted = 0
        for start, length in self._silences:
            if at <= start:
                break
            inserted += min(length, at - start)
        return self.base + min(max(0, at - inserted), max(0, self._sent))
