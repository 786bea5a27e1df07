"""The gateway process is told to stop while sessions are live."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import Any

import grpc
import grpc.aio
import pytest
import waves_local
from grpc_health.v1 import health_pb2, health_pb2_grpc
from wavegate.speech import v1
from wavegate.speech.v1 import (
    session_service_pb2_grpc,
    synthesis_service_pb2_grpc,
    transcription_service_pb2_grpc,
)
from waves_local.deterministic import encode_text

from tests.support.calls import failure, failure_of_error, how_it_failed
from tests.support.gateway import audio_of, of
from tests.support.process import PATIENCE_S, Running, running, until

LOCAL = ("--upstream", "local", "--local-engine", "deterministic")
EXIT_AFTER_DEADLINE_S = 3.0
MACHINE_S = 20.0
"""What a machine under load may add to seeing a process end."""
STORY = "What was begun is said to its end."
SAID = "and what was said is heard"
RATE_HZ = 16000


async def begin(call: Any, opening: Any) -> Any:
    """Open a session and read until it has started."""
    await call.write(opening)
    first = await asyncio.wait_for(call.read(), PATIENCE_S)
    assert first.HasField("session_started"), first
    return call


async def speaking(channel: Any) -> Any:
    call = synthesis_service_pb2_grpc.SynthesisServiceStub(channel).SynthesizeStream()
    settings = v1.SynthesisSettings(voice_id="magnus")
    return await begin(call, v1.SynthesizeStreamRequest(start=v1.StartSynthesis(settings=settings)))


async def listening(channel: Any) -> Any:
    call = transcription_service_pb2_grpc.TranscriptionServiceStub(channel).TranscribeStream()
    opening = v1.StartTranscription(audio_format=v1.AudioFormat(sample_rate_hertz=RATE_HZ))
    return await begin(call, v1.TranscribeStreamRequest(start=opening))


async def rest(call: Any) -> list[Any]:
    """Everything that the call still says, however it ends."""
    found = []
    with contextlib.suppress(grpc.aio.AioRpcError):
        while (response := await asyncio.wait_for(call.read(), PATIENCE_S)) is not grpc.aio.EOF:
            found.append(response)
    return found


async def stops_serving(gateway: Running) -> None:
    async def not_serving() -> bool:
        async with grpc.aio.insecure_channel(gateway.target) as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        return bool(answer.status == health_pb2.HealthCheckResponse.NOT_SERVING)

    await until(not_serving)


async def test_what_is_live_is_told_and_what_finishes_in_time_is_whole() -> None:
    """Every session hears `go_away`; one that does not finish is told why, and the process ends in time."""
    drain_s = 8.0
    async with (
        running(*LOCAL, "--drain-timeout", f"{drain_s:g}") as gateway,
        grpc.aio.insecure_channel(gateway.target) as channel,
    ):
        speaks, hears, stays = await speaking(channel), await listening(channel), await speaking(channel)
        gateway.signal(signal.SIGTERM)
        told_at = time.monotonic()
        await stops_serving(gateway)

        late = synthesis_service_pb2_grpc.SynthesisServiceStub(channel).SynthesizeStream()
        await late.write(v1.SynthesizeStreamRequest(start=v1.StartSynthesis()))
        (refusal,) = await rest(late)
        assert failure(refusal.session_ended.status).reason == "GATEWAY_DRAINING"
        assert await late.code() is grpc.StatusCode.UNAVAILABLE

        words = v1.TextInput(text=STORY, utterance_id="u", end_utterance=True)
        await speaks.write(v1.SynthesizeStreamRequest(text=words))
        await speaks.write(v1.SynthesizeStreamRequest(end_session=v1.EndSession()))
        audio = v1.AudioInput(content=encode_text(SAID, RATE_HZ))
        await hears.write(v1.TranscribeStreamRequest(audio=audio))
        await hears.write(v1.TranscribeStreamRequest(end_session=v1.EndSession()))
        said, heard, cut = await asyncio.gather(rest(speaks), rest(hears), rest(stays))

        assert waves_local.spoken(audio_of(said)) == STORY
        assert " ".join(t.text for t in of("transcript", heard) if t.is_final and t.text) == SAID
        for call, found in ((speaks, said), (hears, heard)):
            assert found[-1].session_ended.reason == v1.SessionEnded.REASON_CLIENT_END
            assert await call.code() is grpc.StatusCode.OK
        assert cut[-1].session_ended.reason == v1.SessionEnded.REASON_DRAIN
        assert failure(cut[-1].session_ended.status).reason == "GATEWAY_DRAINING"
        assert await stays.code() is grpc.StatusCode.UNAVAILABLE
        for found in (said, heard, cut):
            (away,) = of("go_away", found)
            assert away.time_left.ToTimedelta().total_seconds() == drain_s
        assert await gateway.ended() == 0
        took_s = time.monotonic() - told_at
    assert drain_s <= took_s <= drain_s + EXIT_AFTER_DEADLINE_S + MACHINE_S
    assert not any("by force" in line for line in gateway.log), gateway.log


async def test_a_second_signal_stops_at_once() -> None:
    """However long the drain timeout is; live sessions are still told why."""
    async with (
        running(*LOCAL, "--drain-timeout", "3600") as gateway,
        grpc.aio.insecure_channel(gateway.target) as channel,
    ):
        call = await speaking(channel)
        gateway.signal(signal.SIGTERM)
        await stops_serving(gateway)
        gateway.signal(signal.SIGTERM)
        found = await rest(call)
        assert found[-1].session_ended.reason == v1.SessionEnded.REASON_DRAIN
        assert len(of("go_away", found)) == 1
        assert await gateway.ended() == 0
    assert not any("by force" in line for line in gateway.log), gateway.log


async def test_every_call_that_is_cut_is_told_why() -> None:
    """40 at once, none of which ends its input: each has the status of its `session_ended`, with its ErrorInfo."""
    each = 8
    async with running(*LOCAL, "--drain-timeout", "0.5") as gateway, contextlib.AsyncExitStack() as stack:

        async def channel() -> Any:
            own = [("grpc.use_local_subchannel_pool", 1)]
            return await stack.enter_async_context(grpc.aio.insecure_channel(gateway.target, options=own))

        one, many = await channel(), [await channel() for _ in range(each)]
        speaks = [await speaking(one) for _ in range(each)]
        hears = [await listening(channel) for channel in many]
        busy = [await speaking(channel) for channel in many]
        for call in busy:
            words = v1.TextInput(text=STORY * 100, utterance_id="u")
            await call.write(v1.SynthesizeStreamRequest(text=words))
        waits = [synthesis_service_pb2_grpc.SynthesisServiceStub(one).SynthesizeStream() for _ in range(each)]
        controls = [session_service_pb2_grpc.SessionServiceStub(one).UpdateSettings() for _ in range(each)]
        for call in controls:
            await call.write(v1.UpdateSettingsRequest(session_id="nobody", update_id="d"))
            await asyncio.wait_for(call.read(), PATIENCE_S)
        gateway.signal(signal.SIGTERM)
        ends = await asyncio.gather(
            *(how_it_failed(call) for call in (*speaks, *hears, *busy, *waits, *controls))
        )
        assert await gateway.ended() == 0
    assert [failure_of_error(error).what for _, error in ends] == [
        ("UNAVAILABLE", "GATEWAY_DRAINING")
    ] * 5 * each
    for found, error in ends[: 4 * each]:
        last = found[-1].session_ended
        assert last.reason == v1.SessionEnded.REASON_DRAIN
        assert failure(last.status) == failure_of_error(error)
    assert not any("by force" in line for line in gateway.log), gateway.log


async def test_a_call_without_a_session_is_told_why_as_well() -> None:
    """A whole text that is being spoken to a caller who takes it slowly."""
    async with (
        running(*LOCAL, "--drain-timeout", "0.5") as gateway,
        grpc.aio.insecure_channel(gateway.target) as channel,
    ):
        settings = v1.SynthesisSettings(voice_id="magnus")
        stub = synthesis_service_pb2_grpc.SynthesisServiceStub(channel)
        call = stub.Synthesize(v1.SynthesizeRequest(text="word " * 2_000, settings=settings))
        await asyncio.wait_for(call.read(), PATIENCE_S)
        gateway.signal(signal.SIGTERM)
        ended = asyncio.create_task(gateway.ended())

        async def at_leisure() -> None:
            while await call.read() is not grpc.aio.EOF:
                await asyncio.wait({ended}, timeout=0.02)

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(at_leisure(), PATIENCE_S)
        assert failure_of_error(caught.value).what == ("UNAVAILABLE", "GATEWAY_DRAINING")
        assert await ended == 0
