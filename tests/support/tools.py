"""Programs that tests run against and no lock can bring: `scripts/` gets or builds them, once a machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

BUILD_PATIENCE_S = 30 * 60
"""Jaeger takes ten minutes to build on two idle cores, and machines that run tests are not idle."""

START_PATIENCE_S = 60.0


def script(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / name), *arguments]


def path_of(name: str, *arguments: str, optional: bool = False) -> Path:
    """What `scripts/NAME path ARGUMENTS` prints. Where the program cannot be had, the test fails and says why.

    With `optional` it is left out and says why, but not in CI, which leaves out nothing.
    """
    done = subprocess.run(
        script(name, "path", *arguments),
        capture_output=True,
        text=True,
        timeout=BUILD_PATIENCE_S,
        check=False,
    )
    if done.returncode != 0 and optional and not os.environ.get("CI"):
        pytest.skip(f"{' '.join(arguments)} cannot be had here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, f"scripts/{name} path:\n{done.stderr}"
    return Path(done.stdout.strip())


class InBackground:
    """Makes a program while other tests run; those who need it wait for it by the lock of its making."""

    def __init__(self, name: str, *arguments: str) -> None:
        # A group of its own, so that compilers end with it. Its words come again from whoever waits.
        self._process = subprocess.Popen(
            ["nice", "-n", "10", *script(name, *arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def wait_until(holds: Callable[[], bool], what: str, patience_s: float = START_PATIENCE_S) -> None:
    """Wait for something outside this process."""
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {patience_s:g} s"
        time.sleep(0.05)
