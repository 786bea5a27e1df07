"""What sessions show in traces, on virtual time, before scripted upstreams."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest
from wavegate_server import errors
from wavegate_server.rpc.convert import synthesis as convert
from wavegate_server.session.context import UpstreamTarget
from wavegate_server.session.events import (
    ConnectionChanged,
    ConnectionState,
    SessionEnded,
    SessionStarted,
    SettingsAcknowledged,
)
from wavegate_server.session.pool import Upstreams
from wavegate_server.session.synthesis_events import (
    AudioProduced,
    SpeakText,
    UtteranceCancelled,
    UtteranceCompleted,
    UtteranceFailed,
)
from wavegate_server.session.transcription_events import AcceptAudio, FinalizeTurn, Transcribed
from wavegate_server.telemetry import instruments, names

from tests.support import listening, speaking
from tests.support.recognizer import RATE_HZ, Recognizer, silence, speech
from tests.support.spans import Recorded, Recording
from tests.support.speaking import Voice
from tests.support.transport import FakeDialer, FakeTransport, tts_error
from tests.support.virtual_time import settle, virtual_time

SPEAK, HEAR = names.TEXT_TO_SPEECH, names.SPEECH_TO_TEXT
KEY = "sk_a_secret_key_of_the_account"


def handed(session: Any, entry: Any) -> None:
    """As the stream does when its transport has taken an event."""
    session.handing_over(entry.event)
    now = time.time_ns()
    session.handed_over(entry, session.log.position, now, now + 1)


class Speaker(speaking.Caller):
    """A caller whose session is traced."""

    def __init__(self, dialer: FakeDialer | None = None, **options: Any) -> None:
        self.recording = Recording()
        super().__init__(dialer, **self.recording.options, **options)

    async def _read(self) -> None:
        log = self.session.log
        while True:
            await self._reads.wait()
            entry = await log.next()
            if entry is None:
                return
            self.heard.append(entry.event)
            self.heard_at.append(asyncio.get_running_loop().time())
            handed(self.session, entry)
            self._news.set()
            self._news = asyncio.Event()

    async def over(self) -> Recording:
        """End the session and its call."""
        self.end_session()
        await self.ended()
        return self.closed()

    def closed(self) -> Recording:
        self.session.trace.close()
        self.recording.call.end()
        return self.recording


class Listener(listening.Caller):
    """The same, for one that listens."""

    def __init__(self, dialer: FakeDialer, *args: Any, **options: Any) -> None:
        self.recording = Recording()
        context = listening.context(dialer, **self.recording.options)
        super().__init__(dialer, *args, session_context=context, **options)

    async def _read(self) -> None:
        while (entry := await self.session.log.next()) is not None:
            self.events.append(entry.event)
            self.times.append(asyncio.get_running_loop().time())
            handed(self.session, entry)
            self._news.set()
            self._news = asyncio.Event()
        self._news.set()

    def closed(self) -> Recording:
        self.session.trace.close()
        self.recording.call.end()
        return self.recording


def sequences(chunks: list[Recorded]) -> list[int]:
    return [c.attributes[names.CHUNK_SEQUENCE] for c in chunks]


def check(recording: Recording) -> list[str]:
    """The tree, after what holds for every session was looked at."""
    spans = recording.spans
    ids = {s.span_id for s in spans}
    assert len(ids) == len(spans)
    roots = [s for s in spans if s.parent_id not in ids]
    assert len(roots) == 1, [s.name for s in roots]
    for direction in ("in", "out"):
        numbers = sequences(recording.chunks(direction))
        assert len(set(numbers)) == len(numbers), "a chunk has two spans"
    assert {s.attributes[names.SESSION_ID] for s in spans} == {"s-1"}
    for span in spans:
        assert span.raw.end_time_unix_nano >= span.raw.start_time_unix_nano
    segments = recording.named(names.SESSION_SEGMENT)
    for direction, key in (("in", names.SEGMENT_CHUNKS_IN), ("out", names.SEGMENT_CHUNKS_OUT)):
        assert sum(s.attributes[key] for s in segments) == len(recording.chunks(direction))
    return recording.outline()


# -- speaking -------------------------------------------------------------------------------------------------------


@virtual_time
async def test_an_utterance_has_the_figures_that_its_caller_is_told() -> None:
    async with Speaker(FakeDialer(lambda upstream: Voice(upstream, chunk_interval_s=0.03))) as caller:
        await caller.until(SessionStarted)
        caller.say("Spoken in pieces of thirty milliseconds each.", "u1", end=True)
        completed = await caller.until(UtteranceCompleted)
        recording = await caller.over()
    (span,) = recording.named(names.TEXT_TO_SPEECH)
    told = convert.metrics(completed.utterance)
    assert span.attributes[names.FIRST_AUDIO_MS] == told.time_to_first_audio.ToNanoseconds() / 1e6
    upstream_ns = told.upstream_time_to_first_audio.ToNanoseconds()
    assert span.attributes[names.UPSTREAM_FIRST_AUDIO_MS] == upstream_ns / 1e6
    assert span.attributes[names.GEN_AI_TIME_TO_FIRST_CHUNK] == upstream_ns / 1e9
    assert span.attributes[names.MAX_GAP_MS] == told.max_chunk_gap.ToNanoseconds() / 1e6 == 30.0
    assert span.attributes[names.AUDIO_MS] == told.audio_duration.ToNanoseconds() / 1e6
    length_ns = span.raw.end_time_unix_nano - span.raw.start_time_unix_nano
    assert length_ns == told.total_duration.ToNanoseconds()
    for chunk in recording.chunks("out"):
        for name in (names.CHUNK_OFFSET_MS, names.CHUNK_DURATION_MS):
            assert chunk.attributes[name] == round(chunk.attributes[name], 6)


@virtual_time
async def test_an_utterance_that_is_spoken() -> None:
    async with Speaker() as caller:
        caller.say("Hello, ", "u1")
        caller.say("this is a trace of each chunk.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        recording = await caller.over()
    assert check(recording) == [
        "wavegate.speech.v1.SynthesisService/SynthesizeStream",
        "  session.open",
        "  text_to_speech lightning_v3.1",
        "    chunk.in",
        "    chunk.out",
        "  upstream.connection",
        "    upstream.connect",
        "  session.segment",
    ]
    turn = recording.one(SPEAK)
    assert (turn.kind, turn.error) == ("CLIENT", None)
    found = turn.attributes
    assert found[names.GEN_AI_OPERATION_NAME] == "text_to_speech"
    assert found[names.GEN_AI_REQUEST_MODEL] == "lightning_v3.1"
    assert found[names.GEN_AI_SPEECH_VOICE] == "magnus"
    assert found[names.UTTERANCE_ID] == "u1"
    assert found[names.UTTERANCE_OUTCOME] == "completed"
    assert found[names.UTTERANCE_CHARACTERS] == 37
    assert found[names.COMPLETION_SOURCE]
    assert found[names.GEN_AI_RESPONSE_ID].startswith("up-")
    audio = caller.of(AudioProduced)
    assert found[names.CHUNKS] == len(audio)
    assert found[names.AUDIO_BYTES] == sum(len(a.audio) for a in audio)
    assert found[names.AUDIO_MS] == pytest.approx(37 * speaking.CHAR_S * 1e3)
    assert found[names.UPSTREAM_FIRST_AUDIO_MS] == pytest.approx(100)
    assert found[names.GEN_AI_TIME_TO_FIRST_CHUNK] == pytest.approx(0.1)
    assert found[names.FIRST_AUDIO_MS] > 0
    assert found[names.REAL_TIME_FACTOR] < 1
    for key in (names.ADMISSION_WAIT_MS, names.MAX_GAP_MS, names.RECONNECTS):
        assert found[key] >= 0
    ins, outs = recording.chunks("in", turn), recording.chunks("out", turn)
    assert [c.attributes[names.CHUNK_BYTES] for c in ins] == [7, 30]
    assert [c.kind for c in (ins[0], outs[0])] == ["PRODUCER", "CONSUMER"]
    assert [c.attributes[names.CHUNK_BYTES] for c in outs] == [len(a.audio) for a in audio]
    assert [c.attributes[names.CHUNK_OFFSET_MS] for c in outs] == pytest.approx(
        [a.start_offset_s * 1e3 for a in audio]
    )
    assert {c.attributes[names.CHUNK_GENERATION] for c in (*ins, *outs)} == {1}
    assert not any(names.CHUNK_DROPPED in c.attributes for c in recording.spans)
    session = recording.one(names.SESSION_OPEN)
    assert session.attributes[names.AUDIO_ENCODING] == "LINEAR16"
    assert session.attributes[names.SESSION_KIND] == "tts"
    (call,) = (s for s in recording.spans if s.kind == "SERVER")
    assert call.attributes[names.SESSION_END_REASON] == "CLIENT_END"


@virtual_time
async def test_a_live_session_is_seen_before_anything_is_said() -> None:
    async with Speaker() as caller:
        await caller.until(SessionStarted)
        await settle()
        assert [s.name for s in caller.recording.spans] == [names.UPSTREAM_CONNECT, names.SESSION_OPEN]
        await caller.over()


@virtual_time
async def test_a_barge_in_is_no_error() -> None:
    async with Speaker(FakeDialer(lambda t: Voice(t, chunk_interval_s=0.1))) as caller:
        caller.say("A very long sentence that goes on and on for ever.", "u1", end=True)
        caller.say("Never spoken. ", "u2")
        await caller.until(AudioProduced, 2)
        caller.cancel()
        await caller.until(UtteranceCancelled, 2)
        recording = await caller.over()
    check(recording)
    assert all(s.error is None for s in recording.spans)
    first, second = recording.named(SPEAK)
    assert [t.attributes[names.UTTERANCE_OUTCOME] for t in (first, second)] == ["cancelled", "cancelled"]
    for turn in (first, second):
        (interrupt,) = (s for s in recording.named(names.INTERRUPT) if s.parent_id == turn.span_id)
        assert interrupt.attributes[names.UTTERANCE_ID] == turn.attributes[names.UTTERANCE_ID]
        assert interrupt.attributes[names.CANCEL_METHOD] == turn.attributes[names.CANCEL_METHOD]
        assert interrupt.raw.end_time_unix_nano <= turn.raw.end_time_unix_nano
    assert len(recording.chunks("out", first)) == len(caller.of(AudioProduced))


@virtual_time
async def test_text_that_was_never_sent_says_so() -> None:
    async with Speaker(FakeDialer(lambda t: Voice(t, chunk_interval_s=1))) as caller:
        caller.say("A long sentence that is spoken.", "u1", end=True)
        await caller.until(AudioProduced)
        caller.say("Waits ", "u2")
        caller.say("its turn.", "u2", end=True)
        await settle()
        caller.cancel("u2")
        await caller.until(UtteranceCancelled)
        recording = await caller.over()
    check(recording)
    first, second = sorted(recording.named(SPEAK), key=lambda t: str(t.attributes[names.UTTERANCE_ID]))
    assert [c.attributes.get(names.CHUNK_DROPPED) for c in recording.chunks("in", first)] == [None]
    assert [c.attributes.get(names.CHUNK_DROPPED) for c in recording.chunks("in", second)] == [True, True]


@virtual_time
async def test_an_utterance_that_fails() -> None:
    class Refuses:
        def __init__(self, upstream: FakeTransport) -> None:
            self.upstream = upstream

        def received(self, message: str | bytes) -> None:
            body = json.loads(message)
            if "continue" in body:
                self.upstream.say(tts_error("the voice is unknown", body["request_id"]))

    async with Speaker(FakeDialer(Refuses)) as caller:
        caller.say("Nobody says this.", "u1", end=True)
        failed = await caller.until(UtteranceFailed)
        recording = await caller.over()
    check(recording)
    turn = recording.one(SPEAK)
    assert turn.error == failed.error.reason
    assert turn.attributes[names.UTTERANCE_OUTCOME] == "failed"


@virtual_time
async def test_a_connection_lost_in_mid_speech() -> None:
    dialer = FakeDialer(lambda t: Voice(t, chunk_interval_s=0.05))
    async with Speaker(dialer) as caller:
        caller.say("A sentence that is cut off by the network, and said to its end.", "u1", end=True)
        await caller.until(AudioProduced, 2)
        dialer.refuse(errors.UpstreamUnavailable("nobody is there"))
        dialer.last.drop(1006)
        await caller.until(UtteranceCompleted)
        recording = await caller.over()
    check(recording)
    turn = recording.one(SPEAK)
    assert turn.attributes[names.UTTERANCE_OUTCOME] == "completed"
    assert turn.attributes[names.RECONNECTS] >= 1
    assert len(recording.chunks("out", turn)) == len(caller.of(AudioProduced))
    assert len(recording.chunks("in", turn)) == 1, "what is said again came once"
    attempts = recording.named(names.UPSTREAM_RECONNECT)
    assert attempts[-1].error is None
    assert [a.error for a in attempts[:-1]] == ["UPSTREAM_UNAVAILABLE"] * (len(attempts) - 1)
    assert attempts[0].attributes[names.UPSTREAM_CLOSE_CODE] == 1006
    assert attempts[-1].attributes[names.REPLAYED_CHARACTERS] > 0
    assert all(a.kind == "CLIENT" for a in attempts)
    connections = recording.named(names.UPSTREAM_CONNECTION)
    assert Counter(c.error for c in connections)["UPSTREAM_UNAVAILABLE"] >= 1
    (call,) = (s for s in recording.spans if s.kind == "SERVER")
    assert call.error is None, "it went well in the end"


@virtual_time
async def test_a_connection_lost_between_two_utterances() -> None:
    async with Speaker() as caller:
        caller.say("The first.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        caller.dialer.last.drop(1011)
        await settle()
        caller.say("The second.", "u2", end=True)
        await caller.until(UtteranceCompleted, 2)
        recording = await caller.over()
    check(recording)
    assert [t.attributes[names.UTTERANCE_OUTCOME] for t in recording.named(SPEAK)] == ["completed"] * 2
    assert len(recording.named(names.UPSTREAM_CONNECTION)) == 2


@virtual_time
async def test_an_upstream_that_stays_away() -> None:
    dialer = FakeDialer()
    dialer.refuse(*[errors.UpstreamUnavailable("nobody is there")] * 50)
    async with Speaker(dialer) as caller:
        caller.say("Nobody hears this.", "u1", end=True)
        ended = await caller.ended()
        recording = caller.closed()
    assert isinstance(ended.error, errors.UpstreamUnavailable)
    check(recording)
    assert {c.error for c in recording.named(names.UPSTREAM_CONNECTION)} == {"UPSTREAM_UNAVAILABLE"}
    for span in recording.named(names.SESSION_OPEN):
        assert span.error in (None, "UPSTREAM_UNAVAILABLE")
    assert all(a.error for a in recording.named(names.UPSTREAM_RECONNECT))


@virtual_time
async def test_settings_in_band_and_from_another_call() -> None:
    async with Speaker() as caller:
        caller.say("Before.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        caller.update("d1", speed=1.2)
        await caller.until(SettingsAcknowledged, matches=lambda a: a.state.terminal)
        other = caller.recording.telemetry.server_span("wavegate.speech.v1.SessionService/UpdateSettings", [])
        acks: list[Any] = []
        caller.session.update_settings(speaking.delta("d2", voice_id="another-voice"), acks.append, other)
        await caller.until(SettingsAcknowledged, 1, lambda a: a.update_id == "d2" and a.state.terminal)
        caller.update("d3", speed=99.0)
        caller.update("d4", at_once=True, after_input_sequence=10_000, speed=1.1)
        await settle()
        other.end()
        recording = await caller.over()
    updates = {s.attributes[names.UPDATE_ID]: s for s in recording.named(names.SETTINGS_UPDATE)}
    assert set(updates) == {"d1", "d2", "d3", "d4"}
    assert updates["d1"].attributes[names.UPDATE_STATE] == "APPLIED"
    assert updates["d1"].attributes[names.SETTINGS_REVISION] == 2
    assert updates["d1"].links == set()
    assert updates["d2"].links == {(other.trace_id, other.span_id)}
    assert updates["d3"].attributes[names.UPDATE_STATE] == "REJECTED"
    assert updates["d3"].attributes[names.ERROR_TYPE]
    assert updates["d4"].attributes[names.UPDATE_STATE] == "SESSION_ENDED"
    (call,) = (s for s in recording.spans if s.kind == "SERVER" and names.SESSION_ID in s.attributes)
    assert {u.parent_id for u in updates.values()} == {call.span_id}
    assert b"another-voice" not in recording.raw, "names of fields, never their values"


@virtual_time
async def test_a_message_names_its_own_parent() -> None:
    trace, parent = "ab" * 16, "cd" * 8
    async with Speaker() as caller:
        caller.submit(SpeakText("Of another trace.", "u1", True, f"00-{trace}-{parent}-01"))
        await caller.until(UtteranceCompleted)
        caller.submit(SpeakText("Malformed.", "u2", True, "00-zz-01"))
        await caller.until(UtteranceCompleted, 2)
        recording = await caller.over()
    away, here = recording.named(SPEAK)
    call = recording.call
    assert (away.trace_id, away.parent_id, away.links) == (trace, parent, {(call.trace_id, call.span_id)})
    assert {c.trace_id for c in recording.chunks("out", away)} == {trace}
    assert (here.trace_id, here.parent_id) == (call.trace_id, call.span_id)


@virtual_time
async def test_a_caller_that_vanishes() -> None:
    async with Speaker(FakeDialer(lambda t: Voice(t, chunk_interval_s=0.1))) as caller:
        caller.say("A long sentence that nobody hears to its end.", "u1", end=True)
        caller.say("And another.", "u2", end=True)
        await caller.until(AudioProduced, 2)
        caller.running.cancel()
        await asyncio.wait({caller.running})
        recording = caller.closed()
    check(recording)
    assert all(s.error is None for s in recording.spans), "that is nobody's failure"
    assert [t.attributes[names.UTTERANCE_OUTCOME] for t in recording.named(SPEAK)] == ["abandoned"] * 2
    assert len(recording.chunks("in")) == 2
    assert len(recording.chunks("out")) == len(caller.of(AudioProduced))


@virtual_time
async def test_a_caller_that_vanishes_while_its_session_opens() -> None:
    dialer = FakeDialer()
    dialer.hold()
    async with Speaker(dialer) as caller:
        caller.say("Hello.", "u1", end=True)
        await asyncio.sleep(1)
        caller.running.cancel()
        await asyncio.wait({caller.running})
        recording = caller.closed()
    check(recording)
    assert recording.one(names.SESSION_OPEN)
    assert all(s.error is None for s in recording.spans)


@virtual_time
async def test_a_session_that_cannot_begin() -> None:
    class NoAccount(Upstreams):
        def choose(self, *args: Any) -> Any:
            raise errors.UpstreamCredential("no key is left")

    recording = Recording()
    with pytest.raises(errors.UpstreamCredential):
        speaking.Caller(upstreams=NoAccount(UpstreamTarget("ws://upstream", "k")), **recording.options)
    recording.call.end()
    check(recording)
    assert recording.one(names.SESSION_OPEN).error == "UPSTREAM_CREDENTIAL"


@virtual_time
async def test_a_resumed_session_has_no_chunk_twice() -> None:
    async with Speaker(FakeDialer(lambda t: Voice(t, chunk_interval_s=0.1)), reads=False) as caller:
        session = caller.session
        session.grant_resume(60)
        token = session.log.attach()
        caller.say("A sentence that is heard over two calls.", "u1", end=True)
        audio = 0
        position = 0
        while audio < 2:
            entry = await session.log.next(token)
            assert entry is not None
            position = session.log.position
            handed(session, entry)
            audio += isinstance(entry.event, AudioProduced)
        lost = await session.log.next(token)
        assert lost is not None, "taken, and lost with the call"
        caller.recording.call.end()
        session.detach(lambda: None)
        await asyncio.sleep(1)
        # The caller had lost the last two that it was handed, too.
        session.reattach(position - 2)
        token = session.log.attach()
        heard = []
        while (entry := await session.log.next(token)) is not None:
            handed(session, entry)
            heard.append(entry.event)
            if isinstance(entry.event, UtteranceCompleted):
                caller.end_session()
        session.trace.close()
    recording = caller.recording
    check(recording)
    turn = recording.one(SPEAK)
    assert turn.attributes[names.UTTERANCE_OUTCOME] == "completed"
    assert len(recording.chunks("out", turn)) == turn.attributes[names.CHUNKS]


@virtual_time
async def test_a_write_that_was_stuck_while_another_call_took_over() -> None:
    async with Speaker(reads=False) as caller:
        session = caller.session
        session.grant_resume(60)
        first = session.log.attach()
        caller.say("Ten chars.", "u1", end=True)
        stuck = None
        while stuck is None or not isinstance(stuck.event, AudioProduced):
            stuck = await session.log.next(first)
            assert stuck is not None
        at = session.log.position
        session.reattach(at - 1)
        second = session.log.attach()
        entry = await session.log.next(second)
        assert entry is stuck
        now = time.time_ns()
        session.handed_over(entry, at, now, now)
        session.handed_over(stuck, at, now, now)
        assert len(caller.recording.chunks("out")) == 1


@virtual_time
async def test_nothing_said_is_in_any_span() -> None:
    """Text, audio and keys: none of it goes out, whatever happens."""
    text = "Medical secrets about patients"
    dialer = FakeDialer(lambda t: Voice(t, chunk_interval_s=0.05, words=True))
    async with Speaker(dialer, key=KEY) as caller:
        caller.say(text, "u1", end=True)
        await caller.until(AudioProduced, 2)
        dialer.last.drop(1006, f"Authorization: Bearer {KEY}")
        await caller.until(UtteranceCompleted)
        caller.say(text, "u2")
        caller.cancel()
        recording = await caller.over()
    raw = recording.raw
    assert b"text_to_speech" in raw
    for secret in (*text.encode().split(), KEY.encode(), speaking.spoken_pcm("M")[:64]):
        assert secret not in raw


# -- listening ------------------------------------------------------------------------------------------------------


def turns(recording: Recording) -> list[Recorded]:
    return sorted(recording.named(HEAR), key=lambda t: int(t.attributes[names.CHUNK_GENERATION]))


@virtual_time
async def test_turns_that_are_finalized() -> None:
    caller = Listener(FakeDialer(Recognizer))
    await caller.send(speech([1, 2]), 800, paced_hz=RATE_HZ)
    caller.finalize("f1")
    await caller.until(Transcribed, lambda t: t.finalize_id == "f1")
    await caller.send(speech([3, 4, 5]), 800, paced_hz=RATE_HZ)
    caller.finalize("f2")
    await caller.until(Transcribed, lambda t: t.finalize_id == "f2")
    await caller.end()
    recording = caller.closed()
    check(recording)
    first, second = turns(recording)[:2]
    assert [t.attributes[names.FINALIZE_ID] for t in (first, second)] == ["f1", "f2"]
    assert len(recording.chunks("in", first)) == len(speech([1, 2])) // 800
    assert len(recording.chunks("in", second)) == len(speech([3, 4, 5])) // 800
    found = first.attributes
    assert (first.kind, first.error) == ("CLIENT", None)
    assert found[names.GEN_AI_OPERATION_NAME] == "speech_to_text"
    assert found[names.FINAL_TRIGGER] == "CLIENT_FINALIZE"
    assert found[names.FINALIZE_LATENCY_MS] == pytest.approx(100, abs=50)
    assert found[names.TIME_TO_FINAL_MS] > 0
    assert found[names.AUDIO_BYTES] == len(speech([1, 2]))
    assert found[names.AUDIO_MS] == pytest.approx(len(speech([1, 2])) / 2 / RATE_HZ * 1e3)
    assert found[names.CHUNKS] == len(recording.chunks("in", first))
    assert len(recording.chunks("out")) == len(caller.all(Transcribed))
    assert not any(names.CHUNK_DROPPED in c.attributes for c in recording.chunks("in"))
    assert len(turns(recording)) == 2, "the last words of the session are no turn"


@virtual_time
async def test_what_follows_a_finalize_is_of_the_next_turn() -> None:
    """The caller speaks on before the answer is there."""
    caller = Listener(FakeDialer(Recognizer))
    await caller.send(speech([1]), 800)
    caller.finalize("f1")
    await caller.send(speech([2, 3]), 800)
    caller.finalize("f2")
    await caller.until(Transcribed, lambda t: t.finalize_id == "f2")
    await caller.end()
    recording = caller.closed()
    check(recording)
    first, second = turns(recording)
    assert len(recording.chunks("in", first)) == len(speech([1])) // 800
    assert len(recording.chunks("in", second)) == len(speech([2, 3])) // 800
    assert second.attributes[names.FINALIZE_ID] == "f2"


@virtual_time
async def test_turns_that_end_by_silence() -> None:
    caller = Listener(FakeDialer(Recognizer))
    for numbers in ([1, 2], [3]):
        await caller.send(speech(numbers) + silence(1), 800, paced_hz=RATE_HZ)
    await caller.until(Transcribed, lambda t: t.is_final, 2)
    await caller.end()
    recording = caller.closed()
    check(recording)
    assert [t.attributes.get(names.FINAL_TRIGGER) for t in turns(recording)][:2] == ["ENDPOINT"] * 2
    assert len(recording.chunks("in")) == (len(speech([1, 2, 3])) + 2 * len(silence(1))) // 800


@virtual_time
async def test_a_turn_that_names_its_own_parent() -> None:
    trace, parent = "ab" * 16, "cd" * 8
    caller = Listener(FakeDialer(Recognizer))
    await caller.send(speech([1, 2]), 800)
    caller.submit(FinalizeTurn("f1", f"00-{trace}-{parent}-01"))
    await caller.until(Transcribed, lambda t: t.finalize_id == "f1")
    await caller.end()
    recording = caller.closed()
    here, away = sorted(recording.named(HEAR), key=lambda t: t.trace_id == trace)
    assert (away.trace_id, away.parent_id) == (trace, parent)
    assert away.links == {(here.trace_id, here.span_id)}
    assert here.links == {(away.trace_id, away.span_id)}
    assert here.attributes[names.FINALIZE_LATENCY_MS] == away.attributes[names.FINALIZE_LATENCY_MS]


@virtual_time
async def test_a_connection_lost_while_listening() -> None:
    dialer = FakeDialer(Recognizer)
    caller = Listener(dialer)
    await caller.send(speech([1, 2]), 800, paced_hz=RATE_HZ)
    dialer.last.drop(1006)
    await caller.until(ConnectionChanged, lambda c: c.state is ConnectionState.CONNECTED, 2)
    await caller.send(speech([3, 4]), 800, paced_hz=RATE_HZ)
    caller.finalize("f1")
    await caller.until(Transcribed, lambda t: t.finalize_id == "f1")
    await caller.end()
    recording = caller.closed()
    check(recording)
    assert caller.text == "w1 w2 w3 w4"
    assert len(recording.chunks("in")) == len(speech([1, 2, 3, 4])) // 800, "replayed audio came once"
    attempt = recording.named(names.UPSTREAM_RECONNECT)[-1]
    assert attempt.error is None
    assert attempt.attributes[names.REPLAYED_AUDIO_MS] > 0
    assert len(recording.chunks("out")) == len(caller.all(Transcribed))


@virtual_time
async def test_a_listening_session_that_is_left() -> None:
    dialer = FakeDialer(Recognizer)
    dialer.hold()
    caller = Listener(dialer)
    for piece in (speech([1]), speech([2])):
        caller.submit(AcceptAudio(piece))
    await asyncio.sleep(0.5)
    await caller.vanish()
    recording = caller.closed()
    check(recording)
    assert all(s.error is None for s in recording.spans)
    (turn,) = turns(recording)
    assert [c.attributes.get(names.CHUNK_DROPPED) for c in recording.chunks("in", turn)] == [True, True]


@virtual_time
async def test_audio_without_a_voice() -> None:
    caller = Listener(FakeDialer(Recognizer))
    await caller.send(silence(2), 800, paced_hz=RATE_HZ)
    ended = await caller.end()
    assert isinstance(ended, SessionEnded)
    recording = caller.closed()
    check(recording)
    assert len(recording.chunks("in")) == len(silence(2)) // 800


# -- what is counted ------------------------------------------------------------------------------------------------


@virtual_time
async def test_two_cancels_are_measured_each_from_its_own() -> None:
    measured: list[float] = []
    async with Speaker(reads=False) as caller:
        caller.say("One.", "u1", end=True)
        caller.say("Two.", "u2", end=True)
        await asyncio.sleep(1)
        record = caller.recording.telemetry.record

        def kept(instrument: Any, value: float, *labels: str, span: Any = None) -> None:
            if instrument is instruments.BARGE_IN:
                measured.append(value)
            record(instrument, value, *labels, span=span)

        caller.recording.telemetry.record = kept  # type: ignore[method-assign]
        caller.cancel("u1")
        time.sleep(0.05)  # noqa: ASYNC251 - the clock that spans have, not the loop's
        caller.cancel("u2")
        caller.read_on()
        await caller.until(UtteranceCancelled, 2)
        await caller.over()
    assert len(measured) == 2
    assert measured[0] - measured[1] > 0.04
