"""A transcription session as its caller sees it, on virtual time, before scripted upstreams."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from wavegate_server import errors
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.session.base import State
from wavegate_server.session.events import (
    AckState,
    ApplyPolicy,
    ConnectionChanged,
    EndReason,
    EndSession,
    Mechanism,
    SessionEnded,
    SessionStarted,
    SettingsAcknowledged,
    UpdateSettings,
    WarningRaised,
)
from wavegate_server.session.transcription_events import (
    AcceptAudio,
    AudioProgressed,
    FinalTrigger,
    Transcribed,
    VoiceEnded,
    VoiceStarted,
)
from wavegate_server.waves.framing import ogg_checksum

from tests.server.waves.test_framing import cut, ogg_opus
from tests.support.listening import Caller, context
from tests.support.recognizer import (
    RATE_HZ,
    Habits,
    Recognizer,
    silence,
    speech,
)
from tests.support.transport import (
    FakeDialer,
    FakeTransport,
    stt_error,
    stt_speech_ended,
    stt_speech_started,
    stt_transcript,
)
from tests.support.virtual_time import settle, virtual_time

SECOND = bytes(2 * RATE_HZ)
LOUD = b"\x00\x20" * RATE_HZ
"""A second of sound in which nobody speaks."""


def now() -> float:
    return asyncio.get_running_loop().time()


def recognizing(**habits: Any) -> FakeDialer:
    """An upstream that understands coded words."""
    return FakeDialer(peer=lambda transport: Recognizer(transport, Habits(**habits)))


async def opened(dialer: FakeDialer, *arguments: Any, **options: Any) -> tuple[Caller, FakeTransport]:
    """A session over a scripted connection."""
    caller = Caller(dialer, *arguments, **options)
    await caller.until(SessionStarted)
    return caller, dialer.last


async def heard(caller: Caller, upstream: FakeTransport, audio: bytes = SECOND) -> None:
    """Send audio, and wait until the upstream has all of it."""
    size = len(upstream.audio_sent()) + len(audio)
    await caller.send(audio)
    while len(upstream.audio_sent()) < size:
        await upstream.expect(start=len(upstream.sent))


async def finish(caller: Caller, upstream: FakeTransport, text: str = "") -> SessionEnded:
    """End the session; the upstream closes it in order."""
    ending = asyncio.create_task(caller.end())
    await upstream.expect(lambda m: m == {"type": "close_stream"})
    upstream.say(stt_transcript(text, last=True))
    upstream.finish()
    return await ending


def ogg_of_silence(*, packets: int, pre_skip: int) -> bytes:
    """An Ogg stream of 20 ms a packet and a packet a page."""
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, pre_skip, 16000, 0, 0)
    tags = b"OpusTags" + struct.pack("<II", 0, 0)
    pages = b""
    for number, packet in enumerate([head, tags, *[b"\xf8\xff\xfe"] * packets]):
        granule = max(0, number - 1) * 960
        page = b"OggS" + struct.pack("<BBqIII", 0, 2 * (not number), granule, 7, number, 0)
        page += bytes([1, len(packet)]) + packet
        pages += page[:22] + struct.pack("<I", ogg_checksum(page)) + page[26:]
    return pages


# -- the start ----------------------------------------------------------------------------------------------


@virtual_time
async def test_a_session_begins_when_the_upstream_has_accepted_it() -> None:
    dialer = FakeDialer(handshake_s=0.4)
    caller, upstream = await opened(dialer, {"language_code": "hi-IN"})
    assert now() == pytest.approx(0.4)
    started = caller.events[0]
    assert isinstance(started, SessionStarted)
    assert started.settings == {"model": "pulse", "language_code": "hi-IN"}
    assert started.settings_revision == 1
    await caller.until(ConnectionChanged)
    assert caller.connections == [("CONNECTED", "INITIAL")]
    assert upstream.path == "/waves/v1/stt/live"
    assert upstream.query["language"] == "hi"
    assert upstream.headers == {"Authorization": "Bearer a-key"}
    ended = await caller.end()
    assert ended.error is None
    assert ended.reason is EndReason.CLIENT_END
    assert upstream.gone


@virtual_time
async def test_what_comes_before_the_upstream_is_ready_is_kept_in_order() -> None:
    dialer = FakeDialer(handshake_s=1.0)
    caller = Caller(dialer)
    await caller.send(b"\1\0" * 100)
    caller.finalize("f")
    await caller.send(b"\2\0" * 100)
    upstream = await dialer.connection(0)
    await upstream.expect(lambda m: m == b"\2\0" * 100)
    assert upstream.sent == [b"\1\0" * 100, '{"type":"finalize"}', b"\2\0" * 100]
    await caller.vanish()


@virtual_time
async def test_nothing_is_said_before_session_started() -> None:
    dialer = FakeDialer(handshake_s=1.0)
    caller = Caller(dialer)
    caller.update("u1", interim_results=False)
    caller.update("u2", speed=1.0)
    await settle()
    assert caller.events == []
    await caller.until(SettingsAcknowledged, count=2)
    assert isinstance(caller.events[0], SessionStarted)
    assert [a.state for a in caller.all(SettingsAcknowledged)] == [AckState.APPLIED, AckState.APPLIED]
    await caller.vanish()


@virtual_time
async def test_refused_credentials_fail_the_session_at_once() -> None:
    dialer = FakeDialer()
    dialer.refuse(errors.UpstreamCredential("bad key", http_status=401))
    caller = Caller(dialer)
    ended = await caller.over()
    assert isinstance(ended.error, errors.UpstreamCredential)
    assert [type(e) for e in caller.events] == [SessionEnded]
    assert len(dialer.dials) == 1


@pytest.mark.parametrize("error", [errors.UpstreamGone("gone"), errors.UpstreamRejected("model")])
def test_what_dialling_again_cannot_mend_is_not_dialled_again(error: errors.WavegateError) -> None:
    @virtual_time
    async def scenario() -> None:
        dialer = FakeDialer()
        dialer.refuse(error)
        ended = await Caller(dialer).over()
        assert ended.error is error
        assert len(dialer.dials) == 1

    scenario()


@virtual_time
async def test_an_upstream_that_is_down_is_dialled_three_times_more() -> None:
    dialer = FakeDialer(handshake_s=0.0)
    dialer.refuse(*[errors.UpstreamUnavailable("down")] * 4)
    ended = await Caller(dialer).over()
    assert isinstance(ended.error, errors.UpstreamUnavailable)
    assert [d.at for d in dialer.dials] == pytest.approx([0.0, 0.0, 0.1, 0.4])


@virtual_time
async def test_a_full_account_is_asked_again_within_the_queues_time() -> None:
    dialer = FakeDialer(handshake_s=0.0)
    full = errors.UpstreamCapacity("full", retry_after_s=0.8)
    dialer.refuse(full, full)
    caller, _ = await opened(dialer)
    assert [d.at for d in dialer.dials] == pytest.approx([0.0, 0.8, 1.6])
    await caller.vanish()

    dialer = FakeDialer(handshake_s=0.0)
    dialer.refuse(*[full] * 4)
    ended = await Caller(dialer).over()
    assert isinstance(ended.error, errors.UpstreamCapacity)
    assert len(dialer.dials) == 3


@virtual_time
async def test_an_account_without_a_socket_accepts_and_closes() -> None:
    dialer = FakeDialer()
    caller, upstream = await opened(dialer)
    upstream.finish(1008, "concurrency limit reached")
    ended = await caller.over()
    assert isinstance(ended.error, errors.UpstreamCapacity)
    assert caller.connections[-1] == ("DISCONNECTED", "CONCURRENCY_LIMIT")
    assert caller.all(ConnectionChanged)[-1].close_code == 1008
    assert len(dialer.dials) == 1


@virtual_time
async def test_the_callers_own_id_and_the_old_path_are_told_upstream() -> None:
    dialer = FakeDialer()
    given = context(dialer, client_session_id="call-7", old_stt_path=True)
    caller, upstream = await opened(dialer, session_context=given)
    assert upstream.path == "/waves/v1/pulse/get_text"
    assert upstream.query["external_session_id"] == "call-7"
    assert "model" not in upstream.query
    await caller.vanish()


@virtual_time
async def test_later_connections_have_an_id_that_no_socket_had_before() -> None:
    dialer = FakeDialer()
    caller, upstream = await opened(dialer)
    assert "external_session_id" not in upstream.query
    upstream.drop()
    second = await dialer.connection(1)
    assert second.query["external_session_id"] == "s-1.2"
    await caller.vanish()
    given = context(dialer, client_session_id="x" * 128)
    caller, upstream = await opened(dialer, session_context=given)
    assert upstream.query["external_session_id"] == "x" * 128
    upstream.drop()
    assert (await dialer.connection(3)).query["external_session_id"] == "x" * 126 + ".2"
    await caller.vanish()


@virtual_time
async def test_an_unknown_language_is_passed_on_with_a_warning() -> None:
    caller, upstream = await opened(FakeDialer(), {"language_code": "tlh"})
    warning = await caller.until(WarningRaised)
    assert (warning.reason, warning.metadata) == ("UNKNOWN_LANGUAGE", {"field": "language_code"})
    assert upstream.query["language"] == "tlh"
    await caller.vanish()


# -- audio --------------------------------------------------------------------------------------------------


@virtual_time
async def test_audio_goes_out_at_once_in_bounded_frames_of_whole_samples() -> None:
    caller, upstream = await opened(FakeDialer())
    audio = bytes(range(256)) * 50
    before = now()
    await caller.send(audio, 9999)
    await settle()
    assert now() == before
    assert upstream.audio_sent() == audio
    assert [len(m) for m in upstream.sent] == [4096, 4096, 1806, 2802]
    assert caller.session.usage().audio_bytes == len(audio)
    assert caller.session.usage().audio_duration_s == len(audio) / 2 / RATE_HZ
    await caller.vanish()


@virtual_time
async def test_messages_may_end_within_a_sample_but_the_audio_should_not() -> None:
    caller, upstream = await opened(FakeDialer())
    await caller.send(bytes(2001), 667)
    await finish(caller, upstream)
    assert upstream.audio_sent() == bytes(2000)
    (warning,) = caller.all(WarningRaised)
    assert (warning.reason, warning.metadata) == ("INCOMPLETE_AUDIO", {"bytes": "1"})


@pytest.mark.parametrize(
    ("encoding", "content", "words"),
    [
        (Encoding.LINEAR16, b"", "empty"),
        (Encoding.LINEAR16, bytes(5001), "at most 5000"),
        (Encoding.OPUS, b"\xfb\x00", "Opus"),
        (Encoding.OGG_OPUS, b"RIFF" + bytes(100), "Ogg"),
    ],
)
def test_bad_audio_is_refused_by_its_field(encoding: Encoding, content: bytes, words: str) -> None:
    @virtual_time
    async def scenario() -> None:
        dialer = FakeDialer()
        given = context(dialer, max_audio_message_bytes=5000)
        caller, upstream = await opened(
            dialer, audio_format=AudioFormat(encoding, 8000), session_context=given
        )
        with pytest.raises(errors.InvalidInput, match=words) as raised:
            caller.submit(AcceptAudio(content))
        assert [v.field for v in raised.value.violations] == ["audio.content"]
        caller.session.fail(raised.value)
        ended = await caller.over()
        assert (ended.error, ended.reason) == (raised.value, EndReason.FAILURE)
        assert upstream.gone

    scenario()


@virtual_time
async def test_opus_goes_out_packet_by_packet() -> None:
    caller, upstream = await opened(FakeDialer(), audio_format=AudioFormat(Encoding.OPUS, 16000))
    packets = [bytes([0xF8, n]) for n in range(50)]
    for packet in packets:
        await caller.send(packet)
    await settle()
    assert upstream.sent == packets
    assert upstream.query["encoding"] == "opus"
    assert caller.session.usage().audio_duration_s == 1.0
    await caller.vanish()


@virtual_time
async def test_what_an_ogg_decoder_drops_first_is_dropped_once() -> None:
    """Also where it is as long as the first pages are."""
    pages = ogg_of_silence(packets=50, pre_skip=960)
    dialer = FakeDialer()
    caller, upstream = await opened(
        dialer, {"word_timings": True}, audio_format=AudioFormat(Encoding.OGG_OPUS, 16000)
    )
    await heard(caller, upstream, pages)
    upstream.say(stt_transcript("one", final=True, words=[("one", 0.30, 0.40)]))
    await caller.until(Transcribed)
    upstream.drop()
    second = await dialer.connection(1)
    await second.expect(lambda m: m == pages[-len(upstream.sent[-1]) :])  # type: ignore[arg-type]
    # It begins with the page that a decoder needs in order to hear what follows 0.40 s, and drops that.
    second.say(stt_transcript("two", final=True, words=[("two", 0.10, 0.20)]))
    await caller.until(Transcribed, count=2)
    assert [w.start_s for t in caller.finals for w in t.words] == pytest.approx([0.30, 0.50])
    await caller.vanish()


@virtual_time
async def test_progress_is_told_about_once_a_second() -> None:
    caller = Caller(recognizing(), initial_offset_s=10.0)
    await caller.send(speech([1, 2]) + silence(1.5) + speech([3]), 320, paced_hz=RATE_HZ)
    progress = caller.all(AudioProgressed)
    assert [round(p.received_s, 2) for p in progress] == pytest.approx([11.02, 12.04], abs=0.03)
    assert all(0 <= p.received_s - p.forwarded_s < 0.05 for p in progress)
    assert [p.finalized_s for p in progress] == [10.45, 10.45]
    assert progress[-1].lost_s == 0.0
    await caller.vanish()


# -- transcripts --------------------------------------------------------------------------------------------


@virtual_time
async def test_partials_replace_and_finals_append() -> None:
    caller = Caller(recognizing(), {"full_transcript": True, "word_timings": True})
    await caller.send(speech([1, 2, 3]) + silence(1.0) + speech([4]), 320, paced_hz=RATE_HZ)
    await caller.end()
    shown = [(t.segment_id, t.segment_revision, t.text, t.is_final) for t in caller.all(Transcribed)]
    assert shown == [
        ("segment-1", 1, "w1", False),
        ("segment-1", 2, "w1 w2", False),
        ("segment-1", 3, "w1 w2 w3", False),
        ("segment-1", 4, "w1 w2 w3", True),
        ("segment-2", 1, "w4", False),
        ("segment-2", 2, "w4", True),
    ]
    assert [t.stable_prefix_length for t in caller.all(Transcribed)] == [0, 0, 2, 8, 0, 2]
    assert [t.full_text for t in caller.finals] == ["w1 w2 w3", "w1 w2 w3 w4"]
    assert [t.final_trigger for t in caller.finals] == [FinalTrigger.ENDPOINT, FinalTrigger.END]
    assert [t.is_last for t in caller.all(Transcribed)] == [False] * 5 + [True]
    assert all(not t.full_text for t in caller.partials)
    first = caller.finals[0]
    assert (first.start_s, first.end_s) == (0.0, 0.7)
    assert [(w.text, w.start_s, w.end_s) for w in first.words] == [
        ("w1", 0.0, 0.2),
        ("w2", 0.25, 0.45),
        ("w3", 0.5, 0.7),
    ]
    assert caller.session.usage().utterance_count == 2


@virtual_time
async def test_the_caller_sees_what_it_asked_for_and_the_upstream_is_asked_for_all() -> None:
    dialer = recognizing()
    caller = Caller(dialer, {"interim_results": False})
    await caller.send(speech([1, 2]) + silence(1.0), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert dialer.last.query["word_timestamps"] == dialer.last.query["vad_events"] == "true"
    assert caller.partials == []
    assert [(t.text, t.words, t.segment_revision) for t in caller.finals] == [("w1 w2", (), 1), ("", (), 1)]
    assert not caller.all(VoiceStarted)
    assert not caller.all(VoiceEnded)


@virtual_time
async def test_voice_activity_is_shown_when_it_is_wanted() -> None:
    caller = Caller(recognizing(), {"voice_activity_events": True}, initial_offset_s=5.0)
    await caller.send(silence(0.5) + speech([1]) + silence(1.0), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert caller.all(VoiceStarted) == [VoiceStarted(5.5)]
    assert caller.all(VoiceEnded) == [VoiceEnded(5.7)]


@virtual_time
async def test_latencies_count_from_the_last_sample_that_is_covered() -> None:
    clock = 1_000_000.0
    caller = Caller(recognizing(latency_s=0.3), wall_clock=lambda: clock + now())
    await caller.until(SessionStarted)
    start = now()
    audio = speech([1]) + silence(0.3)
    for at in range(0, len(audio), 320):
        await asyncio.sleep(0.02)
        # Its first sample was recorded 70 ms before it arrives.
        caller.submit(AcceptAudio(audio[at : at + 320], clock + start + at / 16000 - 0.05))
    caller.finalize("f")
    final = await caller.until(Transcribed, lambda t: t.finalize_id == "f")
    assert final.finalize_latency_s == pytest.approx(0.3)
    # The word ends at 0.2 s; the rest of the audio came after it, until 0.56 s.
    assert final.audio_latency_s == pytest.approx(0.66)
    assert final.capture_latency_s == pytest.approx(0.71)
    await caller.vanish()


@pytest.mark.parametrize("ahead_s", [3.0, 19_800.0])
@virtual_time
async def test_a_caller_whose_clock_is_ahead_gets_no_latency_below_that_of_its_audio(ahead_s: float) -> None:
    """Nothing can have been recorded after it arrived."""
    clock = 1_000_000.0
    caller = Caller(recognizing(latency_s=0.3), wall_clock=lambda: clock + now())
    await caller.until(SessionStarted)
    caller.submit(AcceptAudio(speech([1]) + silence(0.3), clock + now() + ahead_s))
    caller.finalize("f")
    final = await caller.until(Transcribed, lambda t: t.finalize_id == "f")
    assert final.audio_latency_s is not None
    assert final.audio_latency_s > 0
    assert final.capture_latency_s == final.audio_latency_s
    await caller.vanish()


@virtual_time
async def test_everything_else_that_the_upstream_says_is_handed_on() -> None:
    caller, upstream = await opened(FakeDialer(), {"sentence_timings": True, "diarization": True})
    await heard(caller, upstream)
    upstream.say(
        stt_transcript(
            "Hi.",
            final=True,
            words=[{"word": "Hi.", "start": 0.1, "end": 0.5, "speaker": 1, "confidence": 0.5}],
            utterances=[{"text": "Hi.", "start": 0.1, "end": 0.5, "speaker": 1}],
            language="en",
            languages=["en", "hi"],
            redacted_entities=["[FIRSTNAME_1]"],
            speech_final=True,
            emotion="happy",
        )
    )
    final = await caller.until(Transcribed)
    assert final.words == ()
    assert [(s.text, s.start_s, s.end_s, s.speaker) for s in final.sentences] == [("Hi.", 0.1, 0.5, "1")]
    assert final.languages == ("en", "hi")
    assert final.redacted_entities == ("[FIRSTNAME_1]",)
    assert (final.speech_final, final.final_trigger) == (True, FinalTrigger.ENDPOINT)
    assert final.extra == {"emotion": "happy"}
    assert final.upstream.session_id == "up-session"
    assert final.upstream.endpoint == "ws://upstream/waves/v1/stt/live"
    await caller.vanish()


@virtual_time
async def test_a_final_that_only_grew_too_long_is_no_end_of_a_turn() -> None:
    caller, upstream = await opened(FakeDialer())
    await heard(caller, upstream)
    words = [("a", 0.0, 0.2)]
    upstream.say(stt_speech_started(0.0), stt_transcript("a", final=True, words=words))
    final = await caller.until(Transcribed)
    assert final.final_trigger is FinalTrigger.UNSPECIFIED
    upstream.say(stt_speech_ended(0.9), stt_transcript("b", final=True, words=[("b", 0.5, 0.9)]))
    final = await caller.until(Transcribed, count=2)
    assert final.final_trigger is FinalTrigger.ENDPOINT
    await caller.vanish()


@virtual_time
async def test_an_upstream_without_word_times_is_understood_too() -> None:
    dialer = recognizing(word_times=False, endpoint_s=0.4)
    caller = Caller(dialer)
    audio = speech([1, 2]) + silence(1.0) + speech([3]) + silence(0.3)
    await caller.send(audio, 320, paced_hz=RATE_HZ)
    assert [(t.text, t.end_s) for t in caller.finals] == [("w1 w2", 0.45)]
    dialer.last.drop()
    await caller.send(silence(0.5) + speech([4]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert caller.text == "w1 w2 w3 w4"


# -- finalize -----------------------------------------------------------------------------------------------


@virtual_time
async def test_a_finalize_is_answered_by_the_final_that_it_makes() -> None:
    caller = Caller(recognizing(latency_s=0.2))
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    caller.finalize("turn-1")
    await caller.send(speech([2]), 320, paced_hz=RATE_HZ)
    caller.finalize("")
    await caller.until(Transcribed, lambda t: t.is_final, count=2)
    assert [(t.text, t.finalize_id, t.final_trigger) for t in caller.finals] == [
        ("w1", "turn-1", FinalTrigger.CLIENT_FINALIZE),
        ("w2", "", FinalTrigger.CLIENT_FINALIZE),
    ]
    assert all(t.finalize_latency_s == pytest.approx(0.2) for t in caller.finals)
    await caller.end()
    assert [t.finalize_id for t in caller.finals] == ["turn-1", "", ""]


@virtual_time
async def test_a_finalize_with_nothing_to_say_is_answered_after_a_second_of_quiet() -> None:
    caller, upstream = await opened(FakeDialer())
    await caller.send(SECOND)
    before = now()
    caller.finalize("f1")
    caller.finalize("")
    final = await caller.until(Transcribed, count=2)
    assert now() - before == pytest.approx(1.0)
    assert [(t.text, t.finalize_id, t.is_final) for t in caller.finals] == [("", "f1", True), ("", "", True)]
    assert (final.start_s, final.end_s) == (1.0, 1.0)
    assert caller.finals[0].segment_id != caller.finals[1].segment_id
    assert final.finalize_latency_s == pytest.approx(1.0)
    assert upstream.json_sent() == [{"type": "finalize"}] * 2
    await caller.vanish()


@virtual_time
async def test_a_slow_answer_is_waited_for_where_something_was_said() -> None:
    caller = Caller(recognizing(latency_s=2.5))
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    caller.finalize("f")
    final = await caller.until(Transcribed, lambda t: t.is_final)
    assert (final.text, final.finalize_id) == ("w1", "f")
    await caller.vanish()


@virtual_time
async def test_a_finalize_that_the_upstream_passed_over_is_answered_before_the_next() -> None:
    dialer = recognizing(answers_empty_finalize=False)
    caller = Caller(dialer)
    await caller.until(SessionStarted)
    caller.finalize("empty")
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    caller.finalize("full")
    await caller.until(Transcribed, lambda t: t.finalize_id == "full")
    assert [(t.text, t.finalize_id) for t in caller.finals] == [("", "empty"), ("w1", "full")]
    await caller.vanish()


@virtual_time
async def test_every_finalize_gets_its_final_though_the_end_overtakes_it() -> None:
    dialer = FakeDialer()
    caller, upstream = await opened(dialer)
    await caller.send(SECOND)
    for name in ("a", "", "c"):
        caller.finalize(name)
    # The upstream answers none of them, and says the rest in one piece.
    await finish(caller, upstream, "all of it")
    assert [(t.text, t.finalize_id, t.is_last) for t in caller.finals] == [
        ("all of it", "a", False),
        ("", "", False),
        ("", "c", True),
    ]


@virtual_time
async def test_finalizes_without_any_audio_are_answered_too() -> None:
    caller = Caller(recognizing())
    caller.finalize("a")
    await caller.end()
    assert [(t.text, t.finalize_id, t.is_last) for t in caller.finals] == [("", "a", False)]


# -- the end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("habits", [{}, {"last_apart": True}, {"endpoint_s": None}])
def test_the_end_brings_every_remaining_transcript_and_one_that_is_last(habits: dict[str, Any]) -> None:
    @virtual_time
    async def scenario() -> None:
        dialer = recognizing(**habits)
        caller = Caller(dialer)
        await caller.send(speech([1, 2]) + silence(0.7) + speech([3]), 320)
        ended = await caller.end()
        assert ended.error is None
        assert caller.text == "w1 w2 w3"
        assert [t.is_last for t in caller.all(Transcribed)][-1]
        assert sum(t.is_last for t in caller.all(Transcribed)) == 1
        assert dialer.last.json_sent() == [{"type": "close_stream"}]
        assert dialer.last.gone

    scenario()


@virtual_time
async def test_a_session_without_audio_ends_at_once() -> None:
    caller, upstream = await opened(FakeDialer())
    before = now()
    ended = await caller.end()
    assert ended.error is None
    assert now() == before
    assert caller.all(Transcribed) == []
    assert upstream.closed_code == 1000


@virtual_time
async def test_quiet_answers_no_turn_once_the_rest_is_owed() -> None:
    """The answer to the last finalize may come with the last transcript, however long that takes."""
    caller, upstream = await opened(FakeDialer())
    await heard(caller, upstream)
    caller.finalize("f")
    ending = asyncio.create_task(caller.end())
    await upstream.expect(lambda m: m == {"type": "close_stream"})
    await asyncio.sleep(6)
    upstream.say(stt_transcript("at last", last=True))
    upstream.finish()
    assert (await ending).error is None
    assert [(t.text, t.finalize_id, t.is_last) for t in caller.finals] == [("at last", "f", True)]


@virtual_time
async def test_a_partial_that_is_taken_back_is_shown_as_empty() -> None:
    caller, upstream = await opened(FakeDialer())
    await heard(caller, upstream)
    upstream.say(stt_transcript("no word"), stt_transcript(""), stt_transcript(""))
    await finish(caller, upstream)
    shown = [(t.segment_revision, t.text) for t in caller.partials]
    assert shown == [(1, "no word"), (2, "")], "once"


@virtual_time
async def test_an_upstream_that_closes_without_a_last_transcript_owes_what_was_left() -> None:
    dialer = FakeDialer()
    caller, upstream = await opened(dialer)
    await heard(caller, upstream)
    upstream.say(stt_transcript("so far", words=[("so", 0.1, 0.3), ("far", 0.4, 0.6)]))
    await caller.until(Transcribed)
    ending = asyncio.create_task(caller.end())
    await upstream.expect(lambda m: m == {"type": "close_stream"})
    upstream.finish(1000)
    second = await dialer.connection(1)
    await second.expect(lambda m: m == {"type": "close_stream"})
    second.say(stt_transcript("so far so good", final=True, words=[("so", 0.1, 0.9)]))
    second.finish(1000)
    assert (await ending).error is None
    assert [(t.text, t.is_last) for t in caller.finals] == [("so far so good", False), ("", True)]
    assert len(dialer.dials) == 2


@virtual_time
async def test_a_final_that_comes_late_does_not_cover_what_was_sent_meanwhile() -> None:
    """The upstream closes in good order, behind a final of the first word: the second one is owed all the same."""
    dialer = FakeDialer()
    caller, upstream = await opened(dialer)
    await heard(caller, upstream, LOUD + SECOND + LOUD)
    ending = asyncio.create_task(caller.end())
    await upstream.expect(lambda m: m == {"type": "close_stream"})
    upstream.say(stt_transcript("one", final=True, words=[("one", 0.0, 1.0)]))
    upstream.finish(1000)
    second = await dialer.connection(1)
    await second.expect(lambda m: m == {"type": "close_stream"})
    at_s = (
        len(LOUD) / 2 / RATE_HZ + 1.0 - (len(LOUD + SECOND + LOUD) - len(second.audio_sent())) / 2 / RATE_HZ
    )
    second.say(stt_transcript("two", last=True, words=[("two", at_s, at_s + 1.0)]))
    second.finish(1000)
    assert (await ending).error is None
    assert [(t.text, t.is_last) for t in caller.finals] == [("one", False), ("two", True)]


@virtual_time
@pytest.mark.parametrize("code", [1000, 1001, 1005])
async def test_noise_that_no_connection_finds_words_in_is_no_failure(code: int) -> None:
    """An upstream that has nothing to say of it may close without a last transcript, always."""
    dialer = FakeDialer()
    caller, upstream = await opened(dialer)
    await heard(caller, upstream, LOUD)
    ending = asyncio.create_task(caller.end())
    for index in range(4):
        upstream = await dialer.connection(index)
        await upstream.expect(lambda m: m == {"type": "close_stream"})
        assert upstream.audio_sent() == LOUD
        upstream.finish(code)
    assert (await ending).error is None
    assert [(t.text, t.is_last) for t in caller.finals] == [("", True)]
    assert len(dialer.dials) == 4


@virtual_time
async def test_only_connections_in_a_row_settle_that_there_was_no_speech() -> None:
    """Twice the upstream goes away instead of saying the last words, for each of two stretches of audio; then it says
    them. What it passed over for the first stretch says nothing of the second."""
    mute = 0

    class Leaving:
        def __init__(self, upstream: FakeTransport) -> None:
            self.upstream = upstream

        def received(self, message: Any) -> None:
            nonlocal mute
            if "close_stream" not in str(message):
                return
            mute -= 1
            if mute < 0:
                self.upstream.say(stt_transcript("heard", last=True, words=[("heard", 0.1, 0.9)]))
            self.upstream.finish(1001)

    caller = Caller(FakeDialer(peer=Leaving))
    for number in range(2):
        mute = 2
        await caller.send(LOUD)
        caller.update(f"u{number}", ApplyPolicy.IMMEDIATE, punctuation=bool(number))
        await caller.until(Transcribed, lambda t: t.text == "heard", count=number + 1)
    assert (await caller.end()).error is None
    assert caller.text == "heard heard"


@virtual_time
async def test_half_close_means_the_same_and_says_so() -> None:
    caller = Caller(recognizing())
    await caller.send(speech([1]), 320)
    caller.submit(EndSession(by_half_close=True))
    ended = await caller.over()
    assert (ended.error, ended.reason) == (None, EndReason.CLIENT_HALF_CLOSE)
    assert caller.text == "w1"


@virtual_time
async def test_discard_stops_at_once() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.send(speech([1, 2]), 320, paced_hz=RATE_HZ)
    before = now()
    ended = await caller.end(discard=True)
    assert (ended.error, ended.reason) == (None, EndReason.CLIENT_END)
    assert now() == before
    assert caller.finals == []
    assert dialer.last.json_sent() == []
    assert dialer.last.aborted


@virtual_time
async def test_discard_does_not_wait_for_a_handshake() -> None:
    dialer = FakeDialer()
    dialer.hold()
    caller = Caller(dialer)
    await settle()
    ended = await caller.end(discard=True)
    assert ended.error is None
    assert [type(e) for e in caller.events] == [SessionEnded]


@virtual_time
async def test_a_vanished_caller_finalizes_nothing_upstream() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.send(speech([1, 2]), 320, paced_hz=RATE_HZ)
    await caller.vanish()
    assert dialer.last.aborted
    assert dialer.last.json_sent() == []
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual_time
async def test_an_operator_ends_a_session_as_its_caller_would() -> None:
    caller = Caller(recognizing())
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    caller.session.close_by_operator(discard=False)
    ended = await caller.over()
    assert (ended.error, ended.reason) == (None, EndReason.CLOSED_BY_OPERATOR)
    assert caller.text == "w1"

    caller = Caller(recognizing())
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    caller.session.close_by_operator(discard=True)
    ended = await caller.over()
    assert isinstance(ended.error, errors.SessionClosed)
    assert ended.reason is EndReason.CLOSED_BY_OPERATOR


@virtual_time
async def test_a_caller_that_says_nothing_for_too_long_is_sent_home() -> None:
    dialer = FakeDialer()
    caller, _ = await opened(dialer, session_context=context(dialer, idle_timeout_s=30.0))
    ended = await caller.over()
    assert isinstance(ended.error, errors.SessionIdle)
    assert ended.reason is EndReason.CLIENT_IDLE
    assert now() == pytest.approx(30.0, abs=0.1)


# -- keepalive ----------------------------------------------------------------------------------------------


@virtual_time
async def test_a_quiet_session_is_kept_alive_by_silence_that_nobody_notices() -> None:
    dialer = recognizing()
    caller = Caller(dialer, {"word_timings": True, "voice_activity_events": True})
    await caller.send(speech([1]) + silence(0.5), 320, paced_hz=RATE_HZ)
    await settle()
    sent = len(dialer.last.audio_sent())
    await asyncio.sleep(17)
    inserted = dialer.last.audio_sent()[sent:]
    assert inserted == silence(0.1) * 3
    await caller.send(speech([2]) + silence(0.5), 320, paced_hz=RATE_HZ)
    await caller.end()
    words = [w for t in caller.finals for w in t.words]
    assert [(w.text, w.start_s) for w in words] == [("w1", 0.0), ("w2", 0.75)]
    assert [e.audio_offset_s for e in caller.all(VoiceStarted)] == [0.0, 0.75]
    assert caller.session.usage().audio_duration_s == 1.5


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        (Encoding.LINEAR32, [bytes(3200)]),
        (Encoding.MULAW, [b"\xff" * 800]),
        (Encoding.ALAW, [b"\xd5" * 800]),
        (Encoding.OPUS, [b"\xf8\xff\xfe"] * 5),
        (Encoding.OGG_OPUS, ['{"type":"keepalive"}']),
    ],
)
def test_silence_comes_in_the_sessions_encoding(encoding: Encoding, expected: list[Any]) -> None:
    @virtual_time
    async def scenario() -> None:
        caller, upstream = await opened(FakeDialer(), audio_format=AudioFormat(encoding, 8000))
        await asyncio.sleep(4.9)
        assert upstream.sent == []
        await asyncio.sleep(0.2)
        assert upstream.sent == expected
        await caller.vanish()

    scenario()


@virtual_time
async def test_keepalive_is_a_message_where_the_operator_says_so() -> None:
    caller, upstream = await opened(FakeDialer(), keepalive_message=True)
    await asyncio.sleep(11)
    assert upstream.json_sent() == [{"type": "keepalive"}] * 2
    upstream.say({"type": "pong"})
    await caller.vanish()


@virtual_time
async def test_an_upstream_that_refuses_keepalive_messages_gets_silence() -> None:
    dialer = FakeDialer()
    caller, upstream = await opened(dialer, keepalive_message=True)
    await upstream.expect(lambda m: m == {"type": "keepalive"})
    upstream.say(stt_error("Unknown message type: keepalive"))
    upstream.finish(1003)
    upstream = await dialer.connection(1)
    await upstream.expect()
    assert upstream.sent == [silence(0.1)]
    await caller.vanish()


@virtual_time
async def test_keepalive_can_be_turned_off() -> None:
    caller, upstream = await opened(FakeDialer(), keep_alive=False)
    await asyncio.sleep(60)
    assert upstream.sent == []
    await caller.vanish()


@virtual_time
async def test_a_connection_that_was_closed_for_being_idle_is_opened_again() -> None:
    dialer = FakeDialer()
    caller, upstream = await opened(dialer, keep_alive=False)
    await asyncio.sleep(60)
    upstream.say(stt_error("Connection timed out after 60 seconds of inactivity"))
    upstream.finish(1000)
    await dialer.connection(1)
    await caller.until(ConnectionChanged, lambda c: c.state.value == "CONNECTED", count=2)
    assert ("DISCONNECTED", "IDLE_TIMEOUT") in caller.connections
    await caller.vanish()


# -- settings -----------------------------------------------------------------------------------------------


@virtual_time
async def test_what_the_gateway_does_itself_changes_in_place() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    await caller.until(Transcribed)
    caller.update("u", interim_results=False, word_timings=True, voice_activity_events=True)
    (ack,) = caller.acks("u") or [await caller.until(SettingsAcknowledged)]
    assert (ack.state, ack.mechanism, ack.settings_revision) == (AckState.APPLIED, Mechanism.IN_PLACE, 2)
    assert ack.audio_offset_s == 0.25
    await caller.send(speech([2]) + silence(1.0), 320, paced_hz=RATE_HZ)
    await caller.until(Transcribed, lambda t: t.is_final)
    assert [t.text for t in caller.partials] == ["w1"]
    assert [w.text for w in caller.finals[0].words] == ["w1", "w2"]
    assert caller.finals[0].settings_revision == 2
    assert len(dialer.dials) == 1
    await caller.vanish()


@virtual_time
async def test_the_full_transcript_is_joined_here_so_asking_for_it_changes_no_connection() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.send(speech([1]) + silence(1.0), 320, paced_hz=RATE_HZ)
    await caller.until(Transcribed, lambda t: t.is_final)
    caller.update("u", ApplyPolicy.NO_RECONNECT, full_transcript=True)
    ack = await caller.until(SettingsAcknowledged)
    assert (ack.state, ack.mechanism) == (AckState.APPLIED, Mechanism.IN_PLACE)
    await caller.send(speech([2]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert caller.finals[-1].full_text == "w1 w2"
    assert [t.query.get("full_transcript") for t in dialer.transports] == [None]


@virtual_time
async def test_between_turns_a_change_reconnects_at_once() -> None:
    dialer = recognizing()
    caller = Caller(dialer, initial_offset_s=100.0)
    await caller.send(speech([1]) + silence(1.0), 320, paced_hz=RATE_HZ)
    await caller.until(Transcribed, lambda t: t.is_final)
    before = now()
    caller.update("u", language_code="hi", interim_results=False)
    ack = await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.APPLIED)
    assert now() - before < 0.5
    assert [a.state for a in caller.acks("u")] == [AckState.QUEUED, AckState.APPLIED]
    assert ack.mechanism is Mechanism.RECONNECT
    assert ack.fields == (
        ("language_code", Mechanism.RECONNECT),
        ("interim_results", Mechanism.IN_PLACE),
    )
    assert ack.settings is not None
    assert ack.settings["language_code"] == "hi"
    assert ack.audio_offset_s == 101.25  # all that came before it
    assert ack.apply_duration_s == pytest.approx(now() - before)
    old, new = dialer.transports
    assert new.query["language"] == "hi"
    await old.ended()
    assert [m["type"] for m in old.json_sent()] == ["finalize", "close_stream"]
    assert caller.connections == [("CONNECTED", "INITIAL"), ("CONNECTED", "SETTINGS_UPDATE")]
    await caller.send(speech([2]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert caller.text == "w1 w2"
    assert caller.session.reconnect_count == 1


@virtual_time
async def test_the_new_connection_is_open_before_the_old_one_is_dropped() -> None:
    dialer = recognizing()
    dialer.handshake_s = 1.0
    caller = Caller(dialer)
    await caller.send(silence(0.5))
    await caller.until(SessionStarted)
    caller.update("u", punctuation=False)
    new = await dialer.connection(1)
    old = dialer.transports[0]
    assert not old.gone
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.APPLIED)
    assert caller.all(ConnectionChanged)[-1].lost_audio_s == 0.0
    assert not new.gone
    await caller.end()
    assert caller.text == "w1"


@virtual_time
async def test_in_mid_speech_a_change_waits_for_its_end() -> None:
    dialer = recognizing(endpoint_s=1.5)
    caller = Caller(dialer, {"word_timings": True})
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    caller.update("u", punctuation=False)
    await caller.send(speech([2, 3, 4]), 320, paced_hz=RATE_HZ)
    assert len(dialer.dials) == 1
    assert [a.state for a in caller.acks("u")] == [AckState.QUEUED]
    # No endpoint yet, but the voice has stopped: a last final of the old settings, then the new ones.
    await caller.send(silence(0.32), 320, paced_hz=RATE_HZ)
    await caller.send(silence(0.3) + speech([5, 6]), 320, paced_hz=RATE_HZ)
    await caller.end()
    ack = caller.acks("u")[-1]
    assert ack.state is AckState.APPLIED
    assert [(t.text, t.final_trigger, t.settings_revision) for t in caller.finals] == [
        ("w1 w2 w3 w4", FinalTrigger.RECONNECT, 1),
        ("w5 w6", FinalTrigger.END, 2),
    ]
    assert ack.audio_offset_s == 0.95


@virtual_time
async def test_a_forced_final_leaves_out_what_it_cut() -> None:
    """A word that begins while the final is asked for is heard whole, on the new connection."""
    dialer = recognizing(endpoint_s=None, latency_s=0.05)
    dialer.handshake_s = 0.1
    caller = Caller(dialer, {"word_timings": True})
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    caller.update("u", punctuation=False)
    await caller.send(silence(0.4) + speech([2, 3]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert any(p.finalizes for p in (t.peer for t in dialer.transports) if isinstance(p, Recognizer))
    assert caller.text == "w1 w2 w3"
    assert caller.finals[0].final_trigger is FinalTrigger.RECONNECT
    assert [(w.text, w.start_s) for t in caller.finals for w in t.words] == [
        ("w1", 0.0),
        ("w2", 0.65),
        ("w3", 0.9),
    ]


@virtual_time
async def test_a_forced_final_counts_up_to_the_pause_that_it_was_forced_in() -> None:
    caller, old = await opened(FakeDialer(), {"word_timings": True})
    await heard(caller, old, silence(0.25))
    old.say(stt_speech_started(0.1), stt_transcript("on", words=[("on", 0.1, 0.25)]))
    await caller.until(Transcribed)
    caller.update("u", punctuation=False)
    await heard(caller, old, SECOND)
    old.say(stt_transcript("one", words=[("one", 0.1, 0.5)]), stt_speech_ended(0.5))
    await old.expect(lambda m: m == {"type": "finalize"})
    # Another word came and went before the answer, which cut it.
    old.say(
        stt_speech_started(1.0),
        stt_speech_ended(1.4),
        stt_transcript("one tw", final=True, from_finalize=True, words=[("one", 0.1, 0.5), ("tw", 1.0, 1.2)]),
        stt_transcript("o", final=True, words=[("o", 1.2, 1.4)]),
    )
    ack = await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.APPLIED)
    assert ack.audio_offset_s == 0.5
    assert [(t.text, t.final_trigger) for t in caller.finals] == [("one", FinalTrigger.RECONNECT)]
    await caller.vanish()


@virtual_time
async def test_a_last_final_that_stays_out_is_waited_for_and_then_asked_of_another_connection() -> None:
    """One of the old settings: they govern what it is about."""
    dialer = FakeDialer()
    caller, old = await opened(dialer, {"word_timings": True})
    await heard(caller, old, SECOND)
    old.say(stt_speech_started(0.1), stt_transcript("one", words=[("one", 0.1, 0.5)]))
    await caller.until(Transcribed)
    caller.update("u", punctuation=False)
    old.say(stt_speech_ended(0.5))
    await old.expect(lambda m: m == {"type": "close_stream"})
    asked = now()
    await old.ended()
    assert now() - asked == pytest.approx(0.5 + 10.0)  # STT owes an answer to what is not covered for 10 s
    again = await dialer.connection(2)
    assert "punctuate" not in again.query
    await again.expect(lambda m: m == {"type": "close_stream"})
    assert again.audio_sent() == SECOND
    again.say(stt_transcript("one.", final=True, from_finalize=True, words=[("one.", 0.1, 0.5)]))
    ack = await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.APPLIED)
    assert ack.audio_offset_s == 1.0
    assert [(t.text, t.settings_revision) for t in caller.finals] == [("one.", 1)]
    new = dialer.last
    assert new.query["punctuate"] == "false"
    await heard(caller, new, LOUD)
    assert new.audio_sent() == LOUD
    await caller.vanish()


@virtual_time
async def test_a_speech_without_end_is_interrupted_after_five_seconds() -> None:
    dialer = recognizing(max_words=1000)
    caller = Caller(dialer, {"word_timings": True})
    await caller.send(speech([0]), 320, paced_hz=RATE_HZ)
    caller.update("u", punctuation=False)
    accepted = now()
    talking = asyncio.create_task(caller.send(speech(range(1, 40)), 320, paced_hz=RATE_HZ))
    ack = await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.APPLIED)
    assert now() - accepted == pytest.approx(5.3, abs=0.1)
    await talking
    await caller.end()
    assert caller.text.split() == [f"w{n}" for n in range(40)]
    # The change lies between two words.
    old, new = ([t for t in caller.finals if t.settings_revision == revision] for revision in (1, 2))
    assert old[-1].end_s == ack.audio_offset_s <= new[0].start_s
    assert old[-1].final_trigger is FinalTrigger.RECONNECT
    assert ack.audio_offset_s == pytest.approx(accepted + 5.0, abs=0.3)


@virtual_time
async def test_immediate_means_in_mid_speech_and_pulls_the_earlier_ones_along() -> None:
    dialer = recognizing(max_words=1000)
    caller = Caller(dialer)
    await caller.send(speech([1, 2]), 320, paced_hz=RATE_HZ)
    caller.update("u1", punctuation=False)
    caller.update("u2", ApplyPolicy.IMMEDIATE, capitalization=False)
    before = now()
    talking = asyncio.create_task(caller.send(speech(range(3, 10)), 320, paced_hz=RATE_HZ))
    await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.APPLIED, count=2)
    assert now() - before < 0.4
    assert [a.update_id for a in caller.all(SettingsAcknowledged) if a.state is AckState.APPLIED] == [
        "u1",
        "u2",
    ]
    assert len(dialer.dials) == 2
    assert dialer.last.query["punctuate"] == dialer.last.query["capitalize"] == "false"
    open_segment = caller.partials[-1].segment_id
    await talking
    await caller.end()
    assert [(t.text, t.settings_revision) for t in caller.finals] == [
        ("w1 w2", 1),
        ("w3 w4 w5 w6 w7 w8 w9", 3),
    ]
    assert caller.finals[0].segment_id == open_segment == "segment-1"
    assert {a.audio_offset_s for a in caller.all(SettingsAcknowledged) if a.state is AckState.APPLIED} == {
        0.5
    }


@virtual_time
async def test_a_refused_change_leaves_the_old_connection_and_settings() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.send(speech([1]) + silence(1.0), 320, paced_hz=RATE_HZ)
    dialer.refuse(errors.UpstreamRejected("no such language", http_status=400))
    caller.update("u", language_code="xx")
    ack = await caller.until(SettingsAcknowledged, lambda a: a.state.terminal)
    assert ack.state is AckState.REJECTED
    assert isinstance(ack.error, errors.UpstreamRejected)
    assert (ack.settings_revision, caller.session.ledger.settings["language_code"]) == (1, "en")
    assert not dialer.transports[0].gone
    caller.update("u2", language_code="hi")
    ack = await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.APPLIED)
    assert ack.settings_revision == 2
    await caller.send(speech([2]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert caller.text == "w1 w2"
    assert caller.connections == [("CONNECTED", "INITIAL"), ("CONNECTED", "SETTINGS_UPDATE")]


@virtual_time
async def test_a_change_that_is_refused_after_the_handshake_is_refused_all_the_same() -> None:
    peers: list[Recognizer] = []

    def peer(transport: FakeTransport) -> Recognizer:
        if transport.index == 1:
            transport.say(stt_error("Model 'pulse-2' supports language 'en' only."))
            transport.finish(1003)
        peers.append(Recognizer(transport))
        return peers[-1]

    dialer = FakeDialer(peer=peer)
    caller = Caller(dialer)
    await caller.until(SessionStarted)
    caller.update("u", model="pulse-2", language_code="hi")
    ack = await caller.until(SettingsAcknowledged, lambda a: a.state.terminal)
    assert ack.state is AckState.REJECTED
    await caller.send(speech([1]), 320)
    await caller.end()
    assert caller.text == "w1"
    assert peers[0].pcm
    assert not peers[1].pcm


@virtual_time
async def test_of_two_changes_only_the_bad_one_is_refused() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    await caller.until(Transcribed)
    caller.update("good", punctuation=False)
    caller.update("bad", language_code="xx")
    caller.update("later", capitalization=False)
    bad = errors.UpstreamRejected("no such language", http_status=400)
    dialer.refuse(bad, None, bad, None)
    await caller.send(silence(1.0), 320, paced_hz=RATE_HZ)
    await caller.until(SettingsAcknowledged, lambda a: a.state.terminal, count=3)
    ends = {a.update_id: a.state for a in caller.all(SettingsAcknowledged) if a.state.terminal}
    assert ends == {"good": AckState.APPLIED, "bad": AckState.REJECTED, "later": AckState.APPLIED}
    query = dialer.last.query
    assert (query["punctuate"], query["capitalize"], query["language"]) == ("false", "false", "en")
    assert caller.session.ledger.revision == 3
    await caller.end()
    assert caller.text == "w1"


@virtual_time
async def test_where_there_is_no_room_for_two_the_old_one_goes_first() -> None:
    def peer(transport: FakeTransport) -> Recognizer:
        if transport.index == 1:
            transport.finish(1008, "concurrency limit")
        return Recognizer(transport)

    dialer = FakeDialer(peer=peer)
    caller = Caller(dialer)
    await caller.send(speech([1]) + silence(1.0) + speech([2]) + silence(0.35), 320, paced_hz=RATE_HZ)
    caller.update("u", punctuation=False)
    await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.APPLIED)
    first, _, third = dialer.transports
    assert first.gone
    assert first.json_sent()[-1] == {"type": "close_stream"}
    assert third.query["punctuate"] == "false"
    assert caller.connections == [
        ("CONNECTED", "INITIAL"),
        ("DISCONNECTED", "SETTINGS_UPDATE"),
        ("CONNECTED", "SETTINGS_UPDATE"),
    ]
    await caller.send(speech([3]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert caller.text == "w1 w2 w3"


@virtual_time
async def test_a_full_account_says_so_in_the_handshake_too() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    full = errors.UpstreamCapacity("full", retry_after_s=0.5)
    dialer.refuse(full, full)
    caller.update("u", ApplyPolicy.IMMEDIATE, punctuation=False)
    await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.APPLIED)
    assert len(dialer.dials) == 4
    assert dialer.transports[0].json_sent()[-1] == {"type": "close_stream"}
    await caller.send(speech([2]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert caller.text == "w1 w2"


@virtual_time
async def test_a_discard_does_not_wait_for_new_settings() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    caller.update("u", ApplyPolicy.IMMEDIATE, punctuation=False)
    await dialer.connection(1)
    ended = await caller.end(discard=True)
    assert ended.error is None
    assert caller.acks("u")[-1].state is AckState.SESSION_ENDED
    await settle()
    assert all(t.gone for t in dialer.transports)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual_time
async def test_trouble_on_the_way_to_new_settings_is_worth_some_tries() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.until(SessionStarted)
    down = errors.UpstreamUnavailable("down")
    dialer.refuse(down, down)
    caller.update("u1", punctuation=False)
    ack = await caller.until(SettingsAcknowledged, lambda a: a.state.terminal)
    assert ack.state is AckState.APPLIED
    dialer.refuse(*[down] * 4)
    caller.update("u2", punctuation=True)
    ack = await caller.until(SettingsAcknowledged, lambda a: a.state.terminal, count=2)
    assert (ack.state, ack.error) == (AckState.REJECTED, down)
    await caller.send(speech([1]), 320)
    await caller.end()
    assert caller.text == "w1"


@virtual_time
async def test_a_change_that_the_url_does_not_show_needs_no_reconnect() -> None:
    dialer = FakeDialer()
    caller, _ = await opened(dialer, {"language_code": "en"})
    caller.update("u", language_code="en-US", keywords=())
    ack = await caller.until(SettingsAcknowledged)
    assert (ack.state, ack.mechanism) == (AckState.APPLIED, Mechanism.IN_PLACE)
    assert len(dialer.dials) == 1
    await caller.vanish()


@virtual_time
async def test_no_reconnect_means_no() -> None:
    caller, _ = await opened(FakeDialer())
    caller.update("u", ApplyPolicy.NO_RECONNECT, punctuation=False)
    ack = await caller.until(SettingsAcknowledged)
    assert ack.state is AckState.REJECTED
    assert isinstance(ack.error, errors.ReconnectRequired)
    await caller.vanish()


@virtual_time
async def test_reset_goes_back_to_the_gateways_defaults() -> None:
    dialer = FakeDialer()
    given = context(dialer, defaults={"model": "pulse-2", "punctuation": False})
    caller, upstream = await opened(dialer, {"punctuation": True}, session_context=given)
    assert (upstream.query["model"], upstream.query["punctuate"]) == ("pulse-2", "true")
    caller.submit(UpdateSettings("u", {}, reset=("punctuation", "language_code")))
    await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.APPLIED)
    assert (dialer.last.query["punctuate"], dialer.last.query["language"]) == ("false", "en")
    await caller.vanish()


@virtual_time
async def test_a_delta_can_wait_for_an_input() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.until(SessionStarted)
    caller.session.update_settings(
        UpdateSettings("u", {"punctuation": False}, after_input_sequence=4, in_band=False)
    )
    caller.submit(AcceptAudio(silence(0.5)))  # 2
    caller.submit(AcceptAudio(silence(0.5)))  # 3
    await settle()
    assert len(dialer.dials) == 1
    caller.submit(AcceptAudio(silence(0.5)))  # 4
    await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.APPLIED)
    assert [a.state for a in caller.acks("u")] == [AckState.QUEUED, AckState.APPLIED]
    await caller.vanish()


@virtual_time
async def test_an_ack_says_which_input_was_the_last_with_the_old_settings() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    audio = speech([1]) + silence(0.75)  # 16 000 bytes: a second
    for at in range(0, len(audio), 3200):
        await asyncio.sleep(0.2)
        caller.submit(AcceptAudio(audio[at : at + 3200]))  # 2 to 6, of 0.2 s each
    await caller.until(Transcribed, lambda t: t.is_final)
    caller.update("u", punctuation=False)
    ack = await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.APPLIED)
    assert (ack.audio_offset_s, ack.applied_after_input_sequence) == (1.0, 6)
    await caller.vanish()


@virtual_time
async def test_deltas_that_were_overtaken_are_superseded() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    await caller.until(Transcribed)
    caller.update("u1", language_code="hi")
    caller.update("u2", language_code="de")
    await caller.send(silence(1.0), 320, paced_hz=RATE_HZ)
    await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.APPLIED)
    assert [a.state for a in caller.acks("u1")] == [AckState.QUEUED, AckState.SUPERSEDED]
    assert dialer.last.query["language"] == "de"
    assert len(dialer.dials) == 2
    await caller.vanish()


@virtual_time
async def test_a_delta_before_the_last_audio_is_applied_though_the_end_is_near() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.send(speech([1]), 320)
    await caller.until(Transcribed)
    caller.update("u", language_code="hi")
    await caller.send(speech([2]), 320)
    ended = await caller.end()
    assert ended.error is None
    assert caller.acks("u")[-1].state is AckState.APPLIED
    assert caller.text == "w1 w2"
    assert dialer.last.query["language"] == "hi"


@virtual_time
async def test_a_delta_behind_the_last_audio_ends_with_the_session() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.send(speech([1]), 320)
    await caller.until(Transcribed)
    caller.update("u", language_code="hi")
    await caller.end()
    assert caller.acks("u")[-1].state is AckState.SESSION_ENDED
    assert caller.text == "w1"
    assert len(dialer.dials) == 1


@virtual_time
async def test_a_drop_is_no_reason_to_hear_what_came_before_under_new_settings() -> None:
    dialer = recognizing(max_words=1000)
    caller = Caller(dialer)
    await caller.send(speech([1, 2]), 320, paced_hz=RATE_HZ)
    caller.update("u", punctuation=False)
    dialer.last.drop()
    await caller.send(speech([3]) + silence(0.5) + speech([4]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert [(t.text, t.settings_revision) for t in caller.finals] == [("w1 w2 w3", 1), ("w4", 2)]
    assert [t.query.get("punctuate") for t in dialer.transports] == [None, None, "false"]
    assert caller.acks("u")[-1].audio_offset_s == pytest.approx(0.7)


@virtual_time
async def test_a_drop_behind_all_that_came_before_is_a_boundary() -> None:
    dialer = recognizing(max_words=1000)
    caller = Caller(dialer)
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    caller.finalize("f")
    await caller.until(Transcribed, lambda t: t.is_final)
    dialer.last.stop_reading()
    caller.update("u", punctuation=False)
    dialer.last.drop()
    await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.APPLIED)
    assert [t.query.get("punctuate") for t in dialer.transports] == [None, "false"]
    await caller.send(speech([2]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert caller.text == "w1 w2"


@virtual_time
async def test_a_drop_while_new_settings_are_dialled_loses_nothing() -> None:
    dialer = recognizing(max_words=1000)
    caller = Caller(dialer)
    await caller.send(speech([1, 2]), 320, paced_hz=RATE_HZ)
    dialer.handshake_s = 1.0
    caller.update("u", ApplyPolicy.IMMEDIATE, punctuation=False)
    await asyncio.sleep(0.5)
    dialer.transports[0].drop()
    await caller.send(speech([3]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert [(t.text, t.settings_revision) for t in caller.finals] == [("w1 w2", 1), ("w3", 2)]
    assert caller.acks("u")[-1].state is AckState.APPLIED
    assert [t.query.get("punctuate") for t in dialer.transports] == [None, None, "false"]


# -- drops --------------------------------------------------------------------------------------------------


@virtual_time
async def test_a_drop_is_told_and_replayed_from_where_the_finals_end() -> None:
    dialer = recognizing()
    caller = Caller(dialer, {"word_timings": True})
    await caller.send(speech([1]) + silence(0.75) + speech([2, 3]), 320, paced_hz=RATE_HZ)
    dialer.last.drop(1011, "oops")
    await caller.until(ConnectionChanged, lambda c: c.state.value == "CONNECTED", count=2)
    lost, again, back = caller.all(ConnectionChanged)[1:]
    assert (lost.state.value, lost.reason.value, lost.close_code) == ("DISCONNECTED", "UPSTREAM_CLOSED", 1011)
    assert isinstance(lost.cause, errors.UpstreamUnavailable)
    assert (again.state.value, again.attempt, again.max_attempts) == ("RECONNECTING", 1, 3)
    assert again.next_retry_delay_s == 0.0
    assert (back.attempt, back.upstream.connection_index, back.lost_audio_s) == (1, 1, 0.0)
    assert back.handshake_s == pytest.approx(0.05)
    assert back.replayed_audio_s == pytest.approx(1.5 - 0.2)
    hanging = caller.partials[-1]
    await caller.send(silence(1.0), 320, paced_hz=RATE_HZ)
    final = await caller.until(Transcribed, lambda t: t.is_final, count=2)
    assert (final.text, final.segment_id) == ("w2 w3", hanging.segment_id)
    assert final.segment_revision > hanging.segment_revision
    assert [w.start_s for w in final.words] == [1.0, 1.25]
    await caller.end()
    assert caller.text == "w1 w2 w3"


@virtual_time
async def test_audio_that_comes_while_there_is_no_connection_is_sent_later() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    dialer.hold()
    dialer.last.drop()
    await caller.send(speech([2, 3, 4]), 320, paced_hz=RATE_HZ)
    assert caller.session.state is State.RECONNECTING
    dialer.let_go()
    await caller.end()
    assert caller.text == "w1 w2 w3 w4"


@virtual_time
async def test_retries_have_a_budget_that_fills_up_again() -> None:
    dialer = FakeDialer(handshake_s=0.0)
    caller, upstream = await opened(dialer)
    for text in ("hello", "hello there"):
        # A connection that lived and said something that none before it had said.
        await caller.send(SECOND)
        upstream.say(stt_transcript(text))
        await asyncio.sleep(5.1)
        dialer.refuse(errors.UpstreamUnavailable("down"), errors.UpstreamUnavailable("down"))
        start = len(dialer.dials)
        lost_at = now()
        upstream.drop()
        upstream = await dialer.connection(len(dialer.transports))
        assert [d.at - lost_at for d in dialer.dials[start:]] == pytest.approx([0.0, 0.1, 0.4])
    upstream.drop()
    dialer.refuse(*[errors.UpstreamUnavailable("down")] * 9)
    start = len(dialer.dials)
    ended = await caller.over()
    assert isinstance(ended.error, errors.UpstreamUnavailable)
    assert ended.reason is EndReason.FAILURE
    assert len(dialer.dials) - start <= 1


@virtual_time
async def test_a_silent_upstream_does_not_fill_the_budget() -> None:
    dialer = FakeDialer(handshake_s=0.0)
    caller, _ = await opened(dialer, keep_alive=False)
    await caller.send(LOUD)
    for index in range(4):
        upstream = await dialer.connection(index)
        await asyncio.sleep(6.0)
        upstream.drop()
    ended = await caller.over()
    assert isinstance(ended.error, errors.UpstreamUnavailable)
    assert len(dialer.dials) == 4


@pytest.mark.parametrize(
    "frames",
    [
        [stt_speech_started(0.1)],
        [stt_speech_started(0.1), stt_speech_ended(0.9)],
        [stt_speech_started(0.1), stt_transcript("he")],
        [stt_transcript("he", words=[("he", 0.1, 0.2)]), stt_transcript("", final=True)],
    ],
)
@virtual_time
async def test_an_upstream_that_only_begins_is_given_up(frames: list[dict[str, Any]]) -> None:
    """Each connection says the same and then nothing. What was said before is nothing new, however long it lived."""
    dialer = FakeDialer(handshake_s=0.0)
    caller, _ = await opened(dialer)
    ending = asyncio.create_task(caller.send(LOUD * 3, 320, paced_hz=RATE_HZ))
    for index in range(4):
        upstream = await dialer.connection(index)
        await upstream.expect(lambda m: isinstance(m, bytes))
        upstream.say(*frames)
    await ending
    ended = await caller.end()
    assert isinstance(ended.error, errors.UpstreamStalled)
    assert len(dialer.dials) == 4
    again = [c for c in caller.all(ConnectionChanged) if c.state.value == "RECONNECTING"]
    assert [(c.attempt, c.max_attempts) for c in again] == [(1, 3), (2, 3), (3, 3)]


@virtual_time
async def test_repeated_stalls_are_counted() -> None:
    dialer = FakeDialer()
    caller, _ = await opened(dialer)
    await caller.send(LOUD)
    ended = await caller.end()
    assert isinstance(ended.error, errors.UpstreamStalled)
    shown = [(c.state.value, c.attempt, c.max_attempts) for c in caller.all(ConnectionChanged)]
    assert shown == [
        ("CONNECTED", 1, 4),
        ("DISCONNECTED", 0, 0),
        ("RECONNECTING", 1, 3),
        ("CONNECTED", 1, 3),
        ("DISCONNECTED", 0, 0),
        ("RECONNECTING", 2, 3),
        ("CONNECTED", 2, 3),
        ("DISCONNECTED", 0, 0),
        ("RECONNECTING", 3, 3),
        ("CONNECTED", 3, 3),
        ("DISCONNECTED", 0, 0),
    ]


@virtual_time
async def test_an_upstream_that_gets_a_little_further_each_time_is_not_given_up() -> None:
    dialer = FakeDialer(handshake_s=0.0)
    caller, _ = await opened(dialer, keep_alive=False)
    await caller.send(LOUD)
    for index in range(8):
        upstream = await dialer.connection(index)
        upstream.say(stt_transcript("so " * (index + 1)))
        await asyncio.sleep(6.0)
        upstream.drop()
    upstream = await dialer.connection(8)
    upstream.say(stt_transcript("so it was", final=True))
    assert (await finish(caller, upstream)).error is None


@virtual_time
async def test_a_muted_caller_outlives_any_number_of_connections() -> None:
    """Nothing is owed to silence, so that an upstream that hangs up now and then is not taken for a bad one."""
    dialer = FakeDialer()
    caller, _ = await opened(dialer)
    for index in range(8):
        upstream = await dialer.connection(index)
        for _ in range(10):
            await asyncio.sleep(1)
            await caller.send(SECOND)
        upstream.drop(1001)
    await heard(caller, await dialer.connection(8))
    assert (await finish(caller, dialer.last, "still here")).error is None
    assert caller.text == "still here"


@virtual_time
async def test_a_key_that_turned_bad_ends_the_session() -> None:
    dialer = FakeDialer()
    caller, upstream = await opened(dialer)
    dialer.refuse(errors.UpstreamCredential("bad key"))
    upstream.drop()
    ended = await caller.over()
    assert isinstance(ended.error, errors.UpstreamCredential)
    assert len(dialer.dials) == 2


@virtual_time
async def test_an_error_about_the_request_ends_the_session() -> None:
    dialer = FakeDialer()
    caller, upstream = await opened(dialer)
    upstream.say(stt_error("language not enabled"))
    ended = await caller.over()
    assert isinstance(ended.error, errors.UpstreamRejected)
    assert len(dialer.dials) == 1


@virtual_time
async def test_a_bug_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise ZeroDivisionError

    caller, upstream = await opened(FakeDialer())
    monkeypatch.setattr(caller.session._transcripts, "said", broken)
    upstream.say(stt_transcript("a"))
    ended = await caller.over()
    assert isinstance(ended.error, errors.GatewayBug)
    assert upstream.gone
    with pytest.raises(TypeError):
        Caller(FakeDialer()).session._handle("nonsense", 0.0)


@virtual_time
async def test_garbage_is_mended_by_another_connection_unless_it_lasts() -> None:
    dialer = FakeDialer(handshake_s=0.0)
    caller, upstream = await opened(dialer)
    await heard(caller, upstream)
    upstream.say("{", "{", "{")
    upstream = await dialer.connection(1)
    await upstream.expect(lambda m: isinstance(m, bytes))
    upstream.say(stt_transcript("hello", final=True, words=[("hello", 0.1, 0.4)]))
    await caller.until(Transcribed)
    for index in range(1, 5):
        (await dialer.connection(index)).say("{", "{", "{")
    ended = await caller.over()
    assert isinstance(ended.error, errors.UpstreamProtocol)


@virtual_time
async def test_a_transcript_that_nobody_can_read_is_asked_for_again() -> None:
    """Of another connection; which may talk so, too, as long as a final comes that can be read."""
    dialer = FakeDialer()
    caller, upstream = await opened(dialer)
    await heard(caller, upstream)
    upstream.say("{", stt_transcript("there", final=True, words=[("there", 0.5, 0.9)]))
    second = await dialer.connection(1)
    while second.audio_sent() != SECOND:
        await second.expect(start=len(second.sent))
    words = [("hello", 0.1, 0.4), ("there", 0.5, 0.9)]
    second.say("{", stt_transcript("hello there", final=True, words=words))
    await caller.until(Transcribed)
    assert caller.text == "hello there"
    assert len(dialer.dials) == 2
    await caller.vanish()


@virtual_time
async def test_a_final_that_comes_twice_is_told_once() -> None:
    caller, upstream = await opened(FakeDialer(), {"full_transcript": True})
    await heard(caller, upstream)
    final = stt_transcript("hello", final=True, words=[("hello", 0.1, 0.4)])
    upstream.say(final, final)
    assert (await finish(caller, upstream)).error is None
    assert [t.text for t in caller.finals] == ["hello", ""]
    assert caller.finals[-1].full_text == "hello"


@virtual_time
async def test_an_upstream_that_answers_sound_with_silence_has_stalled() -> None:
    dialer = recognizing(silent=True)
    caller = Caller(dialer)
    await caller.send(speech(range(10)), 320, paced_hz=RATE_HZ)
    before = now()
    await caller.until(ConnectionChanged, lambda c: c.state.value == "DISCONNECTED")
    assert now() - before < 10.0
    await caller.until(ConnectionChanged, lambda c: c.state.value == "CONNECTED", count=2)
    ended = await caller.over()
    assert isinstance(ended.error, errors.UpstreamStalled)
    assert len(dialer.dials) == 4


@virtual_time
async def test_an_upstream_may_be_silent_about_silence() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.send(silence(60), 320, paced_hz=RATE_HZ)
    assert caller.connections == [("CONNECTED", "INITIAL")]
    ended = await caller.end()
    assert ended.error is None
    assert [(t.text, t.is_last) for t in caller.finals] == [("", True)]


@virtual_time
async def test_an_upstream_that_never_ends_is_not_waited_for_for_ever() -> None:
    dialer = FakeDialer()
    caller, upstream = await opened(dialer)
    await caller.send(SECOND)
    before = now()
    ending = asyncio.create_task(caller.end())
    await upstream.expect(lambda m: m == {"type": "close_stream"})
    second = await dialer.connection(1)
    assert now() - before == pytest.approx(1.0 + 10.0, abs=0.1), "a second of audio lies before the question"
    await second.expect(lambda m: m == {"type": "close_stream"})
    assert second.audio_sent() == SECOND
    second.say(stt_transcript("at last", last=True))
    assert (await ending).error is None
    assert caller.text == "at last"


@virtual_time
async def test_an_upstream_that_takes_nothing_is_replaced() -> None:
    dialer = FakeDialer()
    caller, upstream = await opened(dialer)
    upstream.stop_reading()
    await caller.send(SECOND)
    second = await dialer.connection(1)
    await second.expect(lambda m: isinstance(m, bytes))
    assert isinstance(caller.all(ConnectionChanged)[1].cause, errors.UpstreamStalled)
    await settle()
    assert second.audio_sent() == SECOND
    await caller.vanish()


@virtual_time
async def test_a_ping_without_an_answer_is_a_stall() -> None:
    dialer = FakeDialer()
    caller, upstream = await opened(dialer)
    await heard(caller, upstream)
    upstream.drop(reason="the upstream answered no ping for 5 s", stalled=True)
    second = await dialer.connection(1)
    await second.expect(lambda m: isinstance(m, bytes))
    lost = caller.all(ConnectionChanged)[1]
    assert isinstance(lost.cause, errors.UpstreamStalled)
    assert "no ping" in lost.cause.message
    await caller.vanish()


@virtual_time
async def test_finals_that_came_before_the_drop_count() -> None:
    """What the upstream said just before it went is heard, and not asked for again."""
    dialer = FakeDialer()
    caller, upstream = await opened(dialer)
    await heard(caller, upstream, SECOND * 2)
    upstream.say(stt_transcript("one", final=True, words=[("one", 0.1, 0.9)]))
    upstream.finish(1011)
    second = await dialer.connection(1)
    await second.expect(lambda m: isinstance(m, bytes))
    await settle()
    assert len(second.audio_sent()) == 2 * RATE_HZ * 1.1
    await caller.vanish()


@virtual_time
async def test_a_connection_lost_at_the_very_end_is_replaced_only_for_what_is_missing() -> None:
    dialer = FakeDialer()
    caller, upstream = await opened(dialer)
    await heard(caller, upstream)
    caller.finalize("f")
    await upstream.expect(lambda m: m == {"type": "finalize"})
    upstream.say(stt_transcript("one", final=True, from_finalize=True, words=[("one", 0.1, 0.9)]))
    await caller.until(Transcribed)
    ending = asyncio.create_task(caller.end())
    await upstream.expect(lambda m: m == {"type": "close_stream"})
    upstream.drop()
    assert (await ending).error is None
    assert [(t.text, t.is_last) for t in caller.finals] == [("one", False), ("", True)]
    assert len(dialer.dials) == 1


@virtual_time
async def test_unanswered_finalizes_are_asked_again_at_their_place() -> None:
    dialer = recognizing(silent=True)
    caller = Caller(dialer)
    await caller.until(SessionStarted)
    await caller.send(speech([1]), 320)
    caller.finalize("a")
    await caller.send(speech([2]), 320)
    caller.finalize("b")
    await settle()
    assert dialer.last.json_sent() == [{"type": "finalize"}] * 2
    dialer.peer = Recognizer
    dialer.last.drop()
    await caller.until(Transcribed, lambda t: t.finalize_id == "b")
    assert [(t.text, t.finalize_id) for t in caller.finals] == [("w1", "a"), ("w2", "b")]
    await caller.vanish()


@virtual_time
async def test_voice_activity_is_told_once() -> None:
    dialer = recognizing(endpoint_s=None)
    caller = Caller(dialer, {"voice_activity_events": True})
    await caller.send(speech([1, 2]), 320, paced_hz=RATE_HZ)
    await asyncio.sleep(0.2)
    dialer.last.drop()
    await caller.send(speech([3]) + silence(0.5), 320, paced_hz=RATE_HZ)
    dialer.last.drop()
    await caller.send(silence(0.5) + speech([4]) + silence(0.5), 320, paced_hz=RATE_HZ)
    await caller.end()
    voice = [e for e in caller.events if isinstance(e, VoiceStarted | VoiceEnded)]
    assert voice == [VoiceStarted(0.0), VoiceEnded(0.7), VoiceStarted(1.75), VoiceEnded(1.95)]
    assert caller.text == "w1 w2 w3 w4"


@virtual_time
async def test_a_voice_whose_end_was_never_told_ends_before_the_next() -> None:
    dialer = FakeDialer()
    caller, upstream = await opened(dialer, {"voice_activity_events": True})
    await heard(caller, upstream)
    upstream.say(stt_speech_started(0.2), stt_transcript("a", final=True, words=[("a", 0.2, 0.7)]))
    await caller.until(Transcribed)
    upstream.drop()
    second = await dialer.connection(1)
    await heard(caller, second)
    await settle()
    second.say(stt_speech_started(0.8))  # 1.5 s of the session; what was replayed ends at 1.0
    await caller.until(VoiceStarted, count=2)
    voice = [e for e in caller.events if isinstance(e, VoiceStarted | VoiceEnded)]
    assert voice == [VoiceStarted(0.2), VoiceEnded(0.7), VoiceStarted(1.5)]
    await caller.vanish()


@virtual_time
async def test_words_of_a_final_are_not_said_again() -> None:
    """Ogg is replayed from the beginning of a page, so the new connection hears some words again."""
    dialer = FakeDialer()
    data = ogg_opus(5.0)
    caller, upstream = await opened(
        dialer, {"word_timings": True}, audio_format=AudioFormat(Encoding.OGG_OPUS, 48000)
    )
    for message in cut(data, [1000]):
        await caller.send(message)
    await settle()
    assert upstream.audio_sent() == data
    upstream.say(stt_transcript("one two", final=True, words=[("one", 0.2, 0.8), ("two", 1.2, 1.6)]))
    await caller.until(Transcribed)
    upstream.drop()
    second = await dialer.connection(1)
    await second.expect(lambda m: isinstance(m, bytes))
    await settle()
    pages = data.split(b"OggS")
    # The page at 0.98 s is the last whose decoder hears 1.6 s; it comes behind the two header pages.
    assert second.audio_sent() == b"OggS" + b"OggS".join([*pages[1:3], *pages[4:]])
    assert all(len(m) <= 4096 for m in second.sent)
    base = caller.all(ConnectionChanged)[-1]
    offset = 5.0 - (base.replayed_audio_s or 0)
    second.say(
        stt_transcript("two three", words=[("two", 1.2 - offset, 1.61 - offset), ("three", 1.0, 1.4)]),
        stt_transcript("two", final=True, words=[("two", 1.2 - offset, 1.61 - offset)]),
        stt_transcript("three", final=True, words=[("three", 1.0, 1.4)]),
    )
    await caller.until(Transcribed, lambda t: t.is_final, count=2)
    assert [t.text for t in caller.all(Transcribed)] == ["one two", "three", "three"]
    assert caller.finals[1].words[0].start_s == pytest.approx(1.0 + offset, abs=0.03)
    await caller.vanish()


@virtual_time
async def test_a_final_without_times_that_only_repeats_is_dropped() -> None:
    dialer = FakeDialer()
    caller, upstream = await opened(dialer)
    await heard(caller, upstream)
    upstream.say(stt_speech_started(0.1), stt_speech_ended(0.6), stt_transcript("hello", final=True))
    await caller.until(Transcribed)
    upstream.drop()
    second = await dialer.connection(1)
    await second.expect(lambda m: isinstance(m, bytes))
    await settle()
    second.say(stt_transcript("hello", final=True), stt_transcript("hello", final=True))
    await caller.until(Transcribed, count=2)
    await settle()
    assert [t.text for t in caller.finals] == ["hello", "hello"]
    await caller.vanish()


@virtual_time
@pytest.mark.parametrize("vad_events", [False, True])
async def test_who_says_the_same_twice_is_heard_twice(vad_events: bool) -> None:
    """Though the connection was lost in between, and no word has its times."""
    dialer = FakeDialer()
    caller, upstream = await opened(dialer)
    for index in range(2):
        upstream = await dialer.connection(index)
        await heard(caller, upstream)
        if vad_events:
            upstream.say(stt_speech_started(0.5), stt_speech_ended(0.9))
        upstream.say(stt_transcript("yes", final=True))
        await caller.until(Transcribed, count=index + 1)
        upstream.drop()
    assert caller.text == "yes yes"
    await caller.vanish()


# -- bounds -------------------------------------------------------------------------------------------------


@virtual_time
async def test_what_falls_out_of_the_history_is_told_when_it_is_lost() -> None:
    dialer = recognizing(endpoint_s=None, max_words=1000)
    given = context(dialer, audio_history_s=2.0)
    caller = Caller(dialer, {"word_timings": True}, session_context=given)
    await caller.send(speech(range(20)), 320, paced_hz=RATE_HZ)  # 5 s
    assert caller.connections == [("CONNECTED", "INITIAL")]
    await asyncio.sleep(0.2)
    dialer.last.drop()
    back = await caller.until(ConnectionChanged, lambda c: c.state.value == "CONNECTED", count=2)
    assert back.lost_audio_s == pytest.approx(3.0)
    assert back.replayed_audio_s == pytest.approx(2.0)
    await caller.send(speech([20]), 320, paced_hz=RATE_HZ)
    await caller.end()
    # What was understood of it before is not lost with it.
    assert caller.text.split() == [f"w{n}" for n in range(21)]
    assert caller.finals[0].final_trigger is FinalTrigger.UNSPECIFIED
    assert caller.all(AudioProgressed)[-1].lost_s == pytest.approx(3.0)


@virtual_time
async def test_audio_whose_words_are_not_final_is_lost_when_it_falls_out() -> None:
    """However old it is, and though its upstream tells of no voice."""
    dialer = FakeDialer()
    caller = Caller(dialer, {"word_timings": True}, session_context=context(dialer, audio_history_s=15.0))
    await caller.until(SessionStarted)
    upstream = dialer.last
    await caller.send(SECOND, 3200, paced_hz=RATE_HZ)
    upstream.say(stt_transcript("hello", words=[("hello", 0.2, 0.8)]))
    await caller.send(30 * SECOND, 3200, paced_hz=RATE_HZ)
    upstream.drop()
    back = await caller.until(ConnectionChanged, lambda c: c.state.value == "CONNECTED", count=2)
    assert back.lost_audio_s == pytest.approx(16.0, abs=0.5)
    assert [t.text for t in caller.finals] == ["hello"], "what was understood of it is not lost with it"
    await caller.vanish()


@virtual_time
async def test_silence_that_falls_out_is_not_lost() -> None:
    dialer = recognizing()
    given = context(dialer, audio_history_s=15.0)
    caller = Caller(dialer, session_context=given)
    await caller.send(speech([1]) + silence(40), 320, paced_hz=RATE_HZ)
    dialer.last.drop()
    back = await caller.until(ConnectionChanged, lambda c: c.state.value == "CONNECTED", count=2)
    assert back.lost_audio_s == 0.0
    assert back.replayed_audio_s == pytest.approx(15.0, abs=0.1)
    await caller.send(speech([2]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert caller.text == "w1 w2"


@virtual_time
async def test_without_a_connection_the_source_is_read_until_the_history_is_full() -> None:
    dialer = recognizing()
    given = context(dialer, audio_history_s=2.0)
    caller = Caller(dialer, session_context=given)
    await caller.until(SessionStarted)
    dialer.hold()
    dialer.last.drop()
    sending = asyncio.create_task(caller.send(speech(range(20)), 320))
    await asyncio.sleep(1.0)
    assert not sending.done()
    assert caller.session.usage().audio_duration_s == pytest.approx(2.0, abs=0.05)
    dialer.let_go()
    await sending
    await caller.end()
    assert caller.text.split() == [f"w{n}" for n in range(20)]
    assert all(not c.lost_audio_s for c in caller.all(ConnectionChanged))


@virtual_time
async def test_a_source_faster_than_real_time_waits_for_finals() -> None:
    dialer = recognizing(max_words=4)
    given = context(dialer, audio_history_s=2.0)
    caller = Caller(dialer, session_context=given)
    await caller.until(SessionStarted)
    before = now()
    sending = asyncio.create_task(caller.send(speech(range(40)), 320))  # 10 s
    await settle()
    assert caller.session.usage().audio_duration_s == pytest.approx(2.0, abs=0.05)
    dialer.last.drop()
    await sending
    assert now() - before < 3.0
    await caller.end()
    assert caller.text.split() == [f"w{n}" for n in range(40)]
    assert all(not c.lost_audio_s for c in caller.all(ConnectionChanged))


@virtual_time
async def test_where_no_finals_come_a_fast_source_goes_on_in_real_time() -> None:
    dialer = recognizing(max_words=1000)
    given = context(dialer, audio_history_s=2.0)
    caller = Caller(dialer, session_context=given)
    await caller.until(SessionStarted)
    before = now()
    await caller.send(speech(range(40)), 320)
    assert now() - before == pytest.approx(10.0 - 0.04, abs=0.1)
    await caller.end()
    assert caller.text.split() == [f"w{n}" for n in range(40)]


@virtual_time
async def test_a_caller_that_reads_nothing_is_read_no_further() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.until(SessionStarted)
    caller.stop_reading()
    sending = asyncio.create_task(caller.send(speech(range(400)), 320, paced_hz=RATE_HZ))
    await asyncio.sleep(300)
    assert not sending.done()
    assert 256 <= caller.session.log.waiting_events < 300
    sending.cancel()
    await caller.vanish()


@virtual_time
async def test_nothing_is_left_behind() -> None:
    dialer = recognizing()
    caller = Caller(dialer)
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    caller.update("u", ApplyPolicy.IMMEDIATE, punctuation=False)
    await caller.send(speech([2]), 320, paced_hz=RATE_HZ)
    await caller.end()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert all(t.gone for t in dialer.transports)
