"""One speech-to-text connection, as a conversation without a socket."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest
from wavegate_server import errors
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.waves import stt
from wavegate_server.waves.settings import TRANSCRIPTION, Keyword, Place
from wavegate_server.waves.stt import (
    MAX_GARBAGE,
    OWED_S,
    ConnectionFailed,
    HeardSentence,
    HeardWord,
    PongReceived,
    SpeechEnded,
    SpeechStarted,
    StreamFinished,
    SttProtocol,
    TranscriptReceived,
)

from tests.support.transport import stt_error, stt_speech_ended, stt_speech_started, stt_transcript

FORMAT = AudioFormat(Encoding.LINEAR16, 16000)
ALWAYS = {
    "model": "pulse",
    "language": "en",
    "sample_rate": "16000",
    "encoding": "linear16",
    "word_timestamps": "true",
    "vad_events": "true",
}

# One row a field: what is set, and what the upstream is told beside what it is always told.
ROWS: list[tuple[str, Any, dict[str, str]]] = [
    ("model", "pulse-2", {"model": "pulse-2"}),
    ("language_code", "hi-IN", {"language": "hi"}),
    ("interim_results", False, {}),
    ("word_timings", True, {}),
    ("sentence_timings", True, {"sentence_timestamps": "true"}),
    ("diarization", True, {"diarize": "true"}),
    ("voice_activity_events", False, {}),
    ("end_of_utterance_timeout", 0.75, {"eou_timeout_ms": "750"}),
    ("auto_finalize_on_words", False, {"finalize_on_words": "false"}),
    ("max_words", 12, {"max_words": "12"}),
    ("formatting", False, {"format": "false"}),
    ("punctuation", False, {"punctuate": "false"}),
    ("capitalization", True, {"capitalize": "true"}),
    ("inverse_text_normalization", True, {"itn_normalize": "true"}),
    ("redact_pii", True, {"redact_pii": "true"}),
    ("redact_pci", True, {"redact_pci": "true"}),
    (
        "keywords",
        (Keyword("Blackwell", 1.0), Keyword("small language model", 1.5), Keyword("नाम")),
        {"keywords": "Blackwell:1,small language model:1.5,नाम"},
    ),
    ("full_transcript", True, {}),
    ("numerals", "always", {"numerals": "true"}),
    (
        "extra",
        {"new_thing": 3, "other": "a&b", "flag": True},
        {"new_thing": "3", "other": "a&b", "flag": "true"},
    ),
    ("endpointing", False, {"endpointing": "false"}),
    ("endpointing_timeout", 1.2, {"endpointing_timeout": "1200"}),
    ("emotion_detection", True, {"emotion_detection": "true"}),
    ("gender_detection", True, {"gender_detection": "true"}),
    ("vad_threshold", 0.35, {"vad_threshold": "0.35"}),
    ("vad_min_speech", 0.08, {"vad_min_speech_ms": "80"}),
    ("no_format_delay", True, {"no_format_delay": "true"}),
]


def parameters(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs), "a parameter twice"
    return dict(pairs)


def test_there_is_a_row_for_every_field() -> None:
    assert [name for name, _, _ in ROWS] == [f.name for f in TRANSCRIPTION.fields]


@pytest.mark.parametrize(("name", "value", "told"), ROWS, ids=[r[0] for r in ROWS])
def test_each_setting_is_told_under_its_name(name: str, value: Any, told: dict[str, str]) -> None:
    assert parameters(stt.query({name: value}, FORMAT)) == {**ALWAYS, **told}
    field = TRANSCRIPTION.field(name)
    assert field is not None
    assert (field.place is Place.GATEWAY) == (not told)


def test_nothing_else_is_told() -> None:
    assert parameters(stt.query({}, FORMAT)) == ALWAYS
    assert list(parameters(stt.query({}, FORMAT))) == list(ALWAYS)


def test_no_keywords_are_no_parameter() -> None:
    assert parameters(stt.query({"keywords": ()}, FORMAT)) == ALWAYS


def test_the_format_and_the_callers_id_are_told() -> None:
    query = stt.query({}, AudioFormat(Encoding.MULAW, 8000), external_session_id="call-7")
    assert parameters(query) == ALWAYS | {
        "sample_rate": "8000",
        "encoding": "mulaw",
        "external_session_id": "call-7",
    }


def test_the_old_path_has_no_model() -> None:
    assert stt.path_of(old_path=False) == "/waves/v1/stt/live"
    assert stt.path_of(old_path=True) == "/waves/v1/pulse/get_text"
    told = parameters(stt.query({}, FORMAT, old_path=True))
    assert told == {k: v for k, v in ALWAYS.items() if k != "model"}


# -- frames -------------------------------------------------------------------------------------------------


def protocol(encoding: Encoding = Encoding.LINEAR16) -> SttProtocol:
    return SttProtocol(encoding)


def receive(core: SttProtocol, *frames: Any, now: float = 0.0) -> list[Any]:
    events: list[Any] = []
    for frame in frames:
        message = frame if isinstance(frame, str | bytes) else json.dumps(frame)
        events += core.receive(message, now)
    return events


def error_of(events: list[Any]) -> errors.WavegateError:
    assert len(events) == 1
    assert isinstance(events[0], ConnectionFailed)
    return events[0].error


def test_a_transcript_with_everything() -> None:
    core = protocol()
    frame = {
        "type": "transcription",
        "status": "success",
        "session_id": "abc",
        "request_id": "r1",
        "transcript": "Hello there.",
        "transcription": "Hello there.",
        "full_transcript": "Hello there.",
        "is_final": True,
        "is_last": False,
        "from_finalize": True,
        "speech_final": True,
        "language": "en",
        "languages": ["en", "hi"],
        "words": [
            {
                "word": "Hello",
                "start": 0.1,
                "end": 0.4,
                "confidence": 0.9,
                "speaker": 0,
                "speaker_confidence": 1,
            },
            {"word": "there.", "start": 0.5, "end": 0.8, "speaker": "1"},
        ],
        "utterances": [{"text": "Hello there.", "start": 0.1, "end": 0.8, "speaker": 0}],
        "redacted_entities": ["[FIRSTNAME_1]"],
        "emotion": {"happy": 0.9},
        "gender": "female",
    }
    assert receive(core, frame) == [
        TranscriptReceived(
            "Hello there.",
            is_final=True,
            from_finalize=True,
            speech_final=True,
            words=(HeardWord("Hello", 0.1, 0.4, 0.9, "0", 1.0), HeardWord("there.", 0.5, 0.8, None, "1")),
            sentences=(HeardSentence("Hello there.", 0.1, 0.8, "0"),),
            languages=("en", "hi"),
            redacted_entities=("[FIRSTNAME_1]",),
            extra={"emotion": {"happy": 0.9}, "gender": "female"},
        )
    ]
    assert core.upstream_session_id == "abc"


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        ({"type": "transcription", "transcript": "a"}, "a"),
        ({"type": "transcription", "transcription": "a"}, "a"),
        ({"type": "transcription", "transcript": "", "transcription": "a"}, "a"),
        ({"type": "transcription", "transcript": None, "transcription": "a"}, "a"),
        ({"transcript": "a", "is_final": False}, "a"),
        ({"type": "transcription", "transcript": ""}, ""),
        (
            {"type": "transcription", "transcript": "a", "language": None, "languages": None, "words": None},
            "a",
        ),
    ],
)
def test_the_text_is_found_wherever_it_is(frame: dict[str, Any], text: str) -> None:
    assert receive(protocol(), frame) == [TranscriptReceived(text)]


@pytest.mark.parametrize(
    "words",
    [
        "no list",
        [1],
        [{"word": "a"}],
        [{"word": "a", "start": "0", "end": 1}],
        [{"word": "a", "start": True, "end": 1}],
        [{"start": 0, "end": 1}],
        [{"word": "a", "start": 0, "end": 1}, {"word": "b", "start": 1, "end": None}],
    ],
)
def test_words_without_times_are_no_words(words: Any) -> None:
    (event,) = receive(protocol(), stt_transcript("a b", words=None) | {"words": words})
    assert event.text == "a b"
    assert event.words == ()


def test_odd_times_are_put_right() -> None:
    (event,) = receive(protocol(), stt_transcript("a", words=[("a", -0.5, -0.2)]))
    assert event.words == (HeardWord("a", 0.0, 0.0),)
    (event,) = receive(protocol(), stt_transcript("a", words=[("a", 1.0, 0.5)]))
    assert event.words == (HeardWord("a", 1.0, 1.0),)


def test_the_last_transcript_is_final() -> None:
    (event,) = receive(protocol(), stt_transcript("a", last=True))
    assert (event.is_final, event.is_last) == (True, True)


def test_voice_activity_and_pongs() -> None:
    assert receive(protocol(), stt_speech_started(1.84), stt_speech_ended(4.5), {"type": "pong"}) == [
        SpeechStarted(1.84),
        SpeechEnded(4.5),
        PongReceived(),
    ]


def test_unknown_frames_are_passed_over() -> None:
    core = protocol()
    frames = [{"type": "metadata", "x": 1}, {"status": "success"}, {"type": 7}, {"type": None}]
    assert receive(core, *frames) == []
    assert core.counters.unknown_frames == len(frames)


@pytest.mark.parametrize("frame", [{}, {"foo": 1}])
def test_a_frame_of_no_type_may_have_held_a_transcript(frame: dict[str, Any]) -> None:
    """So what it may have covered is heard again over another connection."""
    (failed,) = receive(protocol(), frame)
    assert isinstance(failed, ConnectionFailed)
    assert isinstance(failed.error, errors.UpstreamProtocol)


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (stt_error("Unsupported language 'xx'"), errors.UpstreamRejected),
        ({"error": "Invalid parameter"}, errors.UpstreamRejected),
        (
            {"type": "error", "error": {"message": "too many connections", "code": 429}},
            errors.UpstreamCapacity,
        ),
        ({"status": "error", "message": "Internal server error"}, errors.UpstreamUnavailable),
        ({"type": "error", "message": "Invalid API key"}, errors.UpstreamCredential),
    ],
)
def test_error_frames_end_the_connection(frame: dict[str, Any], kind: type[errors.WavegateError]) -> None:
    core = protocol()
    assert isinstance(error_of(receive(core, frame)), kind)
    assert receive(core, stt_transcript("late")) == []
    assert core.closed(1000, "") == []


def test_an_announced_idle_close_can_be_mended() -> None:
    core = protocol()
    error = error_of(receive(core, stt_error("Connection timed out after 60 seconds of inactivity")))
    assert isinstance(error, errors.UpstreamUnavailable)
    assert core.announced_idle


@pytest.mark.parametrize(
    "frame",
    ["{", "[]", "17", b"\x00\x01", {"type": "transcription"}, {"type": "speech_started", "timestamp": "x"}],
)
def test_garbage_is_passed_over_until_there_is_too_much_of_it(frame: Any) -> None:
    """Where an earlier connection spoke it, too."""
    core = protocol()
    core.is_tolerant = True
    assert receive(core, *[frame] * (MAX_GARBAGE - 1)) == []
    assert receive(core, stt_transcript("a")) == [TranscriptReceived("a")]
    assert isinstance(error_of(receive(core, frame)), errors.UpstreamProtocol)


@pytest.mark.parametrize("frame", ["{", "[]", "17", b"\x00\x01", {"type": "transcription", "transcript": 7}])
def test_garbage_that_may_have_been_a_transcript_ends_the_connection(frame: Any) -> None:
    assert isinstance(error_of(receive(protocol(), frame)), errors.UpstreamProtocol)


@pytest.mark.parametrize("kind", ["speech_started", "speech_ended"])
def test_voice_activity_without_a_time_hides_no_transcript(kind: str) -> None:
    """So it is passed over, also on a connection that never spoke garbage before."""
    core = protocol()
    assert receive(core, {"type": kind}, {"type": kind, "timestamp": "soon"}) == []
    assert isinstance(error_of(receive(core, {"type": kind})), errors.UpstreamProtocol)


def test_half_a_character_is_garbage() -> None:
    core = protocol()
    core.is_tolerant = True
    assert receive(core, '{"transcript":"\ud800"}', '{"transcript":"\\ud800"}') == []
    assert core.counters.garbage == 2


# -- closing ------------------------------------------------------------------------------------------------


def test_a_close_after_close_stream_is_the_end() -> None:
    core = protocol()
    assert core.close_stream(0.0) == ['{"type":"close_stream"}']
    assert core.closed(1000, "") == [StreamFinished()]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (None, errors.UpstreamUnavailable),
        (1000, errors.UpstreamUnavailable),
        (1001, errors.UpstreamUnavailable),
        (1008, errors.UpstreamCapacity),
        (1011, errors.UpstreamUnavailable),
        (1003, errors.UpstreamProtocol),
    ],
)
def test_any_other_close_is_a_failure(code: int | None, kind: type[errors.WavegateError]) -> None:
    assert isinstance(error_of(protocol().closed(code, "")), kind)


def test_a_lost_connection_after_close_stream_is_a_failure() -> None:
    core = protocol()
    core.close_stream(0.0)
    assert isinstance(error_of(core.closed(None, "")), errors.UpstreamUnavailable)


def test_what_was_given_up_says_so_once() -> None:
    core = protocol()
    error = errors.UpstreamStalled("it takes nothing")
    assert core.give_up(error) == [ConnectionFailed(error)]
    assert core.give_up(error) == []


# -- out, and what is owed ------------------------------------------------------------------------------------


def test_messages() -> None:
    core = protocol()
    assert core.audio(b"ab", 0.0) == [b"ab"]
    assert [len(m) for m in core.audio(bytes(10_000), 0.0)] == [4096, 4096, 1808]
    assert protocol(Encoding.OPUS).audio(bytes(5000), 0.0) == [bytes(5000)]
    assert [json.loads(m) for m in core.finalize(0.0, owed=False)] == [{"type": "finalize"}]
    assert [json.loads(m) for m in core.keepalive()] == [{"type": "keepalive"}]
    assert core.keepalives_unanswered == 1
    receive(core, {"type": "pong"})
    assert core.keepalives_unanswered == 0


def stalls_at(core: SttProtocol) -> float:
    due = core.deadline()
    assert due is not None
    assert core.expire(due - 0.001) == []
    assert isinstance(error_of(core.expire(due)), errors.UpstreamStalled)
    assert core.deadline() is None
    return due


def test_silence_is_owed_no_answer() -> None:
    core = protocol()
    core.audio(bytes(320), 0.0)
    core.finalize(1.0, owed=False)
    assert core.deadline() is None
    assert core.expire(1000.0) == []


def test_sound_is_owed_an_answer() -> None:
    core = protocol()
    for second in range(4):
        core.audio(bytes(320), float(second), sound_s=0.4)
    assert stalls_at(core) == 2.0 + OWED_S


def test_any_answer_settles_what_sound_was_owed() -> None:
    core = protocol()
    core.audio(bytes(320), 0.0, sound_s=2.0)
    receive(core, stt_speech_started(0.1), now=5.0)
    assert core.deadline() is None
    core.audio(bytes(320), 6.0, sound_s=0.5)
    assert core.deadline() is None
    core.audio(bytes(320), 7.0, sound_s=0.5)
    assert stalls_at(core) == 7.0 + OWED_S


def test_a_finalize_with_something_to_say_is_owed_an_answer() -> None:
    core = protocol()
    core.finalize(3.0, owed=True)
    assert stalls_at(core) == 3.0 + OWED_S


def test_what_lies_before_a_question_is_heard_first() -> None:
    core = protocol()
    core.audio(bytes(320), 3.0, sound_s=1.0, behind_s=25.0)
    core.audio(bytes(320), 4.0, sound_s=1.0, behind_s=99.0)
    assert stalls_at(core) == 3.0 + 25.0 + OWED_S
    core = protocol()
    core.finalize(3.0, owed=True, behind_s=2.0)
    assert stalls_at(core) == 3.0 + 2.0 + OWED_S


def test_an_answer_on_the_way_to_the_question_shortens_no_time() -> None:
    core = protocol()
    core.close_stream(1.0, behind_s=28.0)
    receive(core, stt_speech_started(2.0), now=2.0)
    assert core.deadline() == 1.0 + 28.0 + OWED_S
    receive(core, stt_transcript("a", final=True), now=33.0)
    assert stalls_at(core) == 33.0 + OWED_S


def test_an_upstream_that_repeats_itself_after_close_stream_is_given_up() -> None:
    core = protocol()
    core.close_stream(1.0)
    said = [
        stt_transcript("a", words=[("a", 0.1, 0.2)]),
        stt_transcript("", final=True),
        stt_speech_started(0.1),
    ]
    for frame in said:
        receive(core, frame, now=2.0)
    for second in range(3, 12):
        for frame in said:
            receive(core, frame, now=float(second))
    assert stalls_at(core) == 2.0 + OWED_S


def test_close_stream_is_owed_answers_to_the_end() -> None:
    core = protocol()
    core.close_stream(1.0)
    assert core.deadline() == 1.0 + OWED_S
    receive(core, stt_transcript("a", final=True), now=4.0)
    assert stalls_at(core) == 4.0 + OWED_S
