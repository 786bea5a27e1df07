"""Sessions as a real Jaeger shows them: the gateway is a process of its own, and Jaeger's query API is asked."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter

import pytest
import wavegate
from wavegate.cli import jaeger as query
from wavegate.cli.trace import is_complete
from wavegate.cli.waterfall import waterfall

from tests.support import tools
from tests.support.jaeger import Jaeger, JaegerSpan, JaegerTrace
from tests.support.process import running

METHOD = "wavegate.speech.v1.SynthesisService/SynthesizeStream"

# The first test may wait until Jaeger is built.
pytestmark = pytest.mark.timeout(tools.BUILD_PATIENCE_S)


def upstream_spans(trace: JaegerTrace) -> list[JaegerSpan]:
    """The connections to the upstream."""
    return [
        s for s in trace.spans if s.kind == "client" and s.tags.get("network.protocol.name") == "websocket"
    ]


def has_call_and_upstream(trace: JaegerTrace) -> bool:
    return bool(trace.named(METHOD) and upstream_spans(trace))


async def test_an_utterance_is_one_tree(jaeger: Jaeger) -> None:
    async with running(
        *("--upstream", "local", "--local-engine", "deterministic"),
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_grpc, "OTEL_SERVICE_NAME": "one-tree"},
    ) as gateway:
        async with (
            wavegate.Client(gateway.target) as client,
            client.synthesize(voice_id="magnus") as session,
        ):
            assert await (await session.say("Hello, Jaeger.")).read()
            trace_id = session.started.trace_id
        trace = jaeger.wait_for_trace(trace_id, has_call_and_upstream)
        assert "one-tree" in jaeger.services()
        assert trace_id in {t.trace_id for t in jaeger.traces("one-tree")}

    call = trace.one(METHOD)
    assert trace.roots() == [call], trace.outline()
    assert (call.kind, call.process["service"]) == ("server", "one-tree")
    assert call.tags["rpc.system.name"] == "grpc"
    assert call.tags["rpc.response.status_code"] == "OK"
    assert (call.tags["server.address"], call.tags["server.port"]) == ("127.0.0.1", gateway.port)

    (upstream,) = upstream_spans(trace)
    assert upstream in trace.children(call), trace.outline()
    assert (upstream.tags["server.address"], upstream.tags["server.port"]) == (
        "127.0.0.1",
        gateway.upstream_port,
    )
    assert call.start_us <= upstream.start_us
    for span in trace.spans:
        # Jaeger's words for a status that is an error; and for clocks that disagree.
        assert "error" not in span.tags, trace.outline()
        assert span.tags.get("otel.status_code", "OK") == "OK"
        assert span.warnings == ()


async def test_an_upstream_that_is_away_is_an_error(jaeger: Jaeger) -> None:
    """Sent over HTTP. The session never started, so the caller has no trace id: the service is searched."""
    (nobody,) = tools.free_ports(1)
    async with running(
        *("--upstream", f"ws://127.0.0.1:{nobody}"),
        env={
            "OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_http,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_SERVICE_NAME": "upstream-away",
        },
    ) as gateway:
        async with wavegate.Client(gateway.target) as client:
            with pytest.raises(wavegate.UpstreamError):
                async with client.synthesize(voice_id="magnus") as session:
                    await (await session.say("Nobody hears this.")).read()
        trace = jaeger.wait_for_trace_of("upstream-away", has_call_and_upstream)

    call = trace.one(METHOD)
    assert trace.roots() == [call], trace.outline()
    assert call.tags["rpc.response.status_code"] == "UNAVAILABLE"
    for span in (call, *upstream_spans(trace)):
        assert span.tags["error"] is True, trace.outline()
        assert span.tags["otel.status_code"] == "ERROR"
        assert span.tags["error.type"] == "UPSTREAM_UNAVAILABLE"


async def test_the_command_line_draws_what_jaeger_has(jaeger: Jaeger) -> None:
    """By the id of the trace and by that of the session; Jaeger has all that the gateway has."""
    async with running(
        *("--upstream", "local", "--local-engine", "deterministic"),
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_grpc, "OTEL_SERVICE_NAME": "drawn"},
    ) as gateway:
        async with wavegate.Client(gateway.target) as client:
            async with client.synthesize(voice_id="magnus") as session:
                await session.update_settings(speed=1.5, voice_id="avery")
                assert await (await session.say("Hello, terminal.")).read()
            trace_id = session.started.trace_id
            held = await client.get_trace(trace_id=trace_id)
            # The call's own span ends a moment after its caller knows that it has.
            async with asyncio.timeout(30):
                while not is_complete(held):
                    await asyncio.sleep(0.05)
                    held = await client.get_trace(trace_id=trace_id)
        ids = {span.span_id for span in held}
        jaeger.wait_for_trace(trace_id, lambda trace: {s.span_id for s in trace.spans} >= ids)

    asked = query.Jaeger(jaeger.url)
    for spans in (asked.trace(trace_id), asked.session(session.session_id)):
        assert {s.span_id for s in spans} == ids
        # Jaeger counts microseconds: all lines are the same but for their durations.
        drawn, ours = (
            [line.plain.partition("  ")[0] for line in waterfall(found, width=100)] for found in (spans, held)
        )
        assert [line for line in drawn if line.startswith(("├", "└", "Synth"))] == [
            line for line in ours if line.startswith(("├", "└", "Synth"))
        ]
        assert {s.span_id: s.kind for s in spans} == {s.span_id: s.kind for s in held}
        (update,) = (s for s in spans if s.name == "settings.update")
        assert any(
            "speed" in line.plain and "applied" in line.plain for line in waterfall([update], width=100)
        )


async def test_the_demo_is_there_whole(jaeger: Jaeger) -> None:
    """What `wavegate demo` does, as the span model says."""
    async with running(
        *("--upstream", "local", "--local-engine", "deterministic"),
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_grpc, "OTEL_SERVICE_NAME": "demonstrated"},
    ) as gateway:
        demo = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "wavegate.cli", "demo", "--fast", "--target", gateway.target),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await demo.communicate()
        assert demo.returncode == 0, said.decode()
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0  # what it had was sent
    traces = [t for t in await asyncio.to_thread(jaeger.traces, "demonstrated") if _is_stream(t)]
    assert len(traces) >= 2, [t.outline() for t in traces]

    seen: Counter[str] = Counter()
    for trace in traces:
        (call,) = trace.roots()
        assert (call.kind, call.tags["rpc.response.status_code"]) == ("server", "OK"), trace.outline()
        names = Counter(span.name.partition(" ")[0] for span in trace.spans)
        seen += names
        below = {span.name.partition(" ")[0] for span in trace.children(call)}
        assert below >= {"session.open", "upstream.connection", "session.segment"}, trace.outline()
        for connection in trace.named("upstream.connection"):
            children = [span.name for span in trace.children(connection)]
            assert children == ([] if connection.tags["speech.upstream.reused"] else ["upstream.connect"])
        turns = [s for s in trace.spans if s.name.startswith(("text_to_speech", "speech_to_text"))]
        chunks = [s for s in trace.spans if s.name.startswith("chunk.")]
        owned = [c for turn in turns for c in trace.children(turn) if c.name.startswith("chunk.")]
        # The empty last transcript of a session is of no turn.
        assert len(chunks) - len(owned) <= 1, trace.outline()
        assert {c.kind for c in chunks} == {"producer", "consumer"}
        for span in trace.spans:
            assert span.warnings == (), (span, trace.outline())
            assert "error" not in span.tags, (span, trace.outline())
        session = call.tags["speech.session.id"]
        assert {span.tags["speech.session.id"] for span in trace.spans} == {session}
    assert seen.keys() >= {"text_to_speech", "speech_to_text", "settings.update", "interrupt"}, seen
    assert seen["chunk.in"] > 10
    assert seen["chunk.out"] > 50


def _is_stream(trace: JaegerTrace) -> bool:
    return any(span.name.endswith(("/SynthesizeStream", "/TranscribeStream")) for span in trace.spans)
