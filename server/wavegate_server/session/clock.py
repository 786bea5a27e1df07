"""The clock by which sessions measure and wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


def session_clock() -> Callable[[], float]:
    """Return the clock of the running loop, in seconds, to the microsecond at least.

    uvloop tells whole milliseconds, and the same one throughout an iteration; `time.monotonic` is the clock that it
    reads, so what is measured by it agrees with the loop's timers to a millisecond. asyncio's own loops, the virtual
    one of the tests included, tell the time exactly.
    """
    loop = asyncio.get_running_loop()
    return loop.time if isinstance(loop, asyncio.BaseEventLoop) else time.monotonic


def timer_slack_s() -> float:
    """Return how much too early a timer of the running loop may ring: uvloop rounds to whole milliseconds."""
    return 0.0 if isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop) else 0.001
