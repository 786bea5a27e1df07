"""The clock of sessions, on the loop that the gateway runs on and on asyncio's own."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from wavegate_server.session.base import Alarm
from wavegate_server.session.clock import session_clock

LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Run = Callable[[Coroutine[Any, Any, None]], None]


@LOOPS
def test_it_tells_what_passes_within_an_iteration_of_the_loop(run: Run) -> None:
    async def check() -> None:
        now = session_clock()
        before, until_ns = now(), time.perf_counter_ns() + 200_000
        while time.perf_counter_ns() < until_ns:
            pass
        assert 0.000_2 <= now() - before < 5

    run(check())


@LOOPS
def test_it_goes_with_the_clock_of_the_timers(run: Run) -> None:
    async def check() -> None:
        await asyncio.sleep(0.01)
        assert abs(session_clock()() - asyncio.get_running_loop().time()) < 5

    run(check())


@LOOPS
def test_an_alarm_never_rings_early_and_is_armed_once(run: Run) -> None:
    """One that rings before its time has to be armed again, in a circle until it is due."""

    async def check() -> None:
        now, loop = session_clock(), asyncio.get_running_loop()
        for _ in range(30):
            rang: asyncio.Future[float] = loop.create_future()
            alarm = Alarm(rang.set_result)
            due = now() + random.uniform(0.0005, 0.004)
            armed = []
            arm = alarm.set
            alarm.set = lambda at, armed=armed, arm=arm: (armed.append(at), arm(at))[1]  # type: ignore[method-assign, assignment]
            alarm.set(due)
            assert await asyncio.wait_for(rang, 30) >= due
            assert len(armed) == 1

    run(check())
