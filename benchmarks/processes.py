"""The processes of a benchmark: how they are started and ended, and what they use of the machine.

Each child holds a pipe from this process as its stdin and ends when that is closed, so nothing is left behind,
however the benchmark ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
ROOT = Path(__file__).resolve().parent.parent


class BenchmarkError(Exception):
    """Raised where a benchmark cannot be run; says why."""


# -- what a process uses ----------------------------------------------------------------------------------------


def tree(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                children = Path(f"/proc/{parent}/task/{task}/children").read_text()
                found += [int(child) for child in children.split()]
    return found


def cpu_s(pid: int) -> float:
    """CPU time of a process and its children so far, user and system, ended threads included, in seconds.

    From each process's own CPU clock: `/proc/PID/stat` has the same in steps of 10 ms only.
    """
    total = 0.0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            # The kernel's number of another process's CPU clock, see clock_getcpuclockid(3).
            total += time.clock_gettime((~one) << 3 | 2)
    return total


def private_bytes(pid: int) -> int:
    """Memory that nobody shares with a process and its children."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Private_"):
                    total += int(line.split()[1]) * 1024
    return total


def descriptors(pid: int) -> int:
    """Open file descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


# -- the children -----------------------------------------------------------------------------------------------


@dataclass
class Child:
    """One process that was started here."""

    name: str
    process: Process
    stop_within_s: float = STOP_TIMEOUT_S

    @property
    def pid(self) -> int:
        return self.process.pid

    async def stop(self) -> None:
        """Close its stdin, which ends it; by force where that does not help."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            async with asyncio.timeout(self.stop_within_s):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


@contextlib.asynccontextmanager
async def child(
    name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None, *, talks: bool = False
) -> AsyncGenerator[Child, None]:
    """Run `python -P ARGUMENTS` for as long as the block lasts. `talks`: its stdout is read here."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # modules come from PYTHONPATH, whatever lies in the current folder
        *arguments,
        stdin=PIPE,
        stdout=PIPE if talks else DEVNULL,
        env={**os.environ, **(environment or {})},
        limit=2**24,
    )
    started = Child(name, process)
    try:
        yield started
    finally:
        await started.stop()


def _number_in(path: Path) -> int:
    return int(path.read_text())


async def port_from(path: Path, owner: Child) -> int:
    """The port that a child writes once it serves. Raises `BenchmarkError`."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if owner.process.returncode is not None:
            raise BenchmarkError(f"{owner.name} ended with {owner.process.returncode} before it served")
        with contextlib.suppress(OSError, ValueError):
            return _number_in(path)
        await asyncio.sleep(0.02)
    raise BenchmarkError(f"{owner.name} did not serve within {START_TIMEOUT_S:g} s")


@contextlib.asynccontextmanager
async def upstream(scratch: Path) -> AsyncGenerator[int, None]:
    """The scripted upstream; its port."""
    path = scratch / "upstream.port"
    arguments = ["-m", "benchmarks.upstream", "--port-file", str(path)]
    async with child("the upstream", arguments, {"PYTHONPATH": str(ROOT)}) as started:
        yield await port_from(path, started)


@dataclass(frozen=True, slots=True)
class Variant:
    """One gateway to be measured: its code, its flags, its environment."""

    name: str
    tree: Path = ROOT
    flags: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


@dataclass
class Gateway:
    """A gateway that serves, and its probe."""

    variant: Variant
    pid: int
    port: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def ask(self, *, collect: bool = False) -> dict[str, Any]:
        """What the probe knows since it was asked last; see `benchmarks.gateway`."""
        self.writer.write(b"collect\n" if collect else b"look\n")
        answer: dict[str, Any] = json.loads(await self.reader.readline())
        return answer

    async def weigh(self) -> dict[str, float]:
        """What it holds now, garbage not counted."""
        probed = await self.ask(collect=True)
        return {
            "private_bytes": private_bytes(self.pid),
            "descriptors": descriptors(self.pid),
            "tasks": probed["tasks"],
            "python_blocks": probed["python_blocks"],
            "native_bytes": probed["native_bytes"],
            "threads": probed["threads"],
        }


@contextlib.asynccontextmanager
async def gateway(variant: Variant, upstream_port: int, scratch: Path) -> AsyncGenerator[Gateway, None]:
    """A real gateway in front of the scripted upstream, on loopback."""
    port_file, socket = scratch / f"{variant.name}.port", scratch / f"{variant.name}.probe"
    for path in (port_file, socket):  # of one that had this name before
        path.unlink(missing_ok=True)
    arguments = [
        *("-m", "benchmarks.gateway", str(socket)),
        *("--listen", "127.0.0.1:0", "--port-file", str(port_file)),
        *("--upstream", f"ws://127.0.0.1:{upstream_port}", "--log-level", "warning"),
        *variant.flags,
    ]
    async with child(f"gateway {variant.name}", arguments, _environment(variant)) as started:
        port = await port_from(port_file, started)
        reader, writer = await _probe(socket)
        try:
            yield Gateway(variant, started.pid, port, reader, writer)
        finally:
            writer.close()


def _environment(variant: Variant) -> dict[str, str]:
    code = variant.tree
    paths = [str(code / "server"), str(code / "clients" / "python"), str(ROOT)]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "GRPC_VERBOSITY": "NONE",
        "WAVEGATE_METRICS_LISTEN": "off",
        **dict(variant.environment),
    }


async def telemetry_alone(variant: Variant, seconds: float, rate: int) -> dict[str, float]:
    """What `benchmarks.lanes` measures of a gateway's telemetry."""
    arguments = ["-m", "benchmarks.lanes", "--seconds", str(seconds), "--rate", str(rate)]
    async with child("the telemetry alone", arguments, _environment(variant), talks=True) as started:
        assert started.process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S + 2 * seconds):
            line = await started.process.stdout.readline()
        if not line:
            raise BenchmarkError("the telemetry alone could not be measured")
        found: dict[str, float] = json.loads(line)
        return found


async def _probe(socket: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The probe is there a moment after the port."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return await asyncio.open_unix_connection(str(socket))
        except OSError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.02)


class Collector:
    """The collector of spans: where its endpoints are, and what they had."""

    def __init__(self, started: Child, ports: Mapping[str, int]) -> None:
        self._process = started.process
        self._ports = ports

    def environment(self, endpoint: str) -> tuple[tuple[str, str], ...]:
        """What has a gateway send its spans to an endpoint; see `benchmarks.collector`."""
        return (
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                f"http://127.0.0.1:{self._ports[endpoint]}{_path(endpoint)}",
            ),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf" if endpoint == "http" else "grpc"),
        )

    async def had(self) -> dict[str, dict[str, int]]:
        """What each endpoint had since the beginning."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"look\n")
        answer: dict[str, dict[str, int]] = json.loads(await self._process.stdout.readline())
        return answer


def _path(endpoint: str) -> str:
    return "/v1/traces" if endpoint == "http" else ""


@contextlib.asynccontextmanager
async def collector() -> AsyncGenerator[Collector, None]:
    environment = {"PYTHONPATH": str(ROOT), "GRPC_VERBOSITY": "NONE"}
    async with child("the collector", ["-m", "benchmarks.collector"], environment, talks=True) as started:
        assert started.process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await started.process.stdout.readline()
        if not line:
            raise BenchmarkError("the collector did not serve")
        yield Collector(started, json.loads(line))


class Generator:
    """The load generator: takes a job, answers with its figures."""

    def __init__(self, started: Child) -> None:
        self._process = started.process
        self.pid = started.pid

    async def do(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Raises `BenchmarkError` where the job fails, or does not end in time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
        except TimeoutError as exc:
            raise BenchmarkError(f"{job['job']} did not end within {timeout_s:g} s") from exc
        if not line:
            raise BenchmarkError(f"the load generator ended in {job['job']}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchmarkError(f"{job['job']}: {answer['error']}")
        return answer


@contextlib.asynccontextmanager
async def generator() -> AsyncGenerator[Generator, None]:
    arguments = ["-m", "benchmarks.load"]
    environment = {"PYTHONPATH": str(ROOT), "GRPC_VERBOSITY": "NONE"}
    async with child("the load generator", arguments, environment, talks=True) as started:
        started.stop_within_s = 0.5  # in the middle of a job it hears nothing
        yield Generator(started)
