"""`wavegate-server` as a process of its own, as users run it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

PATIENCE_S = 60.0
"""Starting takes a second or two; a machine under load takes longer."""

# A gateway that does not end in time ends by force, which another test shows; here, a machine under load shall not
# look like a gateway that hangs, nor one that has not written its last words yet like one that has none.
_UNHURRIED = (
    "import os\n"
    "os.environ.setdefault('GRPC_VERBOSITY', 'NONE')\n"  # as the command does before it imports `app`
    "from wavegate_server import app, cli\n"
    f"app.EXIT_WITHIN_S = {PATIENCE_S}\n"
    "app.LAST_WORDS_S = app.CUT_GRACE_S = 3.0\n"
    "cli.main()\n"
)

# Nobody is there; the gateway only dials when a session wants it.
NO_UPSTREAM = ("--upstream", "ws://127.0.0.1:9")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what configures a gateway, and with `more`.

    No metrics are served unless it says so: what is tested shall not depend on who has their port.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WAVEGATE_", "WAVES_LOCAL_", "OTEL_", "SMALLEST_"))
    }
    return {**kept, "WAVEGATE_METRICS_LISTEN": "off", **(more or {})}


async def finished(*arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run to the end: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "wavegate_server", *arguments, stdout=PIPE, stderr=PIPE, env=environment(env)
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something outside this process is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110 - another process has no Event
            await asyncio.sleep(0.02)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process has not ended. (One that nobody waits for stays as a zombie.)"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def gone(pid: int) -> None:
    """Wait until a process has ended."""

    async def ended() -> bool:
        return not alive(pid)

    await until(ended)


async def take(port: int) -> asyncio.Server:
    """The threads of a process that was killed may keep its port for a moment more."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)


class Running:
    """A gateway that serves. `banner` is what it has printed so far; `log` its stderr."""

    def __init__(
        self, process: Process, port: int, port_file: Path, banner: list[str], log: list[str]
    ) -> None:
        self.process = process
        self.port = port
        self.port_file = port_file
        self.banner = banner
        self.log = log

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def upstream_port(self) -> int:
        """The port of its local upstream, from the first line."""
        return int(self.banner[0].partition("ws://127.0.0.1:")[2].partition(",")[0])

    @property
    def http(self) -> str:
        """Where it answers HTTP, from the banner; it must have been told to."""
        (line,) = (line for line in self.banner if "Metrics: " in line)
        return line.partition("Metrics: ")[2].removesuffix("/metrics")

    def signal(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    async def ended(self) -> int:
        """Wait for its end; the exit code."""
        return await asyncio.wait_for(self.process.wait(), PATIENCE_S)


@asynccontextmanager
async def running(
    *arguments: str, env: Mapping[str, str] | None = None, listen: str = "127.0.0.1:0"
) -> AsyncIterator[Running]:
    """Start a gateway and wait until it serves; end it when the block is left."""
    with TemporaryDirectory(prefix="wavegate-test-") as folder:
        port_file = Path(folder) / "port"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _UNHURRIED, "--listen", listen, "--port-file", str(port_file)),
            *arguments,
            stdout=PIPE,
            stderr=PIPE,
            env=environment(env),
        )
        banner: list[str] = []
        log: list[str] = []
        assert process.stdout is not None
        assert process.stderr is not None
        readers = [
            asyncio.create_task(_collect(process.stdout, banner)),
            asyncio.create_task(_collect(process.stderr, log)),
        ]
        try:

            async def serves() -> bool:
                assert process.returncode is None, f"it ended with {process.returncode}: {log}"
                # The last line is written by itself; what reads the banner is to find all of it.
                return port_file.exists() and any("Try it: " in line for line in banner)

            await until(serves)
            yield Running(process, int(port_file.read_text()), port_file, banner, log)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await asyncio.wait(readers, timeout=30)


async def _collect(stream: asyncio.StreamReader, into: list[str]) -> None:
    async for line in stream:
        into.append(line.decode().rstrip("\n"))
