"""The audio that no final transcript covers yet, kept to be sent again on another connection. Pure.

Frames are kept as they are sent: references to the caller's own bytes, in order, with their place on the
session's timeline. What a final covers is let go; what grows older than the bound falls out and is reported, so
that it can be said that it was lost, should its connection be lost too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from operator import attrgetter

import msgspec

from wavegate_server.waves.framing import Piece

MAX_FRAMES = 20_000
"""Frames kept at most, however short they are: an object costs more than the few samples of a tiny message."""


class Frame(msgspec.Struct, frozen=True):
    """Audio and its place, in samples of the session."""

    start: int
    end: int
    data: bytes
    input_sequence: int
    """The caller's message that it came with (the last one, where it came with several)."""
    received_at: float
    capture_epoch_s: float | None = None
    """When the session's sample 0 would have been recorded, by this frame's capture time, in seconds since the
    Unix epoch; None where the caller did not say."""
    fresh: bool = True
    """Whether a decoder can begin here."""


_start = attrgetter("start")


class AudioHistory:
    """The kept frames of one session. Frames are numbered from 0 for the whole session."""

    def __init__(self, bytes_per_sample: int) -> None:
        """`bytes_per_sample`: 0 for formats whose frames cannot be cut."""
        self._width = bytes_per_sample
        self._frames: deque[Frame] = deque()
        self._first = 0
        self.headers: list[bytes] = []
        """What a decoder has to see before any frame (Ogg header pages)."""
        self.lead_in = 0
        """Samples that a decoder drops at its beginning, so that its time 0 lies behind them."""
        self.end = 0
        """Where the next frame will begin: all that was ever received."""
        self.passed_sequence = 0
        """The caller's message of the last audio that was let go; 0 where none was."""

    def __repr__(self) -> str:
        return f"<AudioHistory {self.start}..{self.end}>"

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def start(self) -> int:
        """Where a decoder that begins with the oldest kept frame hears its first sample."""
        return min(self._frames[0].start + self.lead_in, self.end) if self._frames else self.end

    @property
    def kept(self) -> int:
        """Samples kept."""
        return self.end - self._frames[0].start if self._frames else 0

    @property
    def first_index(self) -> int:
        """Number of the oldest kept frame."""
        return self._first

    @property
    def next_index(self) -> int:
        """Number that the next frame will have."""
        return self._first + len(self._frames)

    def append(
        self, piece: Piece, input_sequence: int, received_at: float, capture_epoch_s: float | None = None
    ) -> None:
        """Take a piece in behind the others."""
        if piece.header:
            self.headers.append(piece.data)
            return
        start = self._frames[-1].end if self._frames else self.end
        if not self.next_index:
            start = -self.lead_in  # the caller's first sample is the first one that is heard
        end = start + piece.samples
        self._frames.append(
            Frame(start, end, piece.data, input_sequence, received_at, capture_epoch_s, piece.fresh)
        )
        self.end = max(self.end, end)

    def frame(self, index: int) -> Frame:
        """The frame of this number. Raises IndexError for one that is not kept."""
        if index < self._first:
            raise IndexError(index)
        return self._frames[index - self._first]

    def index_at(self, position: int) -> int:
        """Number of the first frame that begins at `position` or behind it; of the next one to come where none does."""
        return self._first + bisect_left(self._frames, position, key=_start)

    def at(self, position: int) -> Frame | None:
        """The kept frame that holds the sample before `position`: the last one that an end there covers."""
        for frame in reversed(self._frames):
            if frame.start < position:
                return frame if position <= frame.end else None
        return None

    def cover(self, position: int) -> None:
        """A final reaches up to `position`: let go of what a replay from there does not need."""
        frames = self._frames
        if self._width:
            while frames and frames[0].end <= position:
                self._let_go()
            if frames and frames[0].start < position:
                self._cut(position)
            return
        # Uncut frames: the last one that a decoder can begin with and still hears `position`.
        begin = 0
        for number, frame in enumerate(frames):
            if frame.start + self.lead_in > position:
                break
            if frame.fresh:
                begin = number
        for _ in range(begin):
            self._let_go()

    def begin_at(self, position: int) -> None:
        """Let go of all audio before `position`, as it must not be sent again. Where a decoder cannot begin there, it
        misses what it would have needed of the audio before."""
        self.cover(position)
        while self._frames and not self._width and self._frames[0].end <= position:
            self._let_go()

    def evict(self, limit: int, before_index: int) -> list[Frame]:
        """Let go of the oldest frames until at most `limit` samples are kept; only of those that were sent, whose
        number is below `before_index`. What falls out is returned."""
        out: list[Frame] = []
        frames = self._frames
        while frames and self._first < before_index:
            # A decoder cannot begin with what is left of a packet.
            if self.kept <= limit and len(frames) <= MAX_FRAMES and (frames[0].fresh or not out):
                break
            out.append(self._let_go())
        return out

    def _let_go(self) -> Frame:
        frame = self._frames.popleft()
        self._first += 1
        self.passed_sequence = frame.input_sequence
        return frame

    def _cut(self, position: int) -> None:
        """Shorten the oldest frame to what lies behind `position`."""
        frame = self._frames[0]
        skipped = position - frame.start
        self.passed_sequence = frame.input_sequence
        self._frames[0] = msgspec.structs.replace(
            frame, start=position, data=frame.data[skipped * self._width :]
        )
