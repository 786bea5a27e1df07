"""Envoy and nginx in front of gateways, as `deploy/` configures them, but for addresses and what a test changes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support import tools
from tests.support.process import until

DEPLOY = tools.ROOT / "deploy"


@dataclass
class Balancer:
    """One that serves. `log` is what it wrote to stderr."""

    port: int
    process: asyncio.subprocess.Process
    log: list[str] = field(default_factory=list)
    config: Path = Path()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """The text with each key, which must be there once, replaced by its value."""
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    return text


def envoy_config(gateways: Sequence[str], port: int, admin_port: int, changes: Mapping[str, str]) -> str:
    """`deploy/envoy.yaml` for gateways at `HOST:PORT`."""
    text = (DEPLOY / "envoy.yaml").read_text()
    endpoint = "        - endpoint: {address: {socket_address: {address: gateway, port_value: 50051}}}\n"
    endpoints = [
        endpoint.replace("address: gateway", f"address: {host}").replace("50051", number)
        for host, number in (target.rsplit(":", 1) for target in gateways)
    ]
    listen = "address: {socket_address: {address: 0.0.0.0, port_value: 50051}}"
    return replaced(
        text,
        {
            **changes,
            endpoint: "".join(endpoints),
            listen: listen.replace("0.0.0.0", "127.0.0.1").replace("50051", str(port)),
            "port_value: 9901": f"port_value: {admin_port}",
        },
    )


def nginx_config(
    gateways: Sequence[str], port: int, folder: Path, changes: Mapping[str, str], down: Sequence[str] = ()
) -> str:
    """`deploy/nginx.conf` for gateways at `HOST:PORT`; those in `down` get nothing new."""
    text = (DEPLOY / "nginx.conf").read_text()
    for number, target in enumerate(gateways, 1):
        assert f"gateway-{number}:50051" in text
        text = text.replace(f"gateway-{number}:50051", target)
    for target in down:
        pattern = rf"server {re.escape(target)} max_fails=1 fail_timeout=5s;"
        text = re.sub(pattern, lambda line: line[0].replace(";", " down;"), text)
    temporary = [
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    ]
    return replaced(
        text,
        {
            **changes,
            "pid /run/nginx.pid;": f"pid {folder}/pid;",
            "worker_processes auto;": "worker_processes 2;",
            "listen 50051 ": f"listen 127.0.0.1:{port} ",
            "http {\n": "http {\n    " + "\n    ".join(temporary) + "\n",
        },
    )


@asynccontextmanager
async def envoy(gateways: Sequence[str], changes: Mapping[str, str] | None = None) -> AsyncIterator[Balancer]:
    """Run Envoy; `changes` are replacements in its configuration. It has asked for the gateways' health."""
    program = await asyncio.to_thread(tools.path_of, "balancers.py", "envoy", optional=True)
    port, admin_port = tools.free_ports(2)
    with TemporaryDirectory(prefix="wavegate-envoy-") as name:
        config = Path(name) / "envoy.yaml"
        config.write_text(envoy_config(gateways, port, admin_port, changes or {}))
        options = ("--disable-hot-restart", "--concurrency", "2", "--log-level", "warning")
        async with _running(port, config, str(program), "-c", str(config), *options) as balancer:
            yield balancer


@asynccontextmanager
async def nginx(gateways: Sequence[str], changes: Mapping[str, str] | None = None) -> AsyncIterator[Balancer]:
    """Run nginx; `changes` are replacements in its configuration."""
    program = await asyncio.to_thread(tools.path_of, "balancers.py", "nginx", optional=True)
    (port,) = tools.free_ports(1)
    with TemporaryDirectory(prefix="wavegate-nginx-") as name:
        config = Path(name) / "nginx.conf"
        config.write_text(nginx_config(gateways, port, Path(name), changes or {}))
        options = ("-e", "stderr", "-p", name, "-c", str(config), "-g", "daemon off;")
        async with _running(port, config, str(program), *options) as balancer:
            yield balancer


async def take_out(balancer: Balancer, gateways: Sequence[str], down: str) -> None:
    """What an operator of nginx does before a gateway is stopped: `down` behind its line, and a reload."""
    folder = balancer.config.parent
    workers = _workers(balancer)
    balancer.config.write_text(nginx_config(gateways, balancer.port, folder, {}, [down]))
    balancer.process.send_signal(signal.SIGHUP)

    async def new_ones_serve() -> bool:
        # The old ones have closed their listening sockets once they are titled so; they finish what is live.
        return len(_workers(balancer) - workers) == len(workers) and all(
            "shutting down" in _title(pid) for pid in _workers(balancer) & workers
        )

    await until(new_ones_serve)


def _workers(balancer: Balancer) -> set[int]:
    pid = balancer.process.pid
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return "shutting down"


@asynccontextmanager
async def _running(port: int, config: Path, *command: str) -> AsyncIterator[Balancer]:
    async with AsyncExitStack() as stack:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env={**os.environ}
        )
        balancer = Balancer(port, process, config=config)
        collecting = asyncio.create_task(_collect(balancer))

        async def end() -> None:
            if process.returncode is None:
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()
            await collecting

        stack.push_async_callback(end)

        async def serves() -> bool:
            assert process.returncode is None, f"it ended with {process.returncode}: {balancer.log}"
            return await asyncio.to_thread(tools.listens, port)

        await until(serves)
        yield balancer


async def _collect(balancer: Balancer) -> None:
    assert balancer.process.stderr is not None
    async for line in balancer.process.stderr:
        balancer.log.append(line.decode(errors="replace").rstrip("\n"))
