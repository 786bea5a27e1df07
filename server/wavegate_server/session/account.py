"""One upstream account as the sessions of this process share it: its limits, and connections opened ahead."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from copy import copy

from wavegate_server import errors
from wavegate_server.errors import WavegateError
from wavegate_server.session.admission import Limiter, LocalLimiter, Ticket
from wavegate_server.session.clock import session_clock
from wavegate_server.session.standby import Standby

RETRY_AFTER_S = 1.0
"""When a caller that found no room may come back: about as long as an utterance takes to make."""


class Account:
    """Active TTS requests and TTS connections of one key."""

    def __init__(
        self,
        active_requests: int = 0,
        sockets: int = 0,
        *,
        slot_linger_s: float = 0.0,
        standby: bool = False,
    ) -> None:
        """`active_requests` 0: unknown, no limit. `sockets` 0: five times the former, the upstream's own rule.

        `slot_linger_s`: how long a request whose connection was cut still counts as active. `standby`: keep
        connections ready for what follows a barge-in.
        """
        self.requests: Limiter = LocalLimiter(active_requests)
        self.sockets: Limiter = LocalLimiter(sockets or 5 * active_requests)
        self.slot_linger_s = slot_linger_s
        self.standby = Standby(self.sockets) if standby else None
        self.sessions: Counter[str] = Counter()
        """Live sessions by kind."""

    def successor(self) -> Account:
        """The same account under another key: its limits go on, what was opened ahead with the old key does not."""
        heir = copy(self)
        if self.standby is not None:
            heir.standby = Standby(self.sockets)
        self.retire()
        return heir

    def retire(self) -> None:
        """Open no connection ahead any more, and close those that are open."""
        if self.standby is not None:
            self.standby.stop()

    async def aclose(self) -> None:
        """Close what was opened ahead."""
        if self.standby is not None:
            await self.standby.aclose()


class Claim:
    """A session's claim to a place under one limit: asked for, waited for within a time, held, given back. No clock."""

    def __init__(
        self, limiter: Limiter, what: str, caller: str, wake: Callable[[], None], limit_s: float
    ) -> None:
        """`wake` is called when the place is held. `what` names it in errors. `limit_s`: the longest wait."""
        self._limiter = limiter
        self._what = what
        self._caller = caller
        self._wake = wake
        self._limit_s = limit_s
        self._ticket: Ticket | None = None
        self._asked_at = 0.0
        self._since = 0.0
        """When the time began in which the place has to become free."""
        self._offered = False

    def __repr__(self) -> str:
        return f"<Claim {self._what} {self._ticket!r}>"

    @property
    def held(self) -> bool:
        return self._ticket is not None and self._ticket.held

    @property
    def deadline(self) -> float | None:
        """When waiting is over; None while nothing is waited for."""
        if self._ticket is None or self._ticket.held:
            return None
        return self._since + self._limit_s

    @property
    def is_wanted(self) -> bool:
        """Whether the place is held, there is a limit to such places, and it was not offered yet."""
        return self.held and not self._offered and bool(self._limiter.limit)

    def ask(self, now: float, since: float | None = None) -> bool:
        """Whether the place is held; asks for it where that was not done yet.

        `since`: when its holder began to wait, for another place, perhaps; None: now.
        """
        if self._ticket is None:
            self._asked_at = now
            self._since = now if since is None else since
            self._ticket = self._limiter.ask(self._caller, self._wake)
        if self._offered:
            self._limiter.keep(self._ticket)
            self._offered = False
        return self._ticket.held

    def waited_s(self, now: float) -> float:
        """How long was waited since it was asked for."""
        return max(0.0, now - self._asked_at)

    def refused(self, now: float) -> WavegateError | None:
        """The error of having waited too long; the place is not waited for any more then."""
        if self.deadline is None or now < self.deadline:
            return None
        self.give_back()
        return errors.UpstreamCapacity(
            f"no {self._what} of the upstream account became free within {self._limit_s:g} s",
            retry_after_s=RETRY_AFTER_S,
        )

    def adopt(self, ticket: Ticket) -> None:
        """Take over a place that is held already."""
        self.give_back()
        self._ticket = ticket

    def move(self, limiter: Limiter) -> None:
        """Claim a place under another limit from now on; the one held is given back."""
        self.give_back()
        self._limiter = limiter

    def take_over(self, other: Claim) -> None:
        """Have the place that `other` holds; it holds none then."""
        self.give_back()
        self._ticket, other._ticket = other._ticket, None

    def offer(self, take_back: Callable[[], None]) -> None:
        """The place is not needed now: `take_back` is called when somebody waits for it."""
        if self._ticket is not None and self._ticket.held and not self._offered:
            self._offered = True
            self._limiter.offer(self._ticket, take_back)

    def give_back(self, linger_s: float = 0.0) -> None:
        """Not needed any more; it counts for `linger_s` seconds longer."""
        ticket, self._ticket = self._ticket, None
        self._offered = False
        if ticket is None:
            return
        if linger_s and ticket.held:
            asyncio.get_running_loop().call_later(linger_s, ticket.release)
        else:
            ticket.release()


async def acquire(claim: Claim, wake: asyncio.Event, since: float | None = None) -> float:
    """Wait for a place; the seconds waited. Raises `errors.UpstreamCapacity`. Cancelling stops waiting.

    `since`: when the waiting began of which this is a part; None: now.
    """
    now = session_clock()
    began = now()
    try:
        while not claim.ask(now(), since):
            if (error := claim.refused(now())) is not None:
                raise error
            wake.clear()
            deadline = claim.deadline
            try:
                async with asyncio.timeout_at(deadline):
                    await wake.wait()
            except TimeoutError:
                pass
    except BaseException:
        claim.give_back()
        raise
    return now() - began
