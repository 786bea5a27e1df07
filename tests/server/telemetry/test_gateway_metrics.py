"""The metrics of a gateway that speaks and listens, as those see them who run it."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from wavegate.speech import v1
from wavegate.speech.v1 import synthesis_service_pb2_grpc, transcription_service_pb2_grpc
from wavegate_server.telemetry import instruments
from wavegate_server.telemetry.exposition import family_of
from waves_local.deterministic import encode_text

from tests.support.collector import attributes
from tests.support.process import NO_UPSTREAM, PATIENCE_S, Running, finished, running, until

LOCAL = ("--upstream", "local", "--local-engine", "deterministic")
ON = ("--metrics-listen", "127.0.0.1:0")
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),)
SPEAK = "wavegate.speech.v1.SynthesisService/SynthesizeStream"
LISTEN = "wavegate.speech.v1.TranscriptionService/TranscribeStream"
TEXT = "Hello there."

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def of(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


class Scrape:
    """What `/metrics` said."""

    def __init__(self, text: str, content_type: str) -> None:
        self.is_openmetrics = content_type.startswith("application/openmetrics-text")
        self.families = list((parse_openmetrics if self.is_openmetrics else parse_text)(text))
        samples = [sample for family in self.families for sample in family.samples]
        self.series: Series = {(s.name, frozenset(s.labels.items())): s.value for s in samples}
        self.exemplars = {s.name: s.exemplar for s in samples if s.exemplar is not None}

    def __getitem__(self, key: tuple[str, frozenset[tuple[str, str]]]) -> float:
        return self.series[key]


async def scrape(gateway: Running, accept: str = OPENMETRICS) -> Scrape:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(gateway.http + "/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    return Scrape(answer.text, answer.headers["Content-Type"])


async def status(gateway: Running, path: str) -> int:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(gateway.http + path)).status_code


@asynccontextmanager
async def conversation(stub: Any, start: Any) -> AsyncIterator[Any]:
    """A session that has started, to be ended by `over`."""
    call = stub(metadata=TRACEPARENT)
    await call.write(start)
    first = await asyncio.wait_for(call.read(), PATIENCE_S)
    assert first.HasField("session_started"), first
    yield call


async def over(call: Any, *requests: Any) -> None:
    """Say the last, and hear all that comes of it."""
    for request in requests:
        await call.write(request)
    await call.done_writing()
    async with asyncio.timeout(PATIENCE_S):
        while await call.read() is not grpc.aio.EOF:
            pass
    assert await call.code() is grpc.StatusCode.OK


def speaking(channel: grpc.aio.Channel) -> Any:
    stub = synthesis_service_pb2_grpc.SynthesisServiceStub(channel).SynthesizeStream
    return conversation(stub, v1.SynthesizeStreamRequest(start=v1.StartSynthesis(settings={})))


def listening(channel: grpc.aio.Channel) -> Any:
    stub = transcription_service_pb2_grpc.TranscriptionServiceStub(channel).TranscribeStream
    return conversation(
        stub, v1.TranscribeStreamRequest(start=v1.StartTranscription(audio_format=v1.AudioFormat()))
    )


async def test_labels_of_sessions_are_on_metrics_where_the_operator_allows_the_key() -> None:
    labels = {"team": "red", "customer": "4711"}
    async with (
        running(*LOCAL, *ON, "--metric-labels", "team,stage") as gateway,
        grpc.aio.insecure_channel(gateway.target) as channel,
    ):
        stub = synthesis_service_pb2_grpc.SynthesisServiceStub(channel)
        text = v1.SynthesizeStreamRequest(text=v1.TextInput(text=TEXT, end_utterance=True))
        end = v1.SynthesizeStreamRequest(end_session=v1.EndSession())
        for given in (labels, {}):
            start = v1.SynthesizeStreamRequest(start=v1.StartSynthesis(settings={}, labels=given))
            async with conversation(stub.SynthesizeStream, start) as call:
                await over(call, text, end)
        seen = await scrape(gateway)
    own = {"speech_label_team": "red", "speech_label_stage": ""}
    without = {"speech_label_team": "", "speech_label_stage": ""}
    for where in (own, without):
        assert seen[of("wavegate_utterances_total", outcome="completed", **where)] == 1
        assert seen[of("wavegate_first_audio_seconds_count", **where)] == 1
        assert seen[of("wavegate_characters_total", **where)] == len(TEXT)
    assert not any("4711" in value for _, series in seen.series for _, value in series)


async def test_a_gateway_that_speaks_and_listens() -> None:
    limits = ("--upstream-active-requests", "3")
    async with running(*LOCAL, *ON, *limits) as gateway, grpc.aio.insecure_channel(gateway.target) as channel:
        async with speaking(channel) as call:
            during = await scrape(gateway)
            await over(
                call,
                v1.SynthesizeStreamRequest(text=v1.TextInput(text=TEXT, end_utterance=True)),
                v1.SynthesizeStreamRequest(end_session=v1.EndSession()),
            )
        async with listening(channel) as call:
            heard = encode_text("two words", 16000)
            audio = [heard[at : at + 3200] for at in range(0, len(heard), 3200)]
            await over(
                call,
                *(v1.TranscribeStreamRequest(audio=v1.AudioInput(content=chunk)) for chunk in audio),
                v1.TranscribeStreamRequest(finalize=v1.Finalize()),
                v1.TranscribeStreamRequest(end_session=v1.EndSession()),
            )
        after, older = await scrape(gateway), await scrape(gateway, "")
    assert after.is_openmetrics
    assert not older.is_openmetrics

    # Those who look while it speaks.
    assert during[of("wavegate_sessions_active", kind="tts")] == 1
    assert during[of("wavegate_sessions_active", kind="stt")] == 0
    assert during[of("wavegate_account_slots_limit", account="1")] == 3
    assert during[of("wavegate_account_sockets_limit", account="1")] == 15
    assert during[of("wavegate_account_slots_waiting", account="1")] == 0
    assert during[of("wavegate_account_sockets_used", account="1")] >= 0
    assert during[of("wavegate_account_slots_used", account="1")] == 0, "nothing was said yet"
    assert after[of("wavegate_sessions_active", kind="tts")] == 0

    # What the calls left, in both formats; the loop goes on meanwhile.
    calls = "rpc_server_call_duration_seconds_count"
    for method in (SPEAK, LISTEN):
        key = of(calls, rpc_method=method, rpc_response_status_code="OK")
        assert (after[key], older[key]) == (1, 1)
        assert key not in during.series, "it had not ended"
    assert after[of("wavegate_loop_lag_seconds_count")] > 0
    assert not [key for key in after.series if key[0] == "wavegate_errors_total"]

    # And the conversations.
    assert after[of("wavegate_first_audio_seconds_count")] == 1
    assert after[of("wavegate_upstream_first_audio_seconds_count")] == 1
    assert after[of("wavegate_characters_total")] == len(TEXT)
    assert after[of("wavegate_audio_size_bytes_total", kind="stt", direction="in")] == len(heard)
    assert after[of("wavegate_audio_duration_seconds_total", kind="stt")] == pytest.approx(len(heard) / 32000)
    assert after[of("wavegate_audio_size_bytes_total", kind="tts", direction="out")] > 0
    assert after[of("wavegate_chunk_residence_seconds_count", kind="stt", direction="in")] == len(audio)
    assert after[of("wavegate_chunk_residence_seconds_count", kind="tts", direction="out")] > 0
    assert after[of("wavegate_client_wait_seconds_count", kind="tts")] > 0
    assert after[of("wavegate_finalize_latency_seconds_count")] == 1
    assert after[of("wavegate_upstream_connect_seconds_count", kind="tts")] >= 1
    assert after[of("wavegate_upstream_connect_seconds_count", kind="stt")] == 1
    assert sum(value for key, value in after.series.items() if key[0] == "wavegate_utterances_total") == 1

    # A slow one leads to its trace.
    exemplar = after.exemplars["rpc_server_call_duration_seconds_bucket"]
    assert exemplar.labels["trace_id"] == TRACE
    assert older.exemplars == {}

    # Every metric of the table is there, whether it has happened or not.
    assert {family_of(each) for each in instruments.ALL} <= {family.name for family in after.families}


async def test_a_call_that_fails_counts_with_its_reason() -> None:
    async with running(*NO_UPSTREAM, *ON, env={"OTEL_TRACES_SAMPLER": "always_off"}) as gateway:
        async with grpc.aio.insecure_channel(gateway.target) as channel:
            call = synthesis_service_pb2_grpc.SynthesisServiceStub(channel).Synthesize(
                v1.SynthesizeRequest(text=TEXT, settings=v1.SynthesisSettings())
            )
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
        failed = of(
            "rpc_server_call_duration_seconds_count",
            rpc_method="wavegate.speech.v1.SynthesisService/Synthesize",
            rpc_response_status_code="UNAVAILABLE",
        )

        async def counted() -> bool:
            # The status of a call that fails is on its way before the call has ended.
            return failed in (await scrape(gateway)).series

        await until(counted)
        found = await scrape(gateway)
    assert found[failed] == 1
    errors = {
        dict(key[1])["reason"]: n for key, n in found.series.items() if key[0] == "wavegate_errors_total"
    }
    assert errors == {"UPSTREAM_UNAVAILABLE": 1}
    assert found.exemplars == {}, "nobody would find a span that is not sampled"


async def test_accounts_go_by_their_number_and_never_by_their_key() -> None:
    keys = ("sk_first_0123456789", "sk_second_0123456789")
    async with running(*NO_UPSTREAM, *ON, env={"SMALLEST_API_KEY": ",".join(keys)}) as gateway:
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(gateway.http + "/metrics")).text
        found = await scrape(gateway)
    assert not any(key in text for key in keys)
    accounts = {dict(key[1])["account"] for key in found.series if key[0] == "wavegate_account_slots_used"}
    assert accounts == {"1", "2"}


async def test_it_is_ready_until_it_is_told_to_stop() -> None:
    async with (
        running(*LOCAL, *ON, "--drain-timeout", "3600") as gateway,
        grpc.aio.insecure_channel(gateway.target) as channel,
        speaking(channel) as call,
    ):
        assert [await status(gateway, path) for path in ("/healthz", "/readyz")] == [200, 200]
        gateway.signal(signal.SIGTERM)

        async def draining() -> bool:
            return await status(gateway, "/readyz") == 503

        await until(draining)
        assert await status(gateway, "/healthz") == 200
        await over(call, v1.SynthesizeStreamRequest(end_session=v1.EndSession()))
        assert await gateway.ended() == 0


# -- the port -----------------------------------------------------------------------------------------------------


@contextmanager
def taken(port: int = 0) -> Iterator[int]:
    """A port that somebody has."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        holder.listen()
        yield holder.getsockname()[1]


async def test_a_port_that_was_asked_for_and_is_taken_ends_it() -> None:
    with taken() as port:
        code, _, err = await finished(*NO_UPSTREAM, "--metrics-listen", f"127.0.0.1:{port}")
    assert (code, err) == (
        2,
        f"wavegate-server: cannot listen on 127.0.0.1:{port}: address already in use\n",
    )


async def test_a_default_port_that_is_taken_does_not() -> None:
    with ExitStack() as stack:
        with suppress(OSError):  # somebody else has it, which does as well
            stack.enter_context(taken(9464))
        # An empty variable is none, so that the default holds.
        async with running(*NO_UPSTREAM, env={"WAVEGATE_METRICS_LISTEN": ""}) as gateway:
            assert not any("Metrics:" in line for line in gateway.banner)
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended() == 0
    (told,) = (line for line in gateway.log if "no metrics are served" in line)
    assert "cannot listen on 127.0.0.1:9464: address already in use; --metrics-listen" in told


async def test_off_serves_none() -> None:
    async with running(*NO_UPSTREAM, "--metrics-listen", "off") as gateway:
        assert not any("Metrics:" in line for line in gateway.banner)
    assert not any("metrics" in line for line in gateway.log)


# -- OTLP ---------------------------------------------------------------------------------------------------------


@contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    """An endpoint, and the requests that came."""
    requests: list[Any] = []

    class Servicer(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            requests.append(request)
            return metrics_service_pb2.ExportMetricsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Servicer(), server)
    endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield endpoint, requests
    finally:
        server.stop(None).wait()


async def test_a_collector_is_sent_the_metrics_every_so_often_and_at_the_end() -> None:
    with collector() as (endpoint, requests):
        env = {
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "100",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        }
        async with running(*LOCAL, env=env) as gateway, grpc.aio.insecure_channel(gateway.target) as channel:

            async def two_came() -> bool:
                return len(requests) >= 2

            await until(two_came)
            async with speaking(channel) as call:
                await over(call, v1.SynthesizeStreamRequest(end_session=v1.EndSession()))
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended() == 0
    (of_resource,) = requests[-1].resource_metrics
    resource = attributes(of_resource.resource.attributes)
    assert resource["service.name"] == "wavegate-gateway"
    assert resource["deployment.environment.name"] == "test"
    (of_scope,) = of_resource.scope_metrics
    found = {metric.name: metric for metric in of_scope.metrics}
    (point,) = found["rpc.server.call.duration"].histogram.data_points
    assert attributes(point.attributes) == {"rpc.method": SPEAK, "rpc.response.status_code": "OK"}
    assert point.count == 1
    assert {
        attributes(p.attributes)["kind"] for p in found["wavegate.sessions.active"].gauge.data_points
    } == {
        "tts",
        "stt",
    }
