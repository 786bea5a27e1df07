"""One whole text over the upstream's event stream, on virtual time."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from wavegate_server import errors
from wavegate_server.audio import DEFAULT_SYNTHESIS_FORMAT
from wavegate_server.session.account import Account
from wavegate_server.session.context import Bounds, SessionContext, UpstreamTarget
from wavegate_server.session.http import UpstreamHttp
from wavegate_server.session.pool import Upstreams
from wavegate_server.session.synthesis_events import AudioProduced, UtteranceCompleted
from wavegate_server.session.tracing import SynthesisTrace
from wavegate_server.session.whole_text import synthesize
from wavegate_server.waves.ending import LAST_WORD_S, PACE_REQUESTS

from tests.support.transport import FakeDialer
from tests.support.virtual_time import virtual_time

AUDIO = f'data: {{"audio":"{base64.b64encode(bytes(12_000)).decode()}","done":false,"status":"206"}}\n\n'
"""A quarter of a second: enough for "Hello."."""
DONE = 'data: {"status":"200","done":true}\n\n'
SPOKEN = AUDIO + DONE


class Body(httpx.AsyncByteStream):
    """A response's body in pieces: text, seconds until the next piece, or an error in its place."""

    def __init__(self, *pieces: str | float | Exception) -> None:
        self.pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            match piece:
                case str():
                    yield piece.encode()
                case Exception():
                    raise piece
                case seconds:
                    await asyncio.sleep(seconds)


def word(text: str, start: float, end: float) -> str:
    data = {"word": text, "start": start, "end": end}
    return f"data: {json.dumps({'status': 'word_timestamp', 'data': data})}\n\n"


class Upstream:
    """Answers requests one after the other with these statuses, from then on with speech."""

    def __init__(self, *statuses: int | tuple[int, str], **target: Any) -> None:
        """A pair is a status and its `Retry-After`."""
        self.statuses = list(statuses)
        self.requests: list[httpx.Request] = []
        self.account = target.pop("account", Account())
        self.body: list[str | float | Exception] = [SPOKEN]
        self.upstreams = Upstreams(
            UpstreamTarget("wss://host.example", "a-key", account=self.account, **target)
        )
        self.http = UpstreamHttp(self.upstreams, httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if not self.statuses:
            return httpx.Response(200, stream=Body(*self.body))
        answer = self.statuses.pop(0)
        status, after = answer if isinstance(answer, tuple) else (answer, "")
        return httpx.Response(status, json={}, headers={"Retry-After": after} if after else {})

    async def speak(
        self, settings: dict[str, Any] | None = None, limit_s: float = 2.0, text: str = "Hello."
    ) -> list[Any]:
        context = SessionContext(
            "s-1", "someone", self.upstreams, FakeDialer(), Bounds(max_queue_wait_s=limit_s)
        )
        given = {"voice_id": "v", "model": "lightning_v3.1", **(settings or {})}
        trace = SynthesisTrace(context, "LINEAR16", 24000)
        events = synthesize(context, self.http, given, DEFAULT_SYNTHESIS_FORMAT, text, "u", trace)
        return [event async for event in events]


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    ("settings", "old_tts_path", "path"),
    [
        ({}, False, "/waves/v1/tts/live"),
        ({"model": "lightning_v3.1_pro"}, False, "/waves/v1/tts/live"),
        ({}, True, "/waves/v1/lightning-v3.1/stream"),
        ({"model": "lightning-v2", "consistency": 0.5}, False, "/waves/v1/lightning-v2/stream"),
        ({"model": "lightning-v2"}, True, "/waves/v1/lightning-v2/stream"),
    ],
)
def test_the_path_follows_the_model_and_the_flag(
    settings: dict[str, Any], old_tts_path: bool, path: str
) -> None:
    @virtual_time
    async def scenario() -> None:
        upstream = Upstream(old_tts_path=old_tts_path)
        events = await upstream.speak(settings)
        (request,) = upstream.requests
        assert request.url.path == path
        assert json.loads(request.content).get("consistency") == settings.get("consistency")
        assert isinstance(events[-1], UtteranceCompleted)
        assert events[-1].utterance.upstreams[0].endpoint == f"https://host.example{path}"

    scenario()


@virtual_time
async def test_a_full_account_is_waited_for_within_the_queues_time_only() -> None:
    upstream = Upstream(account=Account(active_requests=1))
    place = upstream.account.requests.ask("other", lambda: None)
    for limit_s in (2.0, 0.5):
        began = now()
        with pytest.raises(errors.UpstreamCapacity) as raised:
            await upstream.speak(limit_s=limit_s)
        assert now() - began == pytest.approx(limit_s)
        assert raised.value.retry_after_s
    assert upstream.requests == []
    assert upstream.account.requests.waiting == 0
    place.release()
    assert isinstance((await upstream.speak())[-1], UtteranceCompleted)
    assert upstream.account.requests.used == 0


@pytest.mark.parametrize(
    ("statuses", "waits_s"),
    [
        ([429] * 9, 1.5),  # 0, 0.5, 1.5 s, and the next would come too late
        ([(429, "0.9")] * 9, 1.8),
        ([(429, "30")] * 9, 0.0),
        ([429, 503, 429, 503, 429], None),
    ],
    ids=str,
)
def test_an_upstream_without_room_is_asked_again_within_that_time(
    statuses: list[Any], waits_s: float | None
) -> None:
    @virtual_time
    async def scenario() -> None:
        upstream = Upstream(*statuses)
        began = now()
        with pytest.raises(errors.WavegateError):
            await upstream.speak()
        if waits_s is not None:
            assert now() - began == pytest.approx(waits_s)
        assert now() - began <= 2.0

    scenario()


@pytest.mark.parametrize("busy_s", [0.4, 1.2, 1.9])
def test_the_queue_and_an_upstream_without_room_share_the_time(busy_s: float) -> None:
    @virtual_time
    async def scenario() -> None:
        upstream = Upstream(*[429] * 9, account=Account(active_requests=1))
        place = upstream.account.requests.ask("other", lambda: None)
        asyncio.get_running_loop().call_later(busy_s, place.release)
        began = now()
        with pytest.raises(errors.UpstreamCapacity):
            await upstream.speak()
        assert busy_s <= now() - began <= 2.0

    scenario()


def test_another_who_takes_the_place_meanwhile_does_not_lengthen_the_wait() -> None:
    @virtual_time
    async def scenario() -> None:
        upstream = Upstream(429, account=Account(active_requests=1))
        hold: Callable[[], None] = upstream.account.requests.ask("other", lambda: None).release
        loop = asyncio.get_running_loop()
        loop.call_later(1.0, hold)
        # While the upstream's 429 is waited out, somebody else has the account's one place.
        loop.call_later(1.2, lambda: upstream.account.requests.ask("third", lambda: None))
        began = now()
        with pytest.raises(errors.UpstreamCapacity):
            await upstream.speak()
        assert now() - began == pytest.approx(2.0)
        assert len(upstream.requests) == 1

    scenario()


@virtual_time
async def test_a_try_over_another_key_counts_on_the_account_of_that_key() -> None:
    upstream = Upstream(503)
    keys = ("a", "b")
    upstream.upstreams = Upstreams(upstream.upstreams.template, lambda: keys, lambda: Account(1))
    active: list[dict[str, int]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        used = [account.requests.used for account in upstream.upstreams.accounts]
        active.append(dict(zip(keys, used, strict=True)))
        return upstream._answer(request)

    upstream.http = UpstreamHttp(upstream.upstreams, httpx.MockTransport(answer))
    await upstream.speak()
    tried = [r.headers["Authorization"].removeprefix("Bearer ") for r in upstream.requests]
    assert sorted(tried) == ["a", "b"]
    assert active == [{key: int(key == one) for key in keys} for one in tried]
    assert [account.requests.used for account in upstream.upstreams.accounts] == [0, 0]


# -- the end -----------------------------------------------------------------------------------------------------

BREAK = httpx.RemoteProtocolError("peer closed connection without sending complete message body")


@pytest.mark.parametrize(
    ("body", "heard", "is_unconfirmed", "after_s"),
    [
        ([AUDIO, DONE], 1, False, 0.0),
        ([AUDIO, DONE, AUDIO, DONE], 2, False, 0.0),
        ([AUDIO, DONE, 0.9, AUDIO, DONE], 2, False, 0.9),
        ([AUDIO, DONE, AUDIO], 2, True, 0.0),
        ([AUDIO, DONE, 60.0], 1, False, LAST_WORD_S),
        ([AUDIO, DONE, BREAK], 1, False, 0.0),
        ([AUDIO, DONE, "data: [DONE]\n\n"], 1, False, 0.0),
        ([AUDIO, DONE.rstrip("\n")], 1, False, 0.0),
    ],
    ids=[
        "done",
        "in mid-speech",
        "and a pause",
        "audio behind it",
        "left open",
        "broken off",
        "no event",
        "no end",
    ],
)
def test_what_comes_behind_a_done_belongs_to_the_speech(
    body: list[str | float | Exception], heard: int, is_unconfirmed: bool, after_s: float
) -> None:
    @virtual_time
    async def scenario() -> None:
        upstream = Upstream()
        upstream.body = body
        began = now()
        events = await upstream.speak()
        assert sum(isinstance(e, AudioProduced) for e in events) == heard
        completed = events[-1]
        assert isinstance(completed, UtteranceCompleted)
        assert completed.is_unconfirmed == is_unconfirmed
        assert now() - began == pytest.approx(after_s)
        assert len(upstream.requests) == 1

    scenario()


@pytest.mark.parametrize(
    "body",
    [
        [AUDIO],
        [AUDIO, BREAK],
        [AUDIO, DONE, AUDIO, BREAK],
        [word("Hello", 0.0, 0.2), AUDIO, DONE],
    ],
    ids=["no done", "broken off", "broken off behind a done", "words are left"],
)
def test_speech_that_is_known_to_be_cut_is_no_whole_text(body: list[str | float | Exception]) -> None:
    @virtual_time
    async def scenario() -> None:
        upstream = Upstream()
        upstream.body = body
        with pytest.raises(errors.UpstreamUnavailable):
            await upstream.speak({"word_timings": True}, text="Hello there, my friend.")

    scenario()


def test_a_done_without_audio_is_asked_again_and_no_speech() -> None:
    @virtual_time
    async def scenario() -> None:
        upstream = Upstream()
        upstream.body = [DONE]
        with pytest.raises(errors.UpstreamProtocol, match="no audio"):
            await upstream.speak()
        assert len(upstream.requests) > 1

    scenario()


@pytest.mark.parametrize("is_learnt", [False, True])
def test_a_done_behind_less_than_the_text_takes_is_not_confirmed(is_learnt: bool) -> None:
    """The prior is what no voice passes; the pace is that of this voice, as its streams taught it."""

    @virtual_time
    async def scenario() -> None:
        upstream = Upstream()
        text = "Hello there, my friend." if is_learnt else "Hello there, my friend. How are you today?"
        upstream.body = [AUDIO * 3, DONE]
        habits = upstream.upstreams.choose("tts", "").habits
        for _ in range(PACE_REQUESTS if is_learnt else 0):
            habits.spoken_whole("lightning_v3.1/v/1", 100, 6.0)
        events = await upstream.speak(text=text)
        assert events[-1].is_unconfirmed

    scenario()
