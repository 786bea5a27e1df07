"""The embedded local upstream: `waves_local` as a process beside the gateway.

In a process of its own, since speech engines hold the interpreter for as long as they compute. It ends with the
gateway, however the gateway ends, and is started again on the same port when it dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from wavegate_server import errors
from wavegate_server.config import ConfigError

logger = logging.getLogger(__name__)

# On Linux the kernel sends SIGTERM when the gateway dies, by SIGKILL too; it may have died before we asked.
_LAUNCH: Final = """
import ctypes, os, signal, sys
parent = int(sys.argv[1])
sys.argv[:2] = ["waves-local"]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != parent:
    sys.exit("the gateway has gone")
from waves_local.cli import main
main()
"""

SPEECH_MODULES: Final = {"espeakng_loader": "speak", "pocketsphinx": "listen"}
"""What the extra `wavegate[speech]` brings: module → what it is needed for."""
START_TIMEOUT_S: Final = 30.0
"""Importing and binding takes a second; a machine under load takes longer."""
STOP_TIMEOUT_S: Final = 1.0
SETTLED_S: Final = 10.0
"""A process that lived this long counts as one that works."""
MAX_FAILURES: Final = 3
"""So many deaths in a row, each before it had settled, and it is given up."""
RESTART_DELAY_S: Final = 0.2
AWAY_S: Final = 15.0
"""How long a session waits for one that is started again: several times what that takes, with speech engines on a busy
machine; and longer than it takes to find that it cannot be started, which ends the waiting."""
RETRY_AFTER_S: Final = 5.0
"""When a caller that waited in vain may come back. It is longer than a session waits between tries, so none is made."""
MAX_REPEATS: Final = 2
"""How often an attempt is made again after it died: one that kills it shall not do so for ever."""
NOTICE_S: Final = 0.5
"""How long after its connections the death of a process may show."""

T = TypeVar("T")


class LocalUpstream:
    """Runs one local upstream. `url` is known after `start` and stays the same."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._process: Process | None = None
        self._port = 0
        self._last_words = ""
        self._serves, self._died = asyncio.Event(), asyncio.Event()
        """Whether it serves, or never will again; and whether it is known that it does not."""
        self._lives = 0
        """How many processes have served."""
        self._given_up = ""
        """Why it is not started again; empty while it is."""
        self._readers: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        alive = self._process is not None and self._process.returncode is None
        return f"<LocalUpstream {self._engine} :{self._port} {'UP' if alive else 'DOWN'}>"

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    @property
    def lacks(self) -> str:
        """What it cannot do since an engine is not installed, and the cure, as a sentence; empty where nothing."""
        missing = self._missing()
        if not missing:
            return ""
        return (
            f"The local upstream cannot {' or '.join(SPEECH_MODULES[module] for module in missing)}: "
            f"{' and '.join(missing)} is not installed (in a checkout: make speech; elsewhere: pip install "
            "'wavegate[speech]')"
        )

    def check(self) -> None:
        """See that an engine is installed; one of two is enough. Raises `ConfigError`."""
        if len(self._missing()) == len(SPEECH_MODULES):
            raise ConfigError(
                "the local upstream's speech engines are not installed: pip install 'wavegate[speech]' (in a "
                "checkout: make speech), or choose --local-engine deterministic, or set SMALLEST_API_KEY to use the "
                "real service"
            )

    def _missing(self) -> list[str]:
        return [
            module
            for module in SPEECH_MODULES
            if self._engine == "speech" and importlib.util.find_spec(module) is None
        ]

    async def start(self) -> None:
        """Start it and wait until it serves. Raises `ConfigError` with its own last words where it does not."""
        self.check()
        with tempfile.TemporaryDirectory(prefix="wavegate-") as folder:
            port_file = Path(folder) / "port"
            process = await self._spawn(port_file)
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    while not port_file.exists():
                        if process.returncode is not None:
                            if self._readers:
                                # Its children may hold the pipe open after it.
                                await asyncio.wait(self._readers, timeout=STOP_TIMEOUT_S)
                            raise ConfigError(
                                f"the local upstream did not start: {self._last_words or 'it gave no reason'}"
                            )
                        await asyncio.sleep(0.02)
            except TimeoutError:
                await self.stop()
                raise ConfigError(f"the local upstream did not start within {START_TIMEOUT_S:g} s") from None
            except BaseException:
                await self.stop()
                raise
            self._port = int(port_file.read_text(encoding="utf-8"))
        self._lives += 1
        self._died.clear()
        self._serves.set()

    async def reach(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what `attempt` returns, which asks this upstream something. While it is started again, that waits; and
        an attempt that fails because it died is made again.

        Raises what `attempt` raises, and `errors.UpstreamUnavailable` where it is not back within `AWAY_S` seconds or
        cannot be started again.
        """
        for is_last in (*[False] * MAX_REPEATS, True):
            await self._back()
            lives = self._lives
            try:
                return await attempt()
            except errors.UpstreamUnavailable as exc:
                # With an HTTP status it has answered, and so was not away.
                if is_last or exc.http_status is not None or not await self._has_died_since(lives):
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _back(self) -> None:
        """Wait until it serves. Raises `errors.UpstreamUnavailable`."""
        try:
            async with asyncio.timeout(AWAY_S):
                await self._serves.wait()
        except TimeoutError:
            raise errors.UpstreamUnavailable(
                f"the local upstream died, and was not back within {AWAY_S:g} s", retry_after_s=RETRY_AFTER_S
            ) from None
        if self._given_up:
            raise errors.UpstreamUnavailable(self._given_up, retry_after_s=RETRY_AFTER_S)

    async def _has_died_since(self, lives: int) -> bool:
        """Return whether it is another process than that of number `lives`, or none. Its connections may know first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NOTICE_S):
                if self._lives == lives:
                    await self._died.wait()
        return self._lives != lives or self._died.is_set()

    async def keep(self) -> None:
        """Start it again whenever it dies. Raises `ConfigError` when that does not help. Cancel before `stop`."""
        failures = 0
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            process = self._process
            assert process is not None
            code = await process.wait()
            self._serves.clear()
            self._died.set()
            failures = failures + 1 if loop.time() - began < SETTLED_S else 1
            if failures > MAX_FAILURES:
                why = self._last_words or f"status {code}"
                self._given_up = f"the local upstream died {failures} times in a row: {why}"
                self._serves.set()  # nobody needs to wait any longer
                raise ConfigError(self._given_up)
            logger.error("the local upstream died with status %d; starting it again", code)
            await asyncio.sleep(RESTART_DELAY_S * failures)
            began = loop.time()
            with contextlib.suppress(ConfigError):  # counted above, when the next turn sees it dead
                await self.start()

    async def stop(self) -> None:
        """End it, by force after `STOP_TIMEOUT_S`. Safe to call again."""
        process = self._process
        if process is None:
            return
        for signum in (signal.SIGTERM, signal.SIGKILL):
            if process.returncode is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signum)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
        for reader in list(self._readers):
            reader.cancel()

    async def _spawn(self, port_file: Path) -> Process:
        self._last_words = ""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _LAUNCH,
            str(os.getpid()),
            "--listen",
            f"127.0.0.1:{self._port}",
            "--port-file",
            str(port_file),
            "--engine",
            self._engine,
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            # Ctrl-C on a terminal goes to the whole group; the gateway still finishes what is being spoken.
            start_new_session=True,
        )
        reader = asyncio.create_task(self._read_log(self._process), name="local-upstream-log")
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        return self._process

    async def _read_log(self, process: Process) -> None:
        """Hand its log lines on, and keep the last one for when it dies."""
        stderr = process.stderr
        assert stderr is not None
        with contextlib.suppress(ValueError):  # a line longer than the reader's limit
            while line := await stderr.readline():
                words = line.decode("utf-8", "replace").strip()
                if words:
                    self._last_words = words.removeprefix("Error: ")
                    logger.warning("waves-local: %s", words)
