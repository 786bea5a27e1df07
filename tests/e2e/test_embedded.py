"""The local upstream that the gateway starts itself dies: what is asked of it meanwhile waits until it is back."""

from __future__ import annotations

import asyncio
import os
import signal

import grpc
import grpc.aio
import waves_local
from wavegate import AudioFormat, Client
from wavegate.speech import v1
from wavegate.speech.v1 import synthesis_service_pb2_grpc
from wavegate_server.audio import AudioFormat as ServerFormat
from wavegate_server.audio import Encoding
from wavegate_server.waves.prerecorded import wav
from waves_local.deterministic import encode_text

from tests.support.calls import failure, failure_of_error, how_it_failed
from tests.support.gateway import of, start, text
from tests.support.process import PATIENCE_S, Running, children, gone, running, take, until

LOCAL = ("--upstream", "local", "--local-engine", "deterministic")
RATE_HZ = 16000
SAID = "and what was said in between is heard"


async def kill(gateway: Running) -> int:
    """Kill the local upstream; the process that was killed."""
    (child,) = children(gateway.process.pid)
    os.kill(child, signal.SIGKILL)
    await gone(child)
    return child


async def test_all_that_is_asked_while_it_restarts_waits_for_it() -> None:
    """Sessions of both kinds, open ones and new ones, and calls without a session; it dies twice meanwhile."""
    async with running(*LOCAL) as gateway, Client(gateway.target) as client:
        killed = asyncio.Event()
        ready = asyncio.Barrier(3)

        async def speak() -> str:
            async with client.synthesize(voice_id="magnus") as session:
                await (await session.say("Before.")).read()
                await ready.wait()
                await killed.wait()
                return waves_local.spoken(await (await session.say("In between.")).read())

        async def listen() -> str:
            async with client.transcribe(audio_format=AudioFormat("LINEAR16", RATE_HZ)) as session:
                await session.send_audio(encode_text("before", RATE_HZ))
                await session.finalize()
                await ready.wait()
                await killed.wait()
                await session.send_audio(encode_text(SAID, RATE_HZ))
                return (await session.finalize()).text

        async def begin() -> str:
            await killed.wait()
            async with client.synthesize(voice_id="magnus") as session:
                return waves_local.spoken(await (await session.say("Begun.")).read())

        async def once() -> str:
            await killed.wait()
            return waves_local.spoken((await client.synthesize_once("At once.", voice_id="magnus")).audio)

        async def recognize() -> str:
            await killed.wait()
            recording = wav(encode_text(SAID, RATE_HZ), ServerFormat(Encoding.LINEAR16, RATE_HZ))
            return (await client.recognize(recording)).text

        async def voices() -> int:
            await killed.wait()
            return len([voice async for voice in client.list_voices()])

        async def strike() -> None:
            await ready.wait()
            first = await kill(gateway)
            killed.set()

            async def again() -> bool:
                return children(gateway.process.pid) not in ([], [first])

            await until(again)
            await kill(gateway)

        async with asyncio.timeout(PATIENCE_S):
            said = await asyncio.gather(speak(), listen(), begin(), once(), recognize(), voices(), strike())
    assert said[:5] == ["In between.", SAID, "Begun.", "At once.", SAID]
    assert said[5] > 0


async def test_a_text_in_mid_speech_is_heard_whole() -> None:
    words = "Whatever dies, this text is long and heard to its end. " * 40 + "Goodbye."
    async with running(*LOCAL) as gateway, Client(gateway.target) as client:
        heard = b""
        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say(words)
            async for audio in utterance.audio():
                if not heard:
                    await kill(gateway)
                heard += audio
    assert waves_local.spoken(heard) == words


async def test_one_that_cannot_be_started_again_is_not_waited_for() -> None:
    """Its port is somebody else's now: what waits for it ends with a reason, and so does the gateway."""
    async with running(*LOCAL) as gateway, grpc.aio.insecure_channel(gateway.target) as channel:
        stub = synthesis_service_pb2_grpc.SynthesisServiceStub(channel)
        calls = [stub.SynthesizeStream() for _ in range(4)]
        for call in calls:
            await call.write(start())
            first = await asyncio.wait_for(call.read(), PATIENCE_S)
            assert first.HasField("session_started"), first
        gateway.signal(signal.SIGSTOP)  # until the port is taken, however long that takes
        (child,) = children(gateway.process.pid)
        os.kill(child, signal.SIGKILL)
        await gone(child)
        async with await take(gateway.upstream_port):
            gateway.signal(signal.SIGCONT)
            for call in calls:
                await call.write(text("Never spoken.", "u", True))
            whole = stub.Synthesize(v1.SynthesizeRequest(text="Nor this.", settings={"voice_id": "magnus"}))
            ends = await asyncio.gather(*(how_it_failed(call) for call in (*calls, whole)))
            assert await gateway.ended() == 1
    for found, error in ends:
        assert failure_of_error(error).code is grpc.StatusCode.UNAVAILABLE
        assert failure_of_error(error).reason in ("GATEWAY_DRAINING", "UPSTREAM_UNAVAILABLE")
        for failed in of("utterance_failed", found):
            assert failure(failed.error).reason in ("GATEWAY_DRAINING", "UPSTREAM_UNAVAILABLE")
    assert all(of("session_ended", found) for found, _ in ends[: len(calls)])
