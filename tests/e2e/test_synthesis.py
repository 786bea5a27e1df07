"""SynthesizeStream, Synthesize and ListVoices, as a caller of the generated stubs sees them."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import time
import unicodedata
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import soundfile
import waves_local
from wavegate.speech import v1
from wavegate.speech.v1 import synthesis_service_pb2_grpc
from wavegate_server import __version__
from wavegate_server.session.account import Account
from wavegate_server.session.context import UpstreamTarget
from wavegate_server.session.pool import Upstreams
from wavegate_server.telemetry.otel import OtelTelemetry
from wavegate_server.waves.tts import Mode

from tests.support.calls import (
    DISCARD,
    PATIENCE_S,
    Failure,
    Speaking,
    cancel,
    end_utterance,
    eventually,
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
WORDS = "The quick brown fox jumps over the lazy dog, twice."
CHARACTER_S = 0.06
"""Playing time of a character of the deterministic engine at speed 1."""

MODES = pytest.mark.parametrize("mode", list(Mode), ids=lambda m: m.value)


def speaking(gateway: RunningGateway, **options: Any) -> Speaking:
    return Speaking(gateway.synthesis.SynthesizeStream(**options))


def spoken(stream: Speaking, utterance_id: str | None = None) -> str:
    return waves_local.spoken(stream.audio(utterance_id))


def texts(gateway: RunningGateway, number: int = 0) -> list[dict[str, Any]]:
    """What reached the upstream over one TTS connection."""
    assert gateway.upstream is not None
    return gateway.upstream.journal.of("tts")[number].texts


async def cut_off(gateway: RunningGateway) -> waves_local.ConnectionRecord:
    """Wait until the upstream's only TTS connection has ended."""
    assert gateway.upstream is not None

    def ended(journal: waves_local.Journal) -> Any:
        found = journal.of("tts")
        return found and not any(r.is_open for r in found) and found[0]

    record: waves_local.ConnectionRecord = await gateway.upstream.journal.wait_for(ended)
    return record


# -- the session -------------------------------------------------------------------------------------------------


async def test_a_session_says_what_it_is() -> None:
    """`session_started` is complete, and the initial metadata say the same."""
    async with running_gateway(telemetry=OtelTelemetry("test"), max_sessions_per_caller=7) as gateway:
        trace = "0af7651916cd43dd8448eb211c80319c"
        stream = speaking(gateway, metadata=(("traceparent", f"00-{trace}-b7ad6b7169203331-01"),))
        started = await stream.begin(start(speed=1.5))
        metadata = dict(await stream.call.initial_metadata())
        assert metadata["wavegate-session-id"] == started.session_id
        assert metadata["wavegate-trace-id"] == started.trace_id == trace
        assert started.session_id
        assert started.audio_format == v1.AudioFormat(
            encoding=v1.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=24000, channel_count=1
        )
        settings = started.settings.synthesis
        assert (settings.voice_id, settings.model, settings.speed) == ("magnus", "lightning_v3.1", 1.5)
        assert settings.HasField("max_buffer_delay")
        assert settings.HasField("completion_backoff")
        assert not settings.HasField("language_code")
        assert started.settings_revision == 1
        assert not started.resumed
        assert started.input_sequence_acknowledged == 0
        assert started.gateway_version == __version__
        limits = started.limits
        assert seconds(limits.client_idle_timeout) == 600
        assert seconds(limits.resume_window) == 0
        assert not limits.HasField("max_session_duration")
        assert limits.max_text_message_chars > 0
        assert limits.max_buffered_chars >= limits.max_text_message_chars
        assert limits.max_audio_message_bytes == 0
        assert (limits.max_concurrent_sessions, limits.active_sessions) == (7, 1)

        second = speaking(gateway)
        other = await second.begin(start())
        assert other.session_id != started.session_id
        assert re.fullmatch("[0-9a-f]{32}", other.trace_id)
        assert other.trace_id != trace
        assert other.limits.active_sessions == 2
        assert await second.end(END) == OK
        assert await stream.end(END) == OK
        usage = stream.ended.usage
        assert usage.start_time.seconds > 0
        assert usage.end_time.ToNanoseconds() >= usage.start_time.ToNanoseconds()
        assert stream.kinds() == ["session_started", "connection", "session_ended"]


@MODES
async def test_text_is_spoken_once_and_in_order(mode: Mode) -> None:
    """All characters, in order, with the same totals in each place that counts them."""
    async with running_gateway(mode=mode) as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text(WORDS, "u1", True))
        completed = await stream.until("utterance_completed")
        assert spoken(stream, "u1") == WORDS
        metrics = completed.metrics
        assert metrics.input_character_count == len(WORDS)
        assert (
            metrics.audio_bytes == len(stream.audio()) == 2 * round(24000 * seconds(metrics.audio_duration))
        )
        assert seconds(metrics.audio_duration) == pytest.approx(CHARACTER_S * len(WORDS))
        assert metrics.reconnect_count == 0
        assert 0 < seconds(metrics.upstream_time_to_first_audio) <= seconds(metrics.time_to_first_audio)
        assert seconds(metrics.time_to_first_audio) <= seconds(metrics.total_duration)
        assert completed.completion_source == completion("UPSTREAM")
        assert completed.settings_revision == 1
        (upstream,) = completed.upstreams
        assert upstream.session_id.startswith("ws_")
        assert upstream.request_id.startswith("task_")
        assert gateway.upstream is not None
        assert upstream.endpoint == gateway.upstream.url.replace("http", "ws") + "/waves/v1/tts/live"
        assert upstream.connection_index == 0
        begun = stream.one("utterance_started", "u1")
        assert (begun.first_input_sequence, begun.settings_revision) == (2, 1)
        offsets = [seconds(c.start_offset) for c in stream.all("audio")]
        lengths = [len(c.audio) / 48000 for c in stream.all("audio")]
        assert offsets == pytest.approx([sum(lengths[:i]) for i in range(len(lengths))])
        assert not any(c.discontinuity for c in stream.all("audio"))
        assert await stream.end(END) == OK
        usage = stream.ended.usage
        assert (usage.input_character_count, usage.utterance_count, usage.reconnect_count) == (
            len(WORDS),
            1,
            0,
        )
        assert seconds(usage.audio_duration) == pytest.approx(seconds(metrics.audio_duration))


def completion(name: str) -> int:
    return int(
        v1.synthesis_service_pb2.UtteranceCompleted.CompletionSource.Value(f"COMPLETION_SOURCE_{name}")
    )


def method(name: str) -> int:
    return int(v1.UtteranceCancelled.Method.Value(f"METHOD_{name}"))


def ended_because(name: str) -> int:
    return int(v1.SessionEnded.Reason.Value(f"REASON_{name}"))


async def test_a_whole_utterance_is_one_upstream_message() -> None:
    async def check(mode: Mode) -> None:
        async with running_gateway(mode=mode) as gateway:
            stream = speaking(gateway)
            assert await stream.end(start(), text("Whole at once.", "u1", True), END) == OK
            (message,) = texts(gateway)
            assert message["text"] == "Whole at once."
            assert message["continue"] is False
            assert spoken(stream) == "Whole at once."

    await together(*(check(mode) for mode in Mode))


@MODES
async def test_tokens_go_up_as_they_come_and_are_joined_as_they_are(mode: Mode) -> None:
    """Text cut anywhere, blanks included: nothing lost, added or moved; each message has all settings."""
    async with running_gateway(mode=mode) as gateway:
        stream = speaking(gateway)
        said = "Tokens  of a\nmodel: one, two. Three!  Four"
        await stream.begin(start(voice_id="sophia", speed=2.0))
        await stream.say(*(text(c, "u1") for c in said), end_utterance("u1"))
        await stream.until("utterance_completed")
        assert spoken(stream) == said
        messages = texts(gateway)
        assert "".join(m["text"] for m in messages) == said
        for message in messages:
            assert message["voice_id"] == "sophia"
            assert message["speed"] == 2.0
            assert message["model"] == "lightning_v3.1"
            assert message["sample_rate"] == 24000
            assert message["complete_backoff_ms"] <= 1000
            assert message["session_id"]
            assert message["request_id"]
        assert [m["continue"] for m in messages] == [True] * (len(messages) - 1) + [False]
        if mode is Mode.FLUSH:
            assert [m["flush"] for m in messages] == [False] * (len(messages) - 1) + [True]
        else:
            assert len({m["context_id"] for m in messages}) == 1
        assert await stream.end(END) == OK


async def test_audio_comes_while_text_is_still_written() -> None:
    """The first sentence is heard before the second is there."""
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text("First sentence. ", "u1"))
        await stream.until("audio")
        await stream.say(text("Second one.", "u1", True))
        await stream.until("utterance_completed")
        assert spoken(stream, "u1") == "First sentence. Second one."
        assert await stream.end(END) == OK


@MODES
async def test_utterances_are_spoken_in_order_one_at_a_time(mode: Mode) -> None:
    """A new id ends the open utterance; `end_utterance` does, with an id and without; so does `end_session`."""
    async with running_gateway(mode=mode) as gateway:
        stream = speaking(gateway)
        status = await stream.end(
            start(),
            text("One ", "u1"),
            text("is open.", ""),
            text("Two.", "u2"),
            end_utterance("u2"),
            text("Three", "u3"),
            text(" and more.", "u3"),
            end_utterance(),
            text("No name.", ""),
            text(" The same.", ""),
            text("Five.", "u5"),
            END,
        )
        assert status == OK
        assert stream.warnings() == []
        names = [e.utterance_id for e in stream.all("utterance_completed")]
        assert names[:3] + names[4:] == ["u1", "u2", "u3", "u5"]
        said = ["One is open.", "Two.", "Three and more.", "No name. The same.", "Five."]
        assert [spoken(stream, n) for n in names] == said
        assert [e.first_input_sequence for e in stream.all("utterance_started")] == [2, 4, 6, 9, 11]
        assert stream.ended.usage.utterance_count == 5
        # On the wire no message of one comes between those of another, and the next waits for the end.
        ids = [m["request_id"] for m in texts(gateway)]
        assert ids == sorted(ids, key=list(dict.fromkeys(ids)).index)
        assert len(set(ids)) == 5


async def test_ids_that_the_gateway_makes_avoid_those_of_the_caller() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text("one", "", True))
        made = (await stream.until("utterance_completed")).utterance_id
        await stream.say(text("two", "utterance-2", True), text("three", "", True), text("four", "", True))
        assert await stream.end(END) == OK
        names = [e.utterance_id for e in stream.all("utterance_completed")]
        assert made == names[0]
        assert len(set(names)) == 4
        assert [spoken(stream, n) for n in names] == ["one", "two", "three", "four"]


async def test_late_text_of_an_ended_utterance_is_dropped_with_a_warning() -> None:
    """It neither is spoken nor ends the utterance that is open now."""
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text("Old one.", "u1", True))
        await stream.until("utterance_completed")
        await stream.say(text("New ", "u2"), text("too late", "u1"), text("one.", "u2", True))
        warning = await stream.until("warning")
        assert (warning.reason, warning.utterance_id) == ("STALE_TEXT", "u1")
        assert "u1" in warning.message
        assert await stream.end(END) == OK
        assert stream.warnings() == ["STALE_TEXT"]
        assert (spoken(stream, "u1"), spoken(stream, "u2")) == ("Old one.", "New one.")


async def test_text_of_an_utterance_that_waits_with_its_text_ended_is_stale_too() -> None:
    async with running_gateway(waves_local.Options(first_audio_delay_s=0.2)) as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text("One.", "u1", True), text("Two.", "u2", True))
        await stream.say(text("More of two.", "u2"), text("More of one.", "u1"))
        assert await stream.end(END) == OK
        assert stream.warnings() == ["STALE_TEXT", "STALE_TEXT"]
        assert (spoken(stream, "u1"), spoken(stream, "u2")) == ("One.", "Two.")


@MODES
async def test_a_blank_utterance_completes_at_once_and_sends_nothing(mode: Mode) -> None:
    async with running_gateway(mode=mode) as gateway:

        async def blank(said: str) -> None:
            stream = speaking(gateway)
            await stream.begin(start(), text(said, "u1", True), text(said, "u2"), end_utterance("u2"))
            assert await stream.end(END) == OK
            ends = ["utterance_completed", "utterance_completed"]
            assert stream.kinds() == ["session_started", "connection", *ends, "session_ended"], repr(said)
            completed = stream.all("utterance_completed")[0]
            assert completed.completion_source == completion("UNSPECIFIED")
            assert completed.metrics.input_character_count == len(said)
            assert completed.metrics.chunk_count == 0
            assert not completed.upstreams

        await together(*map(blank, ["", " ", " \n\t \u3000 "]))
        assert all(texts(gateway, number) == [] for number in range(3))


SCRIPTS = {
    "emoji": "Party 🎉👩‍👩‍👧‍👦 time 🇮🇳!",
    "combining": unicodedata.normalize("NFD", "Crème brûlée à la façade"),
    "right to left": "שלום עולם, مرحبا بالعالم",
    "four bytes": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𠜎",
    "devanagari": "नमस्ते दुनिया।",
    "typographic": "“Quotes” — and… dashes\u00a0here\u200b.",
}


@MODES
async def test_every_script_is_spoken_whole_and_counted_in_code_points(mode: Mode) -> None:
    """Whole, and cut between any two code points; nothing is normalized on the way."""
    async with running_gateway(mode=mode) as gateway:

        async def whole_and_cut(script: str) -> None:
            said = SCRIPTS[script]
            stream = speaking(gateway)
            pieces = [text(c, "u2") for c in said]
            await stream.begin(start(), text(said, "u1", True), *pieces, end_utterance("u2"))
            assert await stream.end(END) == OK
            assert spoken(stream, "u1") == spoken(stream, "u2") == said, script
            for completed in stream.all("utterance_completed"):
                assert completed.metrics.input_character_count == len(said), script
            assert stream.ended.usage.input_character_count == 2 * len(said), script

        await together(*map(whole_and_cut, SCRIPTS))


async def test_flush_speaks_what_is_there_and_keeps_the_utterance_open() -> None:
    async def check(mode: Mode) -> None:
        async with running_gateway(mode=mode) as gateway:
            stream = speaking(gateway)
            await stream.begin(start(), text("No full stop", "u1"), flush("u1"))
            await stream.until("audio")
            await stream.say(text(" yet", "u1"), flush(), text(", and done", "u1"), end_utterance())
            completed = await stream.until("utterance_completed")
            assert spoken(stream, "u1") == "No full stop yet, and done"
            assert completed.metrics.input_character_count == 26
            assert len(completed.upstreams) == 3
            assert await stream.end(END) == OK
            assert len(stream.all("utterance_started")) == 1

    await together(*(check(mode) for mode in Mode))


async def test_a_flush_with_nothing_to_speak_does_nothing() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text("", "u1"), flush("u1"), flush("u1"), text("Now.", "u1"), flush("u1"))
        await stream.until("audio")
        await stream.say(flush("u1"), end_utterance("u1"))
        assert await stream.end(END) == OK
        assert spoken(stream, "u1") == "Now."
        assert stream.warnings() == []


async def test_inputs_that_name_no_open_utterance_are_warned_about() -> None:
    """`flush`, `end_utterance`, `cancel` and `playback`: unknown, ended, or none open at all."""
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text("Done.", "u1", True))
        await stream.until("utterance_completed")
        inputs = [flush("u1"), flush("nobody"), flush(), end_utterance("u1"), end_utterance()]
        inputs += [cancel("u1"), cancel("nobody"), cancel(), heard("u1", 0.1), heard("nobody", 0.1)]
        await stream.say(*inputs, text("Still here.", "u2", True))
        assert await stream.end(END) == OK
        warnings = stream.all("warning")
        assert len(warnings) == len(inputs)
        assert [w.utterance_id for w in warnings] == [
            "u1", "nobody", "", "u1", "", "u1", "nobody", "", "u1", "nobody",
        ]  # fmt: skip
        assert all(re.fullmatch("[A-Z_]+", w.reason) and w.message for w in warnings)
        assert spoken(stream, "u2") == "Still here."


async def test_input_sequences_may_jump_and_are_acknowledged() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        first = start()
        first.input_sequence = 10
        await stream.begin(first)
        jump = text("Jump.", "u1", True)
        jump.input_sequence = 100
        await stream.say(jump)
        assert (await stream.until("utterance_started")).first_input_sequence == 100
        await stream.say(text("Next.", "u2", True))
        assert (await stream.until("utterance_started", utterance_id="u2")).first_input_sequence == 101
        assert await stream.end(END) == OK
        assert stream.got[0].acknowledged_input_sequence == 10
        assert stream.got[-1].acknowledged_input_sequence == 102


# -- the end -----------------------------------------------------------------------------------------------------


async def test_the_end_of_input_finishes_everything() -> None:
    async def check(how: str, mode: Mode) -> None:
        async with running_gateway(waves_local.Options(first_audio_delay_s=0.1), mode=mode) as gateway:
            stream = speaking(gateway)
            await stream.say(start(), text("One.", "u1", True), text("Two, left open", "u2"))
            if how == "end_session":
                await stream.say(END)
                status = await stream.rest()
            else:
                status = await stream.end()
            assert status == OK
            assert (spoken(stream, "u1"), spoken(stream, "u2")) == ("One.", "Two, left open")
            reason = "CLIENT_END" if how == "end_session" else "CLIENT_HALF_CLOSE"
            assert stream.ended.reason == ended_because(reason)
            assert stream.ended.status.code == 0
            assert (await cut_off(gateway)).close_code is not None

    await together(*(check(how, mode) for how in ["end_session", "half_close"] for mode in Mode))


SLOW = waves_local.Options(chunk_interval_s=0.02)
LONG = "This is a long sentence that takes its while to be spoken, so that there is time to interrupt it. "


async def test_discard_stops_at_once_and_ends_well() -> None:
    async def check(mode: Mode) -> None:
        async with running_gateway(SLOW, mode=mode) as gateway:
            stream = speaking(gateway)
            await stream.begin(start(), text(LONG, "u1", True), text("Waits.", "u2"))
            await stream.until("audio")
            assert await stream.end(DISCARD) == OK
            assert stream.ended.reason == ended_because("CLIENT_END")
            assert [e.utterance_id for e in stream.all("utterance_cancelled")] == ["u1", "u2"]
            assert stream.one("utterance_cancelled", "u2").method == method("NOT_SENT")
            assert LONG.startswith(spoken(stream, "u1").rstrip("\N{REPLACEMENT CHARACTER}"))
            assert len(stream.audio()) < len(LONG) * CHARACTER_S * 48000
            await cut_off(gateway)

    await together(*(check(mode) for mode in Mode))


async def test_discard_after_end_session_cuts_the_rest_short() -> None:
    async with running_gateway(SLOW) as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text(LONG, "u1", True), END)
        await stream.until("audio")
        assert await stream.end(DISCARD) == OK
        assert stream.kinds()[-2:] == ["utterance_cancelled", "session_ended"]


async def test_a_caller_that_goes_has_its_upstream_cut_and_nothing_finalized() -> None:
    """No closing fragment goes up after the caller has gone, though a cancel first looks like a half-close."""

    async def check(how: str, mode: Mode) -> None:
        async with running_gateway(SLOW, mode=mode) as gateway:
            channel = grpc.aio.insecure_channel(gateway.target)
            stub: Any = synthesis_service_pb2_grpc.SynthesisServiceStub(channel)
            stream = Speaking(stub.SynthesizeStream(timeout=4.0 if how == "deadline" else None))
            await stream.begin(start(), text(LONG * 12, "u1"), flush("u1"), text("open", "u1"))
            await stream.until("audio")
            sent_before = len(texts(gateway))
            if how == "cancel":
                stream.call.cancel()
            elif how == "channel":
                await channel.close()
            else:
                with contextlib.suppress(asyncio.CancelledError):
                    while await stream.next() is not None:
                        pass
                assert (await failure_of(stream.call)).code is grpc.StatusCode.DEADLINE_EXCEEDED
            record = await cut_off(gateway)
            late = record.texts[sent_before:]
            assert not any(m.get("continue") is False for m in late), late
            assert record.audio_bytes_sent < 12 * len(LONG) * CHARACTER_S * 48000
            assert len(gateway.gateway.registry) == 0
            await channel.close()

    await together(*(check(how, mode) for how in ["cancel", "deadline", "channel"] for mode in Mode))


async def test_a_caller_that_goes_while_the_gateway_dials_leaves_nothing_behind() -> None:
    async with running_gateway() as gateway:
        assert gateway.upstream is not None
        gateway.upstream.faults.add("tts:hang")
        stream = speaking(gateway)
        await stream.say(start(), text("Nobody hears this.", "u1", True))
        await gateway.upstream.journal.wait_for(lambda j: j.of("tts"))
        stream.call.cancel()
        await cut_off(gateway)
        await eventually(lambda: len(gateway.gateway.registry) == 0)
        assert await gateway.synthesis.ListVoices(v1.ListVoicesRequest())


# -- barge-in ----------------------------------------------------------------------------------------------------


@MODES
async def test_barge_in_stops_an_utterance_and_the_next_one_is_clean(mode: Mode) -> None:
    async with running_gateway(SLOW, mode=mode) as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text(LONG, "u1", True))
        for _ in range(3):
            await stream.until("audio")
        await stream.say(cancel("u1"), text("late token", "u1"), text("What now?", "u2", True))
        cancelled = await stream.until("utterance_cancelled")
        assert cancelled.utterance_id == "u1"
        how = "UPSTREAM_CANCEL" if mode is Mode.CONTINUATIONS else "RECONNECT"
        assert cancelled.method == method(how)
        assert cancelled.spoken_text + cancelled.remaining_text == LONG
        assert cancelled.estimate_source == v1.ESTIMATE_SOURCE_PROPORTIONAL
        assert cancelled.metrics.input_character_count == len(LONG)
        assert await stream.end(END) == OK
        assert spoken(stream, "u2") == "What now?"
        assert stream.warnings() == ["STALE_TEXT"]
        assert gateway.upstream is not None
        connections = gateway.upstream.journal.of("tts")
        if mode is Mode.CONTINUATIONS:
            (connection,) = connections
            (told,) = [m for m in connection.texts if m.get("cancel_request")]
            assert told["context_id"] == connection.texts[0]["context_id"]
            assert "text" not in told
        else:
            assert len(connections) == 2
            assert not any(m.get("cancel_request") for c in connections for m in c.texts)
            assert stream.ended.usage.reconnect_count == 1


async def test_an_upstream_that_ignores_the_cancel_is_cut_and_replaced() -> None:
    """What it still says of the old utterance is never heard, and the new one is spoken whole, once."""
    options = waves_local.Options(chunk_interval_s=0.05, cancel="ignored")
    async with running_gateway(options) as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text(LONG, "u1", True))
        await stream.until("audio")
        await stream.say(cancel(), text("What now?", "u2", True))
        await stream.until("utterance_completed")
        assert await stream.end(END) == OK
        assert spoken(stream, "u2") == "What now?"
        assert gateway.upstream is not None
        assert len(gateway.upstream.journal.of("tts")) == 2


async def test_cancel_without_an_id_stops_everything_that_has_not_ended() -> None:
    async with running_gateway(SLOW) as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text(LONG, "u1", True), text("Two.", "u2", True), text("Three", "u3"))
        await stream.until("audio")
        await stream.say(cancel())
        for utterance_id in ("u1", "u2", "u3"):
            await stream.until("utterance_cancelled", utterance_id=utterance_id)
        assert [e.method for e in stream.all("utterance_cancelled")[1:]] == [method("NOT_SENT")] * 2
        assert stream.all("utterance_cancelled")[2].remaining_text == "Three"
        await stream.say(text("more of three", "u3"), text("Four.", "u4", True))
        assert await stream.end(END) == OK
        assert stream.warnings() == ["STALE_TEXT"]
        assert spoken(stream, "u4") == "Four."
        assert [e.utterance_id for e in stream.all("utterance_started")] == ["u1", "u4"]


async def test_cancelling_a_waiting_utterance_leaves_the_spoken_one_alone() -> None:
    async with running_gateway(SLOW) as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text("Spoken to its end.", "u1", True), text("Never.", "u2", True))
        await stream.until("audio")
        await stream.say(cancel("u2"), text("And on.", "u3", True))
        assert await stream.end(END) == OK
        cancelled = stream.one("utterance_cancelled")
        assert (cancelled.utterance_id, cancelled.method) == ("u2", method("NOT_SENT"))
        assert (cancelled.spoken_text, cancelled.remaining_text) == ("", "Never.")
        assert (spoken(stream, "u1"), spoken(stream, "u3")) == ("Spoken to its end.", "And on.")


async def test_what_was_heard_is_told_by_the_words_where_there_are_any() -> None:
    """With the caller's own offset, with its latest report, and by what was sent."""
    async with running_gateway(SLOW) as gateway:
        said = "One two three four five six seven eight nine ten eleven twelve"
        after_three = CHARACTER_S * (said.index("three") + 5) + 0.001
        for explicit in (True, False):
            stream = speaking(gateway)
            first = start(voice_id="avery", model="lightning_v3.1_pro", word_timings=True)
            await stream.begin(first, text(said, "u1", True))
            while len(stream.audio()) < 48000 * (after_three + 0.3):
                await stream.until("audio")
            if explicit:
                await stream.say(cancel("u1", after_three))
            else:
                await stream.say(heard("u1", 0.01), heard("u1", after_three), cancel("u1"))
            cancelled = await stream.until("utterance_cancelled")
            assert cancelled.spoken_text == "One two three"
            assert cancelled.remaining_text == " four five six seven eight nine ten eleven twelve"
            assert cancelled.estimate_source == v1.ESTIMATE_SOURCE_WORD_TIMINGS
            assert await stream.end(END) == OK


async def test_nothing_heard_is_nothing_spoken() -> None:
    async with running_gateway(waves_local.Options(first_audio_delay_s=30)) as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text("Never heard.", "u1", True))
        await stream.until("utterance_started")
        await stream.say(cancel("u1"))
        cancelled = await stream.until("utterance_cancelled")
        assert (cancelled.spoken_text, cancelled.remaining_text) == ("", "Never heard.")
        assert await stream.end(END) == OK


# -- pace and back-pressure --------------------------------------------------------------------------------------


async def test_audio_is_paced_to_the_listener() -> None:
    """Never further ahead than asked for: audio is due no earlier than its place less the lead."""
    lead_s = 0.3
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        opening = start()
        opening.start.max_audio_lead.FromMilliseconds(300)
        await stream.begin(opening)
        began = time.monotonic()
        await stream.say(text("About one and a half.", "u1", True))
        end = 0.0
        while await stream.next() is not None:
            last = stream.got[-1]
            if last.WhichOneof("event") == "utterance_completed":
                break
            if last.WhichOneof("event") != "audio":
                continue
            end = seconds(last.audio.start_offset) + len(last.audio.audio) / 48000
            assert end <= lead_s + (time.monotonic() - began) + 0.02
        assert end == pytest.approx(CHARACTER_S * 21)
        assert time.monotonic() - began >= end - lead_s - 0.05
        assert await stream.end(END) == OK


async def made(gateway: RunningGateway, stream: Speaking) -> None:
    """Wait until an utterance has been made to its end, as far as the gateway is concerned."""
    asked = v1.GetSessionRequest(session_id=stream.one("session_started").session_id)
    async with asyncio.timeout(PATIENCE_S):
        while not (await gateway.sessions.GetSession(asked)).session.usage.utterance_count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_barge_in_stops_audio_that_the_pace_holds_back() -> None:
    """The upstream has long finished; for the listener the utterance goes on, until it is cancelled."""
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        opening = start()
        opening.start.max_audio_lead.FromMilliseconds(100)
        said = "As long as a sentence, or a little more."
        await stream.begin(opening, text(said, "u1", True))
        await stream.until("audio")
        await made(gateway, stream)
        whole = len(said) * CHARACTER_S * 48000
        await stream.say(cancel("u1"))
        cancelled = await stream.until("utterance_cancelled")
        assert cancelled.method == method("DISCARD")
        assert seconds(cancelled.discarded_audio_duration) > 0
        assert cancelled.spoken_text + cancelled.remaining_text == said
        assert cancelled.remaining_text
        await stream.say(text("Next.", "u2", True))
        await stream.until("utterance_completed")
        assert await stream.end(END) == OK
        assert len(stream.audio("u1")) < whole
        assert spoken(stream, "u2") == "Next."


async def test_discard_does_not_wait_for_the_pace() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        opening = start()
        opening.start.max_audio_lead.FromMilliseconds(100)
        await stream.begin(opening, text("As long as a sentence, or a little more.", "u1", True))
        await stream.until("audio")
        await made(gateway, stream)
        assert await stream.end(DISCARD) == OK
        assert stream.one("utterance_cancelled").utterance_id == "u1"


async def test_a_caller_that_reads_slowly_slows_the_upstream_and_loses_nothing() -> None:
    """Far more audio than all buffers on the way hold: the upstream is read no further until the caller reads."""
    said = " ".join(f"word{i}" for i in range(700))
    async with running_gateway() as gateway:
        assert gateway.upstream is not None
        opening = start()
        opening.start.audio_format.sample_rate_hertz = 44100
        whole = len(said) * CHARACTER_S * 2 * 44100
        stream = speaking(gateway)
        await stream.say(opening, text(said, "u1", True))
        record = (await gateway.upstream.journal.wait_for(lambda j: j.of("tts")))[0]
        sent = -1
        while sent != record.audio_bytes_sent or not sent:
            sent = record.audio_bytes_sent
            await asyncio.sleep(0.3)
        assert sent < whole / 2
        (session,) = list(gateway.gateway.registry)
        assert session.log.waiting_audio_s < 3
        assert await stream.end(END) == OK
        assert spoken(stream) == said
        assert stream.one("utterance_completed").metrics.audio_bytes == pytest.approx(whole)


# -- formats -----------------------------------------------------------------------------------------------------

ENCODINGS = ["LINEAR16", "MULAW", "ALAW", "WAV", "MP3"]
RATES = [8000, 16000, 24000, 44100]
ALIKE = "Every format says this."


def opening(encoding: str, rate: int, **settings: Any) -> Any:
    message = start(**settings)
    message.start.audio_format.encoding = v1.AudioEncoding.Value(f"AUDIO_ENCODING_{encoding}")
    message.start.audio_format.sample_rate_hertz = rate
    return message


def decoded(audio: bytes, encoding: str, rate: int) -> bytes:
    """PCM of what a caller received, by a library that the gateway does not use."""
    if encoding == "LINEAR16":
        return audio
    if encoding in ("MULAW", "ALAW"):
        raw = {"MULAW": "ULAW", "ALAW": "ALAW"}[encoding]
        pcm, _ = soundfile.read(
            io.BytesIO(audio), samplerate=rate, channels=1, format="RAW", subtype=raw, dtype="int16"
        )
    else:
        pcm, found_rate = soundfile.read(io.BytesIO(audio), dtype="int16")
        assert found_rate == rate
    assert pcm.ndim == 1
    return np.asarray(pcm).tobytes()


def mp3_margin_s(rate: int) -> float:
    """An MP3 stream begins with the encoder's delay and ends with a whole frame: up to three frames more."""
    return 3 * (1152 if rate >= 32000 else 576) / rate


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_every_format_is_what_it_says(encoding: str) -> None:
    async with running_gateway() as gateway:

        async def at(rate: int) -> None:
            stream = speaking(gateway)
            said = [text(ALIKE, "u1", True), text(ALIKE, "u2", True)]
            started = await stream.begin(opening(encoding, rate), *said)
            assert started.audio_format.encoding == v1.AudioEncoding.Value(f"AUDIO_ENCODING_{encoding}")
            assert started.audio_format.sample_rate_hertz == rate
            assert await stream.end(END) == OK
            for utterance_id in ("u1", "u2"):
                audio = stream.audio(utterance_id)
                pcm = decoded(audio, encoding, rate)
                length_s = len(pcm) / 2 / rate
                metrics = stream.one("utterance_completed", utterance_id).metrics
                assert seconds(metrics.audio_duration) == pytest.approx(len(ALIKE) * CHARACTER_S, abs=0.001)
                assert metrics.audio_bytes == len(audio)
                if encoding == "MP3":
                    assert 0 <= length_s - seconds(metrics.audio_duration) <= mp3_margin_s(rate)
                else:
                    assert length_s == pytest.approx(seconds(metrics.audio_duration), abs=0.001)
                    assert waves_local.spoken(pcm) == ALIKE
                chunks = [c for c in stream.all("audio") if c.utterance_id == utterance_id]
                assert len(chunks) > 3
                headers = [c.chunk_index for c in chunks if c.audio.startswith(b"RIFF")]
                assert headers == ([0] if encoding == "WAV" else [])

        await together(*map(at, RATES))
        assert gateway.upstream is not None
        rates = {m["sample_rate"] for record in gateway.upstream.journal.of("tts") for m in record.texts}
        assert rates == set(RATES)


CUTS = [
    ("LINEAR16", 1000, 1000),
    ("LINEAR16", 1001, 1000),
    ("LINEAR16", 1, 2),
    ("MULAW", 333, 333),
    ("WAV", 777, 776),
]


async def test_chunks_are_cut_between_samples() -> None:
    async with running_gateway() as gateway:

        async def cut(encoding: str, limit: int, largest: int) -> None:
            stream = speaking(gateway)
            said = "ab" if limit == 1 else ALIKE
            first = opening(encoding, 8000, max_chunk_bytes=limit)
            assert await stream.end(first, text(said, "u1", True), END) == OK
            sizes = [len(c.audio) for c in stream.all("audio")]
            assert max(sizes) == largest
            if encoding != "MULAW":
                assert not any(size % 2 for size in sizes)
            assert waves_local.spoken(decoded(stream.audio(), encoding, 8000)) == said
            width = 1 if encoding == "MULAW" else 2
            if encoding != "WAV":
                offsets = [seconds(c.start_offset) for c in stream.all("audio")]
                places = [sum(sizes[:i]) / width / 8000 for i in range(len(sizes))]
                assert offsets == pytest.approx(places, abs=0.0002)

        await together(*(cut(*case) for case in CUTS))
        assert not any("max_chunk_bytes" in texts(gateway, number)[0] for number in range(len(CUTS)))


# -- words -------------------------------------------------------------------------------------------------------


async def test_words_are_timed_on_the_utterances_own_clock() -> None:
    """Over several sentences, and over a flush, whether the upstream's times restart or run on."""

    async def check(mode: Mode, restart: bool) -> None:
        options = waves_local.Options(word_times_restart=restart)
        async with running_gateway(options, mode=mode) as gateway:
            stream = speaking(gateway)
            opening = start(voice_id="avery", model="lightning_v3.1_pro", word_timings=True)
            said = "Hello there. It is $100, friend. And more"
            pieces = [text("Hello there. It is $100, friend.", "u1"), flush(), text(" And more", "u1", True)]
            await stream.begin(opening, *pieces)
            assert await stream.end(END) == OK
            assert spoken(stream) == said
            words = [w for e in stream.all("word_timings") for w in e.words]
            assert [w.text for w in words] == said.split()
            at = [m.span() for m in re.finditer(r"\S+", said)]
            for word, (first, last) in zip(words, at, strict=True):
                assert seconds(word.start_offset) == pytest.approx(first * CHARACTER_S, abs=0.02)
                assert seconds(word.end_offset) == pytest.approx(last * CHARACTER_S, abs=0.02)
            assert all(m["word_timestamps"] is True for m in texts(gateway))

    await together(*(check(mode, restart) for mode in Mode for restart in [True, False]))


async def test_no_words_where_there_are_none_to_have() -> None:
    async def check(settings: dict[str, Any]) -> None:
        async with running_gateway() as gateway:
            stream = speaking(gateway)
            assert await stream.end(start(**settings), text("No words here.", "u1", True), END) == OK
            assert stream.all("word_timings") == []
            assert spoken(stream) == "No words here."

    await together(
        *(
            check(settings)
            for settings in [
                {"voice_id": "avery", "model": "lightning_v3.1_pro"},
                {"voice_id": "avery", "model": "lightning_v3.1_pro", "word_timings": False},
                {"voice_id": "magnus", "word_timings": True},
            ]
        )
    )


# -- settings on their way up ------------------------------------------------------------------------------------


async def test_settings_reach_the_upstream_under_its_own_names() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        settings = v1.SynthesisSettings(
            voice_id="sophia",
            model="lightning-v3.1",
            language_code="en-IN",
            number_language_code="hi-IN",
            speed=0.75,
            word_timings=True,
            math_notation=True,
            content_filter=v1.CONTENT_FILTER_FLAG,
        )
        settings.max_buffer_delay.FromMilliseconds(1500)
        settings.completion_backoff.FromMilliseconds(50)
        settings.extra.update({"pronunciation_dicts": ["a"], "beta": 3, "ratio": 0.5, "on": True})
        opening = request(start=v1.StartSynthesis(settings=settings, client_session_id="call-7"))
        started = await stream.begin(opening, text("Named.", "u1", True))
        assert await stream.end(END) == OK
        (message,) = texts(gateway)
        expected = {
            "text": "Named.",
            "voice_id": "sophia",
            "model": "lightning_v3.1",
            "language": "en",
            "number_pronunciation_language": "hi",
            "speed": 0.75,
            "word_timestamps": True,
            "math_notation": True,
            "content_filter": {"enabled": True, "action": "flag"},
            "max_buffer_delay_ms": 1500,
            "complete_backoff_ms": 50,
            "sample_rate": 24000,
            "output_format": "pcm",
            "session_id": "call-7",
            "pronunciation_dicts": ["a"],
            "beta": 3,
            "ratio": 0.5,
            "on": True,
        }
        assert {k: message[k] for k in expected} == expected
        assert isinstance(message["beta"], int)
        assert set(message) - set(expected) == {"context_id", "continue", "request_id"}
        assert started.settings.synthesis.language_code == "en-IN"
        assert started.settings.synthesis.model == "lightning_v3.1"


async def test_only_what_is_set_goes_up() -> None:
    async with running_gateway(mode=Mode.FLUSH) as gateway:
        stream = speaking(gateway)
        assert await stream.end(start(), text("Bare.", "u1", True), END) == OK
        (message,) = texts(gateway)
        assert set(message) == {
            "text", "voice_id", "model", "sample_rate", "output_format", "session_id", "request_id", "continue",
            "flush", "max_buffer_flush_ms", "complete_backoff_ms",
        }  # fmt: skip


async def test_an_unknown_language_is_passed_on_with_a_warning() -> None:
    async with running_gateway(waves_local.Options(unknown_languages="accepted")) as gateway:
        stream = speaking(gateway)
        assert await stream.end(start(language_code="tlh"), text("Qapla.", "u1", True), END) == OK
        assert stream.kinds()[0] == "session_started"
        assert stream.warnings() == ["UNKNOWN_LANGUAGE"]
        assert texts(gateway)[0]["language"] == "tlh"


async def test_lightning_v2_has_its_own_path_and_settings() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        opening = start(
            voice_id="emily", model="lightning_v2", consistency=0.5, similarity=0.0, enhancement=2
        )
        assert await stream.end(opening, text("Old model.", "u1", True), END) == OK
        assert gateway.upstream is not None
        (record,) = gateway.upstream.journal.of("tts")
        assert record.path == "/waves/v1/lightning-v2/get_speech/stream"
        assert {k: record.texts[0][k] for k in ("consistency", "similarity", "enhancement")} == {
            "consistency": 0.5,
            "similarity": 0.0,
            "enhancement": 2,
        }
        assert spoken(stream) == "Old model."


# -- quiet sessions ----------------------------------------------------------------------------------------------


async def test_an_upstream_that_hangs_up_on_a_quiet_session_is_dialled_again_when_there_is_text() -> None:
    """Nobody speaks, so nothing is lost, and nothing fails."""
    async with running_gateway() as gateway:
        assert gateway.upstream is not None
        stream = speaking(gateway)
        await stream.begin(start(), text("Before.", "u1", True))
        await stream.until("utterance_completed")
        gateway.upstream.faults.add("tts:close=1000,nth=1")
        gone = await stream.until("connection")
        assert gone.state == v1.ConnectionEvent.STATE_DISCONNECTED
        assert gone.close_code == 1000
        assert len(gateway.upstream.journal.of("tts")) == 1
        await stream.say(text("After.", "u2", True))
        back = await stream.until("connection")
        assert back.state == v1.ConnectionEvent.STATE_CONNECTED
        assert back.upstream.connection_index == 1
        assert await stream.end(END) == OK
        assert (spoken(stream, "u1"), spoken(stream, "u2")) == ("Before.", "After.")
        assert stream.ended.usage.reconnect_count == 1


async def test_a_quiet_session_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a blank in the session's own voice; whatever the upstream makes of it, the caller hears nothing of it."""
    monkeypatch.setattr("wavegate_server.session.synthesis.KEEPALIVE_S", 0.15)

    async def check(blank_text: Any) -> None:
        async with running_gateway(waves_local.Options(blank_text=blank_text)) as gateway:
            assert gateway.upstream is not None
            stream = speaking(gateway)
            await stream.begin(start(voice_id="sophia"), text("One.", "u1", True))
            await stream.until("utterance_completed")
            await gateway.upstream.journal.wait_for(lambda j: len(j.of("tts")[0].texts) >= 3)
            for message in texts(gateway)[1:]:
                assert message["text"] == " "
                assert message["voice_id"] == "sophia"
                assert "context_id" not in message
            assert await stream.end(text("Two.", "u2", True), END) == OK
            assert (spoken(stream, "u1"), spoken(stream, "u2")) == ("One.", "Two.")
            assert stream.all("utterance_failed") == []
            assert len(gateway.upstream.journal.of("tts")) == 1

    await together(*(check(blank_text) for blank_text in ["silent", "spoken", "rejected"]))


# -- Synthesize --------------------------------------------------------------------------------------------------


def whole(said: str, encoding: str = "LINEAR16", rate: int = 24000, **settings: Any) -> Any:
    return v1.SynthesizeRequest(
        text=said,
        settings=v1.SynthesisSettings(**settings),
        audio_format=v1.AudioFormat(
            encoding=v1.AudioEncoding.Value(f"AUDIO_ENCODING_{encoding}"), sample_rate_hertz=rate
        ),
    )


async def events(call: Any) -> list[Any]:
    async with asyncio.timeout(PATIENCE_S):
        return [e async for e in call]


async def test_a_whole_text_is_spoken() -> None:
    async def check(encoding: str, shape: Any) -> None:
        async with running_gateway(waves_local.Options(sse_shape=shape)) as gateway:
            message = whole(WORDS, encoding, 16000, speed=1.25)
            message.request_id = "req-1"
            call = gateway.synthesis.Synthesize(message)
            got = await events(call)
            kinds = [e.WhichOneof("event") for e in got]
            assert kinds[0] == "session_started"
            assert set(kinds[1:-1]) == {"audio"}
            assert kinds[-1] == "utterance_completed"
            started = got[0].session_started
            metadata = dict(await call.initial_metadata())
            assert metadata["wavegate-session-id"] == started.session_id
            assert started.settings.synthesis.speed == 1.25
            assert started.settings_revision == 1
            assert started.audio_format.sample_rate_hertz == 16000
            assert started.limits.max_audio_message_bytes == 0
            assert started.input_sequence_acknowledged == 0
            chunks = [e.audio for e in got[1:-1]]
            assert [c.chunk_index for c in chunks] == list(range(len(chunks)))
            assert {c.utterance_id for c in chunks} == {"req-1"}
            audio = b"".join(c.audio for c in chunks)
            pcm = decoded(audio, encoding, 16000)
            completed = got[-1].utterance_completed
            metrics = completed.metrics
            assert completed.utterance_id == "req-1"
            assert completed.completion_source == completion("UPSTREAM")
            assert metrics.audio_bytes == len(audio)
            assert metrics.chunk_count == len(chunks)
            assert metrics.input_character_count == len(WORDS)
            assert seconds(metrics.audio_duration) == pytest.approx(len(WORDS) * CHARACTER_S / 1.25, abs=0.01)
            assert metrics.HasField("time_to_first_audio")
            assert metrics.HasField("upstream_time_to_first_audio")
            assert metrics.HasField("total_duration")
            if encoding == "MP3":
                assert 0 <= len(pcm) / 32000 - seconds(metrics.audio_duration) <= mp3_margin_s(16000)
            else:
                assert waves_local.spoken(pcm) == WORDS
            assert gateway.upstream is not None
            (record,) = gateway.upstream.journal.of("sse")
            body = record.texts[0]
            assert body["text"] == WORDS
            assert body["request_id"] == "req-1"
            assert not {"continue", "flush", "context_id", "complete_backoff_ms"} & set(body)
            assert len(gateway.gateway.registry) == 0

    await together(*(check(encoding, shape) for encoding in ENCODINGS for shape in ["event", "websocket"]))


async def test_a_whole_text_is_spoken_without_its_control_characters() -> None:
    async with running_gateway() as gateway:
        got = await events(gateway.synthesis.Synthesize(whole("\x1b[1mBold\x1b[0m and\x02 plain.")))
        assert waves_local.spoken(b"".join(e.audio.audio for e in got)) == "Bold and plain."
        (warning,) = [e.warning for e in got if e.WhichOneof("event") == "warning"]
        completed = got[-1].utterance_completed
        assert (warning.reason, warning.utterance_id) == ("CONTROL_CHARACTERS", completed.utterance_id)
        assert completed.metrics.input_character_count == len("Bold and plain.")


async def test_a_whole_text_has_an_utterance_id_in_any_case() -> None:
    async with running_gateway() as gateway:
        got = await events(gateway.synthesis.Synthesize(whole("No id.", max_chunk_bytes=512)))
        names = {e.audio.utterance_id for e in got if e.WhichOneof("event") == "audio"}
        assert names == {got[-1].utterance_completed.utterance_id}
        assert names != {""}
        assert max(len(e.audio.audio) for e in got) == 512


async def test_a_whole_text_that_nobody_waits_for_is_cut_off_upstream() -> None:
    async with running_gateway(SLOW) as gateway:
        assert gateway.upstream is not None
        call = gateway.synthesis.Synthesize(whole(LONG * 5))
        async for event in call:
            if event.WhichOneof("event") == "audio":
                break
        call.cancel()
        record = (
            await gateway.upstream.journal.wait_for(
                lambda j: [r for r in j.of("sse") if r.closed_at_s is not None]
            )
        )[0]
        assert record.audio_bytes_sent < 5 * len(LONG) * CHARACTER_S * 48000
        assert await events(gateway.synthesis.Synthesize(whole("Still serves.")))


async def test_a_whole_text_waits_for_a_slow_reader() -> None:
    said = " ".join(f"word{i}" for i in range(900))
    async with running_gateway() as gateway:
        assert gateway.upstream is not None
        call = gateway.synthesis.Synthesize(whole(said, rate=44100))
        first = await call.read()
        assert first.WhichOneof("event") == "session_started"
        record = gateway.upstream.journal.of("sse")[0]
        sent = -1
        while sent != record.audio_bytes_sent or not sent:
            sent = record.audio_bytes_sent
            await asyncio.sleep(0.3)
        assert sent < len(said) * CHARACTER_S * 88200 / 2
        audio = []
        while (event := await call.read()) is not grpc.aio.EOF:
            audio.append(event.audio.audio)
        assert waves_local.spoken(b"".join(audio)) == said
        assert await call.code() is grpc.StatusCode.OK


async def test_words_of_a_whole_text() -> None:
    async with running_gateway(waves_local.Options(sse_shape="websocket", word_timings="always")) as gateway:
        got = await events(gateway.synthesis.Synthesize(whole("One two three.", word_timings=True)))
        words = [w for e in got for w in e.word_timings.words]
        assert [w.word_index for w in words] == list(range(len(words)))
        assert [w.text for w in words] in ([], ["One", "two", "three."])


# -- voices ------------------------------------------------------------------------------------------------------


async def test_voices_are_listed_in_pages() -> None:
    async with running_gateway() as gateway:
        everything = await gateway.synthesis.ListVoices(v1.ListVoicesRequest())
        names = [v.voice_id for v in everything.voices]
        assert len(names) == len(set(names)) >= 10
        assert everything.next_page_token == ""
        paged: list[str] = []
        token = ""
        while True:
            page = await gateway.synthesis.ListVoices(v1.ListVoicesRequest(page_size=4, page_token=token))
            assert len(page.voices) <= 4
            paged += [v.voice_id for v in page.voices]
            if not (token := page.next_page_token):
                break
        assert paged == names
        exact = await gateway.synthesis.ListVoices(v1.ListVoicesRequest(page_size=len(names)))
        assert exact.next_page_token == ""
        assert len(
            (await gateway.synthesis.ListVoices(v1.ListVoicesRequest(page_size=100_000))).voices
        ) == len(names)
        assert gateway.upstream is not None
        # Each catalogue once.
        assert sorted(r.path for r in gateway.upstream.journal.of("voices")) == [
            "/waves/v1/lightning-v2/get_voices",
            "/waves/v1/lightning-v3.1/get_voices",
        ]


async def test_voices_are_filtered() -> None:
    async with running_gateway() as gateway:

        async def found(**filters: str) -> dict[str, Any]:
            answer = await gateway.synthesis.ListVoices(v1.ListVoicesRequest(**filters))
            return {v.voice_id: v for v in answer.voices}

        hindi = await found(language_code="hi")
        assert {"meher", "raj"} <= set(hindi)
        assert "magnus" not in hindi
        assert all("hi" in v.language_codes for v in hindi.values())
        assert set(await found(language_code="hi-IN")) == set(hindi)
        assert await found(language_code="ja") == {}
        assert set(await found(model="lightning-v3.1")) == set(await found(model="lightning_v3.1"))
        everything = await found()
        assert all(v.models for v in everything.values())
        v3, v2 = await found(model="lightning_v3.1"), await found(model="lightning-v2")
        assert set(v2) == {"emily", "raj"} < set(v3) == set(everything)
        assert set(await found(model="lightning_v2", language_code="hi")) == {"raj"}
        assert list(everything["emily"].models) == ["lightning_v3.1", "lightning_v3.1_pro", "lightning-v2"]
        assert list(everything["magnus"].models) == ["lightning_v3.1", "lightning_v3.1_pro"]
        assert list(v2["emily"].models) == ["lightning-v2"]
        for model, code in [("no-such-model", "UPSTREAM_REJECTED"), ("../x", "FIELD_INVALID")]:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await found(model=model)
            assert failure_of_error(caught.value).what == ("INVALID_ARGUMENT", code)
        meher = everything["meher"]
        assert meher.display_name == "Meher"
        assert meher.word_timings_supported
        assert {t.key: list(t.values) for t in meher.tags}["accent"] == ["indian"]


# -- the sync API ------------------------------------------------------------------------------------------------


async def test_the_sync_api_speaks_too() -> None:
    """The same stubs on a `grpc.Channel`, in a thread: a stream, a whole text, a failure."""

    def blocking(target: str) -> None:
        with grpc.insecure_channel(target) as channel:
            stub: Any = synthesis_service_pb2_grpc.SynthesisServiceStub(channel)
            requests = iter([start(), text("From a ", "u1"), text("thread.", "u1", True), END])
            call = stub.SynthesizeStream(requests, timeout=PATIENCE_S)
            got = list(call)
            assert got[-1].WhichOneof("event") == "session_ended"
            assert waves_local.spoken(b"".join(r.audio.audio for r in got)) == "From a thread."
            assert call.code() is grpc.StatusCode.OK
            whole_text = list(stub.Synthesize(whole("Whole."), timeout=PATIENCE_S))
            assert waves_local.spoken(b"".join(r.audio.audio for r in whole_text)) == "Whole."
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.SynthesizeStream(iter([text("wrong")]), timeout=PATIENCE_S))
            assert failure_of_error(caught.value).what == ("INVALID_ARGUMENT", "MESSAGE_ORDER")

    async with running_gateway() as gateway:
        await asyncio.to_thread(blocking, gateway.target)


async def test_an_async_iterator_of_tokens_drives_a_stream() -> None:
    async def tokens() -> AsyncIterator[Any]:
        yield start()
        for token in WORDS.split(" "):
            yield text(token + " ", "u1")
            await asyncio.sleep(0)
        yield END

    async with running_gateway() as gateway:
        audio = b""
        async with asyncio.timeout(PATIENCE_S):
            async for response in gateway.synthesis.SynthesizeStream(tokens()):
                audio += response.audio.audio
        assert waves_local.spoken(audio).strip() == WORDS


async def test_many_sessions_at_once_do_not_mix() -> None:
    async with running_gateway() as gateway:

        async def one(number: int) -> None:
            stream = speaking(gateway)
            said = f"Session number {number} says {number * 7919}."
            assert await stream.end(start(), text(said, "u", True), END) == OK
            assert spoken(stream) == said

        await asyncio.gather(*(one(n) for n in range(40)))
        assert len(gateway.gateway.registry) == 0


async def test_a_session_that_ends_well_closes_its_connection_in_order() -> None:
    """With 1000, so that the upstream counts no lost connection; one that is cancelled in mid-speech cuts it."""
    async with running_gateway(waves_local.Options(chunk_interval_s=0.05)) as gateway:
        assert gateway.upstream is not None
        stream = speaking(gateway)
        assert await stream.end(start(), text("All is well.", "u", True), END) == OK
        stream = speaking(gateway)
        await stream.begin(start(), text(LONG, "u", True))
        await stream.until("audio")
        stream.call.cancel()
        await gateway.upstream.journal.wait_for(
            lambda journal: [r.close_code for r in journal.of("tts")].count(None) == 0
        )
        assert [r.close_code for r in gateway.upstream.journal.of("tts")] == [1000, 1006]


@pytest.mark.parametrize(
    ("model", "old_tts_path", "path"),
    [
        ("lightning-v2", False, "/waves/v1/lightning-v2/stream"),
        ("lightning_v2", True, "/waves/v1/lightning-v2/stream"),
        ("lightning_v3.1", True, "/waves/v1/lightning-v3.1/stream"),
    ],
)
async def test_a_whole_text_goes_where_its_model_is_served(model: str, old_tts_path: bool, path: str) -> None:
    def upstreams(target: UpstreamTarget) -> Upstreams:
        return Upstreams(replace(target, old_tts_path=old_tts_path))

    async with running_gateway(upstreams=upstreams) as gateway:
        got = await events(gateway.synthesis.Synthesize(whole(WORDS, model=model, voice_id="emily")))
        assert waves_local.spoken(b"".join(e.audio.audio for e in got)) == WORDS
        assert gateway.upstream is not None
        (record,) = gateway.upstream.journal.of("sse")
        assert (record.path, record.status) == (path, 200)


async def test_a_whole_text_on_a_full_account_is_refused_before_its_deadline() -> None:
    """With the reason and the time to come back, which a caller whose deadline has passed never learns."""
    account = Account(active_requests=1)
    place = account.requests.ask("other", lambda: None)
    async with running_gateway(account=account) as gateway:
        call = gateway.synthesis.Synthesize(whole(WORDS), timeout=1.0)
        status = await failure_of(call)
        assert status.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert status.reason == "UPSTREAM_CAPACITY"
        assert status.retry_s is not None
    place.release()
