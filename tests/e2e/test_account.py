"""The account's limits are never exceeded, and waiting for them is fair and bounded."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import waves_local
from wavegate.speech import v1
from wavegate_server.config import Watched, parse_keys
from wavegate_server.session.account import Account
from wavegate_server.session.context import Bounds, UpstreamTarget
from wavegate_server.session.pool import Upstreams
from wavegate_server.waves.regions import Regions
from wavegate_server.waves.tts import Mode

from tests.e2e.test_transcription import END as END_OF_LISTENING
from tests.e2e.test_transcription import Listening, audio, pcm
from tests.e2e.test_transcription import start as start_listening
from tests.support.gateway import (
    END,
    RunningGateway,
    audio_of,
    collect,
    of,
    responses,
    running_gateway,
    start,
    text,
)

ONE = waves_local.Options(active_requests=1, chunk_interval_s=0.01)
"""An account like the documents' default: one active request, five connections."""


async def converse(gw: RunningGateway, name: str, turns: int) -> list[v1.SynthesizeStreamResponse]:
    """A session that speaks several utterances, with pauses in which others may."""
    call = gw.synthesis.SynthesizeStream()
    await call.write(start())
    got = [await call.read()]
    for turn in range(turns):
        await call.write(text(f"{name} says {turn}.", f"{name}-{turn}", end=True))
        ended = False
        while not ended:
            got.append(await call.read())
            ended = bool(of("utterance_completed", got[-1:]) or of("utterance_failed", got[-1:]))
        await asyncio.sleep(0.02)
    await call.write(END)
    await call.done_writing()
    got += [r async for r in responses(call)]
    return got


@pytest.mark.parametrize("mode", list(Mode))
async def test_one_active_request_serves_four_conversations_that_take_turns(mode: Mode) -> None:
    """Nobody is refused by the upstream, and every text is spoken."""
    async with running_gateway(
        ONE, mode=mode, account=Account(active_requests=1), bounds=Bounds(max_queue_wait_s=30.0)
    ) as gw:
        assert gw.upstream is not None
        found = await asyncio.gather(*(converse(gw, name, 3) for name in ("ann", "bob", "cy", "di")))
        for name, got in zip(("ann", "bob", "cy", "di"), found, strict=True):
            assert not of("utterance_failed", got)
            for turn in range(3):
                assert waves_local.spoken(audio_of(got, f"{name}-{turn}")) == f"{name} says {turn}."
        waits = [
            c.metrics.admission_wait.ToTimedelta().total_seconds()
            for g in found
            for c in of("utterance_completed", g)
        ]
        assert max(waits) > 0
        refused = [r for r in gw.upstream.journal if r.status == 429]
        assert not refused


async def test_more_sessions_than_connections_take_turns() -> None:
    """Seven sessions share five connections: an idle one gives its own up, and gets one back when it speaks."""
    async with running_gateway(
        ONE, account=Account(active_requests=1), bounds=Bounds(max_queue_wait_s=30.0)
    ) as gw:
        assert gw.upstream is not None
        names = [f"s{n}" for n in range(7)]
        found = await asyncio.gather(*(converse(gw, name, 2) for name in names))
        for name, got in zip(names, found, strict=True):
            assert waves_local.spoken(audio_of(got, f"{name}-1")) == f"{name} says 1."
        assert not [r for r in gw.upstream.journal if r.status == 429]


async def test_waiting_too_long_fails_the_utterance_and_says_when_to_come_back() -> None:
    slow = waves_local.Options(active_requests=1, chunk_interval_s=0.5)
    async with running_gateway(
        slow, account=Account(active_requests=1), bounds=Bounds(max_queue_wait_s=0.2)
    ) as gw:
        first = gw.synthesis.SynthesizeStream()
        await first.write(start())
        await first.write(
            text("A long text that is made slowly, so that others wait for it in vain.", "u", end=True)
        )
        while not of("audio", [await first.read()]):
            pass
        second = await collect(
            gw.synthesis.SynthesizeStream(), [start(), text("Me too.", "u", end=True), END]
        )
        failed = of("utterance_failed", second)[0]
        assert failed.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert failed.retryable
        assert {d.type_url.rpartition("/")[2] for d in failed.error.details} >= {
            "google.rpc.ErrorInfo",
            "google.rpc.RetryInfo",
            "google.rpc.QuotaFailure",
        }
        first.cancel()


async def test_a_cancelled_request_frees_its_slot() -> None:
    async with running_gateway(
        ONE, account=Account(active_requests=1), bounds=Bounds(max_queue_wait_s=30.0)
    ) as gw:
        call = gw.synthesis.SynthesizeStream()
        await call.write(start())
        await call.write(
            text("Something long that will be interrupted soon, for sure it will.", "u1", end=True)
        )
        while not of("audio", [await call.read()]):
            pass
        await call.write(v1.SynthesizeStreamRequest(cancel=v1.CancelUtterance()))
        other = await collect(
            gw.synthesis.SynthesizeStream(), [start(), text("My turn.", "u", end=True), END]
        )
        assert waves_local.spoken(audio_of(other)) == "My turn."
        call.cancel()


@pytest.mark.parametrize("mode", list(Mode))
async def test_after_a_barge_in_a_connection_stands_ready(mode: Mode) -> None:
    async with running_gateway(
        waves_local.Options(chunk_interval_s=0.02, cancel="ignored"), mode=mode, account=Account(standby=True)
    ) as gw:
        assert gw.upstream is not None
        call = gw.synthesis.SynthesizeStream()
        await call.write(start())
        got = [await call.read()]
        for turn in range(3):
            await call.write(
                text(f"Turn {turn}, which goes on for a while, and is interrupted.", f"u{turn}", end=True)
            )
            while not of("audio", got[-1:]):
                got.append(await call.read())
            await call.write(v1.SynthesizeStreamRequest(cancel=v1.CancelUtterance(utterance_id=f"u{turn}")))
            while not of("utterance_cancelled", got[-1:]):
                got.append(await call.read())
            await gw.upstream.journal.wait_for(
                lambda j: any(r.is_open and r.status == 101 and not r.received_count for r in j.of("tts"))
            )
            await asyncio.sleep(0.3)  # and the gateway has read that it stands
        await call.write(text("The end.", "last", end=True))
        await call.write(END)
        await call.done_writing()
        got += [r async for r in responses(call)]
        assert waves_local.spoken(audio_of(got, "last")) == "The end."
        handshakes = [
            c.handshake_duration.ToNanoseconds()
            for c in of("connection", got)
            if c.state == v1.ConnectionEvent.STATE_CONNECTED
        ]
        assert 0 in handshakes[1:], "one of the connections was there already"


# -- several keys ---------------------------------------------------------------------------------------------

TWO_KEYS = waves_local.Options(
    active_requests=1, keys=("key-1", "key-2"), chunk_interval_s=0.02, chunk_s=0.1, slot_freed_by="complete"
)


def pooled(path: Path) -> Callable[[UpstreamTarget], Upstreams]:
    """A pool of the keys in a file, each with one active request."""
    keys = Watched(path, parse_keys, "the API key file")
    return lambda target: Upstreams(target, keys, lambda: Account(active_requests=1))


def key_file(folder: Path, *keys: str) -> Path:
    path = folder / "keys"
    path.touch(0o600)
    path.write_text("\n".join(keys))
    return path


async def test_two_keys_speak_two_utterances_at_once(tmp_path: Path) -> None:
    """With N = 1 each: nobody waits, nobody is refused."""
    path = key_file(tmp_path, "key-1", "key-2")
    async with running_gateway(TWO_KEYS, upstreams=pooled(path)) as gw:
        assert gw.upstream is not None
        calls = [gw.synthesis.SynthesizeStream() for _ in range(2)]
        for name, call in zip("ab", calls, strict=True):
            await call.write(start())
            await call.write(
                text(f"Speaker {name} has a lot to say, and the other one as well.", name, end=True)
            )
        for call in calls:
            while not of("audio", [await call.read()]):
                pass
        sockets = [r for r in gw.upstream.journal if r.kind == "tts"]
        assert len(sockets) == 2
        for call in calls:
            await call.write(END)
            await call.done_writing()
            rest = [r async for r in responses(call)]
            assert not of("utterance_failed", rest)
            (completed,) = of("utterance_completed", rest)
            assert completed.metrics.admission_wait.ToNanoseconds() < 20_000_000
        assert {r.status for r in gw.upstream.journal} == {101}


@pytest.mark.parametrize("mode", list(Mode))
async def test_many_conversations_share_two_keys(mode: Mode, tmp_path: Path) -> None:
    path = key_file(tmp_path, "key-1", "key-2")
    async with running_gateway(
        TWO_KEYS, mode=mode, upstreams=pooled(path), bounds=Bounds(max_queue_wait_s=30.0)
    ) as gw:
        assert gw.upstream is not None
        names = [f"s{n}" for n in range(8)]
        found = await asyncio.gather(*(converse(gw, name, 2) for name in names))
        for name, got in zip(names, found, strict=True):
            assert not of("utterance_failed", got)
            assert waves_local.spoken(audio_of(got, f"{name}-1")) == f"{name} says 1."
        assert {r.status for r in gw.upstream.journal} == {101}


async def test_keys_change_without_a_restart(tmp_path: Path) -> None:
    """A key that is good no more is taken out of the file; its session goes on with another one."""
    path = key_file(tmp_path, "key-1")
    async with running_gateway(TWO_KEYS, upstreams=pooled(path)) as gw:
        assert gw.upstream is not None
        call = gw.synthesis.SynthesizeStream()
        await call.write(start())
        await call.write(text("With the first key.", "u1", end=True))
        while not of("utterance_completed", [await call.read()]):
            pass
        gw.upstream.options = dataclasses.replace(TWO_KEYS, keys=("key-2",))
        path.write_text("key-2 \n")
        other = await collect(gw.synthesis.SynthesizeStream(), [start(), text("New.", "u", end=True), END])
        assert waves_local.spoken(audio_of(other)) == "New."
        await gw.upstream.hang_up()
        await call.write(text("With the second key.", "u2", end=True))
        await call.write(END)
        await call.done_writing()
        rest = [r async for r in responses(call)]
        assert waves_local.spoken(audio_of(rest, "u2")) == "With the second key."
        assert not [r for r in gw.upstream.journal if r.status != 101]


async def test_a_language_is_heard_in_its_region() -> None:
    """Each region refuses the languages of the other."""
    india, us = (waves_local.Options(region=region) for region in ("in", "us"))
    async with waves_local.serve(engine=waves_local.deterministic_engine(), options=us) as abroad:
        regions = Regions(stt={"ja": abroad.url})
        async with running_gateway(india, upstreams=lambda target: Upstreams(target, regions=regions)) as gw:
            for language, upstream in (("ja-JP", abroad), ("ta-IN", gw.upstream)):
                call = Listening(gw.transcription.TranscribeStream())
                await call.say(
                    start_listening(language_code=language), *audio(pcm("one two three")), END_OF_LISTENING
                )
                assert (await call.rest()).code is grpc.StatusCode.OK
                assert call.text
                assert upstream is not None
                assert {r.query["language"] for r in upstream.journal} == {language[:2]}
            answer = await gw.transcription.Recognize(
                v1.RecognizeRequest(
                    content=pcm("one two three"),
                    audio_format=v1.AudioFormat(),
                    settings=v1.TranscriptionSettings(language_code="ja-JP"),
                )
            )
            assert answer.text
            assert answer.upstream.endpoint.startswith(abroad.url)
