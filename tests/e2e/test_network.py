"""What networks do to the connection between the gateway and its upstream: nothing lost, nothing twice, on either side.

A TCP proxy stands between the two. Each conversation is on its way when the network fails, and ends whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, get_args

import grpc
import pytest
import waves_local
from wavegate.speech import v1
from wavegate_server.session.transport import DialOptions, WebSocketDialer
from waves_local.deterministic import encode_text
from waves_local.faults import Action

from benchmarks.soak import check_speech, check_words, expected_words
from tests.support.calls import Speaking, failure_of, together
from tests.support.fault_proxy import FaultProxy, Faults
from tests.support.gateway import END, RunningGateway, running_gateway, start, text

IMPATIENT = DialOptions(open_timeout_s=0.5, send_timeout_s=1.0, ping_interval_s=0.3, ping_timeout_s=1.0)
"""What is noticed after seconds is noticed sooner."""
RATE_HZ = 16000
STORY = ("Once upon a time there was a stream of words. ", "All could hear it, from start to end.")
SAID = "the quick brown fox jumps over the lazy dog"
SAID_LATER = "and runs away into the deep dark wood"
PAUSE_S = 0.7
Network = Callable[[FaultProxy], None]


def both(**faults: Any) -> Network:
    return lambda proxy: proxy.set(up=Faults(**faults), down=Faults(**faults))


def one_way(direction: str, **faults: Any) -> Network:
    return lambda proxy: proxy.set(**{direction: Faults(**faults)})


def hole(proxy: FaultProxy) -> None:
    """The connection is lost, and the next ones are accepted by nobody."""
    proxy.black_hole()
    proxy.reset()


LASTING: dict[str, Network] = {
    "slow and jittery": both(latency_s=0.03, jitter_s=0.05),
    "in slices": both(slice_bytes=7),
    "narrow": both(bytes_per_s=120_000),
}
"""What costs time and no connection."""
PASSING: dict[str, Network] = {
    "reset": lambda proxy: proxy.reset(),
    "closed": lambda proxy: proxy.close(),
    "stopped upward": one_way("up", is_stopped=True),
    "stopped downward": one_way("down", is_stopped=True),
    "swallowed upward": one_way("up", is_swallowed=True),
    "swallowed downward": one_way("down", is_swallowed=True),
    "black hole": hole,
}
"""What costs a connection, and is over when another one is tried."""


async def recover(proxy: FaultProxy) -> None:
    """The network is well again as soon as the gateway has tried another connection."""
    await proxy.wait_for(lambda p: p.accepted >= 2)
    proxy.clear()


async def listen(gateway: RunningGateway, meanwhile: Callable[[], asyncio.Task[None] | None]) -> Any:
    """A conversation in two turns; `meanwhile` is called in the middle of the first."""
    pcm = encode_text(SAID, RATE_HZ) + bytes(2 * round(RATE_HZ * PAUSE_S)) + encode_text(SAID_LATER, RATE_HZ)
    messages = [
        v1.TranscribeStreamRequest(audio=v1.AudioInput(content=pcm[at : at + 3200]))
        for at in range(0, len(pcm), 3200)
    ]
    call = Speaking(gateway.transcription.TranscribeStream())
    opening = v1.StartTranscription(
        audio_format=v1.AudioFormat(), settings=v1.TranscriptionSettings(word_timings=True)
    )
    await call.begin(v1.TranscribeStreamRequest(start=opening), *messages[:8])
    await call.until("transcript")
    task = meanwhile()
    for message in messages[8:]:
        await call.say(message)
        await asyncio.sleep(0.01)
    await call.say(v1.TranscribeStreamRequest(end_session=v1.EndSession()))
    while await call.next() is not None:
        pass
    if task is not None:
        await task
    assert (await failure_of(call.call)).code is grpc.StatusCode.OK, call.kinds()
    finals = [t for t in call.all("transcript") if t.is_final]
    words = [(w.text, w.start_offset.ToTimedelta().total_seconds()) for t in finals for w in t.words]
    check_words(expected_words([(SAID, 0.0), (SAID_LATER, len(SAID) * 0.06 + PAUSE_S)]), words, is_whole=True)
    assert not any(c.lost_audio_duration.ToNanoseconds() for c in call.all("connection"))
    return call.ended.usage


async def speak(gateway: RunningGateway, meanwhile: Callable[[], asyncio.Task[None] | None]) -> Any:
    """An utterance; `meanwhile` is called after its first audio, when half of its text was sent."""
    call = Speaking(gateway.synthesis.SynthesizeStream())
    await call.begin(start(word_timings=True), text(STORY[0], "u"))
    await call.until("audio")
    task = meanwhile()
    await call.say(text(STORY[1], "u", end=True), END)
    while await call.next() is not None:
        pass
    if task is not None:
        await task
    assert (await failure_of(call.call)).code is grpc.StatusCode.OK, call.kinds()
    call.one("utterance_completed", "u")
    check_speech("".join(STORY), call.all("audio"), is_whole=True)
    return call.ended.usage


@asynccontextmanager
async def networked(
    faults: Iterable[str] = (), **changes: Any
) -> AsyncIterator[tuple[RunningGateway, FaultProxy]]:
    """A gateway whose upstream is behind a proxy; speech takes a while, so that it is on its way for some time."""
    options = waves_local.Options(word_timings="always", chunk_interval_s=0.03)
    async with (
        waves_local.serve(options=options, faults=faults) as upstream,
        FaultProxy(upstream.port) as proxy,
        running_gateway(upstream_url=proxy.url, **changes) as gateway,
    ):
        yield gateway, proxy


@pytest.mark.parametrize("conversation", [listen, speak])
async def test_a_bad_network_costs_time_and_nothing_else(conversation: Any) -> None:
    async def check(network: str) -> None:
        async with networked() as (gateway, proxy):
            LASTING[network](proxy)
            usage = await conversation(gateway, lambda: None)
            assert (usage.reconnect_count, proxy.accepted) == (0, 1)

    await together(*(check(network) for network in LASTING))


@pytest.mark.parametrize("conversation", [listen, speak])
async def test_a_network_that_fails_is_survived(conversation: Any) -> None:
    async def check(network: str) -> None:
        async with networked(dialer=WebSocketDialer(IMPATIENT)) as (gateway, proxy):

            def fail() -> asyncio.Task[None]:
                PASSING[network](proxy)
                return asyncio.create_task(recover(proxy))

            usage = await conversation(gateway, fail)
            assert usage.reconnect_count == 1

    await together(*(check(network) for network in PASSING))


STRUCK = "nth=1,after-frames=3"
UPSTREAM_FAULTS = {
    "refuse": "refuse=503,nth=1",
    "hang": "hang,nth=1",
    "close": f"close=1011,{STRUCK}",
    "slow": "slow=0.02,nth=1",
    "slow-read": "slow-read=0.02,nth=1",
    **{f: f"{f},{STRUCK}" for f in ("drop", "stall", "deaf", "vanish", "bad-json", "bad-utf8", "bad-base64")},
    **{f: f"{f},{STRUCK}" for f in ("wrong-type", "unknown-frame", "binary", "empty-audio")},
    # Each frame, so that finals are among them.
    "duplicate": "duplicate,nth=1,frames=0",
}


async def test_whatever_goes_wrong_upstream_every_word_is_heard_once() -> None:
    """Every fault of the local upstream but its own verdict, an error frame."""
    assert {*UPSTREAM_FAULTS, "error"} == {*get_args(Action)}

    async def check(fault: str) -> None:
        async with networked(dialer=WebSocketDialer(IMPATIENT), faults=[f"stt:{fault}"]) as (gateway, _):
            await listen(gateway, lambda: None)

    await together(*(check(fault) for fault in UPSTREAM_FAULTS.values()))
