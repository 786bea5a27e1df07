"""A driver as a process: commands in, answers and events out."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clients.conformance.judge.messages import Failed, Wrong, problem_of

ANSWER_WITHIN_S = 40.0
"""A command that takes longer hangs. What a client may take for opening a session is less."""
START_WITHIN_S = 60.0
QUIT_WITHIN_S = 15.0
_LONGEST_LINE_BYTES = 2**28
_KEPT_LINES = 60


class Driver:
    """A running driver. Once it has done something that is not in the protocol, nothing more can be asked of it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[str, asyncio.Future[Any]]] = {}
        self._names = itertools.count(1)
        self.inboxes: dict[tuple[str, str], list[Any]] = {}
        """What came of a session or a control, as JSON."""
        self.news = asyncio.Event()
        self.fault: str | None = None
        """What it did wrong, if it did."""
        self.errors: deque[str] = deque(maxlen=_KEPT_LINES)
        """The last of its standard error."""
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._read_errors())]

    @classmethod
    async def start(cls, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Driver:
        """Start a driver and have it say hello. Raises `Wrong` where it cannot."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=folder,
                env=environment,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                limit=_LONGEST_LINE_BYTES,
                start_new_session=True,  # so that what it starts ends with it
            )
        except OSError as error:
            raise Wrong(f"the driver cannot be started: {error}") from error
        driver = cls(process)
        try:
            await driver.call("hello", within_s=START_WITHIN_S)
        except BaseException as error:
            await driver.kill()
            if isinstance(error, Wrong | Failed):
                raise Wrong("\n".join([str(error), *driver.last_words()])) from error
            raise
        return driver

    def last_words(self) -> list[str]:
        """The end of what it wrote to its standard error."""
        return [f"  stderr: {line}" for line in [*self.errors][-25:]]

    @property
    def pid(self) -> int:
        return self._process.pid

    def name(self, prefix: str) -> str:
        """A name that this driver has not heard yet."""
        return f"{prefix}{next(self._names)}"

    # -- commands -----------------------------------------------------------------------------------------------

    def ask(self, do: str, **arguments: Any) -> asyncio.Future[Any]:
        """Send a command; its answer is the future's. Arguments that are None are left out."""
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # Some answers are of no interest to a scenario; nobody need complain of them.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self.fault is not None:
            answer.set_exception(Wrong(self.fault))
            return answer
        self._asked[number] = do, answer
        command = {"id": number, "do": do, **{k: v for k, v in arguments.items() if v is not None}}
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps(command) + "\n").encode())
        return answer

    async def call(self, do: str, *, within_s: float | None = None, **arguments: Any) -> Any:
        """Send a command and wait. Raises `Failed` for an error, `Wrong` where no answer comes."""
        return await self.answer(do, self.ask(do, **arguments), within_s)

    async def answer(self, do: str, asked: asyncio.Future[Any], within_s: float | None = None) -> Any:
        within_s = ANSWER_WITHIN_S if within_s is None else within_s
        try:
            return await asyncio.wait_for(asyncio.shield(asked), within_s)
        except TimeoutError:
            raise Wrong(f"{do} was not answered within {within_s:g} s") from None

    # -- what comes ---------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                self._take(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, Wrong) as error:
            self._fail(f"it said what is not in the protocol: {error!r}")
            return
        code = await self._process.wait()
        self._fail(f"it ended with {code}")

    def _take(self, line: dict[str, Any]) -> None:
        if "id" in line:
            do, asked = self._asked.pop(line["id"])
            if not asked.done():
                if "error" in line:
                    asked.set_exception(Failed(do, problem_of(line["error"])))
                else:
                    asked.set_result(line["ok"] if line["ok"] is not None else {})
        else:
            kind = "session" if "session" in line else "control"
            self.inboxes.setdefault((kind, line[kind]), []).append(line)
        self.news.set()

    def _fail(self, what: str) -> None:
        self.fault = self.fault or what
        for do, asked in self._asked.values():
            if not asked.done():
                asked.set_exception(Wrong(f"while it had to answer {do}: {self.fault}"))
        self._asked.clear()
        self.news.set()

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with contextlib.suppress(ValueError):
            while line := await self._process.stderr.readline():
                self.errors.append(line.decode(errors="replace").rstrip())

    # -- the end ------------------------------------------------------------------------------------------------

    async def quit(self) -> int:
        """Have it end; its exit code. Raises `Wrong` where it does not."""
        try:
            await self.call("quit", within_s=QUIT_WITHIN_S)
            return await asyncio.wait_for(self._process.wait(), QUIT_WITHIN_S)
        except TimeoutError:
            raise Wrong("it did not end after quit") from None
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End it, and what it has started, by force."""
        # The group lives on for as long as any of its processes does.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await asyncio.wait(self._tasks, timeout=5)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
