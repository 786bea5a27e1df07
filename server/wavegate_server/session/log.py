"""The ordered events of one session, between the tasks that make them and the one that delivers them.

Events leave in the order in which they were appended, and get their number when they leave, so that audio of
a cancelled utterance can be taken back while it waits. What waits is bounded by its playing time: `room`
holds the producer (and so the upstream) until the caller has read on.

One reader at a time: `attach` makes the one before it stop. Of a session that can be resumed the newest delivered
events are kept, so that a caller that lost its call hears what it missed, under the old numbers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from wavegate_server import errors

EARLY_S = 0.001
"""Audio that is paced may go this much early: no timer is more exact."""
MAX_WAITING_EVENTS = 4096
"""Events other than audio that may wait for a slow reader before the upstream is read no further."""


KEPT_BYTES = 8 * 2**20
"""How much of what was delivered is kept for a resuming caller: twice what a client's HTTP/2 window was measured to
hold unread (4 MiB)."""
ENTRY_BYTES = 256
"""What an event without audio counts for."""


class Entry(msgspec.Struct, frozen=True):
    """An event on its way out."""

    event: Any
    acknowledged_input_sequence: int
    audio_s: float = 0.0
    at_ns: int = 0
    """When the bytes came that it was made of, in nanoseconds since the Unix epoch; 0 where nobody said."""


class Detached(Exception):
    """Raised by `next` for a reader whose place another one has taken."""


class EventLog:
    """A log with one reader at a time. All methods are called from one loop."""

    def __init__(self, max_waiting_audio_s: float, max_audio_lead_s: float | None = None) -> None:
        """`max_waiting_audio_s`: playing time that may wait for a slow reader. `max_audio_lead_s`: deliver at
        most this much audio ahead of real time; None is as fast as it is read."""
        self._limit_s = max_waiting_audio_s
        self._lead_s = max_audio_lead_s
        self._entries: deque[Entry] = deque()
        self._waiting_s = 0.0
        self._waiting_events = 0
        self._played_until = 0.0
        self._now = asyncio.get_running_loop().time
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closed = False
        self._reader = 0
        self._kept: deque[tuple[Entry, int]] | None = None
        """Delivered entries and their sizes, oldest first; None where nothing has to be kept."""
        self._kept_bytes = 0
        self._behind = 0
        """How many of the kept entries are to be delivered again."""
        self.at_ns = 0
        """When the bytes came that are being looked at; whoever reads them says so."""
        self.sequence = 0
        """Number of the newest event that was delivered."""

    def __repr__(self) -> str:
        return f"<EventLog {len(self._entries)} waiting, {self._waiting_s:.2f} s of audio>"

    def __iter__(self) -> Iterator[Any]:
        """The events that wait to be read, in order."""
        return (entry.event for entry in self._entries)

    @property
    def waiting_audio_s(self) -> float:
        """Playing time of the audio that waits to be read, in seconds."""
        return self._waiting_s

    @property
    def waiting_events(self) -> int:
        """How many events other than audio wait to be read."""
        return self._waiting_events

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def full(self) -> bool:
        """Whether so much waits that the upstream should be read no further."""
        return not self._room.is_set()

    def keep(self) -> None:
        """Keep what is delivered from now on, for `rewind`."""
        self._kept = deque()

    def attach(self) -> int:
        """Become the reader: a token for `next`. The reader before gets `Detached`."""
        self._reader += 1
        self._wake.set()
        return self._reader

    def is_read_by(self, reader: int) -> bool:
        """Whether this token of `attach` is the newest one."""
        return reader == self._reader

    @property
    def position(self) -> int:
        """The number of the event that `next` returned last."""
        return self.sequence - self._behind

    def rewind(self, sequence: int) -> None:
        """Deliver everything after event number `sequence` again. Raises `errors.ResumeGap`."""
        missed = self.sequence - sequence
        kept = self._kept or ()
        if missed < 0 or missed > len(kept):
            oldest = self.sequence - len(kept)
            raise errors.ResumeGap(
                f"the newest event is {self.sequence}, and what came after {oldest} is still held, "
                f"so the stream cannot go on after {sequence}; open a new session"
            )
        self._behind = missed
        self._wake.set()

    def append(self, event: Any, acknowledged_input_sequence: int, audio_s: float = 0.0) -> None:
        """Add an event; ignored once the log is closed."""
        if self._closed:
            return
        self._entries.append(Entry(event, acknowledged_input_sequence, audio_s, self.at_ns))
        if audio_s:
            self._waiting_s += audio_s
        else:
            self._waiting_events += 1
        self._update_room()
        self._wake.set()

    def close(self) -> None:
        """No more events; what is there is still delivered. Producers are let go."""
        self._closed = True
        self._wake.set()
        self._room.set()

    def take_back(self, unwanted: Callable[[Any], bool]) -> list[Any]:
        """Remove waiting events for which `unwanted` is true, and return them."""
        taken = [e for e in self._entries if unwanted(e.event)]
        if taken:
            self._entries = deque(e for e in self._entries if not unwanted(e.event))
            self._waiting_s = sum(e.audio_s for e in self._entries)
            self._waiting_events = sum(not e.audio_s for e in self._entries)
            self._update_room()
            self._wake.set()
        return [e.event for e in taken]

    def replace(self, unwanted: Callable[[Any], bool], event: Any) -> None:
        """Put `event` in the place of the waiting one for which `unwanted` is true. Neither is audio."""
        for index, entry in enumerate(self._entries):
            if unwanted(entry.event):
                self._entries[index] = Entry(event, entry.acknowledged_input_sequence)

    async def room(self) -> None:
        """Wait until less than the limit waits."""
        await self._room.wait()

    async def next(self, reader: int = 0) -> Entry | None:
        """The event to deliver next, number `position`; None when the log is closed and empty.

        Raises `Detached` where `reader` is not the newest token of `attach`. Cancelling loses nothing.
        """
        while True:
            if reader != self._reader:
                raise Detached
            if self._behind and self._kept is not None:
                entry = self._kept[-self._behind][0]
                self._behind -= 1
                return entry
            if not self._entries:
                if self._closed:
                    return None
                self._wake.clear()
                await self._wake.wait()
                continue
            entry = self._entries[0]
            if entry.audio_s and self._lead_s is not None:
                # The first chunk always goes; a chunk longer than the lead goes when nothing is ahead of it.
                wait_s = min(self._ahead_s() + entry.audio_s - self._lead_s, self._ahead_s())
                if wait_s > EARLY_S:
                    self._wake.clear()
                    try:
                        async with asyncio.timeout(wait_s):
                            await self._wake.wait()
                    except TimeoutError:
                        pass
                    continue
            self._entries.popleft()
            if entry.audio_s:
                if self._lead_s is not None:
                    self._played_until = max(self._now(), self._played_until) + entry.audio_s
                # The last piece takes all that is left along: sums of floats do not come back to zero.
                is_last = len(self._entries) == self._waiting_events
                self._waiting_s = 0.0 if is_last else self._waiting_s - entry.audio_s
            else:
                self._waiting_events -= 1
            self._update_room()
            self.sequence += 1
            if self._kept is not None:
                self._keep(entry)
            return entry

    def _keep(self, entry: Entry) -> None:
        assert self._kept is not None
        size = ENTRY_BYTES + len(getattr(entry.event, "audio", b""))
        self._kept.append((entry, size))
        self._kept_bytes += size
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= self._kept.popleft()[1]

    def forget_lead(self) -> None:
        """The listener stopped playing (barge-in): nothing is ahead of it any more."""
        self._played_until = 0.0
        self._wake.set()

    def _update_room(self) -> None:
        if self._closed or (self._waiting_s < self._limit_s and self._waiting_events < MAX_WAITING_EVENTS):
            self._room.set()
        else:
            self._room.clear()

    def _ahead_s(self) -> float:
        return max(0.0, self._played_until - self._now())
