"""Spans of the gateway as a process of its own, as a collector receives them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc.aio
import httpx
import pytest
import wavegate
import waves_local
from wavegate.speech import v1
from wavegate.speech.v1 import synthesis_service_pb2_grpc, transcription_service_pb2_grpc

from tests.support.collector import Collector, Exported, grpc_collector
from tests.support.gateway import END, audio_of, of, responses, start, text
from tests.support.process import Running, running

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = (("traceparent", f"00-{TRACE}-{PARENT}-01"), ("tracestate", "vendor=one,other=two"))
SPEAK = "wavegate.speech.v1.SynthesisService/SynthesizeStream"
LISTEN = "wavegate.speech.v1.TranscriptionService/TranscribeStream"
KEY = "sk_0123456789abcdef0123456789abcdef"
WORDS = "Confidential words about somebody"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with grpc_collector() as found:
        yield found


@dataclass
class Served:
    """A gateway that sends its spans to a collector, and a channel to it."""

    gateway: Running
    collector: Collector
    channel: grpc.aio.Channel

    @property
    def speaks(self) -> Any:
        return synthesis_service_pb2_grpc.SynthesisServiceStub(self.channel)

    @property
    def listens(self) -> Any:
        return transcription_service_pb2_grpc.TranscriptionServiceStub(self.channel)

    async def came(self, wanted: Callable[[Exported], bool]) -> Exported:
        """The first span that fits, waited for beside the loop."""
        return await asyncio.to_thread(self.collector.wait_for, wanted)

    async def call_ended(self, method: str) -> Exported:
        """The SERVER span of a call, when all of its spans have come."""
        found = await self.came(lambda s: s.name == method)
        # The last of a call is its segment, if it had chunks; no other one is later than the next flush.
        await asyncio.sleep(1)
        return found

    async def fault(self, fault: str) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            url = f"http://127.0.0.1:{self.gateway.upstream_port}/_waves_local/faults"
            answer = await http.post(url, json=[fault])
            assert answer.status_code == 200, answer.text


@contextlib.asynccontextmanager
async def serving(collector: Collector, *arguments: str, **variables: str) -> AsyncIterator[Served]:
    async with (
        running(
            *("--upstream", "local", "--local-engine", "deterministic", *arguments),
            env={
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
                "OTEL_METRICS_EXPORTER": "none",
                "SMALLEST_API_KEY": KEY,
                **variables,
            },
        ) as gateway,
        grpc.aio.insecure_channel(gateway.target) as channel,
    ):
        yield Served(gateway, collector, channel)


def named(spans: list[Exported], name: str) -> list[Exported]:
    return [s for s in spans if s.name == name or s.name.startswith(f"{name} ")]


def orphans(spans: list[Exported], *known: str) -> list[str]:
    ids = {s.span_id for s in spans}
    return [
        s.name
        for s in spans
        if s.parent_span_id and s.parent_span_id not in ids and s.parent_span_id not in known
    ]


async def heard(call: Any, *requests: Any) -> list[Any]:
    for request in requests:
        await call.write(request)
    await call.done_writing()
    return [r async for r in responses(call)]


def listening(**settings: Any) -> v1.TranscribeStreamRequest:
    return v1.TranscribeStreamRequest(
        start=v1.StartTranscription(
            audio_format=v1.AudioFormat(encoding=v1.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=16000),
            settings=v1.TranscriptionSettings(language_code="en", **settings),
        )
    )


def sound(content: bytes) -> v1.TranscribeStreamRequest:
    return v1.TranscribeStreamRequest(audio=v1.AudioInput(content=content))


async def test_one_trace_from_the_caller_to_the_last_chunk(collector: Collector) -> None:
    async with serving(collector) as served:
        call = served.speaks.SynthesizeStream(metadata=CALLER)
        got = await heard(call, start(), text(WORDS, "u1"), text(" else.", "u1", end=True), END)
        (started,) = of("session_started", got)
        assert started.trace_id == TRACE
        server = await served.call_ended(SPEAK)
    spans = collector.spans
    assert {s.trace_id for s in spans} == {TRACE}
    assert {s.trace_state for s in spans} == {"vendor=one,other=two"}
    assert (server.parent_span_id, server.attributes["rpc.response.status_code"]) == (PARENT, "OK")
    assert orphans(spans, PARENT) == []
    assert {s.attributes["speech.session.id"] for s in spans} == {started.session_id}
    (turn,) = named(spans, "text_to_speech")
    outs, ins = named(spans, "chunk.out"), named(spans, "chunk.in")
    chunks = of("audio", got)
    assert [s.attributes["speech.bytes"] for s in ins] == [len(WORDS), 6]
    assert [s.attributes["speech.bytes"] for s in outs] == [len(c.audio) for c in chunks]
    assert {s.parent_span_id for s in (*ins, *outs)} == {turn.span_id}
    # What a caller sees as `sequence` finds the chunk's span.
    numbers = [r.sequence for r in got if r.WhichOneof("event") == "audio"]
    assert [s.attributes["speech.seq"] for s in outs] == numbers
    for span in spans:
        assert server.start_ns <= span.start_ns <= span.end_ns
        assert not span.error
    (segment,) = named(spans, "session.segment")
    assert segment.attributes["speech.segment.chunks_out"] == len(outs)
    assert segment.attributes["speech.segment.bytes_out"] == len(audio_of(got))
    assert segment.attributes["speech.trace.dropped"] == 0


async def test_the_figures_of_an_utterance_are_those_of_its_span(collector: Collector) -> None:
    """To the nanosecond, and finer than the milliseconds of the event loop's own clock."""
    async with serving(collector) as served:
        call = served.speaks.SynthesizeStream()
        said = [text(f"Utterance number {n}.", f"u{n}", end=True) for n in range(12)]
        got = await heard(call, start(), *said, END)
        await served.call_ended(SPEAK)
    spans = {s.attributes["speech.utterance.id"]: s for s in named(collector.spans, "text_to_speech")}
    figures = []
    for completed in of("utterance_completed", got):
        span, metrics = spans[completed.utterance_id], completed.metrics
        first_ns = metrics.time_to_first_audio.ToNanoseconds()
        upstream_ns = metrics.upstream_time_to_first_audio.ToNanoseconds()
        total_ns = metrics.total_duration.ToNanoseconds()
        assert 0 < upstream_ns <= first_ns <= total_ns
        assert span.attributes["speech.first_audio_ms"] == first_ns / 1e6
        assert span.attributes["speech.upstream.first_audio_ms"] == upstream_ns / 1e6
        assert span.attributes["speech.upstream.max_gap_ms"] == metrics.max_chunk_gap.ToNanoseconds() / 1e6
        assert span.end_ns - span.start_ns == total_ns
        figures += [upstream_ns, first_ns, total_ns]
    assert sum(figure % 1_000_000 != 0 for figure in figures) > len(figures) / 2
    (connected,) = of("connection", got)
    (opening,) = named(collector.spans, "upstream.connect")
    assert 0 < connected.handshake_duration.ToNanoseconds() <= opening.end_ns - opening.start_ns


async def test_a_live_session_is_found_within_a_second(collector: Collector) -> None:
    async with serving(collector) as served:
        call = served.listens.TranscribeStream()
        await call.write(listening())
        while (response := await call.read()).WhichOneof("event") != "session_started":
            pass
        began = time.monotonic()
        found = await served.came(lambda s: s.name == "session.open")
        took_s = time.monotonic() - began
        assert found.attributes["speech.session.id"] == response.session_started.session_id
        assert found.trace_id == response.session_started.trace_id
        assert not [s for s in collector.spans if s.kind == "SERVER"], "the call goes on"
        # Flush and batch take 0.65 s at most; the rest is for a machine that is busy.
        assert took_s < 5
        call.cancel()


async def test_a_callers_cancel_is_no_error(collector: Collector) -> None:
    async with serving(collector) as served:
        call = served.speaks.SynthesizeStream()
        await call.write(start())
        await call.write(text(WORDS * 20, "u1", end=True))
        while (await call.read()).WhichOneof("event") != "audio":
            pass
        call.cancel()
        server = await served.call_ended(SPEAK)
    assert server.attributes["rpc.response.status_code"] == "CANCELLED"
    assert "error.type" not in server.attributes
    assert [s.name for s in collector.spans if s.error] == []
    assert orphans(collector.spans) == []
    (turn,) = named(collector.spans, "text_to_speech")
    assert turn.attributes["speech.utterance.outcome"] == "abandoned"


async def test_a_barge_in_is_no_error(collector: Collector) -> None:
    async with serving(collector) as served:
        call = served.speaks.SynthesizeStream()
        await call.write(start())
        await call.write(text(WORDS * 40, "u1", end=True))
        while (await call.read()).WhichOneof("event") != "audio":
            pass
        cancel = v1.SynthesizeStreamRequest(cancel=v1.CancelUtterance())
        await heard(call, cancel, text("And on.", "u2", end=True), END)
        server = await served.call_ended(SPEAK)
    assert server.attributes["rpc.response.status_code"] == "OK"
    assert [s.name for s in collector.spans if s.error] == []
    assert orphans(collector.spans) == []
    (interrupt,) = named(collector.spans, "interrupt")
    outcomes = {
        s.attributes["speech.utterance.id"]: (s.attributes["speech.utterance.outcome"], s.span_id)
        for s in named(collector.spans, "text_to_speech")
    }
    assert outcomes["u1"] == ("cancelled", interrupt.parent_span_id)
    assert outcomes["u2"][0] == "completed"


async def test_an_upstream_that_fails_is_an_error(collector: Collector) -> None:
    async with serving(collector) as served:
        await served.fault("tts:refuse=503")
        call = served.speaks.SynthesizeStream()
        with contextlib.suppress(grpc.aio.AioRpcError):
            await heard(call, start(), text(WORDS, "u1", end=True), END)
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        server = await served.call_ended(SPEAK)
    assert server.error
    assert server.attributes["rpc.response.status_code"] == "UNAVAILABLE"
    assert server.attributes["error.type"] == "UPSTREAM_UNAVAILABLE"
    connections = named(collector.spans, "upstream.connection")
    assert {(s.error, s.attributes["error.type"]) for s in connections} == {(True, "UPSTREAM_UNAVAILABLE")}
    assert orphans(collector.spans) == []


async def test_settings_from_another_call_are_linked(collector: Collector) -> None:
    async with (
        serving(collector) as served,
        wavegate.Client(served.gateway.target) as client,
        client.synthesize(voice_id="magnus") as session,
    ):
        await (await session.say("Before.")).read()
        async with client.settings_stream() as control:
            await control.update_synthesis(session.started.session_id, speed=1.2)
        update = await served.came(lambda s: s.name == "settings.update")
        assert update.attributes["speech.settings.state"] == "APPLIED"
        assert update.attributes["speech.settings.fields"]
        other = await served.came(lambda s: s.name.endswith("SessionService/UpdateSettings"))
        assert update.links == ((other.trace_id, other.span_id),)


async def test_nothing_said_goes_out(collector: Collector) -> None:
    """Text, audio and keys are searched for in the bytes."""
    async with serving(collector) as served:
        await served.fault("tts:drop,nth=1,after-frames=5")
        call = served.speaks.SynthesizeStream()
        got = await heard(call, start(word_timings=True), text(WORDS, "u1", end=True), END)
        audio = audio_of(got)
        call = served.listens.TranscribeStream()
        transcripts = of(
            "transcript",
            await heard(
                call,
                listening(),
                sound(audio[:32_000]),
                v1.TranscribeStreamRequest(end_session=v1.EndSession()),
            ),
        )
        await served.call_ended(LISTEN)
    raw = b"".join(collector.raw)
    assert b"text_to_speech" in raw
    assert b"speech_to_text" in raw
    assert KEY.encode() not in raw
    said = {w for t in transcripts for w in t.text.split() if len(w) > 3}
    for word in {*WORDS.split(), *said}:
        assert word.encode() not in raw, word
    for at in range(0, len(audio) - 64, 4_800):
        piece = audio[at : at + 64]
        if len(set(piece)) > 8:
            assert piece not in raw


async def test_every_chunk_is_exactly_one_span(collector: Collector) -> None:
    """As many as two cores give: sessions both ways, thousands of chunks a second."""
    each, pieces = 4, 1_000
    async with serving(collector, WAVEGATE_METRICS_LISTEN="127.0.0.1:0") as served:

        async def speak(number: int) -> tuple[str, list[int]]:
            call = served.speaks.SynthesizeStream()
            got = await heard(call, start(max_chunk_bytes=480), text(WORDS * 12, f"u{number}", end=True), END)
            (started,) = of("session_started", got)
            return started.session_id, [r.sequence for r in got if r.WhichOneof("event") == "audio"]

        async def listen() -> tuple[str, int]:
            call = served.listens.TranscribeStream()
            reading = asyncio.create_task(_all(call))
            await call.write(listening())
            for _ in range(pieces):
                await call.write(sound(bytes(320)))
            await call.write(v1.TranscribeStreamRequest(end_session=v1.EndSession()))
            await call.done_writing()
            (started,) = of("session_started", await reading)
            return started.session_id, pieces

        spoken, listened = await asyncio.gather(
            asyncio.gather(*(speak(n) for n in range(each))), asyncio.gather(*(listen() for _ in range(each)))
        )
        # The last spans follow the last call, and then nothing does.
        numbers: dict[str, int] = {}
        async with httpx.AsyncClient(trust_env=False) as http, asyncio.timeout(60):
            while True:
                page = (await http.get(f"{served.gateway.http}/metrics")).text
                numbers = {
                    str(outcome): int(float(value))
                    for outcome, value in re.findall(
                        r'wavegate_trace_spans_total\{outcome="(\w+)"\} (\S+)', page
                    )
                }
                servers = [s for s in collector.spans if s.kind == "SERVER"]
                settled = numbers["sent"] + numbers["dropped"] == numbers["produced"]
                if len(servers) == 2 * each and settled:
                    break
                await asyncio.sleep(0.3)
    spans = collector.spans
    assert numbers == {"produced": len(spans), "sent": len(spans), "dropped": 0}
    assert len({s.span_id for s in spans}) == len(spans)
    outs = Counter(
        (s.attributes["speech.session.id"], s.attributes["speech.seq"]) for s in named(spans, "chunk.out")
    )
    total = 0
    for session_id, sequences in spoken:
        assert len(sequences) > 500
        total += len(sequences)
        assert all(outs[session_id, sequence] == 1 for sequence in sequences)
    assert sum(n for (session, _), n in outs.items() if session in dict(spoken)) == total
    ins = Counter(s.attributes["speech.session.id"] for s in named(spans, "chunk.in"))
    for session_id, count in listened:
        assert ins[session_id] == count
    per_trace = Counter(s.trace_id for s in spans)
    assert max(per_trace.values()) <= 2_500
    assert orphans(spans) == []


async def _all(call: Any) -> list[Any]:
    return [r async for r in responses(call)]


@pytest.mark.parametrize("chunks", ["off", "first_last"])
async def test_the_knobs_reach_the_sessions(collector: Collector, chunks: str) -> None:
    async with serving(
        collector, "--trace-chunks", chunks, "--trace-context", "link", WAVEGATE_TRACE_RATIO="1"
    ) as served:
        call = served.speaks.SynthesizeStream(metadata=CALLER)
        await heard(call, start(), text(WORDS, "u1", end=True), END)
        server = await served.call_ended(SPEAK)
    assert server.trace_id != TRACE
    assert server.links == ((TRACE, PARENT),)
    assert len(named(collector.spans, "chunk.out")) == {"off": 0, "first_last": 2}[chunks]


async def test_of_what_is_not_sampled_only_failures_are_sent(collector: Collector) -> None:
    async with serving(collector, "--trace-ratio", "0") as served:
        await heard(served.speaks.SynthesizeStream(), start(), text(WORDS, "u1", end=True), END)
        await served.fault("tts:drop,nth=2,after-frames=5")
        second = served.speaks.SynthesizeStream()
        got = await heard(second, start(), text(WORDS, "u2", end=True), END)
        (started,) = of("session_started", got)
        await served.call_ended(SPEAK)
    assert {s.attributes["speech.session.id"] for s in collector.spans} == {started.session_id}
    assert named(collector.spans, "upstream.reconnect")
    assert len(named(collector.spans, "chunk.out")) == len(of("audio", got))
    assert waves_local.spoken(audio_of(got)) == WORDS
    assert orphans(collector.spans) == []
