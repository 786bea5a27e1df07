"""What callers get wrong: each mistake has its status, its reason and a sentence, and nothing hangs."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import grpc
import grpc.aio
import pytest
import waves_local
from wavegate.speech import v1
from wavegate.speech.v1 import synthesis_service_pb2_grpc
from wavegate_server.session.context import Bounds
from wavegate_server.waves.tts import Mode

from tests.support.calls import (
    PATIENCE_S,
    Failure,
    Speaking,
    cancel,
    change,
    end_utterance,
    eventually,
    failure,
    failure_of,
    failure_of_error,
    flush,
    heard,
    request,
    seconds,
    together,
)
from tests.support.gateway import END, RunningGateway, running_gateway, start, text

OK = Failure(grpc.StatusCode.OK)
FIELD_INVALID = ("INVALID_ARGUMENT", "FIELD_INVALID")
MESSAGE_ORDER = ("INVALID_ARGUMENT", "MESSAGE_ORDER")


def speaking(gateway: RunningGateway, **options: Any) -> Speaking:
    return Speaking(gateway.synthesis.SynthesizeStream(**options))


def spoken(stream: Speaking, utterance_id: str | None = None) -> str:
    return waves_local.spoken(stream.audio(utterance_id))


def begun(**fields: Any) -> Any:
    """A `start` with these fields beside empty settings."""
    fields.setdefault("settings", v1.SynthesisSettings())
    return request(start=v1.StartSynthesis(**fields))


def numbered(message: Any, number: int) -> Any:
    message.input_sequence = number
    return message


async def still_serves(gateway: RunningGateway) -> None:
    """Whatever was done to it, the next caller is served, and nothing is left over."""
    await eventually(lambda: not len(gateway.gateway.registry))
    stream = speaking(gateway)
    assert await stream.end(start(), text("Fine.", "u1", True), END) == OK
    assert spoken(stream) == "Fine."


# -- the first message -------------------------------------------------------------------------------------------

WRONG_FIRST = {
    "text": text("Hello."),
    "end_utterance": end_utterance(),
    "cancel": cancel(),
    "flush": flush(),
    "playback": heard("u1", 0.1),
    "update_settings": change("d1", speed=1.0),
    "end_session": END,
    "nothing": request(),
}


async def test_the_first_message_must_be_start() -> None:
    """Anything else, and none at all, ends the call before any upstream is dialled."""
    async with running_gateway() as gateway:

        async def refused(name: str, *messages: Any) -> None:
            stream = speaking(gateway)
            status = await stream.end(*messages)
            assert status.what == MESSAGE_ORDER, name
            assert "start" in status.message
            assert stream.kinds() == ["session_ended"]
            assert stream.ended.reason == v1.SessionEnded.REASON_FAILURE

        cases = [refused(name, message) for name, message in WRONG_FIRST.items()]
        await together(refused("half-close"), *cases)
        await refused("more follows", text("Hello."), start(), text("again"), END)
        assert gateway.upstream is not None
        assert not list(gateway.upstream.journal)
        await still_serves(gateway)


async def test_a_start_that_never_comes_is_not_waited_for() -> None:
    async with running_gateway(start_timeout_s=0.1) as gateway:
        stream = speaking(gateway)
        status = await stream.rest()
        assert status.what == ("DEADLINE_EXCEEDED", "START_TIMEOUT")
        assert stream.ended.reason == v1.SessionEnded.REASON_CLIENT_IDLE
        await still_serves(gateway)


async def test_a_second_start_ends_the_call() -> None:
    async with running_gateway(waves_local.Options(chunk_interval_s=0.02)) as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text("Being spoken at the time.", "u1", True))
        await stream.until("audio")
        status = await stream.end(start())
        assert status.what == MESSAGE_ORDER
        assert failure(stream.one("utterance_failed").error).what == MESSAGE_ORDER
        assert stream.ended.reason == v1.SessionEnded.REASON_FAILURE
        await still_serves(gateway)


BAD_STARTS: dict[str, tuple[Any, set[str]]] = {
    "no settings": (request(start=v1.StartSynthesis()), {"start.settings"}),
    "too fast": (start(speed=2.01), {"start.settings.speed"}),
    "too slow": (start(speed=0.49), {"start.settings.speed"}),
    "no number": (start(speed=float("nan")), {"start.settings.speed"}),
    "infinite": (start(speed=float("inf")), {"start.settings.speed"}),
    "no voice": (start(voice_id=""), {"start.settings.voice_id"}),
    "blank voice": (start(voice_id="  "), {"start.settings.voice_id"}),
    "endless voice": (start(voice_id="v" * 129), {"start.settings.voice_id"}),
    "voice with a line break": (start(voice_id="mag\nnus"), {"start.settings.voice_id"}),
    "empty model": (start(model=""), {"start.settings.model"}),
    "no language": (start(language_code="not a language"), {"start.settings.language_code"}),
    "no number language": (start(number_language_code="?"), {"start.settings.number_language_code"}),
    "long buffer": (start(max_buffer_delay={"seconds": 5, "nanos": 1_000_000}), {"start.settings.max_buffer_delay"}),
    "negative buffer": (start(max_buffer_delay={"nanos": -1}), {"start.settings.max_buffer_delay"}),
    "long backoff": (start(completion_backoff={"seconds": 11}), {"start.settings.completion_backoff"}),
    "no chunk": (start(max_chunk_bytes=0), {"start.settings.max_chunk_bytes"}),
    "huge chunk": (start(max_chunk_bytes=2**20 + 1), {"start.settings.max_chunk_bytes"}),
    "field of another model": (start(consistency=0.5), {"start.settings.consistency"}),
    "out of range on its model": (
        start(model="lightning-v2", consistency=1.5, similarity=-0.1, enhancement=3),
        {f"start.settings.{n}" for n in ("consistency", "similarity", "enhancement")},
    ),
    "owned extra": (
        start(extra={"text": "x", "speed": 1, "fine": 1}),
        {"start.settings.extra.text", "start.settings.extra.speed"},
    ),
    "rate": (begun(audio_format={"sample_rate_hertz": 22050}), {"start.audio_format.sample_rate_hertz"}),
    "negative rate": (begun(audio_format={"sample_rate_hertz": -1}), {"start.audio_format.sample_rate_hertz"}),
    "speech-in encoding": (begun(audio_format={"encoding": "AUDIO_ENCODING_OPUS"}), {"start.audio_format.encoding"}),
    "unknown encoding": (begun(audio_format={"encoding": 99}), {"start.audio_format.encoding"}),
    "stereo": (begun(audio_format={"channel_count": 2}), {"start.audio_format.channel_count"}),
    "id": (begun(client_session_id="white space"), {"start.client_session_id"}),
    "long id": (begun(client_session_id="x" * 129), {"start.client_session_id"}),
    "unicode id": (begun(client_session_id="é"), {"start.client_session_id"}),
    "no lead": (begun(max_audio_lead={}), {"start.max_audio_lead"}),
    "negative lead": (begun(max_audio_lead={"seconds": -1}), {"start.max_audio_lead"}),
    "negative window": (begun(resume_window={"seconds": -1}), {"start.resume_window"}),
    "everything at once": (
        begun(
            settings={"speed": 7, "voice_id": "", "max_chunk_bytes": -1},
            audio_format={"encoding": "AUDIO_ENCODING_LINEAR32", "sample_rate_hertz": 1, "channel_count": 3},
            client_session_id="/",
            max_audio_lead={},
        ),
        {
            "start.settings.speed", "start.settings.voice_id", "start.settings.max_chunk_bytes",
            "start.audio_format.encoding", "start.audio_format.sample_rate_hertz",
            "start.audio_format.channel_count", "start.client_session_id", "start.max_audio_lead",
        },
    ),
}  # fmt: skip


async def test_a_bad_start_is_refused_with_every_violation_and_nothing_is_sent() -> None:
    async with running_gateway() as gateway:

        async def refused(name: str) -> None:
            message, fields = BAD_STARTS[name]
            stream = speaking(gateway)
            status = await stream.end(message, text("Never."), END)
            assert status.what == FIELD_INVALID, name
            assert set(status.violations) == fields, name
            assert all(status.violations.values()), name
            assert stream.kinds() == ["session_ended"], name

        await together(*map(refused, BAD_STARTS))
        assert gateway.upstream is not None
        assert not list(gateway.upstream.journal)
        await still_serves(gateway)


GOOD_STARTS = {
    "slowest": start(speed=0.5),
    "fastest": start(speed=2.0),
    "longest buffer": start(max_buffer_delay={"seconds": 5}),
    "no buffer": start(max_buffer_delay={}),
    "least lead": begun(max_audio_lead={"nanos": 1_000_000}),
    "enormous lead": begun(max_audio_lead={"seconds": 10_000_000}),
    "resume window": begun(resume_window={"seconds": 3600}),
    "no format": begun(audio_format=v1.AudioFormat()),
    "mono": begun(audio_format={"channel_count": 1}),
    "longest id": begun(client_session_id="x" * 128),
    "every id character": begun(client_session_id="aZ09_.-"),
    "empty extra": start(extra={}),
    "unspecified filter": start(content_filter=v1.CONTENT_FILTER_UNSPECIFIED),
}


async def test_what_lies_on_the_edge_is_taken() -> None:
    async with running_gateway() as gateway:

        async def taken(name: str) -> None:
            stream = speaking(gateway)
            assert await stream.end(GOOD_STARTS[name], text("OK", "u" * 128, True), END) == OK, name
            assert spoken(stream) == "OK", name

        await together(*map(taken, GOOD_STARTS))


async def test_the_flush_way_buffers_a_second_at_most() -> None:
    async with running_gateway(mode=Mode.FLUSH) as gateway:
        status = await speaking(gateway).end(start(max_buffer_delay={"seconds": 1, "nanos": 1_000_000}))
        assert set(status.violations) == {"start.settings.max_buffer_delay"}
        assert await speaking(gateway).end(start(max_buffer_delay={"seconds": 1}), END) == OK


async def test_a_gateway_without_a_default_voice_needs_one() -> None:
    async with running_gateway(synthesis_defaults={}) as gateway:
        status = await speaking(gateway).end(start(), END)
        assert status.what == FIELD_INVALID
        assert set(status.violations) == {"start.settings.voice_id"}
        stream = speaking(gateway)
        assert await stream.end(start(voice_id="magnus"), text("Now.", "u1", True), END) == OK


async def test_what_was_never_there_cannot_be_resumed() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        resuming = request(start=v1.StartSynthesis(resume_session_id="s-1", last_received_sequence=7))
        assert (await stream.end(resuming)).what == ("NOT_FOUND", "SESSION_NOT_FOUND")


# -- the messages after it ---------------------------------------------------------------------------------------

BAD_MESSAGES: dict[str, tuple[list[Any], tuple[str, str], set[str]]] = {
    "empty": ([request()], FIELD_INVALID, {"input"}),
    "text id": ([text("x", "a b")], FIELD_INVALID, {"text.utterance_id"}),
    "long text id": ([text("x", "a" * 129)], FIELD_INVALID, {"text.utterance_id"}),
    "emoji id": ([text("x", "🎉")], FIELD_INVALID, {"text.utterance_id"}),
    "end id": ([end_utterance("/")], FIELD_INVALID, {"end_utterance.utterance_id"}),
    "flush id": ([flush("/")], FIELD_INVALID, {"flush.utterance_id"}),
    "cancel id": ([cancel("/")], FIELD_INVALID, {"cancel.utterance_id"}),
    "cancel offset": ([cancel("u1", -0.5)], FIELD_INVALID, {"cancel.playback_offset"}),
    "playback id": ([heard("/", 1)], FIELD_INVALID, {"playback.utterance_id"}),
    "playback offset": ([heard("u1", -1)], FIELD_INVALID, {"playback.playback_offset"}),
    "update id": ([change("a b", speed=1.0)], FIELD_INVALID, {"update_settings.update_id"}),
    "number repeated": ([numbered(text("x"), 5), numbered(text("y"), 5)], MESSAGE_ORDER, set()),
    "number going back": ([numbered(text("x"), 5), text("y"), numbered(text("z"), 6)], MESSAGE_ORDER, set()),
    "number of the start": ([numbered(text("x"), 1)], MESSAGE_ORDER, set()),
    "negative number": ([numbered(text("x"), -1)], MESSAGE_ORDER, set()),
}


async def test_a_message_that_breaks_the_contract_ends_the_call() -> None:
    """What is open fails with the same status; what is written after it is read and dropped."""
    async with running_gateway(waves_local.Options(chunk_interval_s=0.02)) as gateway:

        async def ends(name: str) -> None:
            messages, what, fields = BAD_MESSAGES[name]
            stream = speaking(gateway)
            await stream.begin(start(), text("Going on.", "first"))
            status = await stream.end(*messages, text("dropped", "u9"), END)
            assert status.what == what, name
            assert set(status.violations) == fields, name
            assert {failure(f.error).what for f in stream.all("utterance_failed")} <= {what}, name
            assert stream.ended.reason == v1.SessionEnded.REASON_FAILURE

        await together(*map(ends, BAD_MESSAGES))
        await still_serves(gateway)


async def test_a_negative_number_of_the_start_is_refused() -> None:
    async with running_gateway() as gateway:
        assert (await speaking(gateway).end(numbered(start(), -5))).what == MESSAGE_ORDER


# -- texts -------------------------------------------------------------------------------------------------------

SMALL = Bounds(max_text_message_chars=50, max_utterance_chars=120)


async def test_a_text_that_is_too_long_fails_its_utterance_alone() -> None:
    """Counted in code points: fifty emoji are fifty characters."""

    async def check(early: bool) -> None:
        async with running_gateway(bounds=SMALL) as gateway:
            stream = speaking(gateway)
            limits = (await stream.begin(start())).limits
            assert limits.max_text_message_chars == 50
            if not early:
                await stream.say(text("It began well. ", "u1"))
                await stream.until("audio")
            await stream.say(text("🎉" * 51, "u1"), text("more", "u1"), text("🎉" * 50, "u2", True))
            failed = await stream.until("utterance_failed")
            assert failed.utterance_id == "u1"
            error = failure(failed.error)
            assert error.what == FIELD_INVALID
            assert set(error.violations) == {"text.text"}
            assert "51" in error.message
            assert not failed.retryable
            assert (seconds(failed.audio_sent_duration) == 0) == early
            assert await stream.end(END) == OK
            assert stream.warnings() == [], "the failure was the word on it"
            assert spoken(stream, "u2") == "🎉" * 50

    await together(*(check(early) for early in [True, False]))


async def test_an_utterance_that_grows_too_long_fails() -> None:
    async with running_gateway(bounds=SMALL) as gateway:
        stream = speaking(gateway)
        await stream.begin(start())
        for _ in range(3):
            await stream.say(text("Forty characters that make a sentence. ", "u1"))
        await stream.say(text("x" * 50, "u1"))
        failed = await stream.until("utterance_failed")
        assert failure(failed.error).what == FIELD_INVALID
        assert await stream.end(text("Next.", "u2", True), END) == OK
        assert spoken(stream, "u2") == "Next."


async def test_control_characters_are_left_out() -> None:
    """The upstream never sees them, nor a part of an escape sequence, however the text is cut."""
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        bad = ["\0nul", "b\x07ell\x07", "\x1b[31mred\x1b[0m", "del\x7f", "Hel\x08lo", "\x02"]
        await stream.begin(start(), *(text(t, f"u{i}", True) for i, t in enumerate(bad)))
        pieces = ["A \x1b[1;3", "1mcut\x1b", "[0m sequence", " and tab\tnew\nline\r\n"]
        await stream.say(*(text(piece, "cut") for piece in pieces), end_utterance("cut"))
        assert await stream.end(END) == OK
        assert stream.all("utterance_failed") == []
        said = ["nul", "bell", "red", "del", "Hello", ""]
        assert [spoken(stream, f"u{i}") for i in range(len(bad))] == said
        assert spoken(stream, "cut").split() == ["A", "cut", "sequence", "and", "tab", "new", "line"]
        assert stream.warnings() == ["CONTROL_CHARACTERS"] * 7
        assert [w.utterance_id for w in stream.all("warning")] == ["u0", "u1", "u2", "u3", "u4", "u5", "cut"]
        assert [dict(w.metadata) for w in stream.all("warning")][:3] == [
            {"character": "U+0000"},
            {"character": "U+0007"},
            {"character": "U+001B"},
        ]
        counts = {c.utterance_id: c.metrics.input_character_count for c in stream.all("utterance_completed")}
        assert counts["u4"] == 5
        assert counts["cut"] == len("A cut sequence and tab\tnew\nline\r\n")
        assert stream.ended.usage.input_character_count == sum(counts.values())


async def test_more_text_than_is_held_waits_in_the_caller() -> None:
    """The gateway reads no further; nothing is lost or refused."""
    bounds = Bounds(max_buffered_chars=200, max_queued_utterances=4)
    async with running_gateway(waves_local.Options(chunk_interval_s=0.005), bounds=bounds) as gateway:
        stream = speaking(gateway)
        await stream.begin(start())
        said = [f"Utterance number {i} of many." for i in range(9)]
        writer = asyncio.create_task(stream.say(*(text(t, f"u{i}", True) for i, t in enumerate(said)), END))
        assert await stream.rest() == OK
        await writer
        assert [spoken(stream, f"u{i}") for i in range(9)] == said


# -- what the upstream does not know -----------------------------------------------------------------------------


async def test_an_unknown_voice_model_or_language_fails_the_utterance() -> None:
    """In each shape of the upstream's errors; the session lives on, and says what the upstream said."""

    async def check(closes: bool) -> None:
        rejected = ("INVALID_ARGUMENT", "UPSTREAM_REJECTED")

        async def fails(shape: Any) -> None:
            options = waves_local.Options(error_shape=shape, error_closes=closes)
            async with running_gateway(options) as gateway:
                stream = speaking(gateway)
                await stream.begin(start(voice_id="nobody"), text("Who speaks?", "u1", True))
                failed = await stream.until("utterance_failed")
                error = failure(failed.error)
                assert error.what == rejected
                assert "nobody" in error.message
                assert not failed.retryable
                await stream.say(
                    change("d1", voice_id="magnus", model="lightning_v9"), text("Which model?", "u2", True)
                )
                error = failure((await stream.until("utterance_failed")).error)
                assert error.what == rejected
                assert "lightning_v9" in error.message
                await stream.say(change("d2", reset=["model"], language_code="xx"), text("What?", "u3", True))
                error = failure((await stream.until("utterance_failed")).error)
                assert error.what == rejected
                await stream.say(change("d3", reset=["language_code"]), text("All is well.", "u4", True))
                assert await stream.end(END) == OK
                assert spoken(stream) == "All is well."

        await together(*map(fails, ["message", "error", "error_object"]))

    await together(*(check(closes) for closes in [False, True]))


async def test_a_text_that_the_upstream_refuses_fails_its_utterance() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        await stream.begin(start(content_filter=v1.CONTENT_FILTER_REJECT), text("Damn it.", "u1", True))
        failed = await stream.until("utterance_failed")
        assert failure(failed.error).what == ("INVALID_ARGUMENT", "UPSTREAM_REJECTED")
        assert await stream.end(text("Darn it.", "u2", True), END) == OK
        assert spoken(stream, "u2") == "Darn it."


# -- bytes -------------------------------------------------------------------------------------------------------

SYNTHESIZE_STREAM = "/wavegate.speech.v1.SynthesisService/SynthesizeStream"


def raw(gateway: RunningGateway) -> Any:
    """A stream on which any bytes can be sent."""
    method = gateway.channel.stream_stream(
        SYNTHESIZE_STREAM,
        request_serializer=None,
        response_deserializer=v1.SynthesizeStreamResponse.FromString,
    )
    return method()


START_BYTES = start().SerializeToString()
BAD_UTF8 = b"\x1a\x06\x0a\x04ab\xff\xfe"
"""`text { text: … }` whose string is no UTF-8."""


async def test_bytes_that_are_no_message_end_the_call() -> None:
    """As the first message and as a later one."""

    async def check(garbage: bytes) -> None:
        async with running_gateway() as gateway:
            for messages in ([garbage], [START_BYTES, garbage, START_BYTES]):
                stream = Speaking(raw(gateway))
                status = await stream.end(*messages)
                assert status.what == FIELD_INVALID
                assert status.message
            await still_serves(gateway)

    await together(*(check(garbage) for garbage in [BAD_UTF8, b"\xff" * 20, b"\x1a\x7fshort"]))


async def test_an_empty_request_is_a_message_without_input() -> None:
    async with running_gateway() as gateway:
        assert (await Speaking(raw(gateway)).end(START_BYTES, b"")).what == FIELD_INVALID


async def test_a_message_above_the_streams_limit_ends_the_call() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        status = await stream.end(start(), text("x" * 300_000, "u1"), END)
        assert status.what == FIELD_INVALID
        assert "262144" in status.message
        await still_serves(gateway)


async def test_a_message_above_the_transports_limit_ends_the_call() -> None:
    """That is gRPC's own refusal: its status comes without our details. The upstream is let go all the same."""
    async with running_gateway() as gateway:
        assert gateway.upstream is not None
        stream = speaking(gateway)
        await stream.begin(start(), text("Open", "u1"))
        await gateway.upstream.journal.wait_for(lambda j: j.of("tts"))
        await stream.say(text("x" * (34 * 2**20), "u1"))
        while await stream.next() is not None:
            pass
        assert (await failure_of(stream.call)).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await gateway.upstream.journal.wait_for(lambda j: not any(r.is_open for r in j.of("tts")))
        await still_serves(gateway)


async def test_unary_requests_that_are_no_message_are_refused() -> None:
    async with running_gateway() as gateway:
        for method in ("SynthesisService/ListVoices", "SessionService/GetSession"):
            call = gateway.channel.unary_unary(f"/wavegate.speech.v1.{method}")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"\xff\xff\xff")
            assert failure_of_error(caught.value).what == FIELD_INVALID
        call = gateway.channel.unary_stream("/wavegate.speech.v1.SynthesisService/Synthesize")(
            b"\x0a\x02\xff\xff"
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [e async for e in call]
        assert failure_of_error(caught.value).what == FIELD_INVALID


async def test_an_unknown_method_is_unimplemented() -> None:
    async with running_gateway() as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.channel.unary_unary("/wavegate.speech.v1.SynthesisService/Sing")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# -- Synthesize --------------------------------------------------------------------------------------------------


def whole(**fields: Any) -> Any:
    fields.setdefault("text", "Hello.")
    fields.setdefault("settings", v1.SynthesisSettings())
    return v1.SynthesizeRequest(**fields)


BAD_WHOLE: dict[str, tuple[Any, set[str]]] = {
    "no text": (whole(text=""), {"text"}),
    "blank": (whole(text=" \n"), {"text"}),
    "too long": (whole(text="x" * 121), {"text"}),
    "control characters": (whole(text="\a\x1b[31m \x1b[0m"), {"text"}),
    "no settings": (v1.SynthesizeRequest(text="Hello."), {"settings"}),
    "request id": (whole(request_id="a b"), {"request_id"}),
    "all": (
        whole(text="", settings={"speed": 3}, audio_format={"sample_rate_hertz": 7}, request_id="/"),
        {"text", "settings.speed", "audio_format.sample_rate_hertz", "request_id"},
    ),
}


async def test_a_bad_whole_text_is_refused_before_anything_is_sent() -> None:
    async def check(name: str) -> None:
        message, fields = BAD_WHOLE[name]
        async with running_gateway(bounds=SMALL) as gateway:
            call = gateway.synthesis.Synthesize(message)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                _ = [e async for e in call]
            error = failure_of_error(caught.value)
            assert error.what == FIELD_INVALID
            assert set(error.violations) == fields
            assert gateway.upstream is not None
            assert not list(gateway.upstream.journal)

    await together(*(check(name) for name in BAD_WHOLE))


async def test_a_whole_text_in_an_unknown_voice_is_refused_by_the_upstream() -> None:
    async with running_gateway() as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [e async for e in gateway.synthesis.Synthesize(whole(settings={"voice_id": "nobody"}))]
        error = failure_of_error(caught.value)
        assert error.what == ("INVALID_ARGUMENT", "UPSTREAM_REJECTED")
        assert "nobody" in error.message


# -- too much, too little ----------------------------------------------------------------------------------------


async def test_a_caller_may_have_so_many_sessions_and_the_gateway_too() -> None:
    async with running_gateway(max_sessions_per_caller=2) as gateway:
        first, second, third = (speaking(gateway) for _ in range(3))
        await first.begin(start())
        await second.begin(start())
        status = await third.end(start(), END)
        assert status.what == ("RESOURCE_EXHAUSTED", "CALLER_QUOTA")
        assert status.retry_s is not None
        assert status.quota == "caller"
        assert third.ended.reason == v1.SessionEnded.REASON_LIMIT
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [e async for e in gateway.synthesis.Synthesize(whole())]
        assert failure_of_error(caught.value).what == ("RESOURCE_EXHAUSTED", "CALLER_QUOTA")
        assert await first.end(END) == OK
        assert await speaking(gateway).end(start(), END) == OK
        assert await second.end(END) == OK
    async with running_gateway(max_sessions=1) as gateway:
        stream = speaking(gateway)
        await stream.begin(start())
        status = await speaking(gateway).end(start(), END)
        assert status.what == ("RESOURCE_EXHAUSTED", "GATEWAY_CAPACITY")
        assert status.retry_s is not None
        assert status.quota == "gateway"
        assert await stream.end(END) == OK


async def test_a_session_without_input_ends() -> None:
    """Also one whose utterance was left open; not one that is being spoken."""
    bounds = Bounds(idle_timeout_s=0.6)
    async with running_gateway(waves_local.Options(chunk_interval_s=0.04), bounds=bounds) as gateway:
        silent, speaker = speaking(gateway), speaking(gateway)
        started = await silent.begin(start())
        assert seconds(started.limits.client_idle_timeout) == pytest.approx(0.6)
        await speaker.begin(start(), text("Longer than the timeout is this one", "u1", True))
        for stream, status in zip(
            (silent, speaker), await asyncio.gather(silent.rest(), speaker.rest()), strict=True
        ):
            assert status.what == ("DEADLINE_EXCEEDED", "SESSION_IDLE")
            assert stream.ended.reason == v1.SessionEnded.REASON_CLIENT_IDLE
        assert spoken(speaker) == "Longer than the timeout is this one"
        assert speaker.one("utterance_completed")
        await still_serves(gateway)


async def test_a_caller_whose_connection_breaks_is_cleared_away() -> None:
    """No cancel and no half-close: the TCP connection is gone, in the midst of a session."""
    async with running_gateway(waves_local.Options(chunk_interval_s=0.02)) as gateway:
        assert gateway.upstream is not None
        broken = asyncio.Event()

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

        async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            back, there = await asyncio.open_connection("127.0.0.1", gateway.port)
            pumps = [asyncio.create_task(forward(reader, there)), asyncio.create_task(forward(back, writer))]
            await broken.wait()
            for pump in pumps:
                pump.cancel()
            for end in (there, writer):
                end.transport.abort()

        proxy = await asyncio.start_server(through, "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = synthesis_service_pb2_grpc.SynthesisServiceStub(channel)
            stream = Speaking(stub.SynthesizeStream())
            await stream.begin(start(), text("Words that will never be heard to their end. " * 3, "u1", True))
            await stream.until("audio")
            broken.set()
            await gateway.upstream.journal.wait_for(lambda j: not any(r.is_open for r in j.of("tts")))
        proxy.close()
        await still_serves(gateway)


async def test_a_caller_that_never_reads_is_held_within_bounds() -> None:
    """It floods the gateway with inputs that each bring an event, reads none, and is read no further."""
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        await stream.say(start())

        async def flood() -> None:
            while True:
                await stream.call.write(flush("n" * 128))

        writer = asyncio.create_task(flood())
        await eventually(lambda: len(gateway.gateway.registry))
        (session,) = list(gateway.gateway.registry)
        async with asyncio.timeout(PATIENCE_S):
            taken = -1
            while taken != session.input_sequence or taken < 1000:
                taken = session.input_sequence
                await asyncio.sleep(0.3)
        assert session.log.waiting_events < 1100
        writer.cancel()
        stream.call.cancel()
        await still_serves(gateway)


async def test_connections_that_speak_no_grpc_do_no_harm() -> None:
    async with running_gateway() as gateway:
        for noise in (
            b"",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01" + bytes(200),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", gateway.port)) as plain:
                plain.sendall(noise)
                await asyncio.sleep(0.02)
        await still_serves(gateway)
