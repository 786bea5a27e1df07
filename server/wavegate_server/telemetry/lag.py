"""How late the gateway's event loop runs: a timer, and how much later than asked it goes off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

INTERVAL_S: Final = 0.1


class LoopLag:
    """Takes a sample ten times a second from `start` to `stop`. On the running loop."""

    def __init__(self, record: Callable[[float], None], interval_s: float = INTERVAL_S) -> None:
        """`record` is told of each sample, in seconds."""
        self._record = record
        self._interval_s = interval_s
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def __repr__(self) -> str:
        return f"<LoopLag {'stopped' if self._timer is None else 'running'}>"

    def start(self) -> None:
        # Not the loop's own time: that of uvloop is in whole milliseconds and stands still within a turn.
        self._due = time.monotonic() + self._interval_s
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._sample)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sample(self) -> None:
        # A timer may go off a fraction of a millisecond early, which is not late.
        self._record(max(0.0, time.monotonic() - self._due))
        self.start()
