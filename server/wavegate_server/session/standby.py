"""Connections opened ahead of need, so that the utterance after a barge-in pays no handshake.

One is kept for each kind of connection that was asked for lately. It is never older than the upstream's idle limit
allows: nothing is said over it until it is taken. Opening one is a courtesy, so a failure is only noted; it counts
in the account's connections like any other, and is the first to be given up when somebody waits for one.

What ends one connection often ends all: an upstream that restarts, a network that fails. So a kept connection is
listened to, which notices its end at once and its silent death by the transport's pings; and when one of its kind is
lost in use, it is dropped unseen (`doubt`): a handshake costs less than text that is sent into nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from wavegate_server.errors import WavegateError
from wavegate_server.session.admission import Limiter, Ticket
from wavegate_server.session.transport import Transport, TransportClosed

logger = logging.getLogger(__name__)

MAX_AGE_S = 48.0
"""Four fifths of the upstream's idle limit (60 s, tts-ws): a connection older than that might be closed while it is
being taken."""
KEEP_FOR_S = 300.0
"""A kind that was not taken for this long is opened ahead no more."""
REOPEN_S = 1.0
"""After one was lost, the next is opened no sooner: a session that lost its connection dials first, and an upstream
that accepts and hangs up is not dialled in circles."""
CALLER = "standby"
"""In whose name the account's limiter is asked: a caller that never waits."""

Open = Callable[[], Awaitable[Transport]]


@dataclass(slots=True, eq=False)
class _Kept:
    transport: Transport
    ticket: Ticket
    opened_at: float
    watcher: asyncio.Task[None] | None = None
    """Reads what should never come. It ends when the connection is of no more use."""


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
        self._reopen_at: dict[str, float] = {}
        """Before this time no other is opened, by key."""
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
        # One whose watcher has ended is kept no more.
        if not kept.transport.is_open or self._now() - kept.opened_at >= self._max_age_s:
            self._discard(kept)
            return None
        if kept.watcher is not None:
            kept.watcher.cancel()
        self._sockets.keep(kept.ticket)
        return kept.transport, kept.ticket, kept.opened_at

    def doubt(self, key: str) -> None:
        """Drop the connection kept, if any, since another of its kind was lost in use: it may have met the same end
        without a word. Another one is opened `REOPEN_S` seconds later."""
        if (kept := self._kept.pop(key, None)) is not None:
            self._lost(key, kept)

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
        tasks = [*self._keepers.values(), *(k.watcher for k in self._kept.values() if k.watcher is not None)]
        self.stop()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, key: str, open_one: Open) -> None:
        """Hold one connection of this kind, and another when it is taken, old or gone."""
        while (now := self._now()) - self._taken_at[key] < self._keep_for_s:
            self._wanted.clear()
            wait_s = self._max_age_s / 4
            if key not in self._kept:
                if (held_back_s := self._reopen_at.get(key, 0.0) - now) > 0:
                    wait_s = min(wait_s, held_back_s)
                else:
                    await self._open(key, open_one)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wanted.wait()
            kept = self._kept.get(key)
            if kept is not None and (
                not kept.transport.is_open or self._now() - kept.opened_at >= self._max_age_s * 3 / 4
            ):
                self._discard(self._kept.pop(key))
        if key in self._kept:
            self._discard(self._kept.pop(key))
        self._reopen_at.pop(key, None)
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
        kept.watcher = asyncio.create_task(self._watch(key, kept), name="standby-watch")
        self._sockets.offer(ticket, lambda: self._give_up(key, kept))

    async def _watch(self, key: str, kept: _Kept) -> None:
        """Wait for the end of a kept connection. A message ends it, too: nothing was asked."""
        with contextlib.suppress(TransportClosed):
            await kept.transport.recv()
        if self._kept.get(key) is kept:
            del self._kept[key]
            self._lost(key, kept)

    def _lost(self, key: str, kept: _Kept) -> None:
        self._discard(kept)
        self._reopen_at[key] = self._now() + REOPEN_S
        self._wanted.set()

    def _give_up(self, key: str, kept: _Kept) -> None:
        """Somebody waits for a connection."""
        if self._kept.get(key) is kept:
            del self._kept[key]
        self._discard(kept)

    def _discard(self, kept: _Kept) -> None:
        if kept.watcher is not None and kept.watcher is not asyncio.current_task():
            kept.watcher.cancel()
        kept.transport.abort()
        kept.ticket.release()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
