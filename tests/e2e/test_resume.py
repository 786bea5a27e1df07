"""A lost call is taken up again: nothing missed, nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest
import waves_local
from wavegate.speech import v1

from tests.support.fault_proxy import FaultProxy, Faults
from tests.support.gateway import (
    END,
    SMALL_WINDOWS,
    RunningGateway,
    audio_of,
    collect,
    of,
    responses,
    running_gateway,
    text,
)

STORY = "Once upon a time there was a stream that lost its call. It came back. Nothing was missing."


def start(window_s: float = 5.0, **fields: Any) -> v1.SynthesizeStreamRequest:
    message = v1.StartSynthesis(settings=v1.SynthesisSettings(voice_id="magnus"), **fields)
    message.resume_window.FromMilliseconds(round(window_s * 1000))
    return v1.SynthesizeStreamRequest(start=message)


def again(session_id: str, last: int) -> v1.SynthesizeStreamRequest:
    return v1.SynthesizeStreamRequest(
        start=v1.StartSynthesis(resume_session_id=session_id, last_received_sequence=last)
    )


def story() -> v1.SynthesizeStreamRequest:
    message = text(STORY, "u1", end=True)
    message.input_sequence = 2
    return message


async def begin(gw: RunningGateway, request: Any, count: int) -> tuple[Any, list[Any]]:
    """Open a call, and read `count` responses."""
    call = gw.synthesis.SynthesizeStream()
    await call.write(request)
    await call.write(story())
    return call, [await call.read() for _ in range(count)]


async def eventually(true: Callable[[], bool]) -> None:
    """Wait for what the gateway does by itself; the test's own limit is the bound."""
    while not true():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.02)


async def detached(gw: RunningGateway, session_id: str) -> None:
    """Wait until the gateway has seen that the call is lost."""
    while True:
        session = (await gw.sessions.GetSession(v1.GetSessionRequest(session_id=session_id))).session
        if session.state == v1.Session.STATE_DETACHED:
            return
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("heard", [1, 2, 3, 7, 20])
async def test_a_lost_call_goes_on_where_it_was(heard: int) -> None:
    """Every event is delivered once, under its old number, in order."""
    async with running_gateway(waves_local.Options(chunk_interval_s=0.01)) as gw:
        call, first = await begin(gw, start(), heard)
        session_id = first[0].session_started.session_id
        assert first[0].session_started.limits.resume_window.seconds == 5
        call.cancel()
        await detached(gw, session_id)
        resumed = gw.synthesis.SynthesizeStream()
        # What has no acknowledgement is sent again: the call may have been lost before it arrived.
        second = await collect(resumed, [again(session_id, first[-1].sequence), story(), END])
        assert second[0].sequence == first[-1].sequence
        assert second[0].session_started.resumed
        assert second[0].session_started.session_id == session_id
        assert second[0].session_started.input_sequence_acknowledged in (1, 2)
        numbers = [r.sequence for r in first] + [r.sequence for r in second[1:]]
        assert numbers == list(range(1, len(numbers) + 1))
        assert waves_local.spoken(audio_of(first + second)) == STORY
        assert await resumed.code() == grpc.StatusCode.OK
        assert of("session_ended", second)[0].reason == v1.SessionEnded.REASON_CLIENT_END


async def test_input_that_was_kept_is_not_taken_twice() -> None:
    """A client sends again what it has no acknowledgement for; the gateway knows it by its number."""
    async with running_gateway() as gw:
        call = gw.synthesis.SynthesizeStream()
        opening = start()
        opening.input_sequence = 1
        await call.write(opening)
        pieces = [text(f"Piece {n}. ", "u1") for n in range(5)]
        for number, piece in enumerate(pieces, 2):
            piece.input_sequence = number
        for piece in pieces[:3]:
            await call.write(piece)
        first = [await call.read()]
        session_id = first[0].session_started.session_id
        call.cancel()
        await detached(gw, session_id)
        finish = v1.SynthesizeStreamRequest(input_sequence=7, end_session=v1.EndSession())
        second = await collect(gw.synthesis.SynthesizeStream(), [again(session_id, 1), *pieces, finish])
        assert waves_local.spoken(audio_of(second)) == "".join(f"Piece {n}. " for n in range(5)).rstrip()


async def test_resuming_an_attached_session_takes_it_over() -> None:
    async with running_gateway() as gw:
        call, first = await begin(gw, start(), 2)
        session_id = first[0].session_started.session_id
        second = await collect(gw.synthesis.SynthesizeStream(), [again(session_id, 2), END])
        rest = []
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for response in responses(call):
                rest.append(response)
        assert rest[-1].session_ended.reason == v1.SessionEnded.REASON_TAKEN_OVER
        assert await call.code() == grpc.StatusCode.ABORTED
        assert waves_local.spoken(audio_of(first + second)) == STORY


async def test_the_last_event_of_a_call_that_was_taken_over_has_the_number_behind_its_own() -> None:
    """Also where that call had resumed the session, and nothing had happened since."""
    async with running_gateway() as gw:
        call, got = await begin(gw, start(), 1)
        while got[-1].WhichOneof("event") != "utterance_completed":
            got.append(await call.read())
        session_id, last = got[0].session_started.session_id, got[-1].sequence
        second = gw.synthesis.SynthesizeStream()
        await second.write(again(session_id, last))
        assert (await second.read()).sequence == last
        third = gw.synthesis.SynthesizeStream()
        await third.write(again(session_id, last))
        assert (await third.read()).sequence == last
        taken_over = await second.read()
        assert taken_over.session_ended.reason == v1.SessionEnded.REASON_TAKEN_OVER
        assert taken_over.sequence == last + 1
        await third.write(END)
        assert [r.WhichOneof("event") async for r in responses(third)] == ["session_ended"]


async def test_what_becomes_of_a_call_that_was_taken_over_is_nothing_to_the_session() -> None:
    """The old call hangs in a network that has gone, with a write under way; it breaks when the new one goes on."""
    window_s = 0.3
    long = " ".join([STORY] * 8)
    async with (
        running_gateway() as gw,
        FaultProxy(gw.port) as proxy,
        grpc.aio.insecure_channel(f"127.0.0.1:{proxy.port}", options=SMALL_WINDOWS) as channel,
    ):
        lost = replace(gw, channel=channel).synthesis.SynthesizeStream()
        await lost.write(start(window_s))
        first = [await lost.read()]
        session_id = first[0].session_started.session_id
        (session,) = gw.gateway.registry
        await lost.write(text(long, "u1", end=True))
        await eventually(lambda: session.log.full)  # it reads no more, so the gateway's next write waits
        proxy.set(down=Faults(is_stopped=True), up=Faults(is_stopped=True))
        resumed = gw.synthesis.SynthesizeStream()
        await resumed.write(again(session_id, 1))
        second = [await resumed.read()]
        proxy.reset()
        await asyncio.sleep(2 * window_s)
        assert not session.detached
        await resumed.write(END)
        second += [r async for r in responses(resumed)]
        assert await resumed.code() == grpc.StatusCode.OK
        assert waves_local.spoken(audio_of(second)) == long


async def test_last_words_that_were_lost_are_said_again() -> None:
    """The network swallows the end of the session, which the gateway takes for delivered."""
    async with (
        running_gateway() as gw,
        FaultProxy(gw.port) as proxy,
        grpc.aio.insecure_channel(f"127.0.0.1:{proxy.port}", options=SMALL_WINDOWS) as channel,
    ):
        lost = replace(gw, channel=channel).synthesis.SynthesizeStream()
        await lost.write(start())
        first = [await lost.read()]
        (session,) = gw.gateway.registry
        proxy.set(down=Faults(is_swallowed=True))
        rest = [text("Good-bye.", "u1", end=True), v1.SynthesizeStreamRequest(end_session=v1.EndSession())]
        for number, request in enumerate(rest, 2):
            request.input_sequence = number
        for request in rest:
            await lost.write(request)
        await lost.done_writing()
        await eventually(lambda: session.ended is not None and session.detached)
        proxy.reset()
        second = await collect(gw.synthesis.SynthesizeStream(), [again(session.session_id, 1), *rest])
        assert waves_local.spoken(audio_of(second)) == "Good-bye."
        numbers = [r.sequence for r in first] + [r.sequence for r in second[1:]]
        assert numbers == list(range(1, len(numbers) + 1))
        assert second[-1].session_ended.reason == v1.SessionEnded.REASON_CLIENT_END


async def test_who_has_heard_the_end_is_not_waited_for() -> None:
    """An end of input after the last words says that they have come."""
    async with running_gateway() as gw:
        call, got = await begin(gw, start(), 1)
        await call.write(END)
        while got[-1].WhichOneof("event") != "session_ended":
            got.append(await call.read())
        assert len(gw.gateway.registry) == 1
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK
        await eventually(lambda: not len(gw.gateway.registry))


@pytest.mark.parametrize("case", ["unknown", "not resumable", "expired", "discarded"])
async def test_what_cannot_be_resumed_is_not_found(case: str) -> None:
    async with running_gateway() as gw:
        session_id = "s-unknown"
        if case != "unknown":
            call, first = await begin(gw, start(0.0 if case == "not resumable" else 0.2), 1)
            session_id = first[0].session_started.session_id
            if case == "discarded":
                await call.write(v1.SynthesizeStreamRequest(end_session=v1.EndSession(discard=True)))
                await call.done_writing()
                assert of("session_ended", [r async for r in responses(call)])
                assert (await call.code()) == grpc.StatusCode.OK
            elif case == "expired":
                call.cancel()
                await eventually(lambda: not len(gw.gateway.registry))
        late = gw.synthesis.SynthesizeStream()
        with pytest.raises(grpc.aio.AioRpcError):
            await collect(late, [again(session_id, 1)])
        assert await late.code() == grpc.StatusCode.NOT_FOUND


async def test_an_expired_session_lets_go_of_its_upstream() -> None:
    async with running_gateway() as gw:
        assert gw.upstream is not None
        call, first = await begin(gw, start(0.2), 1)
        call.cancel()
        upstream = gw.upstream
        await eventually(lambda: not upstream.open_connections and not len(gw.gateway.registry))
        assert first[0].session_started.session_id


async def test_a_caller_that_missed_more_than_is_held_is_told() -> None:
    async with running_gateway() as gw:
        call, first = await begin(gw, start(), 3)
        session_id = first[0].session_started.session_id
        call.cancel()
        await detached(gw, session_id)
        late = gw.synthesis.SynthesizeStream()
        with pytest.raises(grpc.aio.AioRpcError):
            await collect(late, [again(session_id, 10_000)])
        assert await late.code() == grpc.StatusCode.OUT_OF_RANGE
