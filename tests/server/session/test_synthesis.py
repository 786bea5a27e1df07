"""Synthesis sessions on virtual time: what callers are promised, one rule a test.

Most tests put a `Voice` at the other end, whose audio says which characters were spoken; some play the upstream
by hand.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest
from wavegate_server import errors
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.session.account import Account
from wavegate_server.session.base import MAX_HELD_UPDATES, State
from wavegate_server.session.events import (
    AckState,
    ApplyPolicy,
    ConnectionChanged,
    ConnectionReason,
    ConnectionState,
    EndReason,
    Mechanism,
    SessionStarted,
    SettingsAcknowledged,
    WarningRaised,
)
from wavegate_server.session.synthesis import KEEPALIVE_S, MAX_UNREAD_EVENTS
from wavegate_server.session.synthesis_events import (
    AudioProduced,
    CancelMethod,
    ReportPlayback,
    UtteranceCancelled,
    UtteranceCompleted,
    UtteranceFailed,
    UtteranceStarted,
    WordsTimed,
)
from wavegate_server.session.transport import SEND_TIMEOUT_S
from wavegate_server.session.utterance import EstimateSource, TimedWord
from wavegate_server.waves.ending import LAST_WORD_S, OWED_S, Habits
from wavegate_server.waves.tts import (
    KEEPALIVE_ID,
    MAX_GARBAGE,
    TTS_OLD_PATH,
    TTS_PATH,
    TTS_V2_PATH,
    Completion,
    Mode,
)

from tests.support.speaking import (
    CHAR_S,
    RATE_HZ,
    Caller,
    Voice,
    cancels,
    delta,
    spoken_pcm,
    texts,
    used_to_it,
)
from tests.support.transport import FakeDialer, FakeTransport, tts_chunk, tts_complete, tts_error, tts_word
from tests.support.virtual_time import settle, virtual_time

LOST = errors.UpstreamUnavailable("cannot be reached")
BOTH_MODES = pytest.mark.parametrize("mode", list(Mode), ids=lambda m: m.value)


def now() -> float:
    return asyncio.get_running_loop().time()


def voices(**options: Any) -> FakeDialer:
    """An upstream that speaks, with options of `Voice`."""
    return FakeDialer(lambda upstream: Voice(upstream, **options))


def silent() -> FakeDialer:
    """An upstream that the test plays by hand."""
    return FakeDialer()


async def first_message(dialer: FakeDialer, connection: int = 0) -> tuple[FakeTransport, dict[str, Any]]:
    """The first message of a connection."""
    upstream = await dialer.connection(connection)
    await upstream.expect()
    return upstream, upstream.json_sent()[0]


def state_of(caller: Caller) -> State:
    return caller.session.state


def connections(caller: Caller) -> list[str]:
    return [f"{e.state.value} {e.reason.value}" for e in caller.of(ConnectionChanged)]


# -- opening -----------------------------------------------------------------------------------------------------


@virtual_time
async def test_the_session_starts_when_the_upstream_has_accepted() -> None:
    dialer = voices()
    dialer.hold()
    async with Caller(dialer, {"speed": 1.5}) as caller:
        await settle()
        assert caller.heard == []
        assert state_of(caller) is State.CONNECTING
        dialer.let_go()
        started = await caller.until(SessionStarted)
        assert caller.heard[0] is started
        assert started.session_id == "s-1"
        assert (started.settings["speed"], started.settings_revision) == (1.5, 1)
        connected = await caller.until(ConnectionChanged)
        assert (connected.state, connected.reason) == (ConnectionState.CONNECTED, ConnectionReason.INITIAL)
        assert (connected.attempt, connected.max_attempts) == (1, 4)
        assert connected.handshake_s == pytest.approx(dialer.handshake_s)
        assert connected.upstream.connection_index == 0
        assert state_of(caller) is State.ACTIVE


@pytest.mark.parametrize(
    ("options", "settings", "path"),
    [
        ({}, {}, TTS_PATH),
        ({"old_tts_path": True}, {}, TTS_OLD_PATH),
        ({}, {"model": "lightning-v2"}, TTS_V2_PATH),
    ],
)
@virtual_time
async def test_the_connection(options: dict[str, Any], settings: dict[str, Any], path: str) -> None:
    async with Caller(voices(), settings, idle_timeout_s=90.0, expire_content=True, **options) as caller:
        upstream = await caller.dialer.connection(0)
        assert upstream.path == path
        assert upstream.query == {"timeout": "90"}
        assert upstream.headers == {"Authorization": "Bearer a-key", "x-expire-content": "true"}


@virtual_time
async def test_input_before_the_upstream_is_ready_is_kept_and_delivered_in_order() -> None:
    dialer = voices()
    dialer.hold()
    async with Caller(dialer) as caller:
        caller.say("One. ", "u1")
        caller.say("Two.", "u1", end=True)
        caller.update("d1", speed=1.5)
        caller.say("Three.", "u2", end=True)
        await settle()
        assert caller.heard == []
        dialer.let_go()
        caller.end_session()
        await caller.ended()
        assert isinstance(caller.heard[0], SessionStarted)
        assert caller.text() == "One. Two.Three."
        assert texts(dialer.last.json_sent()) == [
            ("s-1-1", "One. Two.", True),
            ("s-1-2", "Three.", True),
        ]


@virtual_time
async def test_whatever_is_said_before_the_start_comes_after_it() -> None:
    """Warnings, acks, failures and cancels of a session that is still being opened."""
    dialer = voices()
    dialer.hold()
    async with Caller(dialer, max_text_message_chars=20) as caller:
        caller.say("x" * 21, "u1", end=True)
        caller.say("late", "u1")
        caller.cancel("nobody")
        caller.say("never mind", "u2")
        caller.cancel("u2")
        caller.say("  ", "u3", end=True)
        caller.update("d1", speed=9.0)
        await settle()
        assert caller.heard == []
        dialer.let_go()
        await caller.until(ConnectionChanged)
        assert caller.story() == [
            "SessionStarted",
            "failed u1",
            "STALE_TEXT",
            "NOTHING_TO_CANCEL",
            "cancelled u2",
            "REJECTED d1",
            "completed u3",
            "CONNECTED INITIAL",
        ]


REFUSALS = [
    errors.UpstreamCredential("401", http_status=401),
    errors.UpstreamGone("410", http_status=410),
    errors.UpstreamRejected("400", http_status=400),
    errors.UpstreamProtocol("302", http_status=302),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda r: r.reason)
@virtual_time
async def test_what_the_upstream_refuses_in_the_handshake_fails_the_call_at_once(
    refusal: errors.WavegateError,
) -> None:
    dialer = voices()
    dialer.refuse(refusal)
    async with Caller(dialer) as caller:
        caller.say("Hello.", "u1", end=True)
        ended = await caller.ended()
        assert caller.story() == ["SessionEnded"], "nothing was begun, so nothing else is said"
        assert (ended.reason, ended.error) == (EndReason.FAILURE, refusal)
        assert len(dialer.dials) == 1


@virtual_time
async def test_an_upstream_out_of_reach_is_tried_four_times() -> None:
    dialer = voices()
    dialer.refuse(*[LOST] * 4)
    async with Caller(dialer) as caller:
        assert (await caller.ended()).error is LOST
        waits = [0.0, 0.0, 0.1, 0.3]
        at = 0.0
        for dial, wait in zip(dialer.dials, waits, strict=True):
            assert dial.at == pytest.approx(at + wait)
            at = dial.at + dialer.handshake_s


@virtual_time
async def test_an_upstream_that_comes_back_in_time_is_told_of_in_the_attempt() -> None:
    dialer = voices()
    dialer.refuse(LOST, LOST)
    async with Caller(dialer) as caller:
        connected = await caller.until(ConnectionChanged)
        assert caller.story() == ["SessionStarted", "CONNECTED INITIAL"]
        assert (connected.attempt, connected.max_attempts) == (3, 4)
        assert connected.upstream.connection_index == 0, "the first connection, however many attempts it took"


@virtual_time
async def test_a_full_account_is_asked_again_within_the_queues_time() -> None:
    dialer = voices()
    dialer.refuse(*[errors.UpstreamCapacity("429")] * 2)
    async with Caller(dialer, max_queue_wait_s=2.0) as caller:
        await caller.until(SessionStarted)
        starts = [round(d.at, 2) for d in dialer.dials]
        assert starts == [0.0, 0.55, 1.6], "half a second, then one: doubling"


@virtual_time
async def test_a_full_account_is_not_waited_for_any_longer() -> None:
    dialer = voices()
    dialer.refuse(*[errors.UpstreamCapacity("429")] * 9)
    async with Caller(dialer, max_queue_wait_s=2.0) as caller:
        ended = await caller.ended()
        assert isinstance(ended.error, errors.UpstreamCapacity)
        assert now() <= 2.0


@pytest.mark.parametrize(("retry_after_s", "starts"), [(0.8, True), (30.0, False)])
@virtual_time
async def test_retry_after_is_honoured_where_it_fits_into_the_queues_time(
    retry_after_s: float, starts: bool
) -> None:
    dialer = voices()
    dialer.refuse(errors.UpstreamCapacity("429", retry_after_s=retry_after_s))
    async with Caller(dialer) as caller:
        if starts:
            await caller.until(SessionStarted)
            assert dialer.dials[1].at == pytest.approx(dialer.handshake_s + retry_after_s)
        else:
            ended = await caller.ended()
            assert ended.error is not None
            assert ended.error.retry_after_s == retry_after_s
            assert now() < 1


@virtual_time
async def test_a_language_that_is_not_known_passes_with_a_warning() -> None:
    async with Caller(settings={"language_code": "tlh"}) as caller:
        caller.say("Hello.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.dialer.last.json_sent()[0]["language"] == "tlh"
        (warning,) = caller.of(WarningRaised)
        assert (warning.reason, warning.metadata) == ("UNKNOWN_LANGUAGE", {"field": "language_code"})


# -- text up, audio down -----------------------------------------------------------------------------------------


@BOTH_MODES
@virtual_time
async def test_an_utterance_from_its_text_to_its_end(mode: Mode) -> None:
    async with Caller(tts_mode=mode) as caller:
        number = caller.say("Hello there.", "u1", end=True)
        completed = await caller.until(UtteranceCompleted)
        assert caller.story() == [
            "SessionStarted",
            "CONNECTED INITIAL",
            "started u1",
            "audio u1",
            "completed u1",
        ]
        assert caller.text("u1") == "Hello there."
        (begun,) = caller.of(UtteranceStarted)
        assert (begun.first_input_sequence, begun.settings_revision) == (number, 1)
        chunks = caller.of(AudioProduced)
        assert [c.chunk_index for c in chunks] == [0, 1]
        assert [c.start_offset_s for c in chunks] == pytest.approx([0.0, 10 * CHAR_S])
        assert completed.source is Completion.UPSTREAM
        (upstream,) = completed.utterance.upstreams
        assert (upstream.session_id, upstream.request_id) == ("up-session", "up-s-1-1")
        assert (upstream.endpoint, upstream.connection_index) == (f"ws://upstream{TTS_PATH}", 0)
        metrics = completed.utterance.metrics
        assert metrics.audio_samples / RATE_HZ == pytest.approx(12 * CHAR_S)
        assert (metrics.audio_bytes, metrics.chunk_count) == (len(spoken_pcm("Hello there.")), 2)
        assert metrics.input_character_count == 12
        assert metrics.first_sent_at is not None
        assert metrics.first_received_at == pytest.approx(metrics.first_sent_at + 0.1)
        assert metrics.first_delivered_at is not None
        assert metrics.ended_at is not None


@pytest.mark.parametrize("ends_by", ["itself", "cancel"])
@virtual_time
async def test_an_utterance_ends_no_earlier_than_its_audio_is_handed_over(ends_by: str) -> None:
    """Also where a slow caller has its end waiting long before it takes the first chunk."""
    interval_s = 0.0 if ends_by == "itself" else 0.5
    async with Caller(voices(chunk_interval_s=interval_s)) as caller:
        await caller.until(SessionStarted)
        caller.stop_reading()
        caller.say("As long as some chunks. " * 5, "u1", end=True)
        await asyncio.sleep(3)
        caller.read_on()
        if ends_by == "cancel":
            await caller.until(AudioProduced)
            caller.cancel("u1")
        ended = await caller.until(UtteranceCompleted if ends_by == "itself" else UtteranceCancelled)
        metrics = ended.utterance.metrics
        assert metrics.upstream_time_to_first_audio_s == pytest.approx(0.1)
        assert metrics.time_to_first_audio_s == pytest.approx(3.0)
        assert metrics.total_s is not None
        assert metrics.total_s >= metrics.time_to_first_audio_s


@virtual_time
async def test_an_end_that_is_handed_over_again_has_the_figures_of_the_first_time() -> None:
    async with Caller() as caller:
        caller.say("One.", "u1", end=True)
        completed = await caller.until(UtteranceCompleted)
        total_s = completed.utterance.metrics.total_s
        await asyncio.sleep(5)
        caller.session.handing_over(completed)
        assert completed.utterance.metrics.total_s == total_s


@BOTH_MODES
@virtual_time
async def test_tokens_go_up_as_they_come(mode: Mode) -> None:
    async with Caller(tts_mode=mode) as caller:
        await caller.until(SessionStarted)
        for token in ("Hel", "lo", " there", "."):
            caller.say(token, "u1")
            await asyncio.sleep(0.05)
        caller.end("u1")
        await caller.until(UtteranceCompleted)
        sent = texts(caller.dialer.last.json_sent())
        assert [text for _, text, _ in sent] == ["Hel", "lo", " there", ".", ""]
        assert [last for _, _, last in sent] == [False] * 4 + [True]
        assert len({name for name, _, _ in sent}) == 1
        assert caller.text() == "Hello there."
        assert len(caller.of(UtteranceStarted)) == 1


@BOTH_MODES
@virtual_time
async def test_utterances_are_spoken_in_order_one_at_a_time(mode: Mode) -> None:
    async with Caller(voices(chunk_interval_s=0.1), tts_mode=mode) as caller:
        for number in range(1, 4):
            caller.say(f"Utterance {number}.", f"u{number}", end=True)
        await caller.until(UtteranceStarted)
        upstream = await caller.dialer.connection(0)
        await asyncio.sleep(0.2)
        assert len(texts(upstream.json_sent())) == 1, "the second waits for the end of the first"
        await caller.until(UtteranceCompleted, 3)
        assert caller.story(connections=False)[1:] == [
            line for n in (1, 2, 3) for line in (f"started u{n}", f"audio u{n}", f"completed u{n}")
        ]
        assert [caller.text(f"u{n}") for n in (1, 2, 3)] == ["Utterance 1.", "Utterance 2.", "Utterance 3."]


@virtual_time
async def test_a_new_id_ends_the_open_utterance() -> None:
    async with Caller() as caller:
        caller.say("One. ", "u1")
        caller.say("Still one.", "u1")
        caller.say("Two.", "u2", end=True)
        await caller.until(UtteranceCompleted, 2)
        assert caller.endings() == ["completed u1", "completed u2"]
        assert (caller.text("u1"), caller.text("u2")) == ("One. Still one.", "Two.")


@virtual_time
async def test_an_empty_id_is_the_open_utterance_or_a_new_one() -> None:
    async with Caller() as caller:
        caller.say("One ", "mine")
        caller.say("and more.")
        caller.end()
        caller.say("Two.", end=True)
        caller.say("Three.")
        caller.say(" Still three.", end=True)
        await caller.until(UtteranceCompleted, 3)
        assert caller.endings() == ["completed mine", "completed utterance-1", "completed utterance-2"]
        assert caller.text("mine") == "One and more."
        assert caller.text("utterance-2") == "Three. Still three."


async def _queued(caller: Caller) -> None:
    caller.say("First.", "u1", end=True)
    caller.say("Second.", "u2", end=True)


async def _completed(caller: Caller) -> None:
    caller.say("First.", "u2", end=True)
    await caller.until(UtteranceCompleted)


async def _cancelled(caller: Caller) -> None:
    caller.say("First.", "u2")
    caller.cancel("u2")


async def _failed(caller: Caller) -> None:
    caller.say("x" * 101, "u2", end=True)


@pytest.mark.parametrize("before", [_queued, _completed, _cancelled, _failed], ids=lambda f: f.__name__)
@virtual_time
async def test_text_for_an_utterance_that_takes_none_is_dropped_with_a_warning(before: Any) -> None:
    async with Caller(max_text_message_chars=100) as caller:
        await caller.until(SessionStarted)
        await before(caller)
        caller.say("stale token", "u2")
        await settle()
        (warning,) = caller.of(WarningRaised)
        assert (warning.reason, warning.utterance_id) == ("STALE_TEXT", "u2")
        assert warning.metadata == {"characters": "11"}
        caller.end_session()
        await caller.ended()
        assert "stale token" not in caller.text()


@virtual_time
async def test_a_stale_token_does_not_end_the_open_utterance() -> None:
    """After a barge-in the old turn's last tokens arrive among those of the new one."""
    async with Caller() as caller:
        caller.say("Old answer", "u1")
        caller.cancel("u1")
        caller.say("New ", "u2")
        caller.say(" with more", "u1")
        caller.say("answer.", "u2", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.text() == "New answer."
        assert caller.warnings() == ["STALE_TEXT"]


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
@virtual_time
async def test_a_blank_utterance_completes_at_once_without_audio_and_sends_nothing(text: str) -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        caller.say(text, "u1", end=True)
        completed = await caller.until(UtteranceCompleted)
        assert now() < 0.1
        assert caller.story(connections=False) == ["SessionStarted", "completed u1"]
        assert (completed.source, completed.utterance.upstreams) == (None, [])
        assert completed.utterance.metrics.chunk_count == 0
        assert caller.dialer.last.sent == []


@virtual_time
async def test_a_blank_utterance_waits_for_its_turn() -> None:
    async with Caller() as caller:
        caller.say("One.", "u1", end=True)
        caller.say(" ", "u2", end=True)
        caller.say("Three.", "u3", end=True)
        await caller.until(UtteranceCompleted, 3)
        assert caller.endings() == ["completed u1", "completed u2", "completed u3"]


@virtual_time
async def test_text_and_its_end_in_any_size_of_piece_is_said_once() -> None:
    text = "Grüße 🙂, naïve 日本! " * 5
    async with Caller() as caller:
        # Code points beyond 16 bits do not fit the voice's samples.
        text = text.replace("🙂", "☺")
        for character in text:
            caller.say(character, "u1")
            await asyncio.sleep(0)
        caller.end("u1")
        await caller.until(UtteranceCompleted)
        assert caller.text() == text


# -- flush -------------------------------------------------------------------------------------------------------


@BOTH_MODES
@virtual_time
async def test_a_flush_speaks_what_is_buffered_and_keeps_the_utterance_open(mode: Mode) -> None:
    async with Caller(tts_mode=mode) as caller:
        await caller.until(SessionStarted)
        caller.say("One.", "u1")
        caller.flush("u1")
        await caller.until(AudioProduced)
        await asyncio.sleep(2)
        assert caller.endings() == []
        caller.say(" Two.", "u1")
        caller.flush()
        caller.say(" Three.", "u1", end=True)
        completed = await caller.until(UtteranceCompleted)
        assert caller.text() == "One. Two. Three."
        assert caller.endings() == ["completed u1"], "one for all of it"
        assert len(caller.of(UtteranceStarted)) == 1
        sent = texts(caller.dialer.last.json_sent())
        assert [name for name, _, last in sent if last] == ["s-1-1", "s-1-2", "s-1-3"]
        assert [u.request_id for u in completed.utterance.upstreams] == [
            "up-s-1-1",
            "up-s-1-2",
            "up-s-1-3",
        ]
        starts = [c.start_offset_s for c in caller.of(AudioProduced)]
        assert starts == sorted(starts)
        assert starts[1] == pytest.approx(4 * CHAR_S), "playing time runs through"


@virtual_time
async def test_what_follows_a_flush_goes_up_no_later_than_what_is_before_has_ended() -> None:
    async with Caller(silent(), habits=Habits(sends_complete=True)) as caller:
        caller.say("One.", "u1")
        caller.flush()
        caller.say(" Two.", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        await asyncio.sleep(1.03)
        upstream.say(tts_chunk(spoken_pcm("One."), sent["request_id"]), tts_complete(sent["request_id"]))
        ended_at = asyncio.get_running_loop().time()
        second = await upstream.expect(lambda m: m["request_id"] != sent["request_id"])
        assert upstream.sent_at[second] <= ended_at


@virtual_time
async def test_an_end_after_a_flush_needs_no_more_from_upstream() -> None:
    async with Caller() as caller:
        caller.say("One.", "u1")
        caller.flush()
        await caller.until(AudioProduced)
        await asyncio.sleep(1)
        caller.end("u1")
        completed = await caller.until(UtteranceCompleted)
        assert completed.source is Completion.UPSTREAM
        assert len(texts(caller.dialer.last.json_sent())) == 1


@pytest.mark.parametrize("command", ["flush", "end"])
@pytest.mark.parametrize("utterance_id", ["", "nobody", "u1"])
@virtual_time
async def test_what_is_not_open_is_a_warning(command: str, utterance_id: str) -> None:
    async with Caller() as caller:
        caller.say("One.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        getattr(caller, command)(utterance_id)
        warning = await caller.until(WarningRaised)
        assert (warning.reason, warning.utterance_id) == ("UNKNOWN_UTTERANCE", utterance_id)
        assert warning.metadata == {"input": "flush" if command == "flush" else "end_utterance"}


@virtual_time
async def test_a_playback_report_of_nobody_is_a_warning() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        caller.submit(ReportPlayback("nobody", 1.0))
        warning = await caller.until(WarningRaised)
        assert (warning.reason, warning.metadata) == ("UNKNOWN_UTTERANCE", {"input": "playback"})


# -- bad text, bounds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "wrong"),
    [
        (["x" * 101], "at most 100 characters a message, got 101"),
        (["x" * 100, "x" * 100, "x" * 51], "at most 250 characters an utterance"),
    ],
)
@virtual_time
async def test_a_bad_text_fails_its_utterance_and_nothing_else(pieces: list[str], wrong: str) -> None:
    async with Caller(max_text_message_chars=100, max_utterance_chars=250) as caller:
        await caller.until(SessionStarted)
        for piece in pieces:
            caller.say(piece, "u1")
        failed = await caller.until(UtteranceFailed)
        assert isinstance(failed.error, errors.InvalidInput)
        assert [v.field for v in failed.error.violations] == ["text.text"]
        assert wrong in failed.error.message
        caller.say("Fine.", "u2", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.text("u2") == "Fine."
        assert caller.endings() == ["failed u1", "completed u2"]


@virtual_time
async def test_characters_are_code_points() -> None:
    async with Caller(max_text_message_chars=3) as caller:
        caller.say("☺é日", "u1", end=True)
        completed = await caller.until(UtteranceCompleted)
        assert completed.utterance.metrics.input_character_count == 3
        assert caller.session.usage().input_character_count == 3


@virtual_time
async def test_a_bad_text_in_mid_utterance_stops_the_upstream() -> None:
    async with Caller(voices(chunk_interval_s=0.1), max_text_message_chars=100) as caller:
        caller.say("This is being spoken already, at some length.", "u1")
        caller.flush()
        await caller.until(AudioProduced)
        caller.say("x" * 101, "u1")
        failed = await caller.until(UtteranceFailed)
        heard_s = sum(c.samples for c in caller.of(AudioProduced, "u1")) / RATE_HZ
        assert failed.audio_sent_s == pytest.approx(heard_s)
        await settle()
        assert cancels(caller.dialer.last.json_sent()) == ["s-1-1"]
        await asyncio.sleep(5)
        assert sum(c.samples for c in caller.of(AudioProduced, "u1")) / RATE_HZ == pytest.approx(heard_s)


RESTS = [
    ["text", "text", "end"],
    ["text", "flush", "text and end"],
    ["flush", "end"],
    ["flush of any", "end of any"],
    [],
]


@pytest.mark.parametrize("rest", RESTS, ids=lambda rest: ", ".join(rest) or "nothing")
@virtual_time
async def test_the_rest_of_an_utterance_that_was_refused_is_dropped_without_another_word(
    rest: list[str],
) -> None:
    """Its caller may have sent all of it before it could read of the failure."""
    async with Caller(max_text_message_chars=20) as caller:
        await caller.until(SessionStarted)
        caller.say("x" * 21, "u1")
        for message in rest:
            match message:
                case "text":
                    caller.say("more", "u1")
                case "text and end":
                    caller.say("more", "u1", end=True)
                case "flush":
                    caller.flush("u1")
                case "flush of any":
                    caller.flush()
                case "end":
                    caller.end("u1")
                case "end of any":
                    caller.end()
        caller.say("Next.", "u2", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.story(connections=False)[1:] == ["failed u1", "started u2", "audio u2", "completed u2"]
        assert caller.text() == "Next."


@virtual_time
async def test_the_rest_of_an_utterance_that_the_upstream_refused_is_dropped_without_another_word() -> None:
    async with Caller(silent()) as caller:
        caller.say("Hello ", "u1")
        upstream, message = await first_message(caller.dialer)
        upstream.say(tts_error("no such voice", message["request_id"]))
        await caller.until(UtteranceFailed)
        caller.say("there", "u1")
        caller.say(".", "u1", end=True)
        await settle()
        assert caller.warnings() == []


@pytest.mark.parametrize("after", ["its end", "another utterance"])
@virtual_time
async def test_text_after_the_end_of_a_refused_utterance_is_stale_like_any_other(after: str) -> None:
    async with Caller(max_text_message_chars=20) as caller:
        await caller.until(SessionStarted)
        caller.say("x" * 21, "u1")
        if after == "its end":
            caller.end("u1")
        else:
            caller.say("Next.", "u2")
        caller.say("late", "u1")
        await settle()
        assert caller.warnings() == ["STALE_TEXT"]


# -- what cannot be spoken ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "spoken", "character"),
    [
        (["nul\x00 and\x02 bell\x07."], "nul and bell.", "U+0000"),
        (["\x1b[31mred", "\x1b[0m."], "red.", "U+001B"),
        (["a cut \x1b[3", "1mred\x1b", "[0m."], "a cut red.", "U+001B"),
        (["Hel\x08lo", " \x08there\x1b"], "Hello there", "U+0008"),
        (["\x1b]0;never ended"], "0;never ended", "U+001B"),
    ],
)
@pytest.mark.parametrize("ends_by", ["flag", "end", "flush", "next", "session"])
@virtual_time
async def test_control_characters_are_left_out_with_one_warning(
    pieces: list[str], spoken: str, character: str, ends_by: str
) -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        for number, piece in enumerate(pieces, 1):
            caller.say(piece, "u1", end=ends_by == "flag" and number == len(pieces))
        match ends_by:
            case "end":
                caller.end("u1")
            case "flush":
                caller.flush("u1")
                caller.end("u1")
            case "next":
                caller.say("", "u2")
            case "session":
                caller.end_session()
        completed = await caller.until(UtteranceCompleted)
        assert caller.text("u1") == spoken
        (warning,) = caller.of(WarningRaised)
        assert (warning.reason, warning.utterance_id) == ("CONTROL_CHARACTERS", "u1")
        assert warning.metadata == {"character": character}
        assert completed.utterance.metrics.input_character_count == len(spoken)
        assert caller.session.usage().input_character_count == len(spoken)


@virtual_time
async def test_each_utterance_has_a_warning_of_its_own() -> None:
    async with Caller() as caller:
        for number in (1, 2):
            caller.say("\x02a\x02", f"u{number}")
            caller.say("\x02b\x02", f"u{number}", end=True)
        await caller.until(UtteranceCompleted, 2)
        assert [w.utterance_id for w in caller.of(WarningRaised)] == ["u1", "u2"]


@virtual_time
async def test_an_utterance_of_control_characters_alone_is_blank() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        caller.say("\x02\x1b[0m \x00", "u1", end=True)
        completed = await caller.until(UtteranceCompleted)
        assert completed.source is None
        assert caller.dialer.last.sent == []
        assert caller.warnings() == ["CONTROL_CHARACTERS"]


@virtual_time
async def test_what_was_spoken_of_a_cancelled_utterance_has_no_control_characters() -> None:
    async with Caller(voices(words=True, chunk_interval_s=0.1), {"word_timings": True}) as caller:
        caller.say("One\x02 \x1b[1mtwo\x1b[0m three four five.", "u1", end=True)
        await caller.until(AudioProduced)
        caller.cancel("u1", 0.02)  # this voice gives each word 10 ms
        cancelled = await caller.until(UtteranceCancelled)
        assert (cancelled.spoken_text, cancelled.remaining_text) == ("One two", " three four five.")


@virtual_time
async def test_only_what_is_spoken_counts_towards_the_length_of_an_utterance() -> None:
    async with Caller(max_utterance_chars=4) as caller:
        caller.say("\x02\x02\x02four", "u1", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.text() == "four"


async def _is_ready(caller: Caller) -> bool:
    waiting = asyncio.create_task(caller.session.ready())
    await settle()
    done = waiting.done()
    waiting.cancel()
    return done


@virtual_time
async def test_queued_utterances_are_bounded() -> None:
    async with Caller(voices(chunk_interval_s=0.1), max_queued_utterances=2) as caller:
        await caller.until(SessionStarted)
        for number in range(1, 4):
            assert await _is_ready(caller)
            caller.say("Some words.", f"u{number}", end=True)
        assert not await _is_ready(caller), "one is spoken, two wait"
        await caller.until(UtteranceCompleted)
        assert await _is_ready(caller)


@virtual_time
async def test_waiting_characters_are_bounded() -> None:
    async with Caller(max_buffered_chars=20) as caller:
        caller.say("One.", "u1", end=True)
        caller.say("x" * 10, "u2")
        assert await _is_ready(caller)
        caller.say("x" * 10, "u2")
        assert not await _is_ready(caller)
        await caller.until(UtteranceStarted, 2)
        assert await _is_ready(caller)


@virtual_time
async def test_who_reads_nothing_is_read_no_further() -> None:
    async with Caller(reads=False) as caller:
        await asyncio.sleep(1)
        for _ in range(MAX_UNREAD_EVENTS - 2):
            caller.flush("nobody")
        assert await _is_ready(caller)
        for _ in range(2):
            caller.flush("nobody")
        assert not await _is_ready(caller)
        caller.read_on()
        assert await _is_ready(caller)


@virtual_time
async def test_an_ending_session_holds_nobody_back() -> None:
    """Else a later `discard` could not be read."""
    async with Caller(voices(chunk_interval_s=0.1), max_queued_utterances=1) as caller:
        for number in range(1, 6):
            caller.say("Some words.", f"u{number}", end=True)
        assert not await _is_ready(caller)
        caller.end_session()
        assert await _is_ready(caller)
        await caller.until(UtteranceCompleted)
        assert await _is_ready(caller)


# -- audio, words ------------------------------------------------------------------------------------------------


@virtual_time
async def test_samples_stay_whole_however_the_upstream_cuts_them() -> None:
    async with Caller(silent()) as caller:
        caller.say("Hello.", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        name = sent["request_id"]
        pcm = bytes(range(200)) * 3
        for at in range(0, len(pcm), 7):
            upstream.say(tts_chunk(pcm[at : at + 7], name))
        upstream.say(tts_complete(name))
        await caller.until(UtteranceCompleted)
        chunks = caller.of(AudioProduced)
        assert b"".join(c.audio for c in chunks) == pcm
        assert all(len(c.audio) % 2 == 0 for c in chunks)


@virtual_time
async def test_half_a_sample_is_not_carried_into_the_next_request() -> None:
    async with Caller(silent()) as caller:
        caller.say("One.", "u1")
        caller.flush()
        upstream, sent = await first_message(caller.dialer)
        upstream.say(tts_chunk(b"aabbc", sent["request_id"]), tts_complete(sent["request_id"]))
        await asyncio.sleep(1)
        caller.say("Two.", "u1", end=True)
        await upstream.expect(start=1)
        name = upstream.json_sent()[1]["request_id"]
        upstream.say(tts_chunk(b"ddee", name, "up-2"), tts_complete(name, "up-2"))
        await caller.until(UtteranceCompleted)
        assert [c.audio for c in caller.of(AudioProduced)] == [b"aabb", b"ddee"]


@virtual_time
async def test_large_pieces_are_cut_between_samples() -> None:
    async with Caller(settings={"max_chunk_bytes": 1001}) as caller:
        caller.say("Hello there.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        assert {len(c.audio) for c in caller.of(AudioProduced)} <= {1000, 800, 960}
        assert caller.text() == "Hello there."
        assert "max_chunk_bytes" not in caller.dialer.last.json_sent()[0]


@pytest.mark.parametrize("encoding", [Encoding.MULAW, Encoding.ALAW, Encoding.MP3, Encoding.WAV])
@virtual_time
async def test_other_encodings_are_made_per_utterance(encoding: Encoding) -> None:
    async with Caller(audio_format=AudioFormat(encoding, RATE_HZ)) as caller:
        text = "Some words that take their time."
        for name in ("u1", "u2"):
            caller.say(text, name, end=True)
        await caller.until(UtteranceCompleted, 2)
        one, two = (b"".join(c.audio for c in caller.of(AudioProduced, name)) for name in ("u1", "u2"))
        assert one == two, "the second begins as the first did"
        for completed in caller.of(UtteranceCompleted):
            metrics = completed.utterance.metrics
            assert metrics.audio_samples / RATE_HZ == pytest.approx(len(text) * CHAR_S), "playing time"
            assert metrics.audio_bytes == len(one)
        assert caller.dialer.last.json_sent()[0]["output_format"] == "pcm"


@pytest.mark.parametrize("asked_for", [True, False, None])
@virtual_time
async def test_word_times_come_when_asked_for(asked_for: bool | None) -> None:
    settings = {} if asked_for is None else {"word_timings": asked_for}
    async with Caller(silent(), settings) as caller:
        caller.say("One two.", "u1")
        caller.flush()
        upstream, sent = await first_message(caller.dialer)
        assert sent.get("word_timestamps") == asked_for
        name = sent["request_id"]
        upstream.say(tts_word("One", 0.0, 0.4, name), tts_word("two.", 0.4, 0.9, name))
        upstream.say(tts_chunk(spoken_pcm("x" * 100), name), tts_complete(name))
        await asyncio.sleep(1)
        caller.say(" Three.", "u1", end=True)
        await upstream.expect(start=1)
        name = upstream.json_sent()[1]["request_id"]
        upstream.say(tts_word("Three.", 0.1, 0.5, name, "up-2"))
        upstream.say(tts_chunk(spoken_pcm("x"), name, "up-2"), tts_complete(name, "up-2"))
        await caller.until(UtteranceCompleted)
        words = [w for e in caller.of(WordsTimed) for w in e.words]
        if asked_for:
            assert words == [
                TimedWord("One", 0, 0.0, 0.4),
                TimedWord("two.", 1, 0.4, 0.9),
                TimedWord("Three.", 2, 1.1, 1.5),
            ]
        else:
            assert words == []


# -- the end of an utterance -------------------------------------------------------------------------------------


@virtual_time
async def test_an_upstream_without_complete_is_found_out_by_its_quiet() -> None:
    """A pause proves nothing, so the report is as late as a stall would be. It says that nothing proves the end.

    The first text is spoken once more, since it may have been a stall: it ends alike, and so it was none.
    """
    async with Caller(voices(completes=False), habits=used_to_it()) as caller:
        late_s = []
        for number, text in enumerate(("One.", "Two.", "Three."), 1):
            caller.say(text, f"u{number}", end=True)
            completed = await caller.until(UtteranceCompleted, number)
            assert completed.source is Completion.QUIET_TIMEOUT
            assert completed.is_unconfirmed
            heard = caller.heard_at[caller.heard.index(caller.of(AudioProduced)[-1])]
            late_s.append(now() - heard)
        assert caller.text() == "One.Two.Three."
        assert late_s == pytest.approx([OWED_S + LAST_WORD_S, OWED_S, OWED_S], abs=0.2)
        assert len(caller.dialer.transports) == 2


@virtual_time
async def test_a_voice_that_speaks_otherwise_each_time_ends_alike_by_its_length() -> None:
    """An upstream that sends no `complete`: the second time tells that the first one was whole, and is not heard."""
    async with Caller(silent(), habits=used_to_it()) as caller:
        caller.say("One.", "u1", end=True)
        for connection, said in enumerate(("One.", "ONE.")):
            upstream, sent = await first_message(caller.dialer, connection)
            upstream.say(tts_chunk(spoken_pcm(said), sent["request_id"]))
        completed = await caller.until(UtteranceCompleted)
        assert completed.is_unconfirmed
        assert caller.text() == "One."


@virtual_time
async def test_a_voice_that_speaks_otherwise_and_on_the_second_time_was_cut_the_first_time() -> None:
    async with Caller(silent(), habits=used_to_it()) as caller:
        caller.say("One, two, three.", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        upstream.say(tts_chunk(spoken_pcm("One, two,"), sent["request_id"]))
        upstream, sent = await first_message(caller.dialer, 1)
        upstream.say(
            tts_chunk(spoken_pcm("ONE, TWO, THREE."), sent["request_id"]), tts_complete(sent["request_id"])
        )
        failed = await caller.until(UtteranceFailed)
        assert failed.audio_sent_s == pytest.approx(9 * CHAR_S)
        assert caller.text() == "One, two,"


@virtual_time
async def test_an_upstream_that_closes_after_complete_costs_a_connection_an_utterance() -> None:
    async with Caller(voices(closes=True)) as caller:
        for number in range(1, 4):
            caller.say(f"This is number {number}.", f"u{number}", end=True)
        await caller.until(UtteranceCompleted, 3)
        assert caller.text() == "This is number 1.This is number 2.This is number 3."
        assert [c.source for c in caller.of(UtteranceCompleted)] == [Completion.UPSTREAM] * 3
        assert [c.utterance.upstreams[0].connection_index for c in caller.of(UtteranceCompleted)] == [0, 1, 2]
        assert all(c.utterance.metrics.reconnect_count == 0 for c in caller.of(UtteranceCompleted))
        lost = [e for e in caller.of(ConnectionChanged) if e.state is ConnectionState.DISCONNECTED]
        assert {(e.reason, e.close_code, e.cause) for e in lost} == {
            (ConnectionReason.UPSTREAM_CLOSED, 1000, None)
        }


@virtual_time
async def test_an_upstream_that_echoes_no_ids() -> None:
    async with Caller(voices(echoes=False)) as caller:
        for number in range(1, 4):
            caller.say(f"This is number {number}.", f"u{number}", end=True)
        await caller.until(UtteranceCompleted, 3)
        assert caller.text() == "This is number 1.This is number 2.This is number 3."
        assert len(caller.dialer.transports) == 1


@virtual_time
async def test_an_utterance_that_ends_by_quiet_is_not_trusted_where_frames_name_nobody() -> None:
    """A late frame could not be told from those of the next utterance."""
    async with Caller(
        voices(echoes=False, completes=False), habits=used_to_it(sends_complete=False)
    ) as caller:
        caller.say("One.", "u1", end=True)
        caller.say("Two.", "u2", end=True)
        await caller.until(UtteranceCompleted, 2)
        assert caller.text() == "One.Two."
        assert len(caller.dialer.transports) == 2


@virtual_time
async def test_late_audio_of_an_ended_utterance_is_dropped_and_told() -> None:
    async with Caller(silent(), habits=used_to_it(sends_complete=False)) as caller:
        caller.say("One.", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        old = sent["request_id"]
        upstream.say(tts_chunk(spoken_pcm("One."), old))
        completed = await caller.until(UtteranceCompleted)
        assert completed.source is Completion.QUIET_TIMEOUT
        caller.say("Two.", "u2", end=True)
        await upstream.expect(start=1)
        new = upstream.json_sent()[1]["request_id"]
        upstream.say(tts_chunk(spoken_pcm("late"), old), tts_complete(old))
        upstream.say(tts_chunk(spoken_pcm("Two."), new, "up-2"), tts_complete(new, "up-2"))
        await caller.until(UtteranceCompleted, 2)
        assert (caller.text("u1"), caller.text("u2")) == ("One.", "Two.")
        (warning,) = caller.of(WarningRaised)
        assert (warning.reason, warning.utterance_id) == ("LATE_AUDIO", "u1")


# -- settings ----------------------------------------------------------------------------------------------------


@virtual_time
async def test_with_nothing_being_spoken_a_delta_is_applied_at_once() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        number = caller.update("d1", speed=1.5)
        ack = await caller.until(SettingsAcknowledged)
        assert (ack.state, ack.mechanism) == (AckState.APPLIED, Mechanism.NEXT_UTTERANCE)
        assert (ack.settings_revision, ack.first_utterance_id, ack.apply_duration_s) == (2, "", 0.0)
        assert ack.applied_after_input_sequence == number
        assert ack.settings is not None
        assert ack.settings["speed"] == 1.5
        caller.say("Hello.", "u1", end=True)
        completed = await caller.until(UtteranceCompleted)
        assert caller.dialer.last.json_sent()[0]["speed"] == 1.5
        assert completed.utterance.settings_revision == 2
        assert caller.of(UtteranceStarted)[0].settings_revision == 2


@virtual_time
async def test_a_delta_governs_what_begins_after_it_and_is_applied_at_the_end_of_what_began_before() -> None:
    async with Caller(voices(chunk_interval_s=0.1)) as caller:
        caller.say("One, ", "u1")
        await caller.until(UtteranceStarted)
        caller.update("d1", speed=1.5)
        await settle()
        (queued,) = caller.acks("d1")
        assert queued.state is AckState.QUEUED
        assert queued.settings is not None
        assert (queued.settings_revision, "speed" in queued.settings) == (1, False), "in force as yet"
        last = caller.say("still one.", "u1", end=True)
        caller.say("Two.", "u2", end=True)
        await caller.until(UtteranceCompleted, 2)
        applied = caller.acks("d1")[1]
        assert applied.state is AckState.APPLIED
        assert (applied.settings_revision, applied.first_utterance_id) == (2, "u2")
        assert applied.applied_after_input_sequence == last, "the last input that the old settings governed"
        assert caller.story(connections=False)[1:] == [
            "started u1",
            "QUEUED d1",
            "audio u1",
            "completed u1",
            "APPLIED d1",
            "started u2",
            "audio u2",
            "completed u2",
        ]
        speeds = [(m["request_id"], m.get("speed")) for m in caller.dialer.last.json_sent()]
        assert speeds == [("s-1-1", None), ("s-1-1", None), ("s-1-2", 1.5)]
        assert [c.utterance.settings_revision for c in caller.of(UtteranceCompleted)] == [1, 2]


@virtual_time
async def test_a_long_utterance_holds_the_ack_for_five_seconds_and_keeps_its_settings() -> None:
    async with Caller() as caller:
        caller.say("One. ", "u1")
        await caller.until(UtteranceStarted)
        asked_at = now()
        caller.update("d1", voice_id="emily")
        await caller.until(SettingsAcknowledged, 2)
        applied = caller.acks("d1")[1]
        assert applied.state is AckState.APPLIED
        assert now() - asked_at == pytest.approx(5.0)
        assert applied.apply_duration_s == pytest.approx(5.0)
        caller.say("Still one.", "u1", end=True)
        caller.say("Two.", "u2", end=True)
        await caller.until(UtteranceCompleted, 2)
        said = {(m["request_id"], m["voice_id"]) for m in caller.dialer.last.json_sent()}
        assert said == {("s-1-1", "magnus"), ("s-1-2", "emily")}


@virtual_time
async def test_utterances_that_wait_keep_the_settings_they_were_written_for() -> None:
    async with Caller(voices(chunk_interval_s=0.1)) as caller:
        caller.say("One.", "u1", end=True)
        caller.say("Two.", "u2", end=True)
        caller.update("d1", speed=1.5)
        caller.say("Three.", "u3", end=True)
        await caller.until(UtteranceCompleted, 3)
        assert [m.get("speed") for m in caller.dialer.last.json_sent()] == [None, None, 1.5]
        story = caller.story(connections=False)
        assert story.index("completed u2") < story.index("APPLIED d1") < story.index("started u3")


@BOTH_MODES
@virtual_time
async def test_an_immediate_delta_governs_the_rest_of_the_utterance(mode: Mode) -> None:
    async with Caller(tts_mode=mode) as caller:
        caller.say("One, ", "u1")
        await caller.until(UtteranceStarted)
        number = caller.update("d1", speed=1.5, at_once=True)
        caller.say("the rest.", "u1", end=True)
        completed = await caller.until(UtteranceCompleted)
        (applied,) = caller.acks("d1")
        assert (applied.state, applied.mechanism) == (AckState.APPLIED, Mechanism.IN_PLACE)
        assert (applied.first_utterance_id, applied.applied_after_input_sequence) == ("u1", number)
        sent = caller.dialer.last.json_sent()
        assert [(n, t, last) for n, t, last in texts(sent)] == [
            ("s-1-1", "One, ", False),
            ("s-1-1", "", True),
            ("s-1-2", "the rest.", True),
        ]
        assert [m.get("speed") for m in sent][::2] == [None, 1.5]
        assert caller.text() == "One, the rest."
        assert caller.endings() == ["completed u1"]
        assert completed.utterance.settings_revision == 2
        assert caller.of(UtteranceStarted)[0].settings_revision == 1


@virtual_time
async def test_an_immediate_delta_also_governs_what_waits() -> None:
    async with Caller(voices(chunk_interval_s=0.1)) as caller:
        caller.say("One.", "u1", end=True)
        caller.say("Two.", "u2", end=True)
        await caller.until(UtteranceStarted)
        caller.update("d1", speed=1.5, at_once=True)
        await caller.until(UtteranceCompleted, 2)
        (applied,) = caller.acks("d1")
        assert applied.mechanism is Mechanism.NEXT_UTTERANCE, "what is spoken was sent already"
        assert applied.first_utterance_id == "u2"
        assert [m.get("speed") for m in caller.dialer.last.json_sent()] == [None, 1.5]
        assert [c.utterance.settings_revision for c in caller.of(UtteranceCompleted)] == [1, 2]


@virtual_time
async def test_an_immediate_delta_pulls_along_what_waits() -> None:
    async with Caller() as caller:
        caller.say("One, ", "u1")
        await caller.until(UtteranceStarted)
        caller.update("d1", speed=1.5)
        caller.update("d2", voice_id="emily", at_once=True)
        caller.update("d3", math_notation=True)
        caller.say("the rest.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        await settle()
        assert [f"{a.state.value} {a.update_id}" for a in caller.acks()] == [
            "QUEUED d1",
            "APPLIED d1",
            "APPLIED d2",
            "QUEUED d3",
            "APPLIED d3",
        ]
        rest = caller.dialer.last.json_sent()[-1]
        assert (rest["text"], rest["speed"], rest["voice_id"]) == ("the rest.", 1.5, "emily")
        assert "math_notation" not in rest


@virtual_time
async def test_the_same_delta_again_but_now_is_now() -> None:
    async with Caller() as caller:
        caller.say("One, ", "u1")
        await caller.until(UtteranceStarted)
        caller.update("d1", speed=1.5)
        caller.update("d2", speed=1.5, at_once=True)
        caller.say("the rest.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.ack_states("d1") == ["QUEUED", "SUPERSEDED"]
        assert caller.ack_states("d2") == ["APPLIED"]
        assert caller.dialer.last.json_sent()[-1]["speed"] == 1.5


@virtual_time
async def test_what_the_gateway_does_itself_changes_in_place() -> None:
    async with Caller(voices(chunk_interval_s=0.1)) as caller:
        caller.say("Something rather long.", "u1")
        caller.flush()
        await caller.until(AudioProduced)
        caller.update("d1", max_chunk_bytes=100, at_once=True)
        caller.end("u1")
        await caller.until(UtteranceCompleted)
        (applied,) = caller.acks("d1")
        assert (applied.state, applied.mechanism) == (AckState.APPLIED, Mechanism.IN_PLACE)
        assert max(len(c.audio) for c in caller.of(AudioProduced)[1:]) == 100
        assert caller.text() == "Something rather long."


@virtual_time
async def test_a_delta_that_is_set_anew_before_it_governed_anything_is_superseded() -> None:
    async with Caller() as caller:
        caller.say("One, ", "u1")
        await caller.until(UtteranceStarted)
        caller.update("d1", speed=1.5)
        caller.update("d2", speed=0.5)
        caller.end("u1")
        await caller.until(UtteranceCompleted)
        await settle()
        assert caller.ack_states("d1") == ["QUEUED", "SUPERSEDED"]
        assert caller.ack_states("d2") == ["QUEUED", "APPLIED"]
        assert caller.acks("d2")[1].settings_revision == 2, "revisions have no gap"


@virtual_time
async def test_a_delta_that_governs_an_utterance_is_not_superseded() -> None:
    async with Caller(voices(chunk_interval_s=0.1)) as caller:
        caller.say("One.", "u1", end=True)
        caller.update("d1", speed=1.5)
        caller.say("Two.", "u2", end=True)
        caller.update("d2", speed=0.5)
        caller.say("Three.", "u3", end=True)
        await caller.until(UtteranceCompleted, 3)
        assert caller.ack_states("d1") == caller.ack_states("d2") == ["QUEUED", "APPLIED"]
        assert [m.get("speed") for m in caller.dialer.last.json_sent()] == [None, 1.5, 0.5]


@virtual_time
async def test_expected_revision_guards_against_lost_updates() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        caller.update("d1", speed=1.5, expected_revision=1)
        caller.update("d2", speed=0.5, expected_revision=1)
        caller.update("d3", speed=0.75, expected_revision=2)
        await caller.until(SettingsAcknowledged, 3)
        assert [a.state.value for a in caller.acks()] == ["APPLIED", "REJECTED", "APPLIED"]
        assert isinstance(caller.acks("d2")[0].error, errors.RevisionMismatch)


@virtual_time
async def test_validate_only_changes_nothing() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        caller.update("d1", speed=1.5, validate_only=True)
        ack = await caller.until(SettingsAcknowledged)
        assert (ack.state, ack.mechanism) == (AckState.VALIDATED, Mechanism.NEXT_UTTERANCE)
        assert ack.settings is not None
        assert ack.settings["speed"] == 1.5
        caller.say("Hello.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        assert "speed" not in caller.dialer.last.json_sent()[0]


@virtual_time
async def test_reset_mask_goes_back_to_the_gateways_defaults() -> None:
    async with Caller(settings={"speed": 1.5, "voice_id": "emily"}, defaults={"speed": 1.25}) as caller:
        caller.update("d1", reset=("speed", "voice_id", "math_notation"))
        caller.say("Hello.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        sent = caller.dialer.last.json_sent()[0]
        assert (sent["speed"], sent["voice_id"]) == (1.25, "magnus")


@virtual_time
async def test_a_bad_delta_is_rejected_whole_and_the_session_goes_on() -> None:
    async with Caller() as caller:
        caller.update("d1", speed=9.0, math_notation=True, max_buffer_delay=9.0)
        caller.say("Hello.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        (ack,) = caller.acks("d1")
        assert ack.state is AckState.REJECTED
        assert isinstance(ack.error, errors.InvalidInput)
        assert {v.field for v in ack.error.violations} == {
            "update_settings.settings.speed",
            "update_settings.settings.max_buffer_delay",
        }
        assert "math_notation" not in caller.dialer.last.json_sent()[0]


@pytest.mark.parametrize(("mode", "fits"), [(Mode.CONTINUATIONS, True), (Mode.FLUSH, False)])
@virtual_time
async def test_the_buffer_delay_is_bounded_by_the_mode(mode: Mode, fits: bool) -> None:
    async with Caller(tts_mode=mode) as caller:
        caller.update("d1", max_buffer_delay=2.0)
        await caller.until(SettingsAcknowledged)
        assert caller.ack_states() == ["APPLIED" if fits else "REJECTED"]


@virtual_time
async def test_an_update_id_that_comes_again_is_applied_once() -> None:
    async with Caller() as caller:
        caller.update("d1", speed=1.5)
        caller.update("d2", speed=0.5)
        caller.update("d1", speed=1.5)
        caller.say("Hello.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.ack_states("d1") == ["APPLIED"]
        assert caller.warnings() == ["DUPLICATE_UPDATE"]
        assert caller.dialer.last.json_sent()[0]["speed"] == 0.5


@virtual_time
async def test_deltas_without_an_id_are_each_their_own() -> None:
    async with Caller() as caller:
        caller.update("", speed=1.5)
        caller.update("", speed=0.5)
        await caller.until(SettingsAcknowledged, 2)
        assert caller.ack_states("") == ["APPLIED", "APPLIED"]


@virtual_time
async def test_an_out_of_band_delta_is_acknowledged_on_both_sides_and_a_repeat_to_who_asks() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        told: list[Any] = []
        caller.session.update_settings(delta("d1", speed=1.5, in_band=False), told.append)
        caller.session.update_settings(delta("d1", speed=1.5, in_band=False), told.append)
        await settle()
        assert [a.state.value for a in told] == ["APPLIED", "APPLIED"]
        assert caller.ack_states("d1") == ["APPLIED"]
        assert caller.warnings() == []


# -- settings: after an input ------------------------------------------------------------------------------------


@virtual_time
async def test_only_so_many_deltas_wait_for_inputs_that_have_not_come() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        for number in range(MAX_HELD_UPDATES + 1):
            later = delta(f"d{number}", speed=1.5, after_input_sequence=10**6, in_band=False)
            caller.session.update_settings(later)
        await settle()
        states = [caller.ack_states(f"d{number}") for number in range(MAX_HELD_UPDATES + 1)]
        assert states == [["QUEUED"]] * MAX_HELD_UPDATES + [["REJECTED"]]


@virtual_time
async def test_after_an_input_that_still_has_the_old_settings() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        first = caller.session.input_sequence + 1
        caller.session.update_settings(delta("d1", speed=1.5, after_input_sequence=first, in_band=False))
        assert caller.say("One.", "u1", end=True) == first
        caller.say("Two.", "u2", end=True)
        await caller.until(UtteranceCompleted, 2)
        assert [m.get("speed") for m in caller.dialer.last.json_sent()] == [None, 1.5]
        assert caller.ack_states("d1") == ["QUEUED", "APPLIED"]


@virtual_time
async def test_one_that_has_passed_already_is_as_if_it_came_now() -> None:
    async with Caller() as caller:
        caller.say("One.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        caller.session.update_settings(delta("d1", speed=1.5, after_input_sequence=1, in_band=False))
        await caller.until(SettingsAcknowledged)
        assert caller.ack_states("d1") == ["APPLIED"]


@virtual_time
async def test_deltas_behind_one_that_waits_wait_too() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        waits_for = caller.session.input_sequence + 2
        caller.session.update_settings(delta("d1", speed=1.5, after_input_sequence=waits_for, in_band=False))
        caller.update("d2", math_notation=True)
        await settle()
        assert [f"{a.state.value} {a.update_id}" for a in caller.acks()] == ["QUEUED d1", "QUEUED d2"]
        caller.say("", "u1", end=True)
        await settle()
        assert [f"{a.state.value} {a.update_id}" for a in caller.acks()][2:] == ["APPLIED d1", "APPLIED d2"]
        assert caller.session.ledger.revision == 3


@virtual_time
async def test_an_immediate_delta_pulls_along_one_that_waits_for_an_input() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        caller.session.update_settings(delta("d1", speed=1.5, after_input_sequence=10**6, in_band=False))
        caller.update("d2", math_notation=True, at_once=True)
        await settle()
        assert [f"{a.state.value} {a.update_id}" for a in caller.acks()] == [
            "QUEUED d1",
            "APPLIED d1",
            "APPLIED d2",
        ]


@virtual_time
async def test_what_still_waits_at_the_end_is_told_so() -> None:
    async with Caller() as caller:
        caller.say("One, ", "u1")
        await caller.until(UtteranceStarted)
        caller.update("d1", speed=1.5)
        caller.session.update_settings(delta("d2", speed=0.5, after_input_sequence=10**6, in_band=False))
        caller.end_session(discard=True)
        await caller.ended()
        assert caller.ack_states("d1") == caller.ack_states("d2") == ["QUEUED", "SESSION_ENDED"]
        in_force = caller.session.ledger.settings
        assert all((a.settings_revision, a.settings) == (1, in_force) for a in caller.acks())
        late: list[Any] = []
        caller.session.update_settings(delta("d3", speed=0.5, in_band=False), late.append)
        assert [a.state for a in late] == [AckState.SESSION_ENDED]


# -- settings: another endpoint ----------------------------------------------------------------------------------


@virtual_time
async def test_a_model_with_an_endpoint_of_its_own_takes_another_connection() -> None:
    async with Caller() as caller:
        caller.say("One.", "u1", end=True)
        caller.update("d1", model="lightning-v2", consistency=0.5)
        caller.say("Two.", "u2", end=True)
        await caller.until(UtteranceCompleted, 2)
        old, new = caller.dialer.transports
        assert (old.path, new.path) == (TTS_PATH, TTS_V2_PATH)
        assert [t for _, t, _ in texts(old.json_sent())] == ["One."]
        assert [t for _, t, _ in texts(new.json_sent())] == ["Two."]
        assert old.gone
        assert caller.ack_states("d1") == ["QUEUED", "APPLIED"]
        ack = caller.acks("d1")[1]
        assert ack.mechanism is Mechanism.RECONNECT
        assert dict(ack.fields) == {
            "model": Mechanism.RECONNECT,
            "consistency": Mechanism.NEXT_UTTERANCE,
        }
        assert connections(caller) == [
            "CONNECTED INITIAL",
            "DISCONNECTED SETTINGS_UPDATE",
            "CONNECTED SETTINGS_UPDATE",
        ]


@virtual_time
async def test_with_nothing_being_spoken_the_other_endpoint_is_taken_at_once() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        caller.update("d1", model="lightning-v2")
        await caller.until(ConnectionChanged, 3)
        assert caller.ack_states("d1") == ["APPLIED"]
        assert caller.dialer.last.path == TTS_V2_PATH
        caller.update("d2", model="lightning_v3.1")
        await caller.until(ConnectionChanged, 5)
        assert caller.dialer.last.path == TTS_PATH
        assert [t.gone for t in caller.dialer.transports] == [True, True, False]


@pytest.mark.parametrize("refusal", [*REFUSALS, LOST], ids=lambda r: r.reason)
@virtual_time
async def test_an_endpoint_that_refuses_leaves_everything_as_it_was(refusal: errors.WavegateError) -> None:
    async with Caller(voices(chunk_interval_s=0.1)) as caller:
        caller.say("One.", "u1", end=True)
        await caller.until(UtteranceStarted)
        caller.dialer.refuse(refusal)
        caller.update("d1", model="lightning-v2")
        caller.say("Two.", "u2", end=True)
        caller.update("d2", speed=1.5)
        caller.say("Three.", "u3", end=True)
        await caller.until(UtteranceCompleted, 3)
        assert caller.ack_states("d1") == ["QUEUED", "REJECTED"]
        rejected = caller.acks("d1")[1]
        assert rejected.error is refusal
        assert rejected.settings is not None
        assert (rejected.settings["model"], rejected.settings_revision) == ("lightning_v3.1", 1)
        assert caller.ack_states("d2") == ["QUEUED", "APPLIED"]
        (only,) = caller.dialer.transports
        assert [(m["model"], m.get("speed")) for m in only.json_sent()] == [
            ("lightning_v3.1", None),
            ("lightning_v3.1", None),
            ("lightning_v3.1", 1.5),
        ]
        assert caller.text() == "One.Two.Three."
        assert [s.settings_revision for s in caller.of(UtteranceStarted)] == [1, 1, 2]


@virtual_time
async def test_an_immediate_change_of_endpoint_in_mid_utterance() -> None:
    async with Caller() as caller:
        caller.say("One, ", "u1")
        await caller.until(UtteranceStarted)
        caller.update("d1", model="lightning-v2", at_once=True)
        caller.say("the rest.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.text() == "One, the rest."
        assert [[t for _, t, _ in texts(up.json_sent())] for up in caller.dialer.transports] == [
            ["One, ", "the rest.", ""],
        ] or [[t for _, t, _ in texts(up.json_sent())] for up in caller.dialer.transports] == [
            ["One, ", ""],
            ["the rest."],
        ]
        assert caller.ack_states("d1")[-1] == "APPLIED"


@virtual_time
async def test_no_reconnect_refuses_another_endpoint_and_nothing_else() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        caller.update("d1", model="lightning-v2", policy=ApplyPolicy.NO_RECONNECT)
        caller.update("d2", speed=1.5, policy=ApplyPolicy.NO_RECONNECT)
        await caller.until(SettingsAcknowledged, 2)
        assert [a.state.value for a in caller.acks()] == ["REJECTED", "APPLIED"]
        assert isinstance(caller.acks("d1")[0].error, errors.ReconnectRequired)
        assert len(caller.dialer.transports) == 1


@virtual_time
async def test_validating_another_endpoint_dials_nobody() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        caller.update("d1", model="lightning-v2", validate_only=True)
        ack = await caller.until(SettingsAcknowledged)
        assert (ack.state, ack.mechanism) == (AckState.VALIDATED, Mechanism.RECONNECT)
        await asyncio.sleep(1)
        assert len(caller.dialer.dials) == 1


@virtual_time
async def test_an_end_does_not_wait_for_an_endpoint_that_nobody_needs() -> None:
    dialer = voices()
    async with Caller(dialer) as caller:
        await caller.until(SessionStarted)
        dialer.hold()
        caller.update("d1", model="lightning-v2")
        caller.end_session()
        dialer.let_go()
        await caller.ended()
        assert caller.ack_states("d1") in (["SESSION_ENDED"], ["APPLIED"])


# -- barge-in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("utterance_id", ["", "nobody", "u1"])
@virtual_time
async def test_nothing_to_cancel_is_a_warning(utterance_id: str) -> None:
    async with Caller() as caller:
        caller.say("One.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        caller.cancel(utterance_id)
        warning = await caller.until(WarningRaised)
        assert (warning.reason, warning.utterance_id) == ("NOTHING_TO_CANCEL", utterance_id)
        assert caller.endings() == ["completed u1"]


@virtual_time
async def test_cancelling_what_was_not_sent_yet() -> None:
    async with Caller(voices(chunk_interval_s=0.1)) as caller:
        caller.say("One.", "u1", end=True)
        caller.say("Two.", "u2")
        await caller.until(UtteranceStarted)
        caller.cancel("u2")
        await caller.until(UtteranceCompleted)
        (cancelled,) = caller.of(UtteranceCancelled)
        assert cancelled.method is CancelMethod.NOT_SENT
        assert (cancelled.spoken_text, cancelled.remaining_text) == ("", "Two.")
        assert (cancelled.estimate_source, cancelled.discarded_audio_s) == (EstimateSource.UNSPECIFIED, 0)
        assert caller.endings() == ["cancelled u2", "completed u1"]
        assert caller.of(UtteranceStarted, "u2") == []
        assert cancels(caller.dialer.last.json_sent()) == []


@virtual_time
async def test_cancelling_by_a_word_to_the_upstream() -> None:
    async with Caller(voices(chunk_interval_s=0.1)) as caller:
        caller.say("This will be interrupted, before it ends.", "u1")
        caller.flush()
        await caller.until(AudioProduced, 2)
        caller.cancel("u1")
        await settle()
        cancelled = await caller.until(UtteranceCancelled)
        assert cancelled.method is CancelMethod.UPSTREAM_CANCEL
        assert cancels(caller.dialer.last.json_sent()) == ["s-1-1"]
        caller.say("And now this.", "u2", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.endings() == ["cancelled u1", "completed u2"]
        assert caller.text("u2") == "And now this."
        assert caller.text("u1") == "This will be interru"
        assert len(caller.dialer.transports) == 1, "and no handshake was paid"


@virtual_time
async def test_cancelling_before_the_first_audio() -> None:
    async with Caller(voices(delay_s=0.5)) as caller:
        caller.say("This is never heard.", "u1", end=True)
        await caller.until(UtteranceStarted)
        caller.cancel()
        caller.say("This is.", "u2", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.of(UtteranceCancelled)[0].method is CancelMethod.UPSTREAM_CANCEL
        assert caller.text() == "This is."


@virtual_time
async def test_without_a_word_for_it_the_connection_is_replaced() -> None:
    async with Caller(voices(chunk_interval_s=0.1), tts_mode=Mode.FLUSH) as caller:
        caller.say("This will be interrupted, before it ends.", "u1", end=True)
        await caller.until(AudioProduced, 2)
        caller.cancel("u1")
        cancelled = await caller.until(UtteranceCancelled)
        assert cancelled.method is CancelMethod.RECONNECT
        await caller.until(ConnectionChanged, 3)
        assert connections(caller) == [
            "CONNECTED INITIAL",
            "DISCONNECTED UTTERANCE_CANCEL",
            "CONNECTED UTTERANCE_CANCEL",
        ], "at once, so that the next utterance finds it ready"
        caller.say("And now this.", "u2", end=True)
        await caller.until(UtteranceCompleted)
        old, new = caller.dialer.transports
        assert old.aborted
        assert [t for _, t, _ in texts(new.json_sent())] == ["And now this."]
        assert caller.text("u2") == "And now this."
        assert caller.endings() == ["cancelled u1", "completed u2"]


@virtual_time
async def test_an_upstream_that_does_not_obey_is_replaced_and_the_next_text_said_again() -> None:
    dialer = FakeDialer(lambda up: Voice(up, obeys=up.index > 0, chunk_interval_s=0.1, delay_s=0.5))
    async with Caller(dialer) as caller:
        caller.say("This will go on although it was cancelled.", "u1", end=True)
        await caller.until(AudioProduced)
        caller.cancel("u1")
        caller.say("And now this.", "u2", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.of(UtteranceCancelled)[0].method is CancelMethod.UPSTREAM_CANCEL
        assert caller.endings() == ["cancelled u1", "completed u2"]
        assert caller.text("u2") == "And now this."
        old, new = dialer.transports
        assert old.aborted
        assert [t for _, t, _ in texts(new.json_sent())] == ["And now this."]
        story = caller.story()
        assert "audio u1" not in story[story.index("cancelled u1") :], "nothing of it follows"
        assert "DISCONNECTED UTTERANCE_CANCEL" in story
        last = caller.of(ConnectionChanged)[-1]
        assert (last.state, last.replayed_character_count) == (ConnectionState.CONNECTED, 13)
        assert caller.of(UtteranceCompleted)[0].utterance.metrics.reconnect_count == 1


@virtual_time
async def test_an_upstream_that_does_not_obey_is_replaced_before_there_is_more_to_say() -> None:
    async with Caller(voices(obeys=False, chunk_interval_s=0.1)) as caller:
        caller.say("This will go on although it was cancelled.", "u1", end=True)
        await caller.until(AudioProduced)
        caller.cancel("u1")
        await caller.until(ConnectionChanged, 3)
        assert connections(caller)[1:] == ["DISCONNECTED UTTERANCE_CANCEL", "CONNECTED UTTERANCE_CANCEL"]


@pytest.mark.parametrize("refused", ["the cancel", "the text"])
@virtual_time
async def test_a_refusal_after_a_cancel_that_names_nobody_is_not_taken_for_the_next_texts(
    refused: str,
) -> None:
    """An upstream that knows no cancel may say so. What it meant shows where nothing was cancelled."""
    async with Caller(silent()) as caller:
        caller.say("One.", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        upstream.say(tts_chunk(spoken_pcm("One"), sent["request_id"]))
        await caller.until(AudioProduced)
        caller.cancel("u1")
        caller.say("Two.", "u2", end=True)
        await upstream.expect(lambda m: m.get("text") == "Two.")
        upstream.say(tts_error("text is required", request_id=""))
        upstream, sent = await first_message(caller.dialer, 1)
        assert sent["text"] == "Two."
        if refused == "the cancel":
            upstream.say(tts_chunk(spoken_pcm("Two."), sent["request_id"]), tts_complete(sent["request_id"]))
        else:
            upstream.say(tts_error("text is required", request_id=""))
        caller.end_session()
        await caller.ended()
        assert caller.endings() == [
            "cancelled u1",
            "completed u2" if refused == "the cancel" else "failed u2",
        ]
        assert caller.text("u2") == ("Two." if refused == "the cancel" else "")
        assert "DISCONNECTED UTTERANCE_CANCEL" in connections(caller)


@virtual_time
async def test_a_refusal_that_names_its_text_is_its_own_also_after_a_cancel() -> None:
    async with Caller(silent()) as caller:
        caller.say("One.", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        upstream.say(tts_chunk(spoken_pcm("One"), sent["request_id"]))
        await caller.until(AudioProduced)
        caller.cancel("u1")
        caller.say("Two.", "u2", end=True)
        index = await upstream.expect(lambda m: m.get("text") == "Two.")
        upstream.say(tts_error("no such voice", upstream.json_sent()[index]["request_id"]))
        await caller.until(UtteranceFailed)
        assert caller.endings() == ["cancelled u1", "failed u2"]
        assert len(caller.dialer.transports) == 1


@virtual_time
async def test_an_upstream_whose_frames_name_nobody_is_replaced() -> None:
    async with Caller(voices(echoes=False, chunk_interval_s=0.1)) as caller:
        caller.say("This will be interrupted, before it ends.", "u1", end=True)
        await caller.until(AudioProduced, 2)
        caller.cancel("u1")
        caller.say("And now this.", "u2", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.of(UtteranceCancelled)[0].method is CancelMethod.RECONNECT
        assert caller.text("u2") == "And now this."
        assert len(caller.dialer.transports) == 2


@virtual_time
async def test_a_cancel_before_it_is_known_that_frames_name_nobody() -> None:
    """The cancelled utterance's audio must not be taken for the next one's."""
    async with Caller(voices(echoes=False, obeys=False, chunk_interval_s=0.1)) as caller:
        caller.say("This was cancelled, and comes all the same.", "u1", end=True)
        await caller.until(UtteranceStarted)
        caller.cancel("u1")
        caller.say("And now this.", "u2", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.text("u1") == ""
        assert caller.text("u2") == "And now this."


@virtual_time
async def test_cancelling_between_two_requests() -> None:
    async with Caller() as caller:
        caller.say("One.", "u1")
        caller.flush()
        await caller.until(AudioProduced)
        await asyncio.sleep(1)
        caller.cancel("u1")
        cancelled = await caller.until(UtteranceCancelled)
        assert cancelled.method is CancelMethod.DISCARD
        await settle()
        assert cancels(caller.dialer.last.json_sent()) == []
        assert len(caller.dialer.transports) == 1


@virtual_time
async def test_cancelling_everything() -> None:
    async with Caller(voices(chunk_interval_s=0.1)) as caller:
        for number in range(1, 4):
            caller.say(f"This is number {number}.", f"u{number}", end=True)
        await caller.until(AudioProduced)
        caller.cancel()
        await caller.until(UtteranceCancelled, 3)
        methods = [c.method for c in caller.of(UtteranceCancelled)]
        assert methods == [CancelMethod.UPSTREAM_CANCEL, CancelMethod.NOT_SENT, CancelMethod.NOT_SENT]
        await asyncio.sleep(10)
        assert caller.endings() == ["cancelled u1", "cancelled u2", "cancelled u3"]


@virtual_time
async def test_waiting_audio_is_taken_back() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        caller.stop_reading()
        caller.say("x" * 50, "u1")
        caller.flush()
        await asyncio.sleep(1)
        waiting_s = caller.session.log.waiting_audio_s
        assert waiting_s == pytest.approx(0.5)
        caller.cancel("u1")
        caller.read_on()
        cancelled = await caller.until(UtteranceCancelled)
        assert cancelled.discarded_audio_s == pytest.approx(waiting_s)
        assert caller.of(AudioProduced) == []
        assert cancelled.utterance.metrics.audio_bytes == 0
        assert cancelled.utterance.metrics.chunk_count == 0
        assert caller.session.usage().audio_duration_s == 0
        assert caller.session.log.waiting_audio_s == 0


@virtual_time
async def test_a_barge_in_before_the_listener_heard_the_end() -> None:
    """The gateway has made all of it, but the listener's pace holds it back: it is not completed yet."""
    async with Caller(max_audio_lead_s=0.2) as caller:
        caller.say("x" * 100, "u1", end=True)
        await caller.until(AudioProduced, 3)
        caller.cancel("u1", heard_s=0.1)
        cancelled = await caller.until(UtteranceCancelled)
        await asyncio.sleep(10)
        assert caller.endings() == ["cancelled u1"], "and no completed"
        assert cancelled.method is CancelMethod.DISCARD
        heard_s = sum(c.samples for c in caller.of(AudioProduced)) / RATE_HZ
        assert heard_s < 0.5
        assert cancelled.discarded_audio_s == pytest.approx(1.0 - heard_s)
        assert caller.session.usage().utterance_count == 1


@virtual_time
async def test_a_barge_in_stops_what_was_made_and_what_is_being_made() -> None:
    async with Caller(max_audio_lead_s=0.2) as caller:
        caller.say("x" * 60, "u1", end=True)
        caller.say("y" * 60, "u2", end=True)
        caller.say("z" * 60, "u3", end=True)
        await caller.until(AudioProduced, 2)
        caller.cancel()
        await caller.until(UtteranceCancelled, 3)
        await asyncio.sleep(10)
        assert caller.endings() == ["cancelled u1", "cancelled u2", "cancelled u3"]
        assert set(caller.text()) == {"x"}


@virtual_time
async def test_what_was_made_ends_before_what_has_begun_since() -> None:
    async with Caller(max_audio_lead_s=0.2, max_waiting_audio_s=10.0) as caller:
        caller.say("x" * 60, "u1", end=True)
        caller.say("y" * 20, "u2", end=True)
        await caller.until(AudioProduced, 2)
        await asyncio.sleep(0.05)
        caller.cancel("u1")
        await caller.until(UtteranceCompleted)
        assert caller.story(connections=False)[1:] == [
            "started u1",
            "audio u1",
            "cancelled u1",
            "started u2",
            "audio u2",
            "completed u2",
        ]


@virtual_time
async def test_the_next_utterance_is_not_held_to_the_old_ones_pace() -> None:
    async with Caller(max_audio_lead_s=1.0) as caller:
        caller.say("x" * 500, "u1", end=True)
        await caller.until(AudioProduced, 10)
        at = now()
        caller.cancel("u1")
        caller.say("Now this.", "u2", end=True)
        await caller.until(AudioProduced, matches=lambda e: e.utterance.utterance_id == "u2")
        assert now() - at < 0.3


@virtual_time
async def test_cancelling_what_waits_leaves_the_pace_of_what_is_heard() -> None:
    async with Caller(max_audio_lead_s=0.2) as caller:
        caller.say("x" * 100, "u1", end=True)
        caller.say("later", "u2", end=True)
        await caller.until(AudioProduced, 3)
        caller.cancel("u2")
        await caller.until(UtteranceCompleted)
        first = caller.heard_at[caller.heard.index(caller.of(AudioProduced)[0])]
        last = caller.heard_at[caller.heard.index(caller.of(AudioProduced)[-1])]
        assert last - first > 0.55


@pytest.mark.parametrize(
    ("heard_s", "reported_s", "spoken"),
    [
        (None, None, "This is spoken to"),  # all that was delivered: 20 of 40 characters at the usual pace
        (0.52, None, "This is"),
        (0.52, 0.975, "This is"),
        (None, 0.975, "This is spoken"),
        (None, 99.0, "This is spoken to"),
        (99.0, None, "This is spoken to"),
        (0.0, None, ""),
    ],
)
@virtual_time
async def test_what_was_spoken_by_what_the_listener_heard(
    heard_s: float | None, reported_s: float | None, spoken: str
) -> None:
    text = "This is spoken to the end, nearly, I do."
    async with Caller(silent()) as caller:
        caller.say(text, "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        upstream.say(tts_chunk(spoken_pcm("x" * 130), sent["request_id"]))
        await caller.until(AudioProduced)
        if reported_s is not None:
            caller.submit(ReportPlayback("u1", reported_s))
        caller.cancel("u1", heard_s)
        cancelled = await caller.until(UtteranceCancelled)
        assert cancelled.spoken_text + cancelled.remaining_text == text
        assert cancelled.spoken_text == spoken
        source = EstimateSource.PROPORTIONAL if heard_s != 0.0 else EstimateSource.UNSPECIFIED
        assert cancelled.estimate_source is source


@pytest.mark.parametrize("heard_s", [1.2, 99.0, None])
@virtual_time
async def test_what_was_spoken_by_the_times_of_the_words(heard_s: float | None) -> None:
    """Of what was delivered: 1.2 s, whatever more its listener reports."""
    async with Caller(silent(), {"word_timings": True}) as caller:
        caller.say("One two, three four.", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        name = sent["request_id"]
        for index, word in enumerate(["One", "two", "three", "four"]):
            upstream.say(tts_word(word, index * 0.5, index * 0.5 + 0.5, name))
        upstream.say(tts_chunk(spoken_pcm("x" * (200 if heard_s == 1.2 else 120)), name))
        await caller.until(AudioProduced)
        caller.cancel("u1", heard_s=heard_s)
        cancelled = await caller.until(UtteranceCancelled)
        assert (cancelled.spoken_text, cancelled.remaining_text) == ("One two,", " three four.")
        assert cancelled.estimate_source is EstimateSource.WORD_TIMINGS


@virtual_time
async def test_a_cancel_ends_the_wait_of_a_delta() -> None:
    async with Caller() as caller:
        caller.say("One, ", "u1")
        await caller.until(UtteranceStarted)
        caller.update("d1", speed=1.5)
        caller.cancel()
        await settle()
        assert caller.ack_states("d1") == ["QUEUED", "APPLIED"]


@virtual_time
async def test_a_cancel_while_its_connection_is_being_opened() -> None:
    """And nothing of it is said when that succeeds."""
    async with Caller(silent()) as caller:
        await caller.until(SessionStarted)
        caller.dialer.last.drop()
        await caller.until(ConnectionChanged, 2)
        caller.say("Never mind.", "u1", end=True)
        await settle()
        caller.cancel("u1")
        await asyncio.sleep(1)
        assert caller.endings() == ["cancelled u1"]
        assert caller.dialer.last.sent == []


@virtual_time
async def test_a_cancel_while_its_connection_cannot_be_opened() -> None:
    async with Caller(voices()) as caller:
        await caller.until(SessionStarted)
        caller.dialer.last.drop()
        await caller.until(ConnectionChanged, 2)
        caller.dialer.refuse(*[LOST] * 3)
        caller.say("Never mind.", "u1", end=True)
        await asyncio.sleep(0.01)
        caller.cancel("u1")
        await asyncio.sleep(5)
        assert caller.endings() == ["cancelled u1"]
        caller.say("Hello.", "u2", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.text() == "Hello."


@virtual_time
async def test_a_cancel_of_the_last_failure_of_a_dial_breaks_nothing() -> None:
    async with Caller(voices()) as caller:
        await caller.until(SessionStarted)
        caller.dialer.last.drop()
        await caller.until(ConnectionChanged, 2)
        rejection = errors.UpstreamRejected("no", http_status=400)
        caller.dialer.refuse(rejection)
        caller.say("Never mind.", "u1", end=True)
        await asyncio.sleep(0.01)
        caller.cancel("u1")
        caller.say("Hello.", "u2", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.endings() == ["cancelled u1", "completed u2"]


# -- drops -------------------------------------------------------------------------------------------------------


@virtual_time
async def test_a_drop_before_the_first_audio_says_the_whole_text_again() -> None:
    dialer = FakeDialer(lambda up: Voice(up, delay_s=10.0 if up.index == 0 else 0.1))
    async with Caller(dialer) as caller:
        caller.say("One, ", "u1")
        await caller.until(UtteranceStarted)
        caller.say("two, ", "u1")
        await asyncio.sleep(0.1)
        dialer.last.drop()
        caller.say("three.", "u1", end=True)
        completed = await caller.until(UtteranceCompleted)
        assert caller.text() == "One, two, three."
        assert caller.endings() == ["completed u1"]
        assert caller.story() == [
            "SessionStarted",
            "CONNECTED INITIAL",
            "started u1",
            "DISCONNECTED NETWORK_ERROR",
            "RECONNECTING NETWORK_ERROR",
            "CONNECTED NETWORK_ERROR",
            "audio u1",
            "completed u1",
        ]
        _, lost, retrying, back = caller.of(ConnectionChanged)
        assert (lost.close_code, isinstance(lost.cause, errors.UpstreamUnavailable)) == (1006, True)
        assert (retrying.attempt, retrying.max_attempts, retrying.next_retry_delay_s) == (1, 3, 0.0)
        assert (back.attempt, back.max_attempts, back.upstream.connection_index) == (1, 3, 1)
        assert back.replayed_character_count == 10
        assert completed.utterance.metrics.reconnect_count == 1
        assert caller.session.usage().reconnect_count == 1


@virtual_time
async def test_words_that_came_before_a_lost_audio_are_told_once() -> None:
    async with Caller(silent(), {"word_timings": True}) as caller:
        caller.say("One two.", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        upstream.say(tts_word("One", 0.0, 0.4, sent["request_id"]))
        await caller.until(WordsTimed)
        upstream.drop()
        upstream, sent = await first_message(caller.dialer, 1)
        name = sent["request_id"]
        upstream.say(tts_word("One", 0.0, 0.4, name), tts_word("two.", 0.4, 0.8, name))
        upstream.say(tts_chunk(spoken_pcm("x" * 80), name), tts_complete(name))
        await caller.until(UtteranceCompleted)
        words = [w for e in caller.of(WordsTimed) for w in e.words]
        assert [(w.text, w.index) for w in words] == [("One", 0), ("two.", 1)]


SLOW_CHARS = 10
"""How often a slow voice says each character: 100 ms."""


def drawled(text: str) -> bytes:
    """The audio of a slow voice, a second for ten characters."""
    return spoken_pcm("".join(c * SLOW_CHARS for c in text))


@pytest.mark.parametrize("same", [True, False])
@virtual_time
async def test_audio_that_no_word_times_tell_of_is_held_against_what_was_heard(same: bool) -> None:
    """Times that come late, or for some words only, prove nothing about the audio after them."""
    story = "One two three four five six."
    async with Caller(silent(), {"word_timings": True}) as caller:
        caller.say(story, "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        name = sent["request_id"]
        upstream.say(tts_word("One", 0.0, 0.3, name), tts_chunk(drawled("One two three four"), name))
        await caller.until(AudioProduced)
        upstream.drop()
        upstream, sent = await first_message(caller.dialer, 1)
        assert sent["text"] == story
        name = sent["request_id"]
        said = story if same else story.upper()
        upstream.say(tts_word("One", 0.0, 0.3, name), tts_word("two", 0.4, 0.7, name))
        upstream.say(tts_chunk(drawled(said), name), tts_complete(name))
        caller.end_session()
        await caller.ended()
        if same:
            assert caller.text()[::SLOW_CHARS] == story
            assert caller.endings() == ["completed u1"]
        else:
            assert caller.text()[::SLOW_CHARS] == "One two three four"
            (failed,) = caller.of(UtteranceFailed)
            assert failed.audio_sent_s == pytest.approx(1.8)
        words = [w.text for e in caller.of(WordsTimed) for w in e.words]
        assert words == ["One", "two"]


@virtual_time
async def test_the_word_that_was_cut_is_found_after_a_drop_before_it() -> None:
    """The times of words that were announced, lost and announced again count, also of a word that comes often."""
    async with Caller(silent(), {"word_timings": True}) as caller:
        caller.say("the cat the dog the end", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        name = sent["request_id"]
        upstream.say(tts_word("the", 0.0, 0.2, name), tts_word("cat", 0.2, 0.4, name))
        await caller.until(WordsTimed, 2)
        upstream.drop()
        upstream, sent = await first_message(caller.dialer, 1)
        name = sent["request_id"]
        for number, word in enumerate(["the", "cat", "the", "dog", "the"]):
            upstream.say(tts_word(word, number * 0.3, number * 0.3 + 0.3, name))
        upstream.say(tts_chunk(spoken_pcm("x" * 95), name))  # three words, and a little of the fourth
        await caller.until(AudioProduced)
        upstream.drop()
        upstream, sent = await first_message(caller.dialer, 2)
        assert sent["text"] == " dog the end"
        assert [w.text for e in caller.of(WordsTimed) for w in e.words] == ["the", "cat", "the", "dog", "the"]


@pytest.mark.parametrize("code", [None, 1000, 1001, 1011])
@virtual_time
async def test_after_a_drop_in_mid_speech_the_rest_is_heard(code: int | None) -> None:
    async with Caller(voices(chunk_interval_s=0.1)) as caller:
        caller.say("This will not be lost, half way through it.", "u1", end=True)
        await caller.until(AudioProduced, 2)
        await settle()
        caller.dialer.last.drop(code)
        await caller.until(UtteranceCompleted)
        assert caller.text("u1") == "This will not be lost, half way through it."
        lost = caller.of(ConnectionChanged)[1]
        assert lost.close_code == (1006 if code is None else code)
        assert caller.session.reconnect_count == 1
        assert not any(c.discontinuity for c in caller.of(AudioProduced))


@virtual_time
async def test_what_begins_otherwise_after_a_drop_fails_and_says_how_much_was_heard() -> None:
    async with Caller(silent()) as caller:
        caller.say("Hello there.", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        upstream.say(tts_chunk(spoken_pcm("Hello"), sent["request_id"]))
        await caller.until(AudioProduced)
        upstream.drop(1011)
        await caller.until(ConnectionChanged, 4)
        again = caller.dialer.last
        await settle()
        said = [m for m in map(json.loads, again.sent) if m.get("text")]
        assert [m["text"] for m in said] == ["Hello there."]
        again.say(tts_chunk(spoken_pcm("Jello there."), said[0]["request_id"]))
        failed = await caller.until(UtteranceFailed)
        assert isinstance(failed.error, errors.UpstreamUnavailable)
        assert failed.error.retryable
        assert failed.audio_sent_s == pytest.approx(5 * CHAR_S)
        assert caller.text("u1") == "Hello"


@virtual_time
async def test_words_that_are_timed_in_other_letters_are_not_said_twice() -> None:
    async with Caller(silent(), {"word_timings": True}) as caller:
        caller.say("Hello big world, again.", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        name = sent["request_id"]
        for index, word in enumerate(["HELLO", "BIG", "WORLD", "AGAIN"]):
            upstream.say(tts_word(word, index * 0.1, index * 0.1 + 0.1, name))
        upstream.say(tts_chunk(spoken_pcm("x" * 25), name))
        await caller.until(AudioProduced)
        upstream.drop()
        _, again = await first_message(caller.dialer, 1)
        assert again["text"].strip() == "world, again."


@virtual_time
async def test_after_a_flush_only_what_was_lost_is_said_again() -> None:
    async with Caller(silent()) as caller:
        caller.say("One.", "u1")
        caller.flush()
        upstream, sent = await first_message(caller.dialer)
        name = sent["request_id"]
        upstream.say(tts_chunk(spoken_pcm("One."), name), tts_complete(name))
        await asyncio.sleep(1)
        caller.say("Two.", "u1", end=True)
        await upstream.expect(start=1)
        upstream.drop()
        upstream, sent = await first_message(caller.dialer, 1)
        assert (sent["text"], sent["continue"]) == ("Two.", False)
        name = sent["request_id"]
        upstream.say(tts_chunk(spoken_pcm("Two."), name, "up-2"), tts_complete(name, "up-2"))
        await caller.until(UtteranceCompleted)
        assert caller.text() == "One.Two."


@virtual_time
async def test_a_connection_that_is_lost_again_and_again_is_given_up() -> None:
    class Dropping:
        def __init__(self, upstream: FakeTransport) -> None:
            self.upstream = upstream
            self.voice = Voice(upstream)

        def received(self, message: Any) -> None:
            if "Drop" in message:
                self.upstream.drop()
            else:
                self.voice.received(message)

    dialer = FakeDialer(Dropping)
    async with Caller(dialer) as caller:
        caller.say("Drop.", "u1", end=True)
        failed = await caller.until(UtteranceFailed)
        assert isinstance(failed.error, errors.UpstreamUnavailable)
        assert failed.audio_sent_s == 0
        assert len(dialer.transports) == 4
        retries = [e for e in caller.of(ConnectionChanged) if e.state is ConnectionState.RECONNECTING]
        assert [(e.attempt, e.max_attempts, e.next_retry_delay_s) for e in retries] == [
            (1, 3, 0.0),
            (2, 3, 0.1),
            (3, 3, 0.3),
        ]
        caller.say("Hello.", "u2", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.text() == "Hello.", "the next text dials anew"


@virtual_time
async def test_a_good_utterance_fills_the_budget_again() -> None:
    dialer = voices(delay_s=0.2)
    async with Caller(dialer) as caller:
        for number in range(1, 6):
            caller.say(f"Number {number}.", f"u{number}", end=True)
            await caller.until(UtteranceStarted, number)
            await asyncio.sleep(0.05)
            dialer.last.drop()
            await caller.until(UtteranceCompleted, number)
        assert len(dialer.transports) == 6


@virtual_time
async def test_a_text_whose_connection_cannot_be_opened_fails_and_the_session_lives() -> None:
    dialer = voices()
    async with Caller(dialer) as caller:
        await caller.until(SessionStarted)
        dialer.last.drop()
        await caller.until(ConnectionChanged, 2)
        dialer.refuse(*[LOST] * 4)
        caller.say("Nobody hears this.", "u1", end=True)
        failed = await caller.until(UtteranceFailed)
        assert failed.error is LOST
        assert caller.session.state is State.ACTIVE
        caller.say("Hello.", "u2", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.text() == "Hello."


@pytest.mark.parametrize(
    "error",
    [errors.UpstreamCredential("401", http_status=401), errors.UpstreamGone("410", http_status=410)],
    ids=lambda e: e.reason,
)
@virtual_time
async def test_a_bad_key_and_a_retired_model_end_utterance_and_session(error: errors.WavegateError) -> None:
    dialer = voices()
    async with Caller(dialer) as caller:
        await caller.until(SessionStarted)
        dialer.last.drop()
        await caller.until(ConnectionChanged, 2)
        dialer.refuse(error)
        caller.say("One.", "u1", end=True)
        caller.say("Two.", "u2", end=True)
        ended = await caller.ended()
        assert (ended.reason, ended.error) == (EndReason.FAILURE, error)
        assert caller.endings() == ["failed u1", "failed u2"]
        assert len(dialer.dials) == 2, "not retried"


@virtual_time
async def test_a_rejected_dial_fails_the_utterance_alone() -> None:
    dialer = voices()
    async with Caller(dialer) as caller:
        await caller.until(SessionStarted)
        dialer.last.drop()
        await caller.until(ConnectionChanged, 2)
        dialer.refuse(errors.UpstreamRejected("400", http_status=400))
        caller.say("One.", "u1", end=True)
        caller.say("Two.", "u2", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.endings() == ["failed u1", "completed u2"]


@virtual_time
async def test_an_idle_connection_that_is_lost_is_replaced_with_the_next_text() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        caller.dialer.last.drop()
        await caller.until(ConnectionChanged, 2)
        await asyncio.sleep(10)
        assert len(caller.dialer.dials) == 1
        assert caller.session.upstream().endpoint.endswith(TTS_PATH), "the latest is shown still"
        caller.say("Hello.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        assert connections(caller) == [
            "CONNECTED INITIAL",
            "DISCONNECTED NETWORK_ERROR",
            "CONNECTED NETWORK_ERROR",
        ]
        assert caller.text() == "Hello."


@virtual_time
async def test_an_idle_connection_that_the_upstream_gives_up() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        upstream = caller.dialer.last
        upstream.say(tts_error("Connection timed out after 60 seconds of inactivity"))
        await caller.until(ConnectionChanged, 2)
        caller.say("Hello.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        assert connections(caller) == [
            "CONNECTED INITIAL",
            "DISCONNECTED IDLE_TIMEOUT",
            "CONNECTED IDLE_TIMEOUT",
        ]


@pytest.mark.parametrize("speaking", [True, False])
@virtual_time
async def test_a_close_as_full_ends_the_session(speaking: bool) -> None:
    async with Caller(silent()) as caller:
        await caller.until(SessionStarted)
        if speaking:
            caller.say("Hello.", "u1", end=True)
            await caller.until(UtteranceStarted)
        caller.dialer.last.finish(1008, "concurrency")
        ended = await caller.ended()
        assert isinstance(ended.error, errors.UpstreamCapacity)
        assert ended.reason is EndReason.FAILURE
        assert caller.endings() == (["failed u1"] if speaking else [])
        assert connections(caller)[-1] == "DISCONNECTED CONCURRENCY_LIMIT"


# -- what the upstream says of a request -------------------------------------------------------------------------


@virtual_time
async def test_a_request_that_is_refused_fails_its_utterance_and_the_connection_lives() -> None:
    async with Caller(silent()) as caller:
        caller.say("Hello.", "u1", end=True)
        caller.say("Again.", "u2", end=True)
        upstream, sent = await first_message(caller.dialer)
        upstream.say(tts_error("Invalid voice_id: nobody", sent["request_id"]))
        failed = await caller.until(UtteranceFailed)
        assert isinstance(failed.error, errors.UpstreamRejected)
        assert not failed.error.retryable
        await upstream.expect(start=1)
        name = upstream.json_sent()[1]["request_id"]
        upstream.say(tts_chunk(spoken_pcm("Again."), name), tts_complete(name))
        await caller.until(UtteranceCompleted)
        assert caller.text() == "Again."


@virtual_time
async def test_refused_requests_cost_no_retries() -> None:
    async with Caller(silent()) as caller:
        await caller.until(SessionStarted)
        upstream = caller.dialer.last
        for number in range(6):
            caller.say("Hello.", f"u{number}", end=True)
            await upstream.expect(start=number)
            upstream.say(tts_error("Invalid voice_id", upstream.json_sent()[number]["request_id"]))
            await caller.until(UtteranceFailed, number + 1)
        caller.say("Hello.", "last", end=True)
        await upstream.expect(start=6)
        upstream.drop()
        await caller.dialer.connection(1)


@virtual_time
async def test_a_full_account_is_waited_for_over_the_same_connection() -> None:
    async with Caller(silent()) as caller:
        caller.say("Hello.", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        at = now()
        upstream.say(tts_error("Too many concurrent requests", sent["request_id"]))
        await upstream.expect(start=1)
        assert now() - at == pytest.approx(0.5)
        again = upstream.json_sent()[1]
        assert again["text"] == "Hello."
        assert again["request_id"] != sent["request_id"]
        name = again["request_id"]
        upstream.say(tts_chunk(spoken_pcm("Hello."), name), tts_complete(name))
        completed = await caller.until(UtteranceCompleted)
        assert caller.text() == "Hello."
        assert len(caller.of(UtteranceStarted)) == 1
        metrics = completed.utterance.metrics
        assert (metrics.admission_wait_s, metrics.reconnect_count) == (0.5, 0)


@pytest.mark.parametrize("heard", ["", "Hel"], ids=["at once", "after some audio"])
@virtual_time
async def test_a_full_account_is_waited_for_only_so_long(heard: str) -> None:
    """Also where it is full at the same place of the text each time: what is heard again is no progress."""

    class Full:
        def __init__(self, upstream: FakeTransport) -> None:
            self.upstream = upstream

        def received(self, message: Any) -> None:
            body = json.loads(message)
            if "text" not in body:
                return
            name = body["request_id"]
            if heard:
                self.upstream.say(tts_chunk(spoken_pcm(heard), name))
            self.upstream.say(tts_error("Too many concurrent requests", name))

    async with Caller(FakeDialer(Full)) as caller:
        await caller.until(SessionStarted)
        for number in (1, 2):
            at = now()
            caller.say("Hello.", f"u{number}", end=True)
            failed = await caller.until(UtteranceFailed, number)
            assert isinstance(failed.error, errors.UpstreamCapacity)
            assert failed.error.retryable
            assert 1.4 < now() - at <= 2.0, "each utterance has the queue's time for itself"
        assert caller.session.state is State.ACTIVE


@virtual_time
async def test_a_key_that_is_refused_in_a_frame_ends_both() -> None:
    async with Caller(silent()) as caller:
        caller.say("Hello.", "u1", end=True)
        upstream, _ = await first_message(caller.dialer)
        upstream.say({"status": "error", "error": {"message": "Unauthorized", "code": "401"}})
        ended = await caller.ended()
        assert isinstance(ended.error, errors.UpstreamCredential)
        assert caller.endings() == ["failed u1"]


@virtual_time
async def test_what_holds_no_audio_is_passed_over() -> None:
    async with Caller(silent()) as caller:
        upstream = await caller.dialer.connection(0)
        await caller.until(SessionStarted)
        upstream.say("nonsense", b"\x00")
        await settle()
        caller.say("Hello.", "u1", end=True)
        await upstream.expect()
        name = upstream.json_sent()[0]["request_id"]
        upstream.say({"status": "unheard of"}, tts_chunk(b"", name))
        upstream.say(tts_chunk(spoken_pcm("Hello."), name), tts_complete(name))
        await caller.until(UtteranceCompleted)
        assert caller.text() == "Hello."
        assert len(caller.dialer.transports) == 1


@pytest.mark.parametrize("frame", ["nonsense", b"\x00\x01", "[1, 2]", '{"audio": 5}', "null"])
@virtual_time
async def test_a_frame_in_the_place_of_audio_is_a_hole_and_mended_by_another_connection(
    frame: str | bytes,
) -> None:
    async with Caller(silent()) as caller:
        caller.say("Hello there.", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        upstream.say(tts_chunk(spoken_pcm("Hello "), sent["request_id"]), frame)
        upstream.say(tts_chunk(spoken_pcm("re."), sent["request_id"]), tts_complete(sent["request_id"]))
        upstream, sent = await first_message(caller.dialer, 1)
        name = sent["request_id"]
        upstream.say(tts_chunk(spoken_pcm("Hello there."), name), tts_complete(name))
        completed = await caller.until(UtteranceCompleted)
        assert caller.text() == "Hello there."
        assert not completed.is_unconfirmed


@virtual_time
async def test_garbage_is_mended_by_another_connection_where_nothing_was_heard() -> None:
    async with Caller(silent()) as caller:
        caller.say("Hello.", "u1", end=True)
        upstream, _ = await first_message(caller.dialer)
        upstream.say(*["nonsense"] * MAX_GARBAGE)
        upstream, sent = await first_message(caller.dialer, 1)
        name = sent["request_id"]
        upstream.say(tts_chunk(spoken_pcm("Hello."), name), tts_complete(name))
        await caller.until(UtteranceCompleted)
        assert caller.text() == "Hello."


@virtual_time
async def test_lasting_garbage_is_the_upstreams_fault() -> None:
    class Nonsense:
        def __init__(self, upstream: FakeTransport) -> None:
            self.upstream = upstream

        def received(self, message: Any) -> None:
            self.upstream.say(*["nonsense"] * MAX_GARBAGE)

    async with Caller(FakeDialer(Nonsense)) as caller:
        caller.say("Hello.", "u1", end=True)
        failed = await caller.until(UtteranceFailed)
        assert isinstance(failed.error, errors.UpstreamProtocol)
        assert len(caller.dialer.transports) == 4
        assert caller.session.state is State.ACTIVE


@virtual_time
async def test_damaged_audio_after_good_audio_is_said_again_over_another_connection() -> None:
    async with Caller(silent()) as caller:
        caller.say("Hello.", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        name = sent["request_id"]
        upstream.say(tts_chunk(spoken_pcm("Hel"), name))
        upstream.say({"status": "chunk", "external_request_id": name, "data": {"audio": "***"}})
        await caller.until(ConnectionChanged, 4)
        again = caller.dialer.last
        await settle()
        name = next(m["request_id"] for m in map(json.loads, again.sent) if m.get("text"))
        again.say(tts_chunk(spoken_pcm("Hello."), name), tts_complete(name))
        await caller.until(UtteranceCompleted)
        assert caller.text("u1") == "Hello."


# -- stalls and slowness -----------------------------------------------------------------------------------------


@virtual_time
async def test_a_stall_before_the_first_audio_is_mended_by_another_connection() -> None:
    dialer = FakeDialer(lambda up: Voice(up, delay_s=3600.0 if up.index == 0 else 0.1))
    async with Caller(dialer) as caller:
        caller.say("Hello.", "u1", end=True)
        begun = await caller.until(UtteranceStarted)
        at = now()
        assert begun
        completed = await caller.until(UtteranceCompleted)
        assert now() - at == pytest.approx(OWED_S + dialer.handshake_s + 0.1, abs=0.01)
        assert caller.text() == "Hello."
        assert completed.utterance.metrics.reconnect_count == 1
        assert connections(caller)[1:] == [
            "DISCONNECTED NETWORK_ERROR",
            "RECONNECTING NETWORK_ERROR",
            "CONNECTED NETWORK_ERROR",
        ]
        lost = caller.of(ConnectionChanged)[1]
        assert isinstance(lost.cause, errors.UpstreamStalled)
        assert dialer.transports[0].aborted


@virtual_time
async def test_a_stall_after_the_first_audio_is_tried_again_and_then_fails_the_utterance() -> None:
    async with Caller(silent(), habits=Habits(sends_complete=True)) as caller:
        caller.say("Hello there.", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        upstream.say(tts_chunk(spoken_pcm("Hello"), sent["request_id"]))
        await caller.until(AudioProduced)
        at = now()
        await caller.until(ConnectionChanged, 2)
        assert now() - at == pytest.approx(OWED_S)
        failed = await caller.until(UtteranceFailed)
        assert isinstance(failed.error, errors.UpstreamStalled)
        assert failed.audio_sent_s == pytest.approx(5 * CHAR_S)
        assert len(caller.dialer.transports) == 4


@virtual_time
async def test_a_silent_upstream_is_not_retried_for_ever() -> None:
    async with Caller(silent()) as caller:
        caller.say("Hello.", "u1", end=True)
        failed = await caller.until(UtteranceFailed)
        assert isinstance(failed.error, errors.UpstreamStalled)
        assert len(caller.dialer.transports) == 4
        caller.say("Hello.", "u2", end=True)
        await caller.until(UtteranceFailed, 2)
        assert len(caller.dialer.transports) == 5, "the budget is not full again"


@pytest.mark.parametrize("word_times", [False, True])
@pytest.mark.parametrize("falls_silent", [False, True])
@virtual_time
async def test_an_upstream_that_only_begins_is_given_up(word_times: bool, falls_silent: bool) -> None:
    """Each connection says the same beginning and is lost, or says no more: what was heard before is nothing new,
    however long the connection lived. Nor is the word that was cut and begins again."""

    class Beginner(Voice):
        async def _speak(self, name: str, text: str) -> None:
            if self.words and text.startswith("Once"):
                self.upstream.say(tts_word("Once", 0.0, 4 * CHAR_S, name))
            for piece in text[:6]:
                self.upstream.say(tts_chunk(spoken_pcm(piece), name))
                await asyncio.sleep(1.0)
            if not falls_silent:
                self.upstream.drop()

    dialer = FakeDialer(lambda up: Beginner(up, words=word_times))
    async with Caller(dialer, {"word_timings": word_times}, habits=Habits(sends_complete=True)) as caller:
        caller.say("Once upon a time there was a stream of words.", "u1", end=True)
        caller.end_session()
        failed = await caller.until(UtteranceFailed)
        assert isinstance(
            failed.error, errors.UpstreamStalled if falls_silent else errors.UpstreamUnavailable
        )
        # With word times the second connection had something new, too: it went on behind "Once".
        assert len(dialer.transports) == (5 if word_times else 4)
        assert (await caller.ended()).error is None
        again = [e for e in caller.of(ConnectionChanged) if e.state is ConnectionState.RECONNECTING]
        assert [(e.attempt, e.max_attempts) for e in again[-3:]] == [(1, 3), (2, 3), (3, 3)]


@virtual_time
async def test_a_text_whose_buffer_delay_has_elapsed_is_owed() -> None:
    async with Caller(silent(), {"max_buffer_delay": 1.0}) as caller:
        caller.say("Hello", "u1")
        await caller.until(UtteranceStarted)
        at = now()
        await caller.until(ConnectionChanged, 2)
        assert now() - at == pytest.approx(1.0 + OWED_S, abs=0.01)


@virtual_time
async def test_a_send_that_blocks_is_a_stall() -> None:
    dialer = voices()
    async with Caller(dialer) as caller:
        await caller.until(SessionStarted)
        dialer.last.stop_reading()
        at = now()
        caller.say("Hello.", "u1", end=True)
        await caller.until(ConnectionChanged, 2)
        assert now() - at == pytest.approx(SEND_TIMEOUT_S)
        await caller.until(UtteranceCompleted)
        assert caller.text() == "Hello."
        lost = caller.of(ConnectionChanged)[1]
        assert (lost.reason, lost.close_code) == (ConnectionReason.NETWORK_ERROR, 1006)
        assert isinstance(lost.cause, errors.UpstreamStalled)


@pytest.mark.parametrize("speaks", [True, False])
@virtual_time
async def test_a_ping_without_an_answer_is_a_stall(speaks: bool) -> None:
    dialer = voices(delay_s=2.0)
    async with Caller(dialer) as caller:
        await caller.until(SessionStarted)
        if speaks:
            caller.say("Hello.", "u1", end=True)
            await caller.until(UtteranceStarted)
        dialer.last.drop(reason="the upstream answered no ping for 5 s", stalled=True)
        lost = await caller.until(ConnectionChanged, 2)
        assert (lost.reason, lost.close_code) == (ConnectionReason.NETWORK_ERROR, 1006)
        assert isinstance(lost.cause, errors.UpstreamStalled)
        assert "no ping" in lost.cause.message
        if not speaks:
            caller.say("Hello.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.text() == "Hello."


@virtual_time
async def test_a_slow_caller_stops_the_reading_and_is_no_stall() -> None:
    async with Caller(voices(), max_waiting_audio_s=0.5) as caller:
        await caller.until(SessionStarted)
        caller.stop_reading()
        caller.say("x" * 500, "u1", end=True)
        await asyncio.sleep(3600 / 10)
        assert 0.5 <= caller.session.log.waiting_audio_s <= 0.7
        assert caller.session.log.full
        caller.read_on()
        await caller.until(UtteranceCompleted)
        assert caller.text() == "x" * 500
        assert caller.endings() == ["completed u1"]
        assert len(caller.dialer.transports) == 1


@virtual_time
async def test_silence_after_a_slow_caller_is_a_stall_again() -> None:
    async with Caller(silent(), max_waiting_audio_s=0.5, habits=Habits(sends_complete=True)) as caller:
        await caller.until(SessionStarted)
        caller.stop_reading()
        caller.say("x" * 100, "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        upstream.say(tts_chunk(spoken_pcm("x" * 60), sent["request_id"]))
        await asyncio.sleep(100)
        assert caller.session.log.full
        caller.read_on()
        at = now()
        await caller.until(ConnectionChanged, 2)
        assert now() - at == pytest.approx(OWED_S)


@virtual_time
async def test_a_barge_in_on_a_slow_caller_reads_on() -> None:
    async with Caller(voices(), max_waiting_audio_s=0.5) as caller:
        await caller.until(SessionStarted)
        caller.stop_reading()
        caller.say("x" * 500, "u1", end=True)
        await asyncio.sleep(1)
        caller.cancel("u1")
        caller.say("Hello.", "u2", end=True)
        await asyncio.sleep(1)
        caller.read_on()
        await caller.until(UtteranceCompleted)
        assert caller.text() == "Hello."


@virtual_time
async def test_audio_is_held_to_the_lead() -> None:
    async with Caller(max_audio_lead_s=1.0) as caller:
        caller.say("x" * 500, "u1", end=True)
        await caller.until(UtteranceCompleted)
        first = caller.heard_at[caller.heard.index(caller.of(AudioProduced)[0])]
        for chunk in caller.of(AudioProduced):
            at = caller.heard_at[caller.heard.index(chunk)] - first
            assert chunk.start_offset_s + 0.1 <= at + 1.0 + 0.01
        assert caller.text() == "x" * 500


# -- a quiet session ---------------------------------------------------------------------------------------------


@virtual_time
async def test_audio_that_comes_in_large_pieces_is_held_to_the_lead() -> None:
    """A piece longer than the lead would pass it all by itself."""
    async with Caller(silent(), max_audio_lead_s=0.5) as caller:
        caller.say("Long.", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)
        upstream.say(tts_chunk(spoken_pcm("x" * 300), sent["request_id"]), tts_complete(sent["request_id"]))
        await caller.until(UtteranceCompleted)
        heard = [
            (at, e.samples / RATE_HZ)
            for at, e in zip(caller.heard_at, caller.heard, strict=True)
            if isinstance(e, AudioProduced)
        ]
        sent_s = 0.0
        for at, piece_s in heard:
            sent_s += piece_s
            assert sent_s - (at - heard[0][0]) <= 0.5 + 0.002
        assert sent_s == pytest.approx(3.0)
        assert caller.text() == "x" * 300


@BOTH_MODES
@virtual_time
async def test_an_idle_connection_is_kept_alive(mode: Mode) -> None:
    async with Caller(tts_mode=mode, idle_timeout_s=0.0 + 200.0) as caller:
        await caller.until(SessionStarted)
        await asyncio.sleep(110)
        upstream = caller.dialer.last
        sent = upstream.json_sent()
        assert [(m["request_id"], m["text"]) for m in sent] == [(KEEPALIVE_ID, " ")] * 4
        gaps = [b - a for a, b in zip([dialer_at(caller), *upstream.sent_at], upstream.sent_at, strict=False)]
        assert gaps == pytest.approx([KEEPALIVE_S] * 4, abs=0.01)
        caller.say("Hello.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.text() == "Hello."


def dialer_at(caller: Caller) -> float:
    """When the last connection was open."""
    return caller.dialer.dials[-1].at + caller.dialer.handshake_s


@pytest.mark.parametrize("wait_s", [5.0, 30.0, 45.0])
@virtual_time
async def test_a_connection_that_stood_ready_is_kept_alive_from_its_opening_on(wait_s: float) -> None:
    """The upstream hangs up 60 s after it was opened or last heard of, whoever held it meanwhile."""
    account = Account(standby=True)
    async with Caller(voices(chunk_interval_s=0.1), tts_mode=Mode.FLUSH, account=account) as caller:
        await asyncio.sleep(wait_s)
        caller.say("This is interrupted, and for a long time nothing follows.", "u1", end=True)
        await caller.until(AudioProduced)
        caller.cancel("u1")
        await asyncio.sleep(100)
        taken = [d for d in caller.dialer.dials if d.transport is not None and d.transport.sent][1:]
        assert len(taken) == 1
        for dial in taken:
            assert dial.transport is not None
            assert dial.transport.is_open
            assert dial.transport.sent_at[0] - dial.at < 55.0
        await account.aclose()


class HalfDead:
    """A dialer's peers that all fall silent when `cut` is called: no connection that is open then says another word,
    nor that it has gone. Connections opened later are well."""

    def __init__(self) -> None:
        self.voices: list[HalfDead.Mortal] = []
        self.drops = 0
        """How many of the messages to come reset their connection."""

    def __call__(self, upstream: FakeTransport) -> HalfDead.Mortal:
        self.voices.append(HalfDead.Mortal(upstream, chunk_interval_s=0.1))
        self.voices[-1].peers = self
        return self.voices[-1]

    def cut(self) -> None:
        for voice in self.voices:
            voice.is_dead = True
            for speaking in voice._speakers.values():
                speaking.cancel()

    class Mortal(Voice):
        peers: HalfDead
        is_dead = False

        def received(self, message: Any) -> None:
            if self.is_dead:
                return
            if self.peers.drops:
                self.peers.drops -= 1
                self.upstream.drop()
            else:
                super().received(message)


@pytest.mark.parametrize("is_told", [True, False])
@virtual_time
async def test_a_standby_is_not_trusted_when_its_twin_has_died(is_told: bool) -> None:
    """All connections end at once. Where the end of the one in use is told, also three times, the next dial follows at
    once; where it is not, one stall later."""
    account, peers = Account(standby=True), HalfDead()
    dialer = FakeDialer(peers)
    habits = Habits(sends_complete=True)
    async with Caller(dialer, tts_mode=Mode.FLUSH, account=account, habits=habits) as caller:
        await asyncio.sleep(1.0)
        assert len(dialer.transports) == 2, "a standby is there"
        text = "Once upon a time there was a stream of words, and all could hear it, from start to end."
        caller.say(text, "u1", end=True)
        begun_at, heard = now(), 0
        for _ in range(3 if is_told else 1):
            await caller.until(AudioProduced, heard + 2)
            heard = len(caller.of(AudioProduced))
            used = caller.session.upstream().connection_index
            link = caller.session._link
            assert link is not None
            peers.cut()
            if is_told:
                link.transport.drop()
            await caller.until(ConnectionChanged, 1, lambda c, used=used: c.upstream.connection_index > used)  # type: ignore[misc]
        await caller.until(UtteranceCompleted)
        assert caller.text() == text
        again = [e for e in caller.of(ConnectionChanged) if e.state is ConnectionState.RECONNECTING]
        assert [e.attempt for e in again] == ([1, 2, 3] if is_told else [1])
        assert now() - begun_at < 3.0 + (0 if is_told else OWED_S)
    await account.aclose()


@virtual_time
async def test_a_standby_that_was_dead_when_it_was_taken_costs_no_try() -> None:
    account, peers = Account(standby=True), HalfDead()
    dialer = FakeDialer(peers)
    async with Caller(dialer, tts_mode=Mode.FLUSH, account=account) as caller:
        await asyncio.sleep(1.0)
        caller.say("This is interrupted.", "u1", end=True)
        await caller.until(AudioProduced)
        peers.cut()
        caller.cancel("u1")
        peers.drops = 3
        caller.say("This is not.", "u2", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.text("u2") == "This is not."
        again = [e for e in caller.of(ConnectionChanged) if e.state is ConnectionState.RECONNECTING]
        assert [e.next_retry_delay_s for e in again] == [0.0, 0.0, 0.1, 0.3]
    await account.aclose()


@virtual_time
async def test_text_keeps_a_connection_alive_by_itself() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        for number in range(10):
            caller.say("Hello.", f"u{number}", end=True)
            await asyncio.sleep(KEEPALIVE_S - 1)
        assert all(m["text"] == "Hello." for m in caller.dialer.last.json_sent())


@BOTH_MODES
@virtual_time
async def test_a_long_pause_in_an_open_utterance_keeps_the_connection_alive(mode: Mode) -> None:
    """A blank would fall into the text, so the request is closed; the utterance goes on with another."""
    async with Caller(tts_mode=mode) as caller:
        caller.say("One, ", "u1")
        await caller.until(UtteranceStarted)
        if mode is Mode.CONTINUATIONS:
            # As the real one does once its buffer delay is over.
            upstream = caller.dialer.last
            upstream.say(tts_chunk(spoken_pcm("One, "), "s-1-1"))
        await asyncio.sleep(100)
        upstream = caller.dialer.last
        assert max(b - a for a, b in zip(upstream.sent_at, upstream.sent_at[1:], strict=False)) < 60
        assert len(caller.dialer.transports) == 1
        caller.say("two.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.endings() == ["completed u1"]
        assert [(t, last) for _, t, last in texts(upstream.json_sent())] == [
            ("One, ", False),
            ("", True),
            ("two.", True),
        ]


@virtual_time
async def test_a_session_without_input_ends() -> None:
    async with Caller(idle_timeout_s=600.0) as caller:
        await caller.until(SessionStarted)
        ended = await caller.ended()
        assert now() == pytest.approx(600.0)
        assert ended.reason is EndReason.CLIENT_IDLE
        assert isinstance(ended.error, errors.SessionIdle)
        assert caller.dialer.last.gone


@pytest.mark.parametrize(("wanted_s", "granted_s"), [(30.0, 30.0), (60.0, 60.0), (600.0, 60.0), (-1.0, 0.0)])
def test_a_resume_window_is_granted_within_its_bound(wanted_s: float, granted_s: float) -> None:
    @virtual_time
    async def scenario() -> None:
        caller = Caller(max_resume_window_s=60.0)
        caller.session.grant_resume(wanted_s)
        assert caller.session.resume_window_s == granted_s

    scenario()


@virtual_time
async def test_who_watches_twice_is_told_once() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        seen: list[Any] = []

        def watcher(event: Any) -> None:
            seen.append(event)

        caller.session.watch(watcher)
        caller.session.watch(watcher)
        caller.update("d1", speed=1.5)
        await settle()
        assert [(e.update_id, e.state) for e in seen] == [("d1", AckState.APPLIED)]
        caller.session.unwatch(watcher)
        caller.update("d2", speed=1.0)
        await settle()
        assert len(seen) == 1


@virtual_time
async def test_a_session_that_is_resumed_is_idle_from_then_on() -> None:
    caller = Caller(idle_timeout_s=100.0)
    caller.session.grant_resume(30.0)
    async with caller:
        await caller.until(SessionStarted)
        await asyncio.sleep(90.0)
        caller.session.detach(lambda: None)
        caller.session.reattach(caller.session.log.sequence)
        resumed_at = asyncio.get_running_loop().time()
        ended = await caller.ended()
        assert isinstance(ended.error, errors.SessionIdle)
        assert asyncio.get_running_loop().time() - resumed_at == pytest.approx(100.0, abs=1.0)


@virtual_time
async def test_a_caller_that_discards_after_its_end_is_not_waited_for() -> None:
    async with Caller(silent()) as caller:
        caller.say("Hello.", "u1", end=True)
        await first_message(caller.dialer)
        caller.end_session()
        assert not caller.session.discarding
        caller.end_session(discard=True)
        assert caller.session.discarding
        await caller.ended()
        assert caller.endings() == ["cancelled u1"]


@virtual_time
async def test_a_session_that_speaks_is_not_idle() -> None:
    async with Caller(idle_timeout_s=10.0, max_audio_lead_s=0.5) as caller:
        caller.say("x" * 3000, "u1", end=True)
        completed_at = None
        await caller.until(UtteranceCompleted)
        completed_at = now()
        assert completed_at > 25
        ended = await caller.ended()
        assert ended.reason is EndReason.CLIENT_IDLE
        assert now() - completed_at <= 10.0 + 0.1


@virtual_time
async def test_an_utterance_that_is_left_open_does_not_keep_a_session_for_ever() -> None:
    async with Caller(idle_timeout_s=100.0) as caller:
        caller.say("One, ", "u1")
        ended = await caller.ended()
        assert ended.reason is EndReason.CLIENT_IDLE
        assert now() < 250
        assert caller.endings() == ["failed u1"]


# -- ends --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half_close", [True, False])
@virtual_time
async def test_an_end_finishes_everything(half_close: bool) -> None:
    async with Caller() as caller:
        caller.say("One.", "u1", end=True)
        caller.say("Two, left open.", "u2")
        caller.end_session(by_half_close=half_close)
        assert not caller.session.ended
        ended = await caller.ended()
        assert caller.endings() == ["completed u1", "completed u2"]
        assert caller.text() == "One.Two, left open."
        assert ended.error is None
        assert ended.reason is (EndReason.CLIENT_HALF_CLOSE if half_close else EndReason.CLIENT_END)
        assert caller.dialer.last.gone


@virtual_time
async def test_an_end_before_the_start_is_an_end_after_it() -> None:
    dialer = voices()
    dialer.hold()
    async with Caller(dialer) as caller:
        caller.say("Hello.", "u1", end=True)
        caller.end_session()
        await settle()
        dialer.let_go()
        ended = await caller.ended()
        assert ended.error is None
        assert caller.text() == "Hello."


@virtual_time
async def test_what_comes_after_the_end_is_not_taken() -> None:
    async with Caller(voices(chunk_interval_s=0.1)) as caller:
        caller.say("Hello there.", "u1", end=True)
        await caller.until(AudioProduced)
        caller.end_session()
        caller.say("More.", "u2", end=True)
        assert caller.session.state is State.DRAINING
        await caller.ended()
        assert caller.endings() == ["completed u1"]


@virtual_time
async def test_a_discard_stops_now() -> None:
    async with Caller(voices(chunk_interval_s=0.1)) as caller:
        caller.say("x" * 200, "u1", end=True)
        caller.say("Two.", "u2", end=True)
        caller.say("Open", "u3")
        await caller.until(AudioProduced)
        at = now()
        caller.end_session(discard=True)
        ended = await caller.ended()
        assert now() == at
        assert (ended.reason, ended.error) == (EndReason.CLIENT_END, None)
        assert caller.endings() == ["cancelled u1", "cancelled u2", "cancelled u3"]
        assert caller.dialer.last.aborted
        methods = [c.method for c in caller.of(UtteranceCancelled)]
        assert methods == [CancelMethod.DISCARD, CancelMethod.NOT_SENT, CancelMethod.NOT_SENT]


@virtual_time
async def test_a_discard_stops_even_a_send_that_blocks() -> None:
    async with Caller() as caller:
        await caller.until(SessionStarted)
        caller.dialer.last.stop_reading()
        caller.say("Hello.", "u1", end=True)
        await asyncio.sleep(0.1)
        at = now()
        caller.end_session(discard=True)
        await caller.ended()
        assert now() == at
        assert caller.endings() == ["cancelled u1"]


@virtual_time
async def test_a_discard_after_an_end_cuts_the_rest_short() -> None:
    async with Caller(voices(chunk_interval_s=0.1)) as caller:
        caller.say("x" * 200, "u1", end=True)
        await caller.until(AudioProduced)
        caller.end_session()
        await asyncio.sleep(0.2)
        caller.end_session(discard=True)
        ended = await caller.ended()
        assert ended.error is None
        assert caller.endings() == ["cancelled u1"]


@virtual_time
async def test_a_discard_while_the_connection_is_being_opened() -> None:
    dialer = voices()
    dialer.hold()
    async with Caller(dialer) as caller:
        caller.say("Hello.", "u1", end=True)
        await settle()
        caller.end_session(discard=True)
        ended = await caller.ended()
        assert ended.error is None
        assert caller.story() == ["SessionEnded"]


@pytest.mark.parametrize("discard", [True, False])
@virtual_time
async def test_an_end_from_outside(discard: bool) -> None:
    async with Caller(voices(chunk_interval_s=0.1)) as caller:
        caller.say("Hello there.", "u1", end=True)
        await caller.until(AudioProduced)
        caller.session.close_by_operator(discard)
        ended = await caller.ended()
        assert ended.reason is EndReason.CLOSED_BY_OPERATOR
        if discard:
            assert isinstance(ended.error, errors.SessionClosed)
            assert caller.endings() == ["cancelled u1"]
        else:
            assert ended.error is None
            assert caller.endings() == ["completed u1"]


@virtual_time
async def test_a_caller_that_breaks_the_contract() -> None:
    async with Caller(voices(chunk_interval_s=0.1)) as caller:
        caller.say("Hello there.", "u1", end=True)
        caller.say("Two.", "u2", end=True)
        await caller.until(AudioProduced)
        error = errors.MessageOrder("start came a second time")
        caller.session.fail(error)
        caller.session.fail(errors.MessageOrder("and a third time"))
        ended = await caller.ended()
        assert (ended.reason, ended.error) == (EndReason.FAILURE, error)
        assert caller.endings() == ["failed u1", "failed u2"]


@virtual_time
async def test_a_caller_that_vanishes_cuts_the_upstream_off() -> None:
    async with Caller(voices(chunk_interval_s=0.1)) as caller:
        caller.say("x" * 200, "u1", end=True)
        await caller.until(AudioProduced)
        caller.running.cancel()
        await settle()
        assert caller.dialer.last.aborted
        assert caller.session.log.closed


@virtual_time
async def test_a_bug_ends_the_session_and_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Caller(silent()) as caller:
        caller.say("Hello.", "u1", end=True)
        upstream, sent = await first_message(caller.dialer)

        def broken(*args: Any) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(caller.session, "_produce", broken)
        upstream.say(tts_chunk(b"abcd", sent["request_id"]))
        ended = await caller.ended()
        assert isinstance(ended.error, errors.GatewayBug)
        assert caller.endings() == ["failed u1"]


@virtual_time
async def test_totals() -> None:
    async with Caller(max_text_message_chars=100) as caller:
        caller.say("One.", "u1", end=True)
        caller.say("x" * 101, "u2")
        caller.say(" ", "u3", end=True)
        await caller.until(UtteranceCompleted, 2)
        caller.end_session()
        usage = (await caller.ended()).usage
        assert usage.input_character_count == 5
        assert usage.audio_bytes == len(spoken_pcm("One."))
        assert usage.audio_duration_s == pytest.approx(4 * CHAR_S)
        assert usage.utterance_count == 3
        assert usage.reconnect_count == 0
        assert usage.end_time is not None
        assert usage.end_time >= usage.start_time


@virtual_time
async def test_the_end_of_a_longer_text_is_known_at_once_where_the_upstream_is_known() -> None:
    """Another release may follow a `complete`, until it was seen twice that none does."""
    late_s = []
    async with Caller() as caller:
        for number in range(1, 5):
            caller.say("One. Two. Three.", f"u{number}", end=True)
            await caller.until(UtteranceCompleted, number)
            heard = caller.heard_at[caller.heard.index(caller.of(AudioProduced)[-1])]
            late_s.append(now() - heard)
    assert late_s == pytest.approx([OWED_S, OWED_S, 0.0, 0.0], abs=0.01)


# -- from one utterance to the next ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["Yes.", "Yes. No.", "One. Two. Three, and so on.", "… …"])
@pytest.mark.parametrize("streamed", [False, True])
@BOTH_MODES
@virtual_time
async def test_the_next_utterance_follows_without_a_hole(text: str, streamed: bool, mode: Mode) -> None:
    """From the last sample of one to the first of the next: the upstream's time to first audio, and 20 ms."""
    first_audio_s = 0.15
    dialer = voices(delay_s=first_audio_s, chunk_interval_s=0.05)
    async with Caller(dialer, tts_mode=mode) as caller:
        names = [f"u{number}" for number in range(1, 6)]
        for name in names:
            for piece in text if streamed else [text]:
                caller.say(piece, name)
            caller.end(name)
        await caller.until(UtteranceCompleted, len(names))
        assert caller.text() == text * len(names)
        audio = [
            (at, e)
            for at, e in zip(caller.heard_at, caller.heard, strict=True)
            if isinstance(e, AudioProduced)
        ]
        for before, after in itertools.pairwise(names):
            last = max(at for at, e in audio if e.utterance.utterance_id == before)
            first = min(at for at, e in audio if e.utterance.utterance_id == after)
            paced_s = 0.05  # this voice says `complete` one interval after its last chunk
            assert first - last <= paced_s + first_audio_s + 0.02
        assert len(dialer.transports) == 1


@virtual_time
async def test_a_flush_makes_no_hole_either() -> None:
    async with Caller(voices(delay_s=0.15)) as caller:
        caller.say("One. Two.", "u1")
        caller.flush()
        caller.say(" Three. Four.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        assert caller.text() == "One. Two. Three. Four."
        times = [
            at for at, e in zip(caller.heard_at, caller.heard, strict=True) if isinstance(e, AudioProduced)
        ]
        assert max(b - a for a, b in itertools.pairwise(times)) <= 0.15 + 0.02


@virtual_time
async def test_what_was_sent_ahead_is_sent_again_when_the_connection_breaks() -> None:
    async with Caller(silent()) as caller:
        caller.say("One. Two.", "u1", end=True)
        caller.say("Three.", "u2", end=True)
        upstream, sent = await first_message(caller.dialer)
        upstream.say(tts_chunk(spoken_pcm("One."), sent["request_id"]), tts_complete(sent["request_id"]))
        await upstream.expect(start=1)  # sent ahead, though the first may have more to say
        upstream.drop()
        upstream, sent = await first_message(caller.dialer, 1)
        assert sent["text"] == "One. Two."
        name = sent["request_id"]
        upstream.say(tts_chunk(spoken_pcm("One. Two."), name), tts_complete(name))
        await upstream.expect(start=1)
        name = upstream.json_sent()[1]["request_id"]
        upstream.say(tts_chunk(spoken_pcm("Three."), name, "up-2"), tts_complete(name, "up-2"))
        await caller.until(UtteranceCompleted, 2)
        assert (caller.text("u1"), caller.text("u2")) == ("One. Two.", "Three.")
        assert caller.endings() == ["completed u1", "completed u2"]


@BOTH_MODES
@virtual_time
async def test_a_barge_in_stops_what_was_sent_ahead_too(mode: Mode) -> None:
    async with Caller(silent(), tts_mode=mode) as caller:
        caller.say("One. Two.", "u1", end=True)
        caller.say("Three.", "u2", end=True)
        upstream, sent = await first_message(caller.dialer)
        upstream.say(tts_chunk(spoken_pcm("One."), sent["request_id"]), tts_complete(sent["request_id"]))
        await upstream.expect(start=1)
        ahead = upstream.json_sent()[1]["request_id"]
        caller.cancel()
        caller.say("Four.", "u3", end=True)
        if mode is Mode.CONTINUATIONS:
            await upstream.expect(lambda m: m.get("cancel_request") and m["context_id"] == ahead)
        else:
            upstream = await caller.dialer.connection(1)
        index = await upstream.expect(lambda m: m.get("text") == "Four.")
        name = upstream.json_sent()[index]["request_id"]
        upstream.say(tts_chunk(spoken_pcm("Three."), ahead, "up-2"))
        upstream.say(tts_chunk(spoken_pcm("Four."), name, "up-3"), tts_complete(name, "up-3"))
        await caller.until(UtteranceCompleted)
        assert caller.endings() == ["cancelled u1", "cancelled u2", "completed u3"]
        assert caller.text() == "One.Four."


@pytest.mark.parametrize("which", ["u1", "u2"])
@virtual_time
async def test_cancelling_one_of_two_that_are_sent_leaves_the_other(which: str) -> None:
    async with Caller(silent()) as caller:
        caller.say("One. Two.", "u1", end=True)
        caller.say("Three.", "u2", end=True)
        upstream, sent = await first_message(caller.dialer)
        old = sent["request_id"]
        upstream.say(tts_chunk(spoken_pcm("One."), old), tts_complete(old))
        await upstream.expect(start=1)
        new = upstream.json_sent()[1]["request_id"]
        caller.cancel(which)
        await settle()
        upstream.say(tts_chunk(spoken_pcm(" Two."), old), tts_complete(old))
        upstream.say(tts_chunk(spoken_pcm("Three."), new, "up-2"), tts_complete(new, "up-2"))
        await caller.until(UtteranceCompleted)
        assert caller.text() == ("One.Three." if which == "u1" else "One. Two.")
        assert len(caller.endings()) == 2


@virtual_time
async def test_cancelling_what_was_sent_ahead_lets_the_one_before_finish_where_only_a_new_connection_helps() -> (
    None
):
    async with Caller(silent(), tts_mode=Mode.FLUSH) as caller:
        caller.say("One. Two.", "u1", end=True)
        caller.say("Three.", "u2", end=True)
        upstream, sent = await first_message(caller.dialer)
        old = sent["request_id"]
        upstream.say(tts_chunk(spoken_pcm("One."), old), tts_complete(old))
        await upstream.expect(start=1)
        new = upstream.json_sent()[1]["request_id"]
        caller.cancel("u2")
        caller.say("Four.", "u3", end=True)
        cancelled = await caller.until(UtteranceCancelled)
        assert cancelled.method is CancelMethod.DISCARD
        upstream.say(tts_chunk(spoken_pcm(" Two."), old), tts_complete(old))
        upstream.say(tts_chunk(spoken_pcm("Three."), new, "up-2"))
        upstream, sent = await first_message(caller.dialer, 1)
        assert sent["text"] == "Four."
        name = sent["request_id"]
        upstream.say(tts_chunk(spoken_pcm("Four."), name, "up-3"), tts_complete(name, "up-3"))
        await caller.until(UtteranceCompleted, 2)
        assert caller.endings() == ["cancelled u2", "completed u1", "completed u3"]
        assert caller.text() == "One. Two.Four."


@virtual_time
async def test_text_after_a_cancel_that_is_not_obeyed_goes_over_the_standby_at_once() -> None:
    """It is learnt once; from then on no cancel is sent, and the method says so."""
    async with Caller(voices(obeys=False, chunk_interval_s=0.1), account=Account(standby=True)) as caller:
        long = "A text that takes its time to be spoken, and is not let finish."
        for number in range(1, 5):
            caller.say(long, f"u{number}", end=True)
            await caller.until(AudioProduced, matches=lambda e, n=number: e.utterance.utterance_id == f"u{n}")
            caller.cancel()
            caller.say("Next.", f"n{number}", end=True)
            at = now()
            first = await caller.until(
                AudioProduced, matches=lambda e, n=number: e.utterance.utterance_id == f"n{n}"
            )
            assert first is not None
            if number > 1:
                assert now() - at <= 0.1 + 0.02, "the voice's own time to first audio"
            await caller.until(UtteranceCompleted, number)
            await asyncio.sleep(1)
        methods = [c.method for c in caller.of(UtteranceCancelled)]
        assert methods == [CancelMethod.UPSTREAM_CANCEL, *[CancelMethod.RECONNECT] * 3]
        assert [caller.text(f"n{n}") for n in range(1, 5)] == ["Next."] * 4
