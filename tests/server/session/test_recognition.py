"""One recording over the upstream's endpoint for recordings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import waves_local
from wavegate_server import errors
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.session.context import UpstreamTarget
from wavegate_server.session.http import UpstreamHttp
from wavegate_server.session.pool import Upstreams
from wavegate_server.session.recognition import Recording, recognize
from wavegate_server.waves.prerecorded import Answer
from waves_local.deterministic import encode_text

from tests.support.virtual_time import virtual_time

RAW = AudioFormat(Encoding.LINEAR16, 16000)
DEFAULTS = {"model": "pulse", "language_code": "en"}


class Script:
    """Answers requests one after the other, and keeps them."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.times.append(asyncio.get_running_loop().time())
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def upstream(script: Callable[[httpx.Request], Any], **options: Any) -> UpstreamHttp:
    target = UpstreamTarget("wss://host.example", "a-key", **options)
    return UpstreamHttp(Upstreams(target), httpx.MockTransport(script))


def good() -> httpx.Response:
    return httpx.Response(200, json={"status": "success", "transcription": "hello", "request_id": "r"})


@virtual_time
async def test_a_recording_is_asked_for_and_answered() -> None:
    script = Script(good())
    http = upstream(script, expire_content=True)
    answer, served = await recognize(
        http, {**DEFAULTS, "word_timings": True}, Recording(b"RIFFxxxxWAVE"), max_queue_wait_s=2.0
    )
    assert answer == Answer("hello", request_id="r")
    assert (served.request_id, served.endpoint) == ("r", "https://host.example/waves/v1/stt/")
    (request,) = script.requests
    assert request.method == "POST"
    assert str(request.url) == (
        "https://host.example/waves/v1/stt/?model=pulse&language=en&word_timestamps=true"
    )
    assert request.headers["Authorization"] == "Bearer a-key"
    assert request.headers["Content-Type"] == "application/octet-stream"
    assert request.headers["x-expire-content"] == "true"
    assert request.content == b"RIFFxxxxWAVE"
    await http.aclose()


@pytest.mark.parametrize(
    ("recording", "patience_s"),
    [
        (Recording(bytes(32_000 * 60), RAW), 120.0),
        (Recording(bytes(32_000 * 600), RAW), 610.0),
        (Recording(b"\xff" * 8000 * 600, AudioFormat(Encoding.MULAW, 8000)), 610.0),
        (Recording(b"ID3" + bytes(8000 * 600)), 610.0),
        (Recording(uri="https://host.example/a.mp3"), 120.0),
    ],
    ids=["short", "long", "mu-law", "mp3", "address"],
)
@virtual_time
async def test_an_upstream_may_take_as_long_as_the_recording_plays(
    recording: Recording, patience_s: float
) -> None:
    script = Script(good())
    http = upstream(script)
    await recognize(http, DEFAULTS, recording, max_queue_wait_s=2.0)
    assert script.requests[0].extensions["timeout"]["read"] == pytest.approx(patience_s, abs=0.1)
    await http.aclose()


@virtual_time
async def test_an_address_goes_as_json_and_the_old_path_without_a_model() -> None:
    script = Script(good())
    http = upstream(script, old_stt_path=True)
    await recognize(http, DEFAULTS, Recording(uri="https://a.example/x"), max_queue_wait_s=2.0)
    (request,) = script.requests
    assert request.url.path == "/waves/v1/pulse/get_text"
    assert "model" not in request.url.params
    assert request.headers["Content-Type"] == "application/json"
    assert request.content == b'{"url":"https://a.example/x"}'
    await http.aclose()


@virtual_time
async def test_a_failing_upstream_is_asked_again_a_few_times() -> None:
    script = Script(httpx.Response(503), httpx.ConnectError("refused"), httpx.Response(502), good())
    http = upstream(script)
    answer, _ = await recognize(http, DEFAULTS, Recording(b"x"), max_queue_wait_s=2.0)
    assert answer.text == "hello"
    assert script.times[-1] < 0.6
    script = Script(*[httpx.Response(503)] * 9)
    http = upstream(script)
    with pytest.raises(errors.UpstreamUnavailable):
        await recognize(http, DEFAULTS, Recording(b"x"), max_queue_wait_s=2.0)
    assert len(script.requests) == 4


@virtual_time
async def test_lasting_nonsense_is_an_error() -> None:
    nonsense = httpx.Response(200, content=b"<html>")
    script = Script(nonsense, good())
    answer, _ = await recognize(upstream(script), DEFAULTS, Recording(b"x"), max_queue_wait_s=2.0)
    assert answer.text == "hello"
    script = Script(*[nonsense] * 9)
    with pytest.raises(errors.UpstreamProtocol):
        await recognize(upstream(script), DEFAULTS, Recording(b"x"), max_queue_wait_s=2.0)


@virtual_time
async def test_a_full_account_is_asked_again_within_the_queues_time() -> None:
    full = httpx.Response(429, headers={"Retry-After": "1"})
    script = Script(full, full, good())
    answer, _ = await recognize(upstream(script), DEFAULTS, Recording(b"x"), max_queue_wait_s=2.0)
    assert answer.text == "hello"
    assert script.times == pytest.approx([0.0, 1.0, 2.0])
    script = Script(full, full, full, good())
    with pytest.raises(errors.UpstreamCapacity):
        await recognize(upstream(script), DEFAULTS, Recording(b"x"), max_queue_wait_s=2.0)
    assert len(script.requests) == 3


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (
            httpx.Response(400, json={"error": "Missing required query param: model."}),
            errors.UpstreamRejected,
        ),
        (httpx.Response(401), errors.UpstreamCredential),
        (httpx.Response(403), errors.UpstreamCredential),
        (httpx.Response(404), errors.UpstreamGone),
        (httpx.Response(413, json={"error": "File size exceeds"}), errors.UpstreamRejected),
        (httpx.ReadTimeout("slow"), errors.UpstreamStalled),
    ],
)
def test_what_asking_again_cannot_mend_is_not_asked_again(
    answer: httpx.Response | Exception, kind: type[errors.WavegateError]
) -> None:
    @virtual_time
    async def scenario() -> None:
        script = Script(answer)
        with pytest.raises(kind):
            await recognize(upstream(script), DEFAULTS, Recording(b"x"), max_queue_wait_s=2.0)
        assert len(script.requests) == 1

    scenario()


@pytest.mark.parametrize("model", ["pulse", "pulse-pro"])
async def test_the_local_upstream_hears_raw_audio(model: str) -> None:
    async with waves_local.serve(engine=waves_local.deterministic_engine()) as local:
        http = UpstreamHttp(Upstreams(UpstreamTarget(local.url, "a-key")))
        try:
            pcm = encode_text("hello there", 16000)
            answer, _ = await recognize(
                http,
                {"model": model, "language_code": "en", "word_timings": True},
                Recording(pcm, RAW),
                max_queue_wait_s=2.0,
            )
            assert answer.text.lower().split()[0].strip(".,") == "hello"
            assert [w.text.lower().strip(".,") for w in answer.words] == ["hello", "there"]
            assert answer.duration_s == pytest.approx(len(pcm) / 32000, abs=0.02)
        finally:
            await http.aclose()
