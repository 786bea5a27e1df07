"""Transcription: requests to commands, events to responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from google.protobuf import json_format
from wavegate.speech.v1 import transcription_service_pb2 as pb

from wavegate_server import errors
from wavegate_server.audio import (
    DEFAULT_TRANSCRIPTION_FORMAT,
    TRANSCRIPTION_ENCODINGS,
    TRANSCRIPTION_RATES_HZ,
    AudioFormat,
    Encoding,
)
from wavegate_server.errors import Violation
from wavegate_server.rpc.convert import common
from wavegate_server.rpc.convert.common import duration, epoch_s, optional_id, seconds, valid_timestamp
from wavegate_server.session import transcription_events as heard
from wavegate_server.session.events import EndSession, Upstream
from wavegate_server.session.log import Entry
from wavegate_server.session.recognition import Recording
from wavegate_server.waves import prerecorded
from wavegate_server.waves.settings import TRANSCRIPTION, Settings, canonical, check

MAX_URI_CHARS = 4096
MAX_EXTRA_LEVELS = 16
"""How deep what the upstream says may be nested: three messages a level, of which protobuf reads a hundred."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a `start` asks for, checked and with defaults."""

    settings: Settings
    audio_format: AudioFormat
    keep_alive: bool
    initial_offset_s: float


def _settings(
    message: Any, defaults: Settings, path: str, *, live: bool
) -> tuple[dict[str, Any], list[Violation]]:
    """Initial settings over the gateway's defaults, and every violation."""
    given = canonical(TRANSCRIPTION, common.settings_from_proto(TRANSCRIPTION, message))
    settings = {**defaults, **given}
    # What only some models of the stream have, every model for recordings may have.
    violations = check(TRANSCRIPTION, given, path, effective=settings if live else None)
    return settings, violations


def start(message: pb.StartTranscription, defaults: Settings) -> Start:
    """Raises `errors.InvalidInput` with every violation."""
    settings, violations = _settings(message.settings, defaults, "start.settings", live=True)
    if not message.HasField("audio_format"):
        violations.append(
            Violation("start.audio_format", "is required; an empty message means LINEAR16 at 16000 Hz")
        )
    audio_format, wrong = common.audio_format_from_proto(
        message.audio_format,
        DEFAULT_TRANSCRIPTION_FORMAT,
        TRANSCRIPTION_ENCODINGS,
        TRANSCRIPTION_RATES_HZ,
        "start.audio_format",
    )
    violations += wrong
    violations += common.id_violations(message.client_session_id, "start.client_session_id")
    violations += common.label_violations(message.labels, "start.labels")
    violations += common.duration_violations(message, "resume_window", "start")
    violations += common.duration_violations(
        message, "initial_audio_offset", "start", high_s=10 * 365 * 86_400.0
    )
    if violations:
        raise errors.InvalidInput.of(violations)
    return Start(
        settings,
        audio_format,
        message.keep_alive if message.HasField("keep_alive") else True,
        seconds(message.initial_audio_offset),
    )


def command(request: pb.TranscribeStreamRequest) -> Any:
    """A request after the first as a command. Raises `errors.InvalidInput` or `errors.MessageOrder`."""
    match request.WhichOneof("input"):
        case "audio":
            audio = request.audio
            captured_at = None
            if audio.HasField("capture_time"):
                captured_at = epoch_s(audio.capture_time)
                if not valid_timestamp(audio.capture_time):
                    raise errors.InvalidInput.field("audio.capture_time", "is no valid Timestamp")
            return heard.AcceptAudio(audio.content, captured_at)
        case "finalize":
            finalize = request.finalize
            return heard.FinalizeTurn(
                optional_id(finalize.finalize_id, "finalize.finalize_id"), finalize.traceparent
            )
        case "update_settings":
            return common.update_from_proto(TRANSCRIPTION, request.update_settings)
        case "end_session":
            return EndSession(discard=request.end_session.discard)
        case "start":
            raise errors.MessageOrder("start came a second time; a stream begins once")
        case _:
            raise errors.InvalidInput.field("input", "is required: set one of its fields")


def response(entry: Entry, sequence: int) -> pb.TranscribeStreamResponse:
    """An event on its way out as a response."""
    event = entry.event
    out = pb.TranscribeStreamResponse(
        sequence=sequence, acknowledged_input_sequence=entry.acknowledged_input_sequence
    )
    match event:
        case heard.Transcribed():
            out.transcript.CopyFrom(transcript(event))
        case heard.VoiceStarted():
            out.speech_started.audio_offset.CopyFrom(duration(event.audio_offset_s))
        case heard.VoiceEnded():
            out.speech_ended.audio_offset.CopyFrom(duration(event.audio_offset_s))
        case heard.AudioProgressed():
            out.progress.CopyFrom(
                pb.AudioProgress(
                    received_duration=duration(event.received_s),
                    forwarded_duration=duration(event.forwarded_s),
                    finalized_duration=duration(event.finalized_s),
                    lost_duration=duration(event.lost_s),
                )
            )
        case _:
            if not common.session_event(out, event, TRANSCRIPTION):
                raise TypeError(f"no response for {type(event).__name__}")
    return out


def transcript(event: heard.Transcribed) -> pb.Transcript:
    """Offsets that are known; times that were never measured are left out."""
    message = pb.Transcript(
        segment_id=event.segment_id,
        segment_revision=event.segment_revision,
        text=event.text,
        is_final=event.is_final,
        is_last=event.is_last,
        final_trigger=f"FINAL_TRIGGER_{event.final_trigger.value}",
        finalize_id=event.finalize_id,
        words=[word(w) for w in event.words],
        sentences=[sentence(s) for s in event.sentences],
        language_codes=event.languages,
        start_offset=duration(event.start_s),
        end_offset=duration(event.end_s),
        stable_prefix_length=event.stable_prefix_length,
        full_text=event.full_text,
        redacted_entities=event.redacted_entities,
        settings_revision=event.settings_revision,
        upstream=common.upstream_info(event.upstream),
        metrics=pb.TranscriptMetrics(
            finalize_latency=duration(event.finalize_latency_s),
            audio_latency=duration(event.audio_latency_s),
            capture_latency=duration(event.capture_latency_s),
        ),
        speech_final=event.speech_final,
    )
    extra = {key: value for key, value in event.extra.items() if _is_shallow(value)}
    if extra:
        # Through JSON's own rules, so that whatever came as JSON can be told.
        json_format.ParseDict(extra, message.extra)
    return message


def _is_shallow(value: Any, levels: int = MAX_EXTRA_LEVELS) -> bool:
    """Whether every receiver can read it."""
    match value:
        case dict():
            return levels > 0 and all(_is_shallow(v, levels - 1) for v in value.values())
        case list():
            return levels > 0 and all(_is_shallow(v, levels - 1) for v in value)
        case _:
            return True


def word(heard_word: heard.Word) -> pb.Word:
    return pb.Word(
        text=heard_word.text,
        start_offset=duration(heard_word.start_s),
        end_offset=duration(heard_word.end_s),
        confidence=heard_word.confidence,
        speaker=heard_word.speaker,
        speaker_confidence=heard_word.speaker_confidence,
    )


def sentence(heard_sentence: heard.Sentence) -> pb.Sentence:
    return pb.Sentence(
        text=heard_sentence.text,
        start_offset=duration(heard_sentence.start_s),
        end_offset=duration(heard_sentence.end_s),
        speaker=heard_sentence.speaker,
    )


# -- recordings -------------------------------------------------------------------------------------------------

_RECORDING_ENCODINGS = (*prerecorded.RAW_ENCODINGS, Encoding.OGG_OPUS)


@dataclass(frozen=True, slots=True)
class Recognition:
    """What a `Recognize` asks for, checked and with defaults."""

    settings: Settings
    recording: Recording
    request_id: str


def recognition(request: pb.RecognizeRequest, defaults: Settings) -> Recognition:
    """Raises `errors.InvalidInput` with every violation."""
    if defaults.get("model") not in prerecorded.MODELS:
        # The gateway's default is one for streams.
        defaults = {**defaults, "model": prerecorded.MODELS[0]}
    settings, violations = _settings(request.settings, defaults, "settings", live=False)
    audio_format = None
    if request.HasField("audio_format"):
        audio_format, wrong = common.audio_format_from_proto(
            request.audio_format,
            DEFAULT_TRANSCRIPTION_FORMAT,
            _RECORDING_ENCODINGS,
            TRANSCRIPTION_RATES_HZ,
            "audio_format",
        )
        violations += wrong
    match request.WhichOneof("source"):
        case "content":
            violations += _content_violations(request.content, audio_format)
        case "uri":
            violations += _uri_violations(request.uri, settings)
        case _:
            violations.append(Violation("source", "is required: set content or uri"))
    violations += common.id_violations(request.request_id, "request_id")
    if violations:
        raise errors.InvalidInput.of(violations)
    recording = Recording(request.content, audio_format, request.uri)
    return Recognition(settings, recording, request.request_id)


def _content_violations(content: bytes, audio_format: AudioFormat | None) -> list[Violation]:
    if not content:
        return [Violation("content", "must not be empty")]
    if audio_format is None:
        if prerecorded.is_file(content):
            return []
        return [
            Violation("audio_format", "is required: the content is no audio file that says how it is encoded")
        ]
    width = audio_format.encoding.bytes_per_sample
    if width and len(content) % width and not prerecorded.has_container(content):
        return [Violation("content", f"ends within a sample: {len(content)} bytes, {width} a sample")]
    return []


def _uri_violations(uri: str, settings: Settings) -> list[Violation]:
    found = []
    try:
        parts = urlsplit(uri)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good or len(uri) > MAX_URI_CHARS or not uri.isprintable():
        found.append(
            Violation("uri", f"must be an http or https address of at most {MAX_URI_CHARS} characters")
        )
    if settings["model"] not in prerecorded.URL_MODELS:
        found.append(
            Violation(
                "uri", f"works with the model {' or '.join(prerecorded.URL_MODELS)} only; send the content"
            )
        )
    return found


def recognized(answer: prerecorded.Answer, upstream: Upstream, settings: Settings) -> pb.RecognizeResponse:
    """The transcript of a recording, with what was asked for."""
    words = answer.words if settings.get("word_timings") else ()
    sentences = answer.sentences if settings.get("sentence_timings") else ()
    return pb.RecognizeResponse(
        text=answer.text,
        words=[
            word(heard.Word(w.text, w.start_s, w.end_s, w.confidence, w.speaker, w.speaker_confidence))
            for w in words
        ],
        sentences=[sentence(heard.Sentence(s.text, s.start_s, s.end_s, s.speaker)) for s in sentences],
        language_codes=answer.languages,
        audio_duration=duration(answer.duration_s),
        upstream=common.upstream_info(upstream),
    )
