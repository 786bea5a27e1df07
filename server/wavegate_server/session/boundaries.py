"""Where in the audio the settings deltas of a transcription session come into force. Pure.

Audio that was accepted before a delta keeps the settings of that time; audio after the boundary has the new ones.

- An IMMEDIATE delta's boundary is the audio accepted so far, exactly: no sample before it is heard under the new
  settings, and none behind it under the old ones. Deltas that waited before it come into force there, too.
- Any other delta may come into force at any place behind the audio that was accepted before it; the session looks
  for one where nobody speaks.
- Once a boundary is found it does not move, whatever becomes of the connections, until its deltas are applied or
  refused. There is one at a time; the deltas behind it wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wavegate_server.session.events import ApplyPolicy
from wavegate_server.session.ledger import Pending, SettingsLedger


@dataclass(frozen=True, slots=True)
class Arrival:
    """How much audio the session had accepted when a delta came."""

    position: int
    """In samples of the session."""
    index: int
    """Number of the first frame behind it."""


@dataclass(slots=True, eq=False)
class Boundary:
    """A place in the audio, and the deltas that come into force there."""

    batch: list[Pending]
    position: int
    """The session's sample from which the new settings govern, at the earliest: a final of the old settings that
    reaches further moves it on."""
    index: int
    """Number of the first frame that a connection of the old settings is not sent."""
    spares_last_word: bool = False
    """Whether it lies in mid-speech, where the last word before it may have been cut; that one is left to the new
    settings then."""

    is_tried: bool = False
    """Whether a connection with the new settings was asked for. No other delta joins the batch then."""

    def __repr__(self) -> str:
        return f"<Boundary {self.position} deltas={len(self.batch)}>"


class Boundaries:
    """The boundary of the deltas that wait, and where each of them was accepted."""

    def __init__(self, ledger: SettingsLedger) -> None:
        self.current: Boundary | None = None
        """None while no delta has its boundary."""
        self._ledger = ledger
        self._arrivals: dict[Pending, Arrival] = {}
        self._one_by_one = False

    def __repr__(self) -> str:
        return f"<Boundaries current={self.current} waiting={len(self._arrivals)}>"

    @property
    def limit(self) -> int | None:
        """Number of the first frame that a connection of the settings in force must not be sent; None for no limit."""
        return self.current.index if self.current is not None else None

    def accept(self, pending: Pending, arrival: Arrival) -> None:
        """Note where a delta came. It must be the last one in the ledger's line."""
        self._arrivals[pending] = arrival
        self._arrivals = {p: self._arrivals[p] for p in self._ledger.pending}
        boundary, before = self.current, self._ledger.pending[:-1]
        if boundary is None or boundary.is_tried or boundary.batch != before:
            return
        if self._is_pulled_to(pending, self._arrivals[before[-1]]):
            boundary.batch.append(pending)

    def may_supersede(self, arrival: Arrival) -> Callable[[Pending], bool]:
        """Return what says of a waiting delta whether one that comes at `arrival` may take its place: only where no
        audio is governed by the older one in between."""
        line = self._ledger.pending

        def eligible(old: Pending) -> bool:
            if self.current is not None and old in self.current.batch:
                return False
            pulled_at = (
                self._arrivals[p].position
                for p in line[line.index(old) :]
                if p.update.policy is ApplyPolicy.IMMEDIATE
            )
            return all(position == arrival.position for position in pulled_at)

        return eligible

    def position(self, pending: Pending) -> int:
        """Return how many samples had been accepted when a waiting delta came."""
        return self._arrivals[pending].position

    def pull(self) -> Boundary | None:
        """Set and return the boundary where an IMMEDIATE delta waits; None where none does, or one is set already."""
        line = self._ledger.pending
        if self.current is not None:
            return None
        count = next((n for n, p in enumerate(line, 1) if p.update.policy is ApplyPolicy.IMMEDIATE), 0)
        if not count:
            return None
        arrival = self._arrivals[line[count - 1]]
        while count < len(line) and self._is_pulled_to(line[count], arrival):
            count += 1
        self.current = Boundary(line[:count], arrival.position, arrival.index)
        return self.current

    def _is_pulled_to(self, pending: Pending, arrival: Arrival) -> bool:
        return pending.update.policy is ApplyPolicy.IMMEDIATE and self._arrivals[pending] == arrival

    def choose(self, position: int, index: int, *, spares_last_word: bool = False) -> Boundary | None:
        """Set and return a boundary at `position` for the deltas that came no later; None where there are none.

        `index`: number of the first frame that the connection in use has not been sent.
        """
        batch = [p for p in self._ledger.pending if self._arrivals[p].position <= position]
        if self.current is not None or not batch:
            return None
        index = max(index, self._arrivals[batch[-1]].index)
        self.current = Boundary(batch, position, index, spares_last_word)
        return self.current

    def attempt(self) -> list[Pending]:
        """Return the deltas that the next connection is to bring into force: those of the boundary, or its first one
        alone where the upstream refused them together. Empty where there is no boundary."""
        if self.current is None:
            return []
        self.current.is_tried = True
        return self.current.batch[:1] if self._one_by_one else list(self.current.batch)

    def is_reached(self, covered: int) -> bool:
        """Whether all audio before the boundary is final, where everything up to `covered` is. False without one."""
        return self.current is not None and covered >= self.current.position

    def refused_together(self) -> bool:
        """Note that the upstream refused the deltas of the attempt. Return True where each will be tried alone now,
        and False where there was but one."""
        if len(self.attempt()) < 2:
            return False
        self._one_by_one = True
        return True

    def done(self, pending: Pending, next_index: int) -> None:
        """Note that a delta was applied or refused. `next_index`: number of the first frame behind the boundary, for
        the deltas of it that are left."""
        self._arrivals.pop(pending, None)
        if self.current is None or pending not in self.current.batch:
            return
        self.current.batch.remove(pending)
        self.current.index = min(self.current.index, next_index)
        if not self.current.batch:
            self.drop()

    def drop(self) -> None:
        """Forget the boundary, as no audio will come behind it. Its deltas wait on."""
        self.current = None
        self._one_by_one = False
