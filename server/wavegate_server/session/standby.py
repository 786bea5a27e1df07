"""Connections opened ahead of need, so that the utterance after a barge-in pays no handshake.

One is kept for each kind of connection that was asked for lately. It is never older than the upstream's idle limit
allows: nothing is said over it until it is taken. Opening one is a courtesy, so a failure is only noted; it counts
in the account's connections like any other, and is the first to be given up when somebody waits for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from wavegate_server.errors import WavegateError
from wavegate_server.session.admission import Limiter, Ticket
from wavegate_server.session.transport import Transport

logger = logging.getLogger(__name__)

MAX_AGE_S = 48.0
"""Four fifths of the upstream's idle limit (60 s, tts-ws): a connection older than that might be closed while it is
being taken."""
KEEP_FOR_S = 300.0
"""A kind that was not taken for this long is opened ahead no more."""
CALLER = "standby"
"""In whose name the account's limiter is asked: a caller that never waits."""

Open = Callable[[], Awaitable[Transport]]


@dataclass(slots=True, eq=False)
class _Kept:
    transport: Transport
    ticket: Ticket
    opened_at: float


class Standby:
    """The kept connections of one process, by key (such as the URL). Used from one loop."""

    def __init__(
        self, sockets: Limiter, *, max_age_s: float = MAX_AGE_S, keep_for_s: float = KEEP_FOR_S
    ) -> None:
        self._sockets = sockets
        self._max_age_s = max_age_s
        self._keep_for_s = keep_for_s
        self._kept: dict[str, _Kept] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._taken_at: dict[str, float] = {}
        self._wanted = asyncio.Event()
        self._stopped = False

    def __repr__(self) -> str:
        return f"<Standby {len(self._kept)} kept of {len(self._keepers)}>"

    def want(self, key: str, open_one: Open) -> None:
        """Keep a connection of this kind ready from now on."""
        if self._stopped:
            return
        self._taken_at[key] = self._now()
        if key not in self._keepers:
            task = asyncio.create_task(self._keep(key, open_one), name="standby")
            self._keepers[key] = task
            task.add_done_callback(lambda _: self._keepers.pop(key, None))

    def take(self, key: str) -> tuple[Transport, Ticket, float] | None:
        """A ready connection and its place in the account, both the taker's from now on, and when it was opened, on
        the loop's clock; None where there is none."""
        kept = self._kept.pop(key, None)
        if kept is None:
            return None
        self._taken_at[key] = self._now()
        self._wanted.set()
        if not kept.transport.is_open or self._now() - kept.opened_at >= self._max_age_s:
            self._discard(kept)
            return None
        self._sockets.keep(kept.ticket)
        return kept.transport, kept.ticket, kept.opened_at

    def stop(self) -> None:
        """Close all and open no more."""
        self._stopped = True
        for keeper in self._keepers.values():
            keeper.cancel()
        for kept in self._kept.values():
            self._discard(kept)
        self._kept.clear()

    async def aclose(self) -> None:
        """`stop`, and wait until nothing is being opened."""
        keepers = list(self._keepers.values())
        self.stop()
        await asyncio.gather(*keepers, return_exceptions=True)

    async def _keep(self, key: str, open_one: Open) -> None:
        """Hold one connection of this kind, and another when it is taken, old or gone."""
        while self._now() - self._taken_at[key] < self._keep_for_s:
            self._wanted.clear()
            if key not in self._kept:
                await self._open(key, open_one)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._max_age_s / 4):
                    await self._wanted.wait()
            kept = self._kept.get(key)
            if kept is not None and (
                not kept.transport.is_open or self._now() - kept.opened_at >= self._max_age_s * 3 / 4
            ):
                self._discard(self._kept.pop(key))
        if key in self._kept:
            self._discard(self._kept.pop(key))
        del self._taken_at[key]

    async def _open(self, key: str, open_one: Open) -> None:
        ticket = self._sockets.ask(CALLER, lambda: None)
        if not ticket.held:
            ticket.release()  # the account has no room to spare
            return
        try:
            transport = await open_one()
        except WavegateError as exc:
            logger.debug("no standby connection: %s", exc.message)
            ticket.release()
            return
        except BaseException:
            ticket.release()
            raise
        kept = _Kept(transport, ticket, self._now())
        self._kept[key] = kept
        self._sockets.offer(ticket, lambda: self._give_up(key, kept))

    def _give_up(self, key: str, kept: _Kept) -> None:
        """Somebody waits for a connection."""
        if self._kept.get(key) is kept:
            del self._kept[key]
        self._discard(kept)

    def _discard(self, kept: _Kept) -> None:
        kept.transport.abort()
        kept.ticket.release()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
