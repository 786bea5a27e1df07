"""An asyncio event loop whose clock jumps: a minute of silence is exact and takes no time.

The loop never sleeps. When nothing is ready to run, its clock moves to the next timer. When there is no timer
either, nothing could ever happen again, and `Deadlock` says so at once instead of hanging the test.

Only for what lives on the loop: fakes at the ports, no sockets, no threads.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

LIMIT_TURNS = 300_000
"""Turns of the loop without a move of the clock; beyond them something runs in circles."""
LIMIT_S = 24 * 3600.0
"""Virtual time a run may take; beyond it something re-arms its timer for ever."""


class Deadlock(Exception):
    """Raised when every task waits and no timer is armed."""


class OutOfTime(Exception):
    """Raised when a run passes its limit of virtual time, or goes on for ever without any passing."""


class _JumpingSelector(selectors.SelectSelector):
    """Polls, and tells the clock to move instead of waiting."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.loop.turn()
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise Deadlock("every task waits and no timer is armed: " + self.loop.describe())
        if timeout > 0:
            self.loop.jump(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at 0 seconds."""

    def __init__(self, limit_s: float = LIMIT_S, limit_turns: int = LIMIT_TURNS) -> None:
        self._virtual_now = 0.0
        self._turns = 0
        self._limit_s = limit_s
        self._limit_turns = limit_turns
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)
        # Timers that lie closer together than this ring together: sums of floats differ in the last digits.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._virtual_now

    def jump(self, seconds: float) -> None:
        """Move the clock on."""
        self._virtual_now += seconds
        self._turns = 0
        if self._virtual_now > self._limit_s:
            raise OutOfTime(f"more than {self._limit_s:g} s of virtual time: " + self.describe())

    def turn(self) -> None:
        """Count a turn of the loop."""
        self._turns += 1
        if self._turns > self._limit_turns:
            self._turns = 0  # what is left is tidied up
            raise OutOfTime(f"{self._limit_turns} turns in no time: " + self.describe())

    def describe(self) -> str:
        return f"at {self._virtual_now:.3f} s, tasks {sorted(t.get_name() for t in asyncio.all_tasks(self))}"


def run_virtual(
    main: Coroutine[Any, Any, T], *, limit_s: float = LIMIT_S, limit_turns: int = LIMIT_TURNS
) -> T:
    """Run `main` to its end on virtual time and return its result. Tasks that it left are cancelled."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(limit_s, limit_turns)) as runner:
        return runner.run(main)


def virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make an async test a plain one that runs on virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_virtual(test(*args, **kwargs))

    return run


async def settle() -> None:
    """Let everything run that can run now, without moving the clock."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    for _ in range(100):
        await asyncio.sleep(0)
