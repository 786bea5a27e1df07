"""`wavegate trace` and `say --trace`, against a fake gateway and a scripted Jaeger."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import wavegate
from click.testing import CliRunner, Result
from wavegate import sync
from wavegate.cli import trace as module
from wavegate.cli.app import app
from wavegate.cli.jaeger import Jaeger, JaegerError
from wavegate.speech.v1 import session_service_pb2 as pb

from tests.clients.python.fake_gateway import FakeGateway, text_of

TRACE, SESSION = "4bf92f3577b34da6a3ce929d0e0e4736", "s-one"
METHOD = "wavegate.speech.v1.SynthesisService/SynthesizeStream"
START_US = 1_790_000_000_000_000


class FakeJaeger:
    """Answers as Jaeger's query API does. `traces` are what it knows."""

    def __init__(self) -> None:
        self.url = ""
        self.traces: dict[str, list[dict[str, Any]]] = {}
        self.raw: bytes | None = None
        """Said instead of everything."""
        self.asked: list[str] = []

    def answer(self, target: str) -> tuple[int, Any]:
        self.asked.append(target)
        url = urlsplit(target)
        if url.path == "/api/services":
            return 200, {"data": ["an-app", "wavegate-gateway"]}
        if url.path == "/api/traces":
            query = parse_qs(url.query)
            tags = json.loads(query["tags"][0]).items()
            found = [
                {"traceID": trace_id, "spans": spans}
                for trace_id, spans in self.traces.items()
                if any(tags <= {t["key"]: t["value"] for t in s["tags"]}.items() for s in spans)
                and query["service"] == ["wavegate-gateway"]
            ]
            return 200, {"data": found}
        trace_id = url.path.removeprefix("/api/traces/")
        if trace_id not in self.traces:
            return 404, {"data": None, "errors": [{"code": 404, "msg": "trace not found"}]}
        return 200, {"data": [{"traceID": trace_id, "spans": self.traces[trace_id]}]}


@pytest.fixture
def jaeger() -> Iterator[FakeJaeger]:
    fake = FakeJaeger()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = fake.answer(self.path)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(fake.raw if fake.raw is not None else json.dumps(body).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No gateway, no Jaeger; files go to a directory of the test's own."""
    monkeypatch.setenv("WAVEGATE_TARGET", "127.0.0.1:1")
    monkeypatch.delenv("WAVEGATE_JAEGER", raising=False)
    monkeypatch.setattr(module, "DEFAULT_URL", "http://127.0.0.1:1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def gateway(threaded_gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> FakeGateway:
    monkeypatch.setenv("WAVEGATE_TARGET", threaded_gateway.target)
    return threaded_gateway


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def wire_span(name: str, span_id: str, parent_id: str = "", session: str = SESSION, **fields: Any) -> Any:
    span = pb.TraceSpan(
        trace_id=fields.pop("trace_id", TRACE),
        span_id=span_id,
        parent_span_id=parent_id,
        name=name,
        kind=fields.pop("kind", pb.TraceSpan.KIND_INTERNAL),
        **fields,
    )
    span.start_time.FromMicroseconds(START_US)
    span.end_time.FromMicroseconds(START_US + 12_000)
    if session:
        span.attributes["speech.session.id"] = session
    return span


def wire_call(session: str = SESSION, **fields: Any) -> Any:
    return wire_span(METHOD, "a" * 16, session=session, kind=pb.TraceSpan.KIND_SERVER, **fields)


def jaeger_span(name: str, span_id: str, parent_id: str = "", **tags: Any) -> dict[str, Any]:
    references = [{"refType": "CHILD_OF", "traceID": TRACE, "spanID": parent_id}] if parent_id else []
    return {
        "traceID": TRACE,
        "spanID": span_id,
        "operationName": name,
        "references": references,
        "startTime": START_US,
        "duration": 12_000,
        "tags": [{"key": k.replace("__", "."), "value": v} for k, v in tags.items()],
    }


JAEGERS = [
    jaeger_span(METHOD, "a" * 16, span__kind="server", speech__session__id=SESSION),
    jaeger_span("session.open", "b" * 16, "a" * 16, speech__session__id=SESSION),
    jaeger_span("settings.update", "c" * 16, "a" * 16, **{"speech.settings.fields": '["speed","model"]'}),
]


class TestFromTheGateway:
    @pytest.mark.parametrize("key", [TRACE, SESSION])
    def test_a_timeline(self, gateway: FakeGateway, key: str) -> None:
        gateway.spans = [wire_span("session.open", "b" * 16, "a" * 16), wire_call()]
        result = run("trace", key)
        assert result.exit_code == 0, result.output
        assert "SynthesizeStream" in result.stdout
        assert "└ session.open" in result.stdout
        assert "Where the time went" in result.stdout
        assert "\x1b" not in result.stdout
        assert result.stderr == ""
        assert max(map(len, result.stdout.splitlines())) <= module.PIPE_WIDTH

    def test_as_json(self, gateway: FakeGateway) -> None:
        gateway.spans = [wire_call(failed=True, error_message="no"), wire_span("x", "b" * 16, "a" * 16)]
        result = run("trace", TRACE, "--json")
        spans = [json.loads(line) for line in result.stdout.splitlines()]
        assert [s["event"] for s in spans] == ["trace_span", "trace_span", "time_spent"]
        assert spans[0]["name"] == METHOD
        assert (spans[0]["failed"], spans[0]["kind"]) == (True, "SERVER")
        assert spans[0]["attributes"] == {"speech.session.id": SESSION}
        assert spans[0]["end_ns"] - spans[0]["start_ns"] == 12_000_000

    def test_of_a_session_only_that(self, gateway: FakeGateway) -> None:
        gateway.spans = [wire_call(), wire_span("other", "c" * 16, session="s-two")]
        assert "other" not in run("trace", SESSION).stdout
        assert "other" in run("trace", TRACE).stdout

    @pytest.mark.parametrize("key", ["0" * 32, "s-unknown"])
    def test_unknown(self, gateway: FakeGateway, key: str) -> None:
        result = run("trace", key)
        assert (result.exit_code, result.stdout) == (4, "")
        assert f"no span of {key} is held" in result.stderr

    def test_no_gateway(self) -> None:
        result = run("trace", TRACE)
        assert (result.exit_code, result.stdout) == (3, "")
        assert "127.0.0.1:1" in result.stderr

    def test_an_empty_id(self) -> None:
        assert run("trace", " ").exit_code == 2


class TestFromJaeger:
    @pytest.mark.parametrize("key", [TRACE, TRACE.upper(), SESSION])
    @pytest.mark.parametrize("how", ["option", "environment", "found"])
    def test_a_timeline(
        self, jaeger: FakeJaeger, monkeypatch: pytest.MonkeyPatch, key: str, how: str
    ) -> None:
        jaeger.traces = {TRACE: JAEGERS}
        arguments = ["--jaeger", jaeger.url + "/"] if how == "option" else []
        if how == "environment":
            monkeypatch.setenv("WAVEGATE_JAEGER", jaeger.url)
        elif how == "found":
            monkeypatch.setattr(module, "DEFAULT_URL", jaeger.url)
        result = run("trace", key, *arguments)
        assert result.exit_code == 0, result.output
        assert "SynthesizeStream" in result.stdout
        assert "├ session.open" in result.stdout
        assert "speed, model" in result.stdout

    def test_an_error_there_is_one_here(self, jaeger: FakeJaeger) -> None:
        tags = {"otel.status_description": "it broke", "error.type": "UPSTREAM_STALLED"}
        jaeger.traces = {TRACE: [jaeger_span(METHOD, "a" * 16, error=True, **tags)]}
        result = run("trace", TRACE, "--jaeger", jaeger.url)
        assert "error: UPSTREAM_STALLED it broke" in result.stdout

    def test_one_that_happens_to_be_there_may_know_nothing(
        self, jaeger: FakeJaeger, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "DEFAULT_URL", jaeger.url)
        gateway.spans = [wire_call()]
        result = run("trace", TRACE)
        assert "SynthesizeStream" in result.stdout
        assert jaeger.asked == ["/api/services", f"/api/traces/{TRACE}"]

        result = run("trace", "s-unknown")
        assert result.exit_code == 4
        assert "no span of s-unknown is held" in result.stderr
        assert f"Jaeger at {jaeger.url} knows no trace of s-unknown" in result.stderr

    def test_one_that_was_asked_for_is_the_only_one(self, jaeger: FakeJaeger, gateway: FakeGateway) -> None:
        gateway.spans = [wire_call()]
        result = run("trace", TRACE, "--jaeger", jaeger.url)
        assert (result.exit_code, result.stdout) == (4, "")
        assert f"Jaeger at {jaeger.url} knows no trace of {TRACE}" in result.stderr

    @pytest.mark.parametrize("url", ["localhost:16686", "file:///etc/passwd", "http://"])
    def test_what_is_no_url(self, url: str) -> None:
        result = run("trace", TRACE, "--jaeger", url)
        assert result.exit_code == 3
        assert "is no URL of a Jaeger" in result.stderr

    def test_none_there(self) -> None:
        result = run("trace", TRACE, "--jaeger", "http://127.0.0.1:1")
        assert result.exit_code == 3
        assert "there is no Jaeger at http://127.0.0.1:1" in result.stderr

    @pytest.mark.parametrize("raw", [b"<html>", b"[]", b'{"data": [{"spans": [{}]}]}', b"\xff"])
    def test_something_else_there(
        self, jaeger: FakeJaeger, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, raw: bytes
    ) -> None:
        jaeger.raw = raw
        jaeger.traces = {TRACE: JAEGERS}
        with pytest.raises(JaegerError):
            Jaeger(jaeger.url).trace(TRACE)
        assert run("trace", TRACE, "--jaeger", jaeger.url).exit_code == 3
        monkeypatch.setattr(module, "DEFAULT_URL", jaeger.url)
        gateway.spans = [wire_call()]
        assert run("trace", TRACE).exit_code == 0, "nobody asked for that one"


class TestAfterwards:
    def test_say(self, gateway: FakeGateway) -> None:
        gateway.spans = [wire_call("s-1")]
        result = run("say", "Hello", "-o", "a.wav", "--trace")
        assert result.exit_code == 0, result.output
        assert "SynthesizeStream" in result.stdout
        assert "1 utterance" in result.stderr

    def test_say_waits_for_what_ends_a_moment_later(
        self, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gateway.spans = [wire_span("session.open", "b" * 16, "a" * 16, "s-1")]
        complete = module.is_complete

        def ends(spans: Any) -> bool:
            gateway.spans = [*gateway.spans, wire_call("s-1")]
            return complete(spans)

        monkeypatch.setattr(module, "is_complete", ends)
        assert "not ended" not in run("say", "Hello", "-o", "a.wav", "--trace").stdout

    def test_audio_on_standard_output_stays_audio(self, gateway: FakeGateway) -> None:
        gateway.spans = [wire_call("s-1")]
        result = run("say", "Hello", "-o", "-", "--raw", "--trace")
        assert text_of(result.stdout_bytes) == "Hello"
        assert "SynthesizeStream" in result.stderr

    def test_where_there_is_none_it_has_been_said_all_the_same(self, gateway: FakeGateway) -> None:
        result = run("say", "Hello", "-o", "a.wav", "--trace")
        assert result.exit_code == 0, result.output
        assert "no trace: no span of s-1 is held" in result.stderr

    def test_a_failure_is_shown_too(self, gateway: FakeGateway) -> None:
        gateway.spans = [wire_call("s-1")]
        gateway.lose = True
        result = run("say", "Hello", "-o", "a.wav", "--trace")
        assert result.exit_code != 0
        assert "SynthesizeStream" in result.stdout

    def test_listen(self, gateway: FakeGateway) -> None:
        gateway.spans = [wire_call("s-1")]
        run("say", "Hello", "-o", "a.wav")
        gateway.spans = [wire_call("s-2")]
        result = run("listen", "a.wav", "--trace")
        assert result.exit_code == 0, result.output
        assert "SynthesizeStream" in result.stdout


class TestClient:
    async def test_get_trace(self, gateway: FakeGateway) -> None:
        link = pb.TraceSpan.Link(trace_id="d" * 32, span_id="e" * 16)
        gateway.spans = [wire_call(parent_is_remote=True, links=[link])]
        gateway.spans[0].attributes["list"] = ["a", "b"]
        async with wavegate.Client() as client:
            (span,) = await client.get_trace(trace_id=TRACE)
            assert (span,) == await client.get_trace(session_id=SESSION)
            with pytest.raises(wavegate.SessionNotFoundError) as caught:
                await client.get_trace(session_id="s-unknown")
            assert caught.value.reason == "TRACE_NOT_FOUND"
            for wrong in ({}, {"trace_id": TRACE, "session_id": SESSION}):
                with pytest.raises(TypeError, match="either"):
                    await client.get_trace(**wrong)
        assert isinstance(span, wavegate.TraceSpan)
        assert span.kind == "SERVER"
        assert span.parent_is_remote
        assert span.links == (("d" * 32, "e" * 16),)
        assert span.attributes == {"speech.session.id": SESSION, "list": ["a", "b"]}
        assert span.start_ns == START_US * 1000

    def test_without_asyncio(self, gateway: FakeGateway) -> None:
        gateway.spans = [wire_call()]
        with sync.Client() as client:
            assert client.get_trace(trace_id=TRACE)[0].name == METHOD
