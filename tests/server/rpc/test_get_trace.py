"""GetTrace: what a caller may ask of the spans that the gateway still holds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
import waves_local
from google.rpc import error_details_pb2, status_pb2
from wavegate.speech import v1
from wavegate_server.rpc import session as session_module
from wavegate_server.rpc.auth import Authenticator, parse_tokens
from wavegate_server.telemetry import names
from wavegate_server.telemetry.otel import Knobs, OtelTelemetry

from tests.support.gateway import END, RunningGateway, collect, of, running_gateway, start, text

ALICE, BOB = "0123456789abcdef-alice", "0123456789abcdef-bob"
TOKENS = Authenticator(lambda: parse_tokens(f"alice:{ALICE}\nbob:{BOB}"))
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")
METHOD = "wavegate.speech.v1.SynthesisService/SynthesizeStream"


@pytest.fixture
async def gateway() -> AsyncIterator[RunningGateway]:
    async with running_gateway(telemetry=OtelTelemetry("test")) as gateway:
        yield gateway


def bearer(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")


async def speak(gateway: RunningGateway, words: str = "Hello.", *metadata: Any) -> Any:
    """A session from start to end; its `session_started`."""
    call = gateway.synthesis.SynthesizeStream(metadata=metadata)
    found = await collect(call, [start(), text(words, "one", end=True), END])
    await call.code()
    return of("session_started", found)[0]


async def asked(gateway: RunningGateway, *metadata: Any, **key: str) -> list[Any]:
    """The spans of all responses."""
    call = gateway.sessions.GetTrace(v1.GetTraceRequest(**key), metadata=metadata)
    return [span async for response in call for span in response.spans]


async def refused(gateway: RunningGateway, *metadata: Any, **key: str) -> tuple[grpc.StatusCode, str, str]:
    """Code, reason and text of a call that gives nothing."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asked(gateway, *metadata, **key)
    status = status_pb2.Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return caught.value.code(), info.reason, caught.value.details() or ""


async def settled(gateway: RunningGateway, trace_id: str, *metadata: Any) -> list[Any]:
    """The spans of a call that ended: its own ends a moment after its caller knows."""
    async with asyncio.timeout(30):
        while True:
            try:
                spans = await asked(gateway, *metadata, trace_id=trace_id)
            except grpc.aio.AioRpcError:
                spans = []
            if any(s.kind == v1.TraceSpan.KIND_SERVER for s in spans):
                return spans
            await asyncio.sleep(0.01)


async def test_a_session_that_has_ended(gateway: RunningGateway) -> None:
    started = await speak(gateway)
    spans = await settled(gateway, started.trace_id)
    assert {s.trace_id for s in spans} == {started.trace_id}

    (call,) = (s for s in spans if s.kind == v1.TraceSpan.KIND_SERVER)
    assert (call.name, call.parent_span_id, call.parent_is_remote) == (METHOD, "", False)
    assert call.attributes[names.SESSION_ID] == started.session_id
    assert not call.failed
    (utterance,) = (s for s in spans if s.name.startswith(names.TEXT_TO_SPEECH))
    assert utterance.parent_span_id == call.span_id
    assert call.start_time.ToNanoseconds() <= utterance.start_time.ToNanoseconds()
    assert utterance.end_time.ToNanoseconds() <= call.end_time.ToNanoseconds()
    chunks = [s for s in spans if s.name == names.CHUNK_OUT]
    assert len(chunks) == utterance.attributes[names.CHUNKS] > 0
    for chunk in chunks:
        assert chunk.kind == v1.TraceSpan.KIND_CONSUMER
        assert chunk.parent_span_id == utterance.span_id
        assert chunk.attributes[names.CHUNK_BYTES] > 0

    by_session = await asked(gateway, session_id=started.session_id)
    assert [s.span_id for s in by_session] == [s.span_id for s in spans]
    assert [s.span_id for s in await asked(gateway, trace_id=started.trace_id.upper())]


async def test_a_failure_and_its_kind() -> None:
    async with running_gateway(upstream_url="ws://127.0.0.1:9", telemetry=OtelTelemetry("test")) as gateway:
        call = gateway.synthesis.SynthesizeStream(metadata=(TRACEPARENT,))
        with contextlib.suppress(grpc.aio.AioRpcError):
            await collect(call, [start(), text("Hello.", end=True), END])
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        spans = await settled(gateway, TRACE)
    (root,) = (s for s in spans if s.kind == v1.TraceSpan.KIND_SERVER)
    assert (root.parent_span_id, root.parent_is_remote) == ("b7ad6b7169203331", True)
    assert root.failed
    assert root.attributes[names.ERROR_TYPE] == "UPSTREAM_UNAVAILABLE"


async def test_lists_and_links_come_as_they_are(gateway: RunningGateway) -> None:
    call = gateway.synthesis.SynthesizeStream()
    await call.write(start())
    started = (await call.read()).session_started
    control = gateway.sessions.UpdateSettings()
    delta = v1.UpdateSettingsRequest(session_id=started.session_id, update_id="faster")
    delta.synthesis.speed = 1.5
    await control.write(delta)
    await control.done_writing()
    assert [r.ack.update_id async for r in control]
    await collect(call, [END])
    spans = await settled(gateway, started.trace_id)
    (update,) = (s for s in spans if s.name == names.SETTINGS_UPDATE)
    assert list(update.attributes[names.UPDATE_FIELDS]) == ["speed"]
    (link,) = update.links
    assert link.trace_id != started.trace_id
    (other,) = [s for s in await settled(gateway, link.trace_id) if s.kind == v1.TraceSpan.KIND_SERVER]
    assert (other.span_id, other.name) == (link.span_id, "wavegate.speech.v1.SessionService/UpdateSettings")


async def test_a_live_session_shows_what_has_ended(gateway: RunningGateway) -> None:
    call = gateway.synthesis.SynthesizeStream()
    await call.write(start())
    started = (await call.read()).session_started
    spans = await asked(gateway, session_id=started.session_id)
    assert names.SESSION_OPEN in {s.name for s in spans}
    assert v1.TraceSpan.KIND_SERVER not in {s.kind for s in spans}
    call.cancel()


async def test_others_see_nothing_of_it() -> None:
    async with running_gateway(telemetry=OtelTelemetry("test"), auth=TOKENS) as gateway:
        started = await speak(gateway, "Hello.", bearer(ALICE))
        spans = await settled(gateway, started.trace_id, bearer(ALICE))
        (root,) = (s for s in spans if s.kind == v1.TraceSpan.KIND_SERVER)
        assert root.attributes[names.CALLER] == "alice"
        for key in ({"trace_id": started.trace_id}, {"session_id": started.session_id}):
            code, reason, said = await refused(gateway, bearer(BOB), **key)
            assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "TRACE_NOT_FOUND")
            unknown = {name: "0" * len(value) for name, value in key.items()}
            _, _, said_of_unknown = await refused(gateway, bearer(BOB), **unknown)
            assert said.replace(*key.values(), "") == said_of_unknown.replace(*unknown.values(), "")


async def test_others_see_nothing_while_it_lives() -> None:
    async with running_gateway(telemetry=OtelTelemetry("test"), auth=TOKENS) as gateway:
        call = gateway.synthesis.SynthesizeStream(metadata=(bearer(ALICE),))
        await call.write(start())
        session_id = (await call.read()).session_started.session_id
        assert await asked(gateway, bearer(ALICE), session_id=session_id)
        code, reason, _ = await refused(gateway, bearer(BOB), session_id=session_id)
        assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "TRACE_NOT_FOUND")
        call.cancel()


async def test_in_a_shared_trace_each_sees_its_own_part() -> None:
    """Whoever knows a trace id can begin a call in it, and learns nothing by that."""
    async with running_gateway(telemetry=OtelTelemetry("test"), auth=TOKENS) as gateway:
        of_alice = await speak(gateway, "Hello.", bearer(ALICE), TRACEPARENT)
        of_bob = await speak(gateway, "Hello.", bearer(BOB), TRACEPARENT)
        assert of_alice.trace_id == of_bob.trace_id == TRACE
        for token, started in ((ALICE, of_alice), (BOB, of_bob)):
            spans = await settled(gateway, TRACE, bearer(token))
            sessions = {s.attributes[names.SESSION_ID] for s in spans if names.SESSION_ID in s.attributes}
            assert sessions == {started.session_id}
            assert len([s for s in spans if s.kind == v1.TraceSpan.KIND_SERVER]) == 1


async def test_many_spans_come_in_many_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "SPANS_PER_RESPONSE", 7)
    options = waves_local.Options(chunk_s=0.02)
    async with running_gateway(options, telemetry=OtelTelemetry("test")) as gateway:
        started = await speak(gateway, "Hello there.")
        spans = await settled(gateway, started.trace_id)
        call = gateway.sessions.GetTrace(v1.GetTraceRequest(trace_id=started.trace_id))
        sizes = [len(response.spans) async for response in call]
    assert sum(sizes) == len(spans) == len({s.span_id for s in spans}) > 14
    assert set(sizes[:-1]) == {7}


async def test_chunks_that_are_not_traced_are_not_there() -> None:
    async with running_gateway(telemetry=OtelTelemetry("test", knobs=Knobs(chunks="off"))) as gateway:
        started = await speak(gateway)
        spans = await settled(gateway, started.trace_id)
    assert names.CHUNK_OUT not in {s.name for s in spans}
    assert any(s.name.startswith(names.TEXT_TO_SPEECH) for s in spans)


@pytest.mark.parametrize("disabled", [True, False])
async def test_nothing_held(disabled: bool) -> None:
    async with running_gateway(telemetry=OtelTelemetry("test", disabled=disabled)) as gateway:
        started = await speak(gateway)
        trace_id = started.trace_id if disabled else "0" * 31 + "1"
        code, reason, said = await refused(gateway, trace_id=trace_id)
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "TRACE_NOT_FOUND")
    assert trace_id in said


@pytest.mark.parametrize(
    "key",
    [{}, {"trace_id": ""}, {"trace_id": "0af7"}, {"trace_id": "g" * 32}, {"session_id": ""}],
    ids=str,
)
async def test_what_is_no_id(gateway: RunningGateway, key: dict[str, str]) -> None:
    code, reason, _ = await refused(gateway, **key)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
