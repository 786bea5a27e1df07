"""The synthesis stream: requests to commands, events to responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wavegate.speech.v1 import synthesis_service_pb2 as pb

from wavegate_server import errors
from wavegate_server.audio import (
    DEFAULT_SYNTHESIS_FORMAT,
    SYNTHESIS_ENCODINGS,
    SYNTHESIS_RATES_HZ,
    AudioFormat,
)
from wavegate_server.errors import Violation
from wavegate_server.rpc import status
from wavegate_server.rpc.convert import common
from wavegate_server.rpc.convert.common import duration, optional_id, seconds
from wavegate_server.session import synthesis_events as speech
from wavegate_server.session.context import Bounds
from wavegate_server.session.events import EndSession, SessionStarted, UpdateSettings, WarningRaised
from wavegate_server.session.log import Entry
from wavegate_server.session.speakable import speakable
from wavegate_server.session.utterance import Utterance
from wavegate_server.waves.settings import SYNTHESIS, Settings, canonical, check
from wavegate_server.waves.voices import CatalogueVoice


@dataclass(frozen=True, slots=True)
class Start:
    """What a `start` asks for, checked and with defaults."""

    settings: Settings
    audio_format: AudioFormat
    client_session_id: str
    labels: dict[str, str]
    max_audio_lead_s: float | None


def settings_of(
    message: Any, defaults: Settings, path: str, max_buffer_delay_s: float
) -> tuple[dict[str, Any], list[Violation]]:
    """Initial settings over the gateway's defaults, and every violation."""
    given = canonical(SYNTHESIS, common.settings_from_proto(SYNTHESIS, message))
    settings = {**defaults, **given}
    violations = check(SYNTHESIS, given, path, effective=settings, max_buffer_delay_s=max_buffer_delay_s)
    if not settings.get("voice_id") and not any(v.field == f"{path}.voice_id" for v in violations):
        violations.append(
            Violation(f"{path}.voice_id", "a voice is required: the gateway has no default voice")
        )
    return settings, violations


def start(message: pb.StartSynthesis, defaults: Settings, max_buffer_delay_s: float) -> Start:
    """Raises `errors.InvalidInput` with every violation."""
    violations = []
    if not message.HasField("settings"):
        violations.append(Violation("start.settings", "is required; an empty message means the defaults"))
    settings, wrong = settings_of(message.settings, defaults, "start.settings", max_buffer_delay_s)
    if message.HasField("settings"):
        violations += wrong
    audio_format, wrong = common.audio_format_from_proto(
        message.audio_format,
        DEFAULT_SYNTHESIS_FORMAT,
        SYNTHESIS_ENCODINGS,
        SYNTHESIS_RATES_HZ,
        "start.audio_format",
    )
    violations += wrong
    violations += common.id_violations(message.client_session_id, "start.client_session_id")
    violations += common.label_violations(message.labels, "start.labels")
    violations += common.duration_violations(message, "resume_window", "start")
    violations += common.duration_violations(message, "max_audio_lead", "start", zero=False)
    if violations:
        raise errors.InvalidInput.of(violations)
    return Start(
        settings,
        audio_format,
        message.client_session_id,
        dict(message.labels),
        seconds(message.max_audio_lead) if message.HasField("max_audio_lead") else None,
    )


def command(request: pb.SynthesizeStreamRequest) -> Any:
    """A request after the first as a command. Raises `errors.InvalidInput` or `errors.MessageOrder`."""
    match request.WhichOneof("input"):
        case "text":
            text = request.text
            return speech.SpeakText(
                text.text,
                optional_id(text.utterance_id, "text.utterance_id"),
                text.end_utterance,
                text.traceparent,
            )
        case "end_utterance":
            return speech.EndUtterance(
                optional_id(request.end_utterance.utterance_id, "end_utterance.utterance_id")
            )
        case "cancel":
            cancel = request.cancel
            return speech.CancelUtterance(
                optional_id(cancel.utterance_id, "cancel.utterance_id"),
                _offset(cancel, "cancel"),
            )
        case "flush":
            return speech.FlushText(optional_id(request.flush.utterance_id, "flush.utterance_id"))
        case "update_settings":
            return update(request.update_settings)
        case "playback":
            playback = request.playback
            offset = _offset(playback, "playback")
            if offset is None:
                raise errors.InvalidInput.field("playback.playback_offset", "is required")
            return speech.ReportPlayback(optional_id(playback.utterance_id, "playback.utterance_id"), offset)
        case "end_session":
            return EndSession(discard=request.end_session.discard)
        case "start":
            raise errors.MessageOrder("start came a second time; a stream begins once")
        case _:
            raise errors.InvalidInput.field("input", "is required: set one of its fields")


def update(message: pb.UpdateSynthesisSettings) -> UpdateSettings:
    return common.update_from_proto(SYNTHESIS, message)


def _offset(message: Any, path: str) -> float | None:
    if not message.HasField("playback_offset"):
        return None
    offset = seconds(message.playback_offset)
    if offset < 0:
        raise errors.InvalidInput.field(f"{path}.playback_offset", "must not be negative")
    return offset


def response(entry: Entry, sequence: int) -> pb.SynthesizeStreamResponse:
    """An event on its way out as a response."""
    event = entry.event
    out = pb.SynthesizeStreamResponse(
        sequence=sequence, acknowledged_input_sequence=entry.acknowledged_input_sequence
    )
    match event:
        case speech.AudioProduced():
            fill_audio(out.audio, event)
        case speech.UtteranceStarted():
            out.utterance_started.CopyFrom(
                pb.UtteranceStarted(
                    utterance_id=event.utterance_id,
                    first_input_sequence=event.first_input_sequence,
                    settings_revision=event.settings_revision,
                )
            )
        case speech.WordsTimed():
            out.word_timings.CopyFrom(word_timings(event))
        case speech.UtteranceCompleted():
            out.utterance_completed.CopyFrom(utterance_completed(event))
        case speech.UtteranceCancelled():
            out.utterance_cancelled.CopyFrom(
                pb.UtteranceCancelled(
                    utterance_id=event.utterance.utterance_id,
                    method=f"METHOD_{event.method.value}",
                    spoken_text=event.spoken_text,
                    remaining_text=event.remaining_text,
                    estimate_source=f"ESTIMATE_SOURCE_{event.estimate_source.value}",
                    metrics=metrics(event.utterance),
                    discarded_audio_duration=duration(event.discarded_audio_s),
                )
            )
        case speech.UtteranceFailed():
            out.utterance_failed.CopyFrom(
                pb.UtteranceFailed(
                    utterance_id=event.utterance.utterance_id,
                    error=status.to_proto(event.error),
                    retryable=event.error.retryable,
                    audio_sent_duration=duration(event.audio_sent_s),
                )
            )
        case _:
            if not common.session_event(out, event, SYNTHESIS):
                raise TypeError(f"no response for {type(event).__name__}")
    return out


def fill_audio(chunk: pb.AudioChunk, event: speech.AudioProduced) -> None:
    """Field by field into the response's own message: the audio is copied once, not twice."""
    chunk.audio = event.audio
    chunk.utterance_id = event.utterance.utterance_id
    chunk.chunk_index = event.chunk_index
    offset = chunk.start_offset
    offset.seconds, offset.nanos = divmod(round(event.start_offset_s * common.NANOS), common.NANOS)
    if event.discontinuity:
        chunk.discontinuity = True


def word_timings(event: speech.WordsTimed) -> pb.WordTimings:
    return pb.WordTimings(
        utterance_id=event.utterance_id,
        words=[
            pb.WordTimings.Word(
                text=word.text,
                word_index=word.index,
                start_offset=duration(word.start_s),
                end_offset=duration(word.end_s),
            )
            for word in event.words
        ],
    )


def utterance_completed(event: speech.UtteranceCompleted) -> pb.UtteranceCompleted:
    utterance = event.utterance
    source = event.source.value if event.source is not None else "UNSPECIFIED"
    return pb.UtteranceCompleted(
        utterance_id=utterance.utterance_id,
        metrics=metrics(utterance),
        completion_source=f"COMPLETION_SOURCE_{source}",
        settings_revision=utterance.settings_revision,
        upstreams=[common.upstream_info(u) for u in utterance.upstreams],
        end_unconfirmed=event.is_unconfirmed,
    )


def metrics(utterance: Utterance) -> pb.UtteranceMetrics:
    """What was measured; a time that never came about is left out."""
    measured = utterance.metrics
    return pb.UtteranceMetrics(
        time_to_first_audio=duration(measured.time_to_first_audio_s),
        upstream_time_to_first_audio=duration(measured.upstream_time_to_first_audio_s),
        total_duration=duration(measured.total_s),
        audio_duration=duration(measured.audio_samples / utterance.sample_rate_hz),
        input_character_count=measured.input_character_count,
        audio_bytes=measured.audio_bytes,
        chunk_count=measured.chunk_count,
        reconnect_count=measured.reconnect_count,
        admission_wait=duration(measured.admission_wait_s),
        max_chunk_gap=duration(measured.max_gap_s),
    )


# -- whole texts and voices -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WholeText:
    """What a `Synthesize` asks for, checked and with defaults."""

    settings: Settings
    audio_format: AudioFormat
    utterance_id: str


def whole_text(
    request: pb.SynthesizeRequest, defaults: Settings, bounds: Bounds, max_buffer_delay_s: float
) -> WholeText:
    """Raises `errors.InvalidInput` with every violation."""
    violations = []
    text, removed = speakable(request.text)
    if not text.strip():
        violations.append(
            Violation("text", "holds nothing but control characters" if removed else "is required")
        )
    if len(text) > bounds.max_utterance_chars:
        violations.append(
            Violation("text", f"at most {bounds.max_utterance_chars} characters, got {len(text)}")
        )
    if not request.HasField("settings"):
        violations.append(Violation("settings", "is required; an empty message means the defaults"))
    settings, wrong = settings_of(request.settings, defaults, "settings", max_buffer_delay_s)
    if request.HasField("settings"):
        violations += wrong
    audio_format, wrong = common.audio_format_from_proto(
        request.audio_format,
        DEFAULT_SYNTHESIS_FORMAT,
        SYNTHESIS_ENCODINGS,
        SYNTHESIS_RATES_HZ,
        "audio_format",
    )
    violations += wrong
    violations += common.id_violations(request.request_id, "request_id")
    if violations:
        raise errors.InvalidInput.of(violations)
    return WholeText(settings, audio_format, request.request_id or "utterance-1")


def whole_text_response(event: Any) -> pb.SynthesizeResponse:
    """An event of a whole text as a response."""
    out = pb.SynthesizeResponse()
    match event:
        case speech.AudioProduced():
            fill_audio(out.audio, event)
        case speech.WordsTimed():
            out.word_timings.CopyFrom(word_timings(event))
        case speech.UtteranceCompleted():
            out.utterance_completed.CopyFrom(utterance_completed(event))
        case SessionStarted():
            out.session_started.CopyFrom(common.session_started(event, SYNTHESIS))
        case WarningRaised():
            out.warning.CopyFrom(common.warning(event))
        case _:
            raise TypeError(f"no response for {type(event).__name__}")
    return out


def voice(entry: CatalogueVoice) -> pb.Voice:
    return pb.Voice(
        voice_id=entry.voice_id,
        display_name=entry.display_name,
        models=entry.models,
        language_codes=entry.language_codes,
        tags=[pb.VoiceTag(key=key, values=values) for key, values in sorted(entry.tags.items())],
        word_timings_supported=entry.word_timings_supported,
    )


def token_of_voice(entry: CatalogueVoice) -> str:
    """A page token: the last voice of a page."""
    return common.page_token("voices", entry.voice_id)


def voice_of_token(token: str) -> str:
    """The voice after which a page begins. Raises `errors.InvalidInput`."""
    return common.place_of_token("voices", token)
