"""The gateway as a process: what it says, how it starts and stops, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from wavegate.speech.v1 import session_service_pb2 as session_pb
from wavegate.speech.v1 import session_service_pb2_grpc as session_grpc
from wavegate.speech.v1 import synthesis_service_pb2 as pb
from wavegate.speech.v1 import synthesis_service_pb2_grpc as pb_grpc
from wavegate.speech.v1 import types_pb2 as types_pb

from tests.support.collector import grpc_collector
from tests.support.process import (
    NO_UPSTREAM,
    PATIENCE_S,
    Running,
    children,
    environment,
    gone,
    running,
    take,
    until,
)

LOCAL = ("--upstream", "local", "--local-engine", "deterministic")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),)
START = pb.SynthesizeStreamRequest(start=pb.StartSynthesis(settings={}))
END = types_pb.EndSession()


@contextlib.asynccontextmanager
async def speaking(gateway: Running, metadata: Any = ()) -> Any:
    """A synthesis session that has started: the call, and its first response."""
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        call = pb_grpc.SynthesisServiceStub(channel).SynthesizeStream(metadata=metadata)
        await call.write(START)
        first = await asyncio.wait_for(call.read(), PATIENCE_S)
        assert first.HasField("session_started"), first
        yield call, first.session_started


async def rest(call: Any) -> list[Any]:
    """Everything that the call still says, however it ends."""
    found = []
    with contextlib.suppress(grpc.aio.AioRpcError):
        while (response := await asyncio.wait_for(call.read(), PATIENCE_S)) is not grpc.aio.EOF:
            found.append(response)
    return found


async def health(gateway: Running) -> str:
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="wavegate.speech.v1.SynthesisService")
        )
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


async def draining(gateway: Running) -> None:
    async def told() -> bool:
        return await health(gateway) == "NOT_SERVING"

    await until(told)


def has_voices(port: int) -> bool:
    """Whether a local upstream answers."""
    url = f"http://127.0.0.1:{port}/waves/v1/lightning-v3.1/get_voices"
    request = urllib.request.Request(url, headers={"Authorization": "Bearer x"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(json.load(answer)["voices"])
    except OSError:
        return False


async def test_it_says_where_it_listens_and_ends_when_told_to() -> None:
    async with running(*NO_UPSTREAM) as gateway:
        assert gateway.banner[0].endswith(f" listening on {gateway.target}, upstream: ws://127.0.0.1:9")
        assert gateway.banner[0].startswith("wavegate-server ")
        assert gateway.banner[-1] == f'  Try it: wavegate say "Hello" --target {gateway.target}'
        assert await health(gateway) == "SERVING"
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
        assert not gateway.port_file.exists()
    assert not any("warning" in line or "error" in line for line in gateway.log), gateway.log


async def test_on_ipv6_with_a_key_a_tokens_file_and_json_logs(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("alice:0123456789abcdef\n")
    env = {"SMALLEST_API_KEY": "sk_secret_0123456789", "WAVEGATE_LOG_LEVEL": "debug"}
    async with running(
        *NO_UPSTREAM, "--auth-tokens-file", str(tokens), "--log-format", "json", env=env, listen="[::1]:0"
    ) as gateway:
        assert f"listening on [::1]:{gateway.port}," in gateway.banner[0]
        async with grpc.aio.insecure_channel(f"[::1]:{gateway.port}") as channel:
            sessions = session_grpc.SessionServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await sessions.ListSessions(session_pb.ListSessionsRequest())
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            await sessions.ListSessions(
                session_pb.ListSessionsRequest(),
                metadata=(("authorization", "Bearer 0123456789abcdef"),),
            )
            # Nobody is there: it fails, with the key in its hands.
            call = pb_grpc.SynthesisServiceStub(channel).SynthesizeStream(
                metadata=(("authorization", "Bearer 0123456789abcdef"),)
            )
            await call.write(START)
            await call.done_writing()
            await rest(call)
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
        gateway.signal(signal.SIGINT)
        assert await gateway.ended() == 0
    lines = [json.loads(line) for line in gateway.log]
    assert any("others may read the tokens file" in line["message"] for line in lines)
    ended = [line for line in lines if line["message"] == "call ended"]
    assert [line["caller"] for line in ended] == ["anonymous", "alice", "alice"]
    assert "sk_secret" not in "".join(gateway.log)
    assert "0123456789abcdef" not in "".join(gateway.log).replace(TRACE, "")


async def test_without_a_key_it_speaks_with_the_local_upstream() -> None:
    async with running("--local-engine", "deterministic") as gateway:
        assert ", upstream: local (ws://127.0.0.1:" in gateway.banner[0]
        assert "deterministic engine" in gateway.banner[0]
        async with speaking(gateway) as (call, _):
            await call.write(pb.SynthesizeStreamRequest(text=pb.TextInput(text="Hello there.")))
            await call.write(pb.SynthesizeStreamRequest(end_session=END))
            await call.done_writing()
            responses = await rest(call)
            assert await call.code() is grpc.StatusCode.OK
        assert sum(len(r.audio.audio) for r in responses) > 0
        (child,) = children(gateway.process.pid)
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
        await gone(child)


async def test_the_local_upstream_is_started_again_when_it_dies() -> None:
    async with running(*LOCAL) as gateway:
        (first,) = children(gateway.process.pid)
        os.kill(first, signal.SIGKILL)
        await gone(first)
        await until(lambda: asyncio.to_thread(has_voices, gateway.upstream_port))
        (second,) = children(gateway.process.pid)
        assert second != first
        assert any("the local upstream died" in line for line in gateway.log)
        # However the gateway ends, it goes along.
        gateway.signal(signal.SIGKILL)
        await gateway.ended()
        await gone(second)


async def test_a_local_upstream_that_keeps_dying_ends_the_gateway() -> None:
    """Its port is taken by somebody else after its death, so it cannot come back."""
    async with running(*LOCAL) as gateway:
        (child,) = children(gateway.process.pid)
        gateway.signal(signal.SIGSTOP)  # until the port is taken, however long that takes
        os.kill(child, signal.SIGKILL)
        await gone(child)
        async with await take(gateway.upstream_port):
            gateway.signal(signal.SIGCONT)
            assert await gateway.ended() == 1
    assert any("the local upstream died" in line and "the gateway stops" in line for line in gateway.log)


async def test_live_sessions_may_finish_and_new_ones_are_refused() -> None:
    async with running(*LOCAL, "--drain-timeout", "60") as gateway, speaking(gateway) as (call, _):
        gateway.signal(signal.SIGTERM)
        await draining(gateway)
        async with grpc.aio.insecure_channel(gateway.target) as channel:
            late = pb_grpc.SynthesisServiceStub(channel).SynthesizeStream()
            await late.write(START)
            (last,) = await rest(late)
            assert "shutting down" in last.session_ended.status.message
            assert await late.code() is grpc.StatusCode.UNAVAILABLE
        await call.write(pb.SynthesizeStreamRequest(text=pb.TextInput(text="The last words.")))
        await call.write(pb.SynthesizeStreamRequest(end_session=END))
        await call.done_writing()
        responses = await rest(call)
        assert await call.code() is grpc.StatusCode.OK
        assert any(r.HasField("utterance_completed") for r in responses)
        assert await gateway.ended() == 0
    assert not any("are cut" in line for line in gateway.log)


@pytest.mark.parametrize("way", ["the drain timeout", "a second signal"])
async def test_a_session_that_does_not_finish_is_cut_after(way: str) -> None:
    timeout = "0.3" if way == "the drain timeout" else "3600"
    async with running(*LOCAL, "--drain-timeout", timeout) as gateway, speaking(gateway) as (call, _):
        gateway.signal(signal.SIGTERM)
        if way == "a second signal":
            await draining(gateway)
            gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
        await rest(call)
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert any("1 live calls are cut" in line for line in gateway.log)
    own = [line for line in gateway.log if "waves-local:" not in line]
    assert not any("Traceback" in line or "by force" in line for line in own), own


async def test_one_trace_from_the_caller_to_the_upstream() -> None:
    with grpc_collector() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        async with running(*LOCAL, "--log-format", "json", env=env) as gateway:
            assert gateway.banner[1] == f"  Spans go to {collector.endpoint}"
            async with speaking(gateway, TRACEPARENT) as (call, started):
                assert started.trace_id == TRACE
                initial = dict(await call.initial_metadata())
                await call.write(pb.SynthesizeStreamRequest(text=pb.TextInput(text="Hello.")))
                await call.write(pb.SynthesizeStreamRequest(end_session=END))
                await call.done_writing()
                await rest(call)
            async with speaking(gateway, TRACEPARENT) as (call, _):
                call.cancel()
            server = await asyncio.to_thread(
                collector.wait_for, lambda s: s.kind == "SERVER" and code(s) == "OK"
            )
            client = await asyncio.to_thread(
                collector.wait_for,
                lambda s: s.name == "upstream.connection" and s.parent_span_id == server.span_id,
            )
            cancelled = await asyncio.to_thread(
                collector.wait_for, lambda s: s.kind == "SERVER" and code(s) == "CANCELLED"
            )
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended() == 0
    assert initial["wavegate-trace-id"] == TRACE
    assert server.name == "wavegate.speech.v1.SynthesisService/SynthesizeStream"
    assert server.attributes["speech.session.id"] == started.session_id
    assert server.attributes["server.port"] == gateway.port
    assert (server.trace_id, server.parent_span_id) == (TRACE, "00f067aa0ba902b7")
    assert (client.kind, client.trace_id) == ("CLIENT", TRACE)
    assert client.attributes["server.port"] == gateway.upstream_port
    assert not server.error
    assert not cancelled.error
    lines = [json.loads(line) for line in gateway.log]
    ended = next(line for line in lines if line["message"] == "call ended")
    assert (ended["trace_id"], ended["span_id"], ended["session_id"]) == (
        TRACE,
        server.span_id,
        started.session_id,
    )


def code(span: Any) -> str:
    return str(span.attributes.get("rpc.response.status_code"))


async def test_a_collector_that_is_not_there_changes_nothing() -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    async with running(*LOCAL, env=env) as gateway:
        async with speaking(gateway) as (call, _):
            await call.write(pb.SynthesizeStreamRequest(end_session=END))
            await call.done_writing()
            await rest(call)
            assert await call.code() is grpc.StatusCode.OK
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
    assert not any("by force" in line for line in gateway.log)


async def test_an_open_port_is_warned_of() -> None:
    async with running(*NO_UPSTREAM, listen="0.0.0.0:0") as gateway:
        assert gateway.banner[-1].endswith(f"--target 127.0.0.1:{gateway.port}")
        assert await health(gateway) == "SERVING"
    assert any("whoever can reach 0.0.0.0:0 may use this gateway" in line for line in gateway.log)


async def test_whatever_hangs_the_process_ends() -> None:
    stuck = "import time; from wavegate_server.app import _exit_within; _exit_within(0.1); time.sleep(600)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", stuck, stderr=asyncio.subprocess.PIPE
    )
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 1
    assert err == b"wavegate-server: something hung while stopping; ending by force\n"


async def test_a_banner_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    """As with `| head -1`."""
    port_file = tmp_path / "port"
    reader, writer = os.pipe()
    os.close(reader)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wavegate_server", *NO_UPSTREAM),
        *("--listen", "127.0.0.1:0", "--port-file", str(port_file)),
        stdout=writer,
        env=environment(),
    )
    os.close(writer)

    async def serves() -> bool:
        assert process.returncode is None
        return port_file.exists()

    await until(serves)
    process.terminate()
    assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
