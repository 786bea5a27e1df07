"""Signals that tell a command to stop: the first ends its input where there is some, the next cuts."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine
from typing import Any, Final, TypeVar

from wavegate.cli.output import Output

ItemT = TypeVar("ItemT")

LAST_INPUT_S: Final = 0.5
"""How long a live input may go on after the signal. A program before us in a pipe got the signal too, and what it
still has is on its way then: the last word of a recording."""

SAME_S: Final = 0.3
"""Signals that follow each other faster are one. `timeout` sends two, and so does a wrapper that hands on a Ctrl-C
which the terminal has sent to the whole group."""

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """What became of SIGINT and SIGTERM in one run of a command.

    Until `input_may_end` was called, the first signal cancels the command. From then on the first one ends the input,
    and what comes of it is still waited for; the second cancels; a third ends the process wherever it is.
    """

    def __init__(self, output: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._output = output
        self._clock = clock
        self._last_s = -math.inf
        self._task: asyncio.Task[Any] | None = None
        self._input_may_end = False
        self._told = asyncio.Event()
        self._count = 0
        self.signum: signal.Signals | None = None
        """The first signal that came; `None` until then."""

    def watch(self) -> None:
        """Handle signals from here on. They cancel the current task."""
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        with contextlib.suppress(
            NotImplementedError, RuntimeError, ValueError
        ):  # not the main thread, not Unix
            for signum in SIGNALS:
                loop.add_signal_handler(signum, self.on_signal, signum)

    def input_may_end(self) -> None:
        """The command has an input that the first signal ends."""
        self._input_may_end = True

    def on_signal(self, signum: signal.Signals) -> None:
        """A signal came."""
        now_s = self._clock()
        if now_s - self._last_s < SAME_S:
            return
        self._last_s = now_s
        self._count += 1
        self.signum = self.signum or signal.Signals(signum)
        if self._input_may_end and self._count == 1:
            self._output.note("The input ends here; what comes of it is waited for. Once more cuts it off.")
            self._told.set()
        elif self._count <= 2:
            assert self._task is not None
            self._task.cancel()
        else:
            os._exit(128 + signum)

    async def until_told(self, work: Coroutine[Any, Any, None], *, patience_s: float = 0.0) -> None:
        """Do `work`, which takes the input, and cancel it `patience_s` after the first signal.

        Raises what `work` raises.
        """
        doing = asyncio.create_task(work)
        told = asyncio.create_task(self._told.wait())
        try:
            await asyncio.wait({doing, told}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({doing}, timeout=patience_s)
            if not doing.done():
                doing.cancel()
                await asyncio.wait({doing})
            if not doing.cancelled():
                await doing
        finally:
            told.cancel()
            doing.cancel()
            await asyncio.gather(doing, told, return_exceptions=True)

    async def cut(
        self, items: AsyncIterable[ItemT], *, patience_s: float = 0.0
    ) -> AsyncGenerator[ItemT, None]:
        """The items, up to `patience_s` after the first signal."""
        loop = asyncio.get_running_loop()
        iterator = aiter(items)
        told = asyncio.create_task(self._told.wait())
        step: asyncio.Future[ItemT] | None = None
        deadline_s: float | None = None
        try:
            while deadline_s is None or loop.time() < deadline_s:
                step = asyncio.ensure_future(anext(iterator))
                await asyncio.wait({step, told}, return_when=asyncio.FIRST_COMPLETED)
                if told.done():
                    deadline_s = deadline_s or loop.time() + patience_s
                    await asyncio.wait({step}, timeout=max(0.0, deadline_s - loop.time()))
                if not step.done():
                    return
                try:
                    yield step.result()
                except StopAsyncIteration:
                    return
        finally:
            told.cancel()
            if step is not None:
                step.cancel()
                await asyncio.gather(step, return_exceptions=True)
            await asyncio.gather(told, return_exceptions=True)
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()
