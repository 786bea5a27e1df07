"""The gateways, upstreams and proxies of a scenario."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import waves_local
from wavegate.speech import v1
from wavegate.speech.v1 import (
    session_service_pb2_grpc,
    synthesis_service_pb2_grpc,
    transcription_service_pb2_grpc,
)

from tests.clients.python import fake_gateway
from tests.clients.python.cutting_proxy import CuttingProxy, cutting_proxy
from tests.support.certificates import Certificates
from tests.support.process import Running, running

TOKENS = {"alice": "the-token-of-alice", "bob": "the-token-of-bob"}

# What a gateway may be, beside an ordinary one. {files} is a folder with the files.
KINDS: Mapping[str, tuple[str, ...]] = {
    "plain": (),
    "tokens": ("--auth-tokens-file", "{files}/tokens", "--max-sessions-per-caller", "1"),
    "full": ("--max-sessions", "1"),
    "hasty": ("--idle-timeout", "1"),
    "hurried": ("--drain-timeout", "1"),
    "tls": ("--tls-cert", "{files}/server.pem", "--tls-key", "{files}/server.key"),
    "mtls": (
        *("--tls-cert", "{files}/server.pem", "--tls-key", "{files}/server.key"),
        *("--tls-client-ca", "{files}/ca.pem"),
    ),
}
OPEN_KINDS = ("plain", "full", "hasty", "hurried")
"""Those that let in whoever comes, in clear text."""
_ALWAYS = ("--drain-timeout", "20", "--log-level", "error")
ORDINARY = waves_local.Options(chunk_interval_s=0.002)


class Gateway:
    """A `wavegate-server` process, the local upstream behind it, and stubs to look into it."""

    def __init__(self, kind: str, process: Running, upstream: waves_local.Upstream) -> None:
        self.kind = kind
        self.process = process
        self.upstream = upstream
        self.target = process.target
        self.port = process.port
        self.spent = False
        """Whether it was told to end, so that nobody else may have it."""
        self._before: Counter[str] = Counter()
        self._channel: grpc.aio.Channel | None = None
        self._stack = AsyncExitStack()

    def connections(self, kind: str) -> list[waves_local.ConnectionRecord]:
        """The connections to the upstream of this scenario."""
        return [record for record in self.upstream.journal.of(kind) if record.number > self._before[kind]]

    async def begin(self) -> None:
        """Clear what another scenario has left here and in the upstream.

        Sessions that may be resumed live on for a while, where their client could not end them.
        """
        if self.kind in OPEN_KINDS:
            for session in (await self.sessions.ListSessions(v1.ListSessionsRequest())).sessions:
                gone = v1.CloseSessionRequest(session_id=session.session_id, discard=True)
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await self.sessions.CloseSession(gone)
        self.upstream.faults.clear()
        self.upstream.options = ORDINARY
        self._before = Counter()
        for record in self.upstream.journal:
            self._before[record.kind] = max(self._before[record.kind], record.number)

    @property
    def is_usable(self) -> bool:
        return self.process.process.returncode is None and not self.spent

    def channel(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self.target)
        return self._channel

    @property
    def synthesis(self) -> Any:
        """The bare stub, for what no client does."""
        return synthesis_service_pb2_grpc.SynthesisServiceStub(self.channel())

    @property
    def transcription(self) -> Any:
        """The bare stub, for what no client does."""
        return transcription_service_pb2_grpc.TranscriptionServiceStub(self.channel())

    @property
    def sessions(self) -> Any:
        """The bare stub, to see what the gateway has."""
        return session_service_pb2_grpc.SessionServiceStub(self.channel())

    def terminate(self) -> None:
        """SIGTERM: it drains, and ends."""
        self.spent = True
        self.process.signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: it is gone."""
        self.spent = True
        self.process.signal(signal.SIGKILL)

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
        await self._stack.aclose()


class World:
    """All gateways. One that a scenario is done with serves the next that wants its kind."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._idle: dict[str, list[Gateway]] = {}
        self._all: list[Gateway] = []
        self.certificates: Certificates | None = None
        self._files = Path()

    async def __aenter__(self) -> World:
        self._files = Path(self._stack.enter_context(TemporaryDirectory(prefix="wavegate-judge-")))
        (self._files / "tokens").write_text("".join(f"{who}:{token}\n" for who, token in TOKENS.items()))
        if Certificates.possible():
            self.certificates = await asyncio.to_thread(Certificates, self._files)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(gateway.close() for gateway in self._all))
        await self._stack.aclose()

    @contextlib.asynccontextmanager
    async def gateway(self, kind: str) -> AsyncIterator[Gateway]:
        """A gateway of that kind, for one scenario alone."""
        idle = self._idle.setdefault(kind, [])
        gateway = idle.pop() if idle else await self._start(kind)
        await gateway.begin()
        try:
            yield gateway
        finally:
            if gateway.is_usable:
                idle.append(gateway)
            else:
                self._all.remove(gateway)
                await gateway.close()

    async def _start(self, kind: str) -> Gateway:
        stack = AsyncExitStack()
        try:
            upstream = await stack.enter_async_context(
                waves_local.serve(engine=waves_local.deterministic_engine(), options=ORDINARY)
            )
            arguments = [argument.format(files=self._files) for argument in (*_ALWAYS, *KINDS[kind])]
            process = await stack.enter_async_context(
                running("--upstream", upstream.url, *arguments, env={"SMALLEST_API_KEY": "any"})
            )
        except BaseException:
            await stack.aclose()
            raise
        gateway = Gateway(kind, process, upstream)
        gateway._stack = stack
        self._all.append(gateway)
        return gateway


def proxy(to_port: int) -> contextlib.AbstractAsyncContextManager[CuttingProxy]:
    """A TCP proxy that cuts connections."""
    return cutting_proxy(to_port)


def faked() -> contextlib.AbstractAsyncContextManager[fake_gateway.FakeGateway]:
    """A made-up gateway in this process."""
    return fake_gateway.serve()
