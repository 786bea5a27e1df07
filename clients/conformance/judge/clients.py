"""The clients of this repository: how their drivers are built and run."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
BUILT = REPOSITORY / "build" / "conformance"


@dataclass(frozen=True)
class Known:
    """A client, how its driver is built and run, and what that takes. All commands in the repository's folder."""

    command: Sequence[str]
    source: str
    """The driver's own code."""
    build: Sequence[Sequence[str]] = ()
    """Run one after the other before; empty where there is nothing to build."""
    needs: Sequence[str] = ()
    """Programs without which it cannot be judged here."""


_NPM = ("npm", "--prefix", "clients/typescript")

CLIENTS: dict[str, Known] = {
    "python": Known(
        command=[sys.executable, "clients/conformance/drivers/python.py"],
        source="clients/conformance/drivers/python.py",
    ),
    "go": Known(
        command=["build/conformance/go-driver"],
        source="clients/go/cmd/wavegate-driver",
        build=[["go", "build", "-C", "clients/go", "-o", f"{BUILT}/go-driver", "./cmd/wavegate-driver"]],
        needs=["go"],
    ),
    "java": Known(
        command=["clients/java/driver"],
        source="clients/java/driver",
        build=[["mvn", "-q", "-B", "-f", "clients/java/pom.xml", "process-test-classes"]],
        needs=["java", "mvn"],
    ),
    "typescript": Known(
        command=["node", "clients/typescript/build/driver/driver.js"],
        source="clients/typescript/driver",
        build=[[*_NPM, "ci", "--no-audit", "--no-fund"], [*_NPM, "run", "build"]],
        needs=["node", "npm"],
    ),
}


def missing(name: str) -> str:
    """What this machine, or this checkout, lacks to judge a client; empty where it can be judged."""
    known = CLIENTS[name]
    if not (REPOSITORY / known.source).exists():
        return f"there is no {known.source}"
    programs = [program for program in known.needs if shutil.which(program) is None]
    return f"this machine has no {', no '.join(programs)}" if programs else ""


def build(name: str, run: str = "") -> list[str]:
    """Build the driver of a client; its command. Raises `CalledProcessError`, whose output says why it cannot be.

    It is built once for each `run`, however many processes of that ask for it; without a name each time.
    """
    known = CLIENTS[name]
    BUILT.mkdir(parents=True, exist_ok=True)
    stamp = BUILT / f"{name}.built"
    with (BUILT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not run or not stamp.exists() or stamp.read_text() != run:
            for command in known.build:
                subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
            stamp.write_text(run)
    return [*known.command]
