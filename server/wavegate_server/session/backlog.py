"""How far one upstream connection is behind the audio that it was sent. Pure: time comes in.

Three things tell, and each may be missing:

- A pong. A ping travels behind the audio, so its pong proves that what was sent before was *read*. A proxy that buffers
  answers for an upstream that has heard nothing yet, so that reading is no proof of hearing.
- A transcript, or a voice that began or stopped. Its time proves that the audio before was *heard*.
- The clock. An upstream is expected to hear at least as fast as speech is spoken, so that in time all is heard.

What may be sent without waiting follows the pongs; how long an answer may take follows all three. Positions are seconds
of the connection's own audio, inserted silence included; times are the loop's.
"""

from __future__ import annotations

WINDOW_S = 5.0
"""Audio that may be unread: enough for 25 times real time over a round trip of 0.2 s, and little enough that an
upstream of two thirds of the speed of speech answers a ping within the transport's patience."""
MARK_S = 1.0
"""Audio between two pings."""
BURST_S = 0.5
"""Audio that may be ahead of a set pace."""
LAG_S = 1.0
"""An upstream less far behind than this keeps up: frames come in bursts, and a round trip takes its time."""


class Backlog:
    """What one connection was sent, and what it proved to have read and heard."""

    def __init__(self) -> None:
        self.sent_s = 0.0
        self.read_s = 0.0
        """Up to here a pong proved it read."""
        self.heard_s = 0.0
        """Up to here a transcript or a voice proved it heard."""
        self._marked_s = 0.0
        """Where the newest ping stands."""
        self._plays_until = 0.0
        """When a listener in real time has heard all that was sent."""
        self.was_pushed = False
        """Whether audio was ever sent faster than it plays."""
        self._pace = 0.0
        self._paced_from = (0.0, 0.0)
        """Time and position from which the pace counts."""

    def __repr__(self) -> str:
        return f"<Backlog sent={self.sent_s:.2f} read={self.read_s:.2f} heard={self.heard_s:.2f}>"

    def sent(self, duration_s: float, now: float) -> None:
        """Note audio that is being sent."""
        self.sent_s += duration_s
        self._plays_until = max(now, self._plays_until) + duration_s
        self.was_pushed = self.was_pushed or self._plays_until - now > duration_s + LAG_S

    def mark(self) -> float | None:
        """The position that a ping sent now stands for; None while the newest ping is near enough."""
        if self.sent_s - self._marked_s < MARK_S:
            return None
        return self.mark_now()

    def mark_now(self) -> float:
        """The position that a ping sent now stands for."""
        self._marked_s = self.sent_s
        return self.sent_s

    def read(self, position_s: float) -> None:
        """Note the pong of the ping at this position."""
        self.read_s = max(self.read_s, position_s)

    def heard(self, position_s: float) -> None:
        """Note a transcript or a voice at this position; one beyond what was sent counts up to there."""
        self.heard_s = max(self.heard_s, min(position_s, self.sent_s))

    def keep_pace(self, speed: float, now: float) -> None:
        """Send no faster than `speed` seconds of audio a second from now on; 0 for as fast as it comes."""
        self._pace = speed
        self._paced_from = (now, self.sent_s)

    @property
    def unread_s(self) -> float:
        """Audio that was sent and is not proved read."""
        return max(0.0, self.sent_s - max(self.read_s, self.heard_s))

    @property
    def waiting_s(self) -> float:
        """Audio that was sent and is not read by an upstream that owes a pong; 0.0 where every ping is answered."""
        return 0.0 if max(self.read_s, self.heard_s) >= self._marked_s else self.unread_s

    @property
    def unheard_s(self) -> float:
        """Audio that was sent and is not proved heard."""
        return self.sent_s - self.heard_s

    def behind_s(self, now: float) -> float:
        """How long the upstream may rightly take to hear what it was sent: as long as that plays, less what it proved
        heard, and less the time since it was sent, unless pongs show that it has not even read it."""
        return min(self.unheard_s, max(self.waiting_s, self._plays_until - now, 0.0))

    def must_be_heard(self, ago_s: float, now: float) -> float:
        """Seconds since the audio `ago_s` before the newest must have been heard, by an upstream in real time; negative
        where its time has not come."""
        return now - (self._plays_until - ago_s)

    def send_at(self) -> float | None:
        """When more audio may be sent, by the set pace (0.0 where there is none); None for once it has read more."""
        if self.unread_s >= WINDOW_S:
            return None
        if not self._pace:
            return 0.0
        begun_at, begun_s = self._paced_from
        return begun_at + (self.sent_s - begun_s - BURST_S) / self._pace
