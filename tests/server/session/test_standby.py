"""Connections opened ahead of need, on virtual time."""

from __future__ import annotations

import asyncio

import pytest
from wavegate_server import errors
from wavegate_server.session.admission import LocalLimiter
from wavegate_server.session.standby import CALLER, KEEP_FOR_S, MAX_AGE_S, REOPEN_S, Standby
from wavegate_server.session.transport import Transport

from tests.support.transport import FakeTransport
from tests.support.virtual_time import settle, virtual_time


class Opener:
    """Counts what it opens."""

    def __init__(self) -> None:
        self.opened: list[FakeTransport] = []
        self.fails = False

    async def __call__(self) -> Transport:
        await asyncio.sleep(0.1)
        if self.fails:
            raise errors.UpstreamUnavailable("nobody there")
        self.opened.append(FakeTransport("ws://x/k", {}, len(self.opened)))
        return self.opened[-1]


@virtual_time
async def test_a_connection_is_ready_and_another_follows_it() -> None:
    standby, opener = Standby(LocalLimiter(0)), Opener()
    assert standby.take("k") is None
    standby.want("k", opener)
    await asyncio.sleep(1)
    taken = standby.take("k")
    assert taken is not None
    assert taken[0] is opener.opened[0]
    await asyncio.sleep(1)
    assert len(opener.opened) == 2
    await standby.aclose()
    assert not opener.opened[1].is_open
    assert opener.opened[0].is_open


@virtual_time
async def test_one_that_was_taken_is_not_given_up_for_those_who_wait() -> None:
    """It was on offer while it stood ready; now it speaks."""
    sockets = LocalLimiter(1)
    standby, opener = Standby(sockets), Opener()
    standby.want("k", opener)
    await asyncio.sleep(1)
    taken = standby.take("k")
    assert taken is not None
    waiting = sockets.ask("someone", lambda: None)
    await asyncio.sleep(1)
    assert opener.opened[0].is_open
    assert not waiting.held
    taken[1].release()
    assert waiting.held
    await standby.aclose()


@virtual_time
async def test_a_standby_is_never_older_than_the_idle_limit_allows() -> None:
    standby, opener = Standby(LocalLimiter(0)), Opener()
    standby.want("k", opener)
    for _ in range(int(KEEP_FOR_S) - 10):
        await asyncio.sleep(1)
        fresh = [t for t in opener.opened if t.is_open]
        assert len(fresh) <= 1
    born = len(opener.opened)
    assert born >= KEEP_FOR_S / MAX_AGE_S
    await standby.aclose()


@virtual_time
async def test_what_is_not_taken_for_long_is_let_go() -> None:
    standby, opener = Standby(LocalLimiter(0)), Opener()
    standby.want("k", opener)
    await asyncio.sleep(KEEP_FOR_S * 2)
    assert not any(t.is_open for t in opener.opened)


@virtual_time
async def test_one_that_died_is_not_handed_out() -> None:
    standby, opener = Standby(LocalLimiter(0)), Opener()
    standby.want("k", opener)
    await asyncio.sleep(1)
    opener.opened[0].abort()
    assert standby.take("k") is None
    await asyncio.sleep(1)
    assert standby.take("k") is not None
    await standby.aclose()


@pytest.mark.parametrize("end", ["closed", "cut", "spoken to"])
@virtual_time
async def test_the_end_of_one_is_noticed_at_once_and_another_follows(end: str) -> None:
    sockets = LocalLimiter(0)
    standby, opener = Standby(sockets), Opener()
    standby.want("k", opener)
    await asyncio.sleep(1)
    match end:
        case "closed":
            opener.opened[0].finish(1001)
        case "cut":
            opener.opened[0].drop()
        case _:
            opener.opened[0].say("nobody asked")
    await settle()
    assert (standby.take("k"), sockets.used) == (None, 0)
    assert not opener.opened[0].is_open
    await asyncio.sleep(REOPEN_S + 0.2)
    taken = standby.take("k")
    assert taken is not None
    assert taken[0] is opener.opened[1]
    await standby.aclose()


@virtual_time
async def test_one_whose_twin_was_lost_is_dropped_unseen() -> None:
    sockets = LocalLimiter(0)
    standby, opener = Standby(sockets), Opener()
    standby.doubt("k")
    standby.want("k", opener)
    await asyncio.sleep(1)
    standby.doubt("other")
    assert opener.opened[0].is_open
    standby.doubt("k")
    assert not opener.opened[0].is_open
    assert (standby.take("k"), sockets.used) == (None, 0)
    await asyncio.sleep(REOPEN_S + 0.2)
    assert standby.take("k") is not None
    await standby.aclose()


@virtual_time
async def test_an_upstream_that_accepts_and_hangs_up_is_not_dialled_in_circles() -> None:
    standby, opener = Standby(LocalLimiter(0)), Opener()

    async def open_and_lose() -> Transport:
        transport = await opener()
        opener.opened[-1].finish(1013)
        return transport

    standby.want("k", open_and_lose)
    await asyncio.sleep(30)
    assert len(opener.opened) <= 30 / REOPEN_S + 1
    await standby.aclose()


@virtual_time
async def test_what_was_taken_is_its_takers_to_read() -> None:
    standby, opener = Standby(LocalLimiter(0)), Opener()
    standby.want("k", opener)
    await asyncio.sleep(1)
    taken = standby.take("k")
    assert taken is not None
    opener.opened[0].say("an answer")
    assert await taken[0].recv() == "an answer"
    await standby.aclose()
    assert opener.opened[0].is_open


@virtual_time
async def test_it_is_the_first_to_be_given_up_when_the_account_is_short() -> None:
    sockets = LocalLimiter(1)
    standby, opener = Standby(sockets), Opener()
    standby.want("k", opener)
    await asyncio.sleep(1)
    assert sockets.used == 1
    ticket = sockets.ask("caller", lambda: None)
    assert ticket.held
    assert not opener.opened[0].is_open
    await asyncio.sleep(60)
    assert sockets.used == 1, "no standby while there is no room"
    ticket.release()
    await standby.aclose()
    assert CALLER != "caller"


@virtual_time
async def test_a_failure_to_open_is_no_news() -> None:
    sockets = LocalLimiter(2)
    standby, opener = Standby(sockets), Opener()
    opener.fails = True
    standby.want("k", opener)
    await asyncio.sleep(5)
    assert standby.take("k") is None
    assert sockets.used == 0
    await standby.aclose()
