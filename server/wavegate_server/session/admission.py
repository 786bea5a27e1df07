"""The account's limits: who may speak now, and who may hold a connection.

A *ticket* is asked for and granted at once or later; the asker is told by a callback. Waiting is fair between
callers: each caller that waits gets its turn before any gets a second one, and within a caller the first to ask is
the first to get. A holder may say that it could do without (`offer`); when somebody has to wait, the holder that
offered longest ago is asked to give its ticket up.

Plain calls on one loop, no clock: how long to wait is the asker's business. `Admission` is the port; several
processes that share one account will share another implementation of it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Protocol


class Ticket:
    """One place under a limit: waiting, held, or given back."""

    def __init__(self, caller: str, granted: Callable[[], None], release: Callable[[Ticket], None]) -> None:
        self.caller = caller
        self.held = False
        """Whether the place is the asker's now."""
        self._granted = granted
        self._release = release
        self._over = False

    def __repr__(self) -> str:
        return f"<Ticket {self.caller} {'held' if self.held else 'over' if self._over else 'waiting'}>"

    def release(self) -> None:
        """Give the place back, or stop waiting for it. Safe to call again."""
        if not self._over:
            self._over = True
            self._release(self)

    def grant(self) -> None:
        """The limiter's own: the place is the asker's from now on."""
        self.held = True
        self._granted()


class Limiter(Protocol):
    """One limit."""

    @property
    def limit(self) -> int:
        """How many places there are; 0: any number."""

    def ask(self, caller: str, granted: Callable[[], None]) -> Ticket:
        """A ticket for `caller`; `granted` is called once it is held, perhaps before this returns."""

    def offer(self, ticket: Ticket, take_back: Callable[[], None]) -> None:
        """The holder could do without. `take_back` is called when somebody has to wait: release it then."""

    def keep(self, ticket: Ticket) -> None:
        """Take an offer back."""

    @property
    def waiting(self) -> int:
        """How many wait."""

    @property
    def used(self) -> int:
        """How many places are held."""


class LocalLimiter:
    """A limit within this process. `limit` 0 means none."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._queues: OrderedDict[str, deque[Ticket]] = OrderedDict()
        """Waiting tickets by caller; the caller whose turn is next comes first."""
        self._offers: OrderedDict[Ticket, Callable[[], None]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<LocalLimiter {self.used} of {self.limit or 'any'}, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        return sum(len(q) for q in self._queues.values())

    def ask(self, caller: str, granted: Callable[[], None]) -> Ticket:
        ticket = Ticket(caller, granted, self._given_back)
        if self._free() and not self._queues:
            self.used += 1
            ticket.grant()
            return ticket
        self._queues.setdefault(caller, deque()).append(ticket)
        self._call_in()
        return ticket

    def offer(self, ticket: Ticket, take_back: Callable[[], None]) -> None:
        self._offers[ticket] = take_back
        self._call_in()

    def keep(self, ticket: Ticket) -> None:
        self._offers.pop(ticket, None)

    def _free(self) -> bool:
        return not self.limit or self.used < self.limit

    def _call_in(self) -> None:
        """Ask holders that offered to release, one for each who waits."""
        for _ in range(min(self.waiting, len(self._offers))):
            if not self._queues or not self._offers:
                return
            _, take_back = self._offers.popitem(last=False)
            take_back()

    def _given_back(self, ticket: Ticket) -> None:
        self._offers.pop(ticket, None)
        if not ticket.held:
            queue = self._queues.get(ticket.caller)
            if queue is not None and ticket in queue:
                queue.remove(ticket)
                if not queue:
                    del self._queues[ticket.caller]
            return
        ticket.held = False
        self.used -= 1
        while self._queues and self._free():
            caller, queue = next(iter(self._queues.items()))
            following = queue.popleft()
            # The caller goes to the end of the line, so that one with many sessions waits like the others.
            del self._queues[caller]
            if queue:
                self._queues[caller] = queue
            self.used += 1
            following.grant()
