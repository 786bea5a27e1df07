"""The listening side of the contract, to commands and settings and back."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from wavegate.speech import v1
from wavegate_server import errors
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.rpc.convert import common
from wavegate_server.rpc.convert import transcription as convert
from wavegate_server.session import transcription_events as heard
from wavegate_server.session.events import (
    ApplyPolicy,
    EndSession,
    SessionEnded,
    UpdateSettings,
    Upstream,
    Usage,
)
from wavegate_server.session.log import Entry
from wavegate_server.waves.prerecorded import Answer
from wavegate_server.waves.settings import TRANSCRIPTION, Keyword
from wavegate_server.waves.stt import HeardSentence, HeardWord

DEFAULTS = {"model": "pulse", "language_code": "en"}
WAV = b"RIFF\x24\0\0\0WAVEfmt " + bytes(40)


def struct(**values: Any) -> Struct:
    made = Struct()
    made.update(values)
    return made


KEYWORDS = v1.KeywordList(keywords=[v1.Keyword(phrase="a b", boost=1.5), v1.Keyword(phrase="c")])

# One row a field: what the contract says, and what the gateway makes of it.
ROWS: list[tuple[str, Any, Any]] = [
    ("model", "pulse-2", "pulse-2"),
    ("language_code", "hi-IN", "hi-IN"),
    ("interim_results", False, False),
    ("word_timings", True, True),
    ("sentence_timings", True, True),
    ("diarization", True, True),
    ("voice_activity_events", True, True),
    ("end_of_utterance_timeout", Duration(nanos=750_000_000), 0.75),
    ("auto_finalize_on_words", False, False),
    ("max_words", 12, 12),
    ("formatting", False, False),
    ("punctuation", False, False),
    ("capitalization", True, True),
    ("inverse_text_normalization", True, True),
    ("redact_pii", True, True),
    ("redact_pci", True, True),
    ("keywords", KEYWORDS, (Keyword("a b", 1.5), Keyword("c"))),
    ("full_transcript", True, True),
    ("numerals", v1.NUMERALS_ALWAYS, "always"),
    ("extra", struct(a=1, b="x", c=True, d=0.5), {"a": 1, "b": "x", "c": True, "d": 0.5}),
    ("endpointing", False, False),
    ("endpointing_timeout", Duration(seconds=1, nanos=200_000_000), 1.2),
    ("emotion_detection", True, True),
    ("gender_detection", True, True),
    ("vad_threshold", 0.25, 0.25),
    ("vad_min_speech", Duration(nanos=80_000_000), 0.08),
    ("no_format_delay", True, True),
]


def test_there_is_a_row_for_every_field() -> None:
    names = [f.name for f in v1.TranscriptionSettings.DESCRIPTOR.fields]
    assert sorted(name for name, _, _ in ROWS) == sorted(names) == sorted(TRANSCRIPTION.names())


@pytest.mark.parametrize(("name", "told", "meant"), ROWS, ids=[r[0] for r in ROWS])
def test_each_setting_comes_in_and_goes_out(name: str, told: Any, meant: Any) -> None:
    message = v1.TranscriptionSettings(**{name: told})
    settings = common.settings_from_proto(TRANSCRIPTION, message)
    assert settings == {name: meant}
    assert [type(v) for v in settings.values()] == [type(meant)]
    assert common.settings_to_proto(TRANSCRIPTION, settings) == message
    given = {"settings": message}
    if name in ("emotion_detection", "gender_detection"):
        given = {"settings": v1.TranscriptionSettings(model="pulse-2", **{name: told})}
    started = convert.start(v1.StartTranscription(audio_format=v1.AudioFormat(), **given), DEFAULTS)
    assert started.settings[name] == meant


def test_what_is_not_set_is_not_there() -> None:
    assert common.settings_from_proto(TRANSCRIPTION, v1.TranscriptionSettings()) == {}
    assert common.settings_from_proto(
        TRANSCRIPTION, v1.TranscriptionSettings(numerals=v1.NUMERALS_UNSPECIFIED, keywords=v1.KeywordList())
    ) == {"keywords": ()}


def violations(raised: pytest.ExceptionInfo[errors.InvalidInput]) -> list[str]:
    return sorted(v.field for v in raised.value.violations)


def test_a_start_with_nothing_but_the_format_has_the_defaults() -> None:
    started = convert.start(v1.StartTranscription(audio_format=v1.AudioFormat()), DEFAULTS)
    assert started == convert.Start(DEFAULTS, AudioFormat(Encoding.LINEAR16, 16000), True, 0.0)


def test_a_start_with_everything() -> None:
    message = v1.StartTranscription(
        audio_format=v1.AudioFormat(
            encoding=v1.AUDIO_ENCODING_MULAW, sample_rate_hertz=8000, channel_count=1
        ),
        settings=v1.TranscriptionSettings(model="Pulse_2"),
        client_session_id="call-7",
        labels={"team": "a"},
        keep_alive=False,
        initial_audio_offset=Duration(seconds=90, nanos=500_000_000),
    )
    assert convert.start(message, DEFAULTS) == convert.Start(
        {"model": "pulse-2", "language_code": "en"}, AudioFormat(Encoding.MULAW, 8000), False, 90.5
    )


def test_every_violation_of_a_start_is_told_at_once() -> None:
    message = v1.StartTranscription(
        audio_format=v1.AudioFormat(encoding=v1.AUDIO_ENCODING_MP3, sample_rate_hertz=11025, channel_count=2),
        settings=v1.TranscriptionSettings(
            language_code="not a tag",
            max_words=0,
            vad_threshold=1.5,
            end_of_utterance_timeout=Duration(seconds=-1),
            keywords=v1.KeywordList(keywords=[v1.Keyword(phrase="a,b")]),
            extra=struct(sample_rate=8000),
            emotion_detection=True,
        ),
        client_session_id="no blanks",
        initial_audio_offset=Duration(seconds=-1),
    )
    with pytest.raises(errors.InvalidInput) as raised:
        convert.start(message, DEFAULTS)
    assert violations(raised) == [
        "start.audio_format.channel_count",
        "start.audio_format.encoding",
        "start.audio_format.sample_rate_hertz",
        "start.client_session_id",
        "start.initial_audio_offset",
        "start.settings.emotion_detection",
        "start.settings.end_of_utterance_timeout",
        "start.settings.extra.sample_rate",
        "start.settings.keywords.keywords[0].phrase",
        "start.settings.language_code",
        "start.settings.max_words",
        "start.settings.vad_threshold",
    ]


def test_the_audio_format_is_required() -> None:
    with pytest.raises(errors.InvalidInput) as raised:
        convert.start(v1.StartTranscription(), DEFAULTS)
    assert violations(raised) == ["start.audio_format"]


@pytest.mark.parametrize(
    "wrong",
    [
        Timestamp(seconds=1 << 62),
        Timestamp(seconds=-(1 << 62)),
        Timestamp(seconds=253_402_300_800),
        Timestamp(nanos=1_000_000_000),
        Timestamp(nanos=-1),
    ],
    ids=str,
)
def test_a_capture_time_that_is_none_is_refused(wrong: Timestamp) -> None:
    with pytest.raises(errors.InvalidInput) as raised:
        convert.command(v1.TranscribeStreamRequest(audio=v1.AudioInput(content=b"ab", capture_time=wrong)))
    assert violations(raised) == ["audio.capture_time"]


@pytest.mark.parametrize(
    ("request_", "meant"),
    [
        (v1.TranscribeStreamRequest(audio=v1.AudioInput(content=b"ab")), heard.AcceptAudio(b"ab")),
        (
            v1.TranscribeStreamRequest(
                audio=v1.AudioInput(content=b"ab", capture_time=Timestamp(seconds=7, nanos=500_000_000))
            ),
            heard.AcceptAudio(b"ab", 7.5),
        ),
        (
            v1.TranscribeStreamRequest(finalize=v1.Finalize(finalize_id="f", traceparent="t")),
            heard.FinalizeTurn("f", "t"),
        ),
        (v1.TranscribeStreamRequest(finalize=v1.Finalize()), heard.FinalizeTurn()),
        (v1.TranscribeStreamRequest(end_session=v1.EndSession(discard=True)), EndSession(discard=True)),
        (
            v1.TranscribeStreamRequest(
                update_settings=v1.UpdateTranscriptionSettings(
                    update_id="u",
                    settings=v1.TranscriptionSettings(punctuation=False),
                    apply_policy=v1.APPLY_POLICY_IMMEDIATE,
                    expected_revision=3,
                )
            ),
            UpdateSettings("u", {"punctuation": False}, policy=ApplyPolicy.IMMEDIATE, expected_revision=3),
        ),
        (
            # Values of a newer contract count as unspecified.
            v1.TranscribeStreamRequest(
                update_settings=v1.UpdateTranscriptionSettings(
                    update_id="u",
                    settings=v1.TranscriptionSettings(numerals=99, punctuation=True),  # type: ignore[arg-type]
                    apply_policy=99,  # type: ignore[arg-type]
                )
            ),
            UpdateSettings("u", {"punctuation": True}, policy=ApplyPolicy.NEXT_BOUNDARY),
        ),
    ],
)
def test_requests_become_commands(request_: v1.TranscribeStreamRequest, meant: Any) -> None:
    assert convert.command(request_) == meant


def test_requests_that_are_none() -> None:
    with pytest.raises(errors.MessageOrder):
        convert.command(v1.TranscribeStreamRequest(start=v1.StartTranscription()))
    with pytest.raises(errors.InvalidInput):
        convert.command(v1.TranscribeStreamRequest())
    with pytest.raises(errors.InvalidInput) as raised:
        convert.command(v1.TranscribeStreamRequest(finalize=v1.Finalize(finalize_id="a b")))
    assert violations(raised) == ["finalize.finalize_id"]


def test_what_is_nested_too_deep_for_any_receiver_is_left_out() -> None:
    deep: Any = 1
    for _ in range(16):
        deep = {"a": deep} if isinstance(deep, int | list) else [deep]
    event = heard.Transcribed(
        "s", 1, "hi", True, 0.0, 1.0, extra={"good": deep, "bad": [deep], "emotion": "calm"}
    )
    sent = convert.transcript(event).SerializeToString()
    assert sorted(v1.Transcript.FromString(sent).extra.fields) == ["emotion", "good"]


def test_a_transcript_with_everything() -> None:
    event = heard.Transcribed(
        "segment-3",
        4,
        "Hello there.",
        True,
        1.5,
        2.25,
        is_last=True,
        final_trigger=heard.FinalTrigger.CLIENT_FINALIZE,
        finalize_id="f",
        words=(heard.Word("Hello", 1.5, 1.9, 0.9, "0", 0.8), heard.Word("there.", 2.0, 2.25)),
        sentences=(heard.Sentence("Hello there.", 1.5, 2.25, "0"),),
        languages=("en",),
        stable_prefix_length=12,
        full_text="So. Hello there.",
        redacted_entities=("[FIRSTNAME_1]",),
        settings_revision=2,
        upstream=Upstream("up", "r", "wss://host/path", 1),
        speech_final=True,
        extra={"emotion": {"happy": 0.9}, "gender": "female", "n": None, "many": [1, "a"]},
        finalize_latency_s=0.1,
        audio_latency_s=0.2,
        capture_latency_s=0.3,
    )
    response = convert.response(Entry(event, 17), 5)
    assert (response.sequence, response.acknowledged_input_sequence) == (5, 17)
    t = response.transcript
    assert (t.segment_id, t.segment_revision, t.text, t.is_final, t.is_last) == (
        "segment-3", 4, "Hello there.", True, True,
    )  # fmt: skip
    assert t.final_trigger == v1.Transcript.FINAL_TRIGGER_CLIENT_FINALIZE
    assert t.finalize_id == "f"
    assert [(w.text, common.seconds(w.start_offset), common.seconds(w.end_offset)) for w in t.words] == [
        ("Hello", 1.5, 1.9),
        ("there.", 2.0, 2.25),
    ]
    assert (t.words[0].confidence, t.words[0].speaker, t.words[0].speaker_confidence) == (0.9, "0", 0.8)
    assert not t.words[1].HasField("confidence")
    assert not t.words[1].HasField("speaker_confidence")
    assert (t.sentences[0].text, t.sentences[0].speaker) == ("Hello there.", "0")
    assert list(t.language_codes) == ["en"]
    assert (common.seconds(t.start_offset), common.seconds(t.end_offset)) == (1.5, 2.25)
    assert (t.stable_prefix_length, t.full_text) == (12, "So. Hello there.")
    assert list(t.redacted_entities) == ["[FIRSTNAME_1]"]
    assert t.settings_revision == 2
    assert t.upstream == v1.UpstreamInfo(
        session_id="up", request_id="r", endpoint="wss://host/path", connection_index=1
    )
    metrics = t.metrics
    assert [
        common.seconds(d) for d in (metrics.finalize_latency, metrics.audio_latency, metrics.capture_latency)
    ] == [0.1, 0.2, 0.3]
    assert t.speech_final
    assert common.struct_to_dict(t.extra) == event.extra


def test_what_is_not_known_is_left_out() -> None:
    t = convert.response(Entry(heard.Transcribed("s", 1, "", False, 0.0, 0.0), 0), 1).transcript
    assert t.HasField("start_offset")
    assert t.HasField("end_offset")
    assert not t.HasField("extra")
    assert not any(
        t.metrics.HasField(name) for name in ("finalize_latency", "audio_latency", "capture_latency")
    )
    assert t.final_trigger == v1.Transcript.FINAL_TRIGGER_UNSPECIFIED


@pytest.mark.parametrize("trigger", list(heard.FinalTrigger))
def test_every_trigger_has_its_value(trigger: heard.FinalTrigger) -> None:
    event = heard.Transcribed("s", 1, "a", True, 0.0, 1.0, final_trigger=trigger)
    number = convert.response(Entry(event, 0), 1).transcript.final_trigger
    assert v1.Transcript.FinalTrigger.Name(number) == f"FINAL_TRIGGER_{trigger.name}"


def test_the_other_events() -> None:
    assert (
        common.seconds(convert.response(Entry(heard.VoiceStarted(0.0), 0), 1).speech_started.audio_offset)
        == 0.0
    )
    assert (
        common.seconds(convert.response(Entry(heard.VoiceEnded(1.5), 0), 1).speech_ended.audio_offset) == 1.5
    )
    progress = convert.response(Entry(heard.AudioProgressed(4.0, 3.0, 2.0, 1.0), 0), 1).progress
    assert [
        common.seconds(d)
        for d in (
            progress.received_duration,
            progress.forwarded_duration,
            progress.finalized_duration,
            progress.lost_duration,
        )
    ] == [4.0, 3.0, 2.0, 1.0]
    ended = SessionEnded(
        convert.common.events.EndReason.CLIENT_END, None, Usage(0, 3200, 0.1, 2, 1, 1.0, 2.0)
    )
    assert convert.response(Entry(ended, 0), 1).session_ended.usage.audio_bytes == 3200
    with pytest.raises(TypeError):
        convert.response(Entry(object(), 0), 1)


# -- recordings -----------------------------------------------------------------------------------------------


def test_a_file_is_sent_as_it_is() -> None:
    wanted = convert.recognition(v1.RecognizeRequest(content=WAV), DEFAULTS)
    assert wanted.settings == DEFAULTS
    assert wanted.recording.body() == (WAV, "application/octet-stream")


@pytest.mark.parametrize(
    "content", [WAV, b"fLaC" + bytes(33), b"OggS" + bytes(33), b"\0\0\0\x20ftypM4A" + bytes(22)]
)
def test_nor_is_one_described_as_raw_given_a_header(content: bytes) -> None:
    wanted = convert.recognition(
        v1.RecognizeRequest(
            content=content,
            audio_format=v1.AudioFormat(encoding=v1.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=8000),
        ),
        DEFAULTS,
    )
    assert wanted.recording.body() == (content, "application/octet-stream")


def test_raw_audio_gets_a_header() -> None:
    request = v1.RecognizeRequest(
        content=bytes(100),
        audio_format=v1.AudioFormat(encoding=v1.AUDIO_ENCODING_MULAW, sample_rate_hertz=8000),
        request_id="r",
    )
    wanted = convert.recognition(request, DEFAULTS)
    content, content_type = wanted.recording.body()
    assert content.startswith(b"RIFF")
    assert content.endswith(bytes(100))
    assert content_type == "application/octet-stream"
    assert wanted.request_id == "r"
    request.content = WAV
    assert convert.recognition(request, DEFAULTS).recording.body()[0] == WAV


def test_an_address_is_handed_on() -> None:
    wanted = convert.recognition(v1.RecognizeRequest(uri="https://a.example/x.wav"), DEFAULTS)
    assert wanted.recording.body() == (b'{"url":"https://a.example/x.wav"}', "application/json")


def test_a_default_model_for_streams_is_none_for_recordings() -> None:
    wanted = convert.recognition(v1.RecognizeRequest(content=WAV), {**DEFAULTS, "model": "pulse-2"})
    assert wanted.settings["model"] == "pulse"


def test_recordings_have_what_only_some_models_of_the_stream_have() -> None:
    settings = v1.TranscriptionSettings(emotion_detection=True, gender_detection=True)
    assert convert.recognition(v1.RecognizeRequest(content=WAV, settings=settings), DEFAULTS)


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (v1.RecognizeRequest(), ["source"]),
        (v1.RecognizeRequest(content=b""), ["content"]),
        (v1.RecognizeRequest(content=bytes(100)), ["audio_format"]),
        (v1.RecognizeRequest(content=bytes(101), audio_format=v1.AudioFormat()), ["content"]),
        (
            v1.RecognizeRequest(content=WAV, audio_format=v1.AudioFormat(encoding=v1.AUDIO_ENCODING_MP3)),
            ["audio_format.encoding"],
        ),
        (
            v1.RecognizeRequest(content=WAV, audio_format=v1.AudioFormat(encoding=v1.AUDIO_ENCODING_OPUS)),
            ["audio_format.encoding"],
        ),
        (v1.RecognizeRequest(uri="file:///etc/passwd"), ["uri"]),
        (v1.RecognizeRequest(uri="https://"), ["uri"]),
        (v1.RecognizeRequest(uri="http://[bad"), ["uri"]),
        (
            v1.RecognizeRequest(
                uri="https://a.example/x", settings=v1.TranscriptionSettings(model="pulse-pro")
            ),
            ["uri"],
        ),
        (
            v1.RecognizeRequest(
                content=WAV, request_id="a b", settings=v1.TranscriptionSettings(language_code="?")
            ),
            ["request_id", "settings.language_code"],
        ),
    ],
)
def test_bad_recordings_are_refused_by_their_fields(request_: v1.RecognizeRequest, fields: list[str]) -> None:
    with pytest.raises(errors.InvalidInput) as raised:
        convert.recognition(request_, DEFAULTS)
    assert violations(raised) == fields


def test_an_answer_shows_what_was_asked_for() -> None:
    answer = Answer(
        "Hi.",
        (HeardWord("Hi.", 0.1, 0.5, 0.9, "0", 1.0),),
        (HeardSentence("Hi.", 0.1, 0.5, "0"),),
        ("en",),
        5.28,
        "r-1",
    )
    upstream = Upstream(request_id="r-1", endpoint="https://host/path")
    plain = convert.recognized(answer, upstream, {})
    assert (plain.text, list(plain.words), list(plain.sentences)) == ("Hi.", [], [])
    assert list(plain.language_codes) == ["en"]
    assert common.seconds(plain.audio_duration) == 5.28
    assert plain.upstream.request_id == "r-1"
    full = convert.recognized(answer, upstream, {"word_timings": True, "sentence_timings": True})
    assert [w.text for w in full.words] == [s.text for s in full.sentences] == ["Hi."]
    assert not convert.recognized(Answer(""), upstream, {}).HasField("audio_duration")
