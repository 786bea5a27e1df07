"""Around every call: its caller, its span, its status."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from wavegate.speech.v1 import session_service_pb2 as pb
from wavegate.speech.v1 import session_service_pb2_grpc as pb_grpc
from wavegate.speech.v1 import synthesis_service_pb2 as synthesis_pb
from wavegate.speech.v1 import synthesis_service_pb2_grpc as synthesis_grpc
from wavegate_server import errors
from wavegate_server.rpc.auth import Authenticator, parse_tokens
from wavegate_server.rpc.server import Service
from wavegate_server.rpc.trace import current_call, require_coroutines

from tests.server.rpc.serving import MAX_STREAM_MESSAGE_BYTES, serving
from tests.support.fault_proxy import FaultProxy, Faults

TOKEN = "0123456789abcdef-alice"
TOKENS = Authenticator(lambda: parse_tokens(f"alice:{TOKEN}"))
BEARER = (("authorization", f"Bearer {TOKEN}"),)
GET = "wavegate.speech.v1.SessionService/GetSession"


def reason_of(error: Any) -> str:
    raw = dict(error.trailing_metadata())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(raw).details[0].Unpack(info)
    return info.reason


async def get(address: str, metadata: Any = (), timeout: float | None = None) -> Any:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = pb_grpc.SessionServiceStub(channel)
        return await stub.GetSession(pb.GetSessionRequest(), metadata=metadata, timeout=timeout)


async def answer(request: Any, context: Any) -> pb.GetSessionResponse:
    return pb.GetSessionResponse()


async def until_eof(requests: Any, context: Any) -> None:
    while await context.read() is not grpc.aio.EOF:
        pass


async def settled(span: Any) -> None:
    """A span ends when the handler has: a moment after the client knows."""
    await asyncio.wait_for(span.done.wait(), 10)
    assert span.ended == 1


async def test_a_call_that_succeeds() -> None:
    async with serving(get=answer) as served:
        await get(served.address)
        await settled(served.span)
    assert served.span.name == GET
    assert served.span.attributes == {"rpc.response.status_code": "OK"}
    assert served.span.error_type == ""


async def test_servicers_know_their_caller_and_span() -> None:
    seen = []

    async def look(request: Any, context: Any) -> pb.GetSessionResponse:
        async def inner() -> None:
            seen.append(current_call())

        seen.append(current_call())
        await asyncio.create_task(inner())
        return pb.GetSessionResponse()

    async with serving(get=look, auth=TOKENS) as served:
        await get(served.address, BEARER)
        await settled(served.span)
    assert [(call.method, call.caller, call.span) for call in seen] == [(GET, "alice", served.span)] * 2
    assert served.span.attributes["speech.caller"] == "alice"


async def test_calls_at_once_know_their_own_caller() -> None:
    """Callers wait for each other inside their handlers, so that their calls overlap for certain."""
    both = asyncio.Barrier(2)
    tokens = Authenticator(lambda: parse_tokens(f"alice:{TOKEN}\nbob:{TOKEN[::-1]}"))

    async def look(request: Any, context: Any) -> pb.GetSessionResponse:
        await both.wait()
        caller = current_call().caller
        return pb.GetSessionResponse(session={"session_id": caller})

    async with serving(get=look, auth=tokens) as served:
        answers = await asyncio.gather(
            get(served.address, BEARER),
            get(served.address, (("authorization", f"Bearer {TOKEN[::-1]}"),)),
        )
    assert [a.session.session_id for a in answers] == ["alice", "bob"]


async def test_an_error_that_is_raised_is_the_status() -> None:
    async def refuse(request: Any, context: Any) -> None:
        raise errors.SessionNotFound("there is none")

    async with serving(get=refuse) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await get(served.address)
        await settled(served.span)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "there is none")
    assert reason_of(caught.value) == "SESSION_NOT_FOUND"
    assert served.span.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert served.span.error_type == "", "the caller's own doing is no failure of the gateway"


async def test_an_upstream_failure_is_a_failed_span_whatever_its_status() -> None:
    async def refuse(request: Any, context: Any) -> None:
        raise errors.UpstreamCapacity("full")

    async with serving(get=refuse) as served:
        with pytest.raises(grpc.aio.AioRpcError):
            await get(served.address)
        await settled(served.span)
    assert served.span.attributes["rpc.response.status_code"] == "RESOURCE_EXHAUSTED"
    assert served.span.error_type == "UPSTREAM_CAPACITY"


async def test_what_nobody_expected_stays_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: Any, context: Any) -> None:
        raise ValueError("the secret text")

    async with serving(get=fail) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await get(served.address)
        await settled(served.span)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert reason_of(caught.value) == "GATEWAY_BUG"
    assert "secret" not in str(caught.value)
    assert served.span.error_type == "GATEWAY_BUG"
    assert "the secret text" in caplog.text


async def test_a_caller_that_cancels_is_cancelled() -> None:
    started = asyncio.Event()

    async def wait(request: Any, context: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    async with serving(get=wait) as served:
        task = asyncio.create_task(get(served.address))
        await asyncio.wait_for(started.wait(), 10)
        task.cancel()
        await settled(served.span)
    assert served.span.attributes["rpc.response.status_code"] == "CANCELLED"
    assert served.span.error_type == ""


async def test_a_deadline_that_passes_is_no_cancel() -> None:
    """The caller's own cancel, which may come before the deadline has passed here, does not come through."""
    started = asyncio.Event()

    async def wait(request: Any, context: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    async with serving(get=wait) as served, FaultProxy(served.server.port) as proxy:
        task = asyncio.create_task(get(f"127.0.0.1:{proxy.port}", timeout=2.0))
        await asyncio.wait_for(started.wait(), 10)
        proxy.set(up=Faults(is_stopped=True))
        with pytest.raises(grpc.aio.AioRpcError):
            await task
        await settled(served.span)
    assert served.span.attributes["rpc.response.status_code"] == "DEADLINE_EXCEEDED"


async def test_a_call_that_is_cut_by_the_end_of_the_gateway_is_unavailable() -> None:
    started = asyncio.Event()

    async def wait(request: Any, context: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    async with serving(get=wait) as served:
        task = asyncio.create_task(get(served.address))
        await asyncio.wait_for(started.wait(), 10)
        await served.server.stop(0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await task
        await settled(served.span)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert served.span.attributes["rpc.response.status_code"] == "UNAVAILABLE"
    assert served.span.error_type == "GATEWAY_DRAINING"


async def test_a_call_that_the_gateway_ends_is_told_why() -> None:
    """One that is being served, and one that comes after; neither is left to grpc, which gives no reason."""
    started, over = asyncio.Event(), errors.GatewayDraining("the gateway has stopped")

    async def wait(request: Any, context: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    async with serving(get=wait) as served:
        task = asyncio.create_task(get(served.address))
        await asyncio.wait_for(started.wait(), 10)
        await served.interceptor.cut(over, 10)
        for call in (task, get(served.address)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert reason_of(caught.value) == "GATEWAY_DRAINING"
        for span in served.telemetry.spans:
            await settled(span)
    ends = [(s.attributes["rpc.response.status_code"], s.error_type) for s in served.telemetry.spans]
    assert ends == [("UNAVAILABLE", "GATEWAY_DRAINING")] * 2


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong-0123456789abcdef"),)])
async def test_a_stranger_is_refused_before_the_handler_runs(metadata: Any) -> None:
    async def must_not_run(request: Any, context: Any) -> None:
        raise AssertionError("served a stranger")

    async with serving(get=must_not_run, auth=TOKENS) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await get(served.address, metadata)
        await settled(served.span)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(caught.value) == "CALLER_UNAUTHENTICATED"
    assert served.span.attributes == {"rpc.response.status_code": "UNAUTHENTICATED"}


async def test_a_check_that_breaks_lets_nobody_in() -> None:
    def broken() -> Any:
        raise OSError("the disk is gone")

    async with serving(get=answer, auth=Authenticator(broken)) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await get(served.address, BEARER)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "disk" not in str(caught.value)


class UnreachableServicer(synthesis_grpc.SynthesisServiceServicer):
    async def SynthesizeStream(self, request_iterator: Any, context: Any) -> None:
        raise AssertionError("served a stranger")

    async def Synthesize(self, request: Any, context: Any) -> None:
        raise AssertionError("served a stranger")

    async def ListVoices(self, request: Any, context: Any) -> None:
        raise AssertionError("served a stranger")


async def test_a_stranger_who_talks_on_still_hears_why() -> None:
    """An abort while an asyncio client writes loses its status; so the last words come first, then the status."""
    service = Service(
        "wavegate.speech.v1.SynthesisService",
        UnreachableServicer(),
        synthesis_grpc.add_SynthesisServiceServicer_to_server,
    )
    async with (
        serving(auth=TOKENS, more=[service]) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        stub = synthesis_grpc.SynthesisServiceStub(channel)
        for _ in range(20):
            call = stub.SynthesizeStream()
            for _ in range(20):
                await call.write(synthesis_pb.SynthesizeStreamRequest())
            response = await call.read()
            assert response.session_ended.status.code == grpc.StatusCode.UNAUTHENTICATED.value[0]
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_bytes_that_are_no_message_are_invalid() -> None:
    """A string that is not UTF-8, to a unary method and on a stream."""
    async with (
        serving(get=answer, update=until_eof) as served,
        grpc.aio.insecure_channel(served.address) as ch,
    ):
        for make, method in ((ch.unary_unary, "GetSession"), (ch.stream_stream, "UpdateSettings")):
            call = make(f"/wavegate.speech.v1.SessionService/{method}")
            if method == "GetSession":
                call = call(b"\x0a\x02\xff\xfe")
            else:
                call = call()
                await call.write(b"\x0a\x02\xff\xfe")
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "no valid message" in await call.details()


async def test_a_message_of_a_stream_has_a_bound_of_its_own() -> None:
    async with serving(update=until_eof) as served, grpc.aio.insecure_channel(served.address) as ch:
        call = ch.stream_stream("/wavegate.speech.v1.SessionService/UpdateSettings")()
        await call.write(b"\x00" * (MAX_STREAM_MESSAGE_BYTES + 1))
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert str(MAX_STREAM_MESSAGE_BYTES) in await call.details()


async def test_calls_about_sessions_are_not_waited_for() -> None:
    service = Service(
        "wavegate.speech.v1.SynthesisService",
        SpeakingServicer(),
        synthesis_grpc.add_SynthesisServiceServicer_to_server,
    )
    async with (
        serving(update=until_eof, more=[service]) as served,
        grpc.aio.insecure_channel(served.address) as ch,
    ):
        control = pb_grpc.SessionServiceStub(ch).UpdateSettings()
        await control.write(pb.UpdateSettingsRequest())
        speaking = synthesis_grpc.SynthesisServiceStub(ch).SynthesizeStream()
        await speaking.write(synthesis_pb.SynthesizeStreamRequest())
        assert (await speaking.read()).sequence == 1
        assert served.interceptor.live == 1
        await speaking.done_writing()
        await asyncio.wait_for(served.interceptor.idle(), 10)
        assert served.interceptor.live == 0
        await control.done_writing()


class SpeakingServicer(synthesis_grpc.SynthesisServiceServicer):
    async def SynthesizeStream(self, request_iterator: Any, context: Any) -> None:
        await context.write(synthesis_pb.SynthesizeStreamResponse(sequence=1))
        await until_eof(request_iterator, context)

    async def Synthesize(self, request: Any, context: Any) -> None:
        raise NotImplementedError

    async def ListVoices(self, request: Any, context: Any) -> None:
        raise NotImplementedError


def test_handlers_must_be_coroutines() -> None:
    class Generator(pb_grpc.SessionServiceServicer):
        async def UpdateSettings(self, request_iterator: Any, context: Any) -> Any:
            yield pb.UpdateSettingsResponse()

        async def GetSession(self, request: Any, context: Any) -> Any:
            return None

        async def ListSessions(self, request: Any, context: Any) -> Any:
            return None

        async def CloseSession(self, request: Any, context: Any) -> Any:
            return None

        async def GetTrace(self, request: Any, context: Any) -> Any:
            return None

    with pytest.raises(TypeError, match=r"Generator\.UpdateSettings must be an `async def`"):
        require_coroutines(Generator())
