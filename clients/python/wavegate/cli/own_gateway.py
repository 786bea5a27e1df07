"""A gateway of one's own, for as long as a command runs."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from wavegate.cli.command import Failure

_START_S = 60.0
_STOP_S = 10.0


@asynccontextmanager
async def own_gateway() -> AsyncIterator[str]:
    """Starts `wavegate-server` on a free port of this machine; gives its target, and stops it at the end.

    Raises `Failure` where it is not installed or does not start.
    """
    with tempfile.TemporaryDirectory(prefix="wavegate-") as directory:
        port_file, log = Path(directory, "port"), Path(directory, "log")
        process = _start(_program(), port_file, log)
        try:
            yield f"127.0.0.1:{await _port(process, port_file, log)}"
        finally:
            await asyncio.to_thread(_stop, process)


def _start(program: str, port_file: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(  # noqa: S603 - the gateway's own program
            [program, "--listen", "127.0.0.1:0", "--port-file", str(port_file), "--metrics-listen", "off"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # An interrupt at the keyboard is ours to pass on, after the sessions have ended.
            start_new_session=True,
        )


def _program() -> str:
    beside = Path(sys.executable).with_name("wavegate-server")
    program = str(beside) if beside.exists() else shutil.which("wavegate-server")
    if program is None:
        raise Failure("there is no gateway and no wavegate-server to start one: pip install wavegate", 3)
    return program


async def _port(process: subprocess.Popen[bytes], port_file: Path, log: Path) -> int:
    try:
        async with asyncio.timeout(_START_S):
            while (port := _read(port_file).strip()) == "":  # written once it serves
                if process.poll() is not None:
                    raise Failure(f"wavegate-server ended at once:\n{_tail(log)}", 3)
                await asyncio.sleep(0.05)
    except TimeoutError as exc:
        raise Failure(f"wavegate-server does not serve after {_START_S:.0f} s:\n{_tail(log)}", 3) from exc
    return int(port)


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _tail(log: Path) -> str:
    return "\n".join(_read(log).splitlines()[-5:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
