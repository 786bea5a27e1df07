"""The clock that jumps."""

from __future__ import annotations

import asyncio
import time

import pytest
from wavegate_server import errors
from wavegate_server.session.transport import TransportClosed

from tests.support.transport import FakeDialer
from tests.support.virtual_time import Deadlock, OutOfTime, run_virtual, virtual_time


def test_an_hour_takes_no_time() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    before = time.monotonic()
    assert run_virtual(main()) == pytest.approx(3600)
    assert time.monotonic() - before < 60


@virtual_time
async def test_timers_ring_in_order_and_on_time() -> None:
    loop = asyncio.get_running_loop()
    rang: list[tuple[str, float]] = []
    for name, delay in (("c", 3.0), ("a", 0.1), ("b", 0.2)):
        loop.call_later(delay, lambda name=name: rang.append((name, round(loop.time(), 6))))
    await asyncio.sleep(5)
    assert rang == [("a", 0.1), ("b", 0.2), ("c", 3.0)]


def test_a_wait_without_end_is_an_error_at_once() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run_virtual(main())


def test_a_timer_that_rearms_for_ever_is_an_error() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110  the mistake that the limit is for
            await asyncio.sleep(1)

    with pytest.raises(OutOfTime):
        run_virtual(main(), limit_s=100)


def test_running_in_circles_is_an_error() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110  the mistake that the limit is for
            await asyncio.sleep(0)

    with pytest.raises(OutOfTime, match="1000 turns in no time"):
        run_virtual(main(), limit_turns=1000)


@virtual_time
async def test_the_fake_upstream_talks_and_drops() -> None:
    dialer = FakeDialer(handshake_s=0.2)
    dialer.refuse(errors.UpstreamUnavailable("no"))
    with pytest.raises(errors.UpstreamUnavailable):
        await dialer.dial("ws://upstream/x?a=1", {})
    transport = await dialer.dial("ws://upstream/x?a=1", {})
    assert transport.query == {"a": "1"}
    assert asyncio.get_running_loop().time() == pytest.approx(0.4)
    await transport.send(b"abc")
    transport.say({"type": "hello"})
    assert await transport.recv() == '{"type": "hello"}'
    transport.stop_reading()
    with pytest.raises(errors.UpstreamStalled):
        await transport.send(b"def")
    with pytest.raises(TransportClosed):
        await transport.recv()
    assert transport.audio_sent() == b"abc"
