"""Responses of the gateway to events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from wavegate import events
from wavegate._settings_wire import (
    audio_format_from_wire,
    enum_name,
    seconds,
    struct_from_wire,
    synthesis_settings_from_wire,
    transcription_settings_from_wire,
)
from wavegate.errors import WavegateError, error_from_status
from wavegate.settings import SynthesisSettings, TranscriptionSettings
from wavegate.speech.v1 import (
    session_service_pb2,
    synthesis_service_pb2,
    transcription_service_pb2,
    types_pb2,
)


def _name(enum: Any, number: int, prefix: str) -> Any:
    # Every `Literal` of names has `UNSPECIFIED` and `UNKNOWN`; the tests compare the rest with the contract.
    return enum_name(enum, number, prefix)


def _optional_s(message: Message, field: str) -> float | None:
    if not message.HasField(field):
        return None
    value: Duration = getattr(message, field)
    return seconds(value)


def _time(message: Message, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    value: Timestamp = getattr(message, field)
    return value.ToDatetime(UTC)


def _error(message: Message, field: str) -> WavegateError | None:
    if not message.HasField(field):
        return None
    status: types_pb2.Status = getattr(message, field)
    return error_from_status(status) if status.code else None


def _settings(message: types_pb2.EffectiveSettings) -> SynthesisSettings | TranscriptionSettings | None:
    kind = message.WhichOneof("settings")
    if kind == "synthesis":
        return synthesis_settings_from_wire(message.synthesis)
    if kind == "transcription":
        return transcription_settings_from_wire(message.transcription)
    return None


def upstream_info(message: types_pb2.UpstreamInfo) -> events.UpstreamInfo:
    """Upstream identifiers."""
    return events.UpstreamInfo(
        session_id=message.session_id,
        request_id=message.request_id,
        endpoint=message.endpoint,
        connection_index=message.connection_index,
    )


def _usage(message: types_pb2.SessionUsage) -> events.SessionUsage:
    return events.SessionUsage(
        input_character_count=message.input_character_count,
        audio_bytes=message.audio_bytes,
        audio_duration_s=seconds(message.audio_duration),
        utterance_count=message.utterance_count,
        reconnect_count=message.reconnect_count,
        start_time=_time(message, "start_time"),
        end_time=_time(message, "end_time"),
    )


# --- of every session -----------------------------------------------------------------------------


def session_started(message: types_pb2.SessionStarted) -> events.SessionStarted:
    """The first event."""
    limits = message.limits
    return events.SessionStarted(
        session_id=message.session_id,
        audio_format=audio_format_from_wire(message.audio_format),
        settings=_settings(message.settings),
        settings_revision=message.settings_revision,
        limits=events.SessionLimits(
            max_session_duration_s=_optional_s(limits, "max_session_duration"),
            client_idle_timeout_s=_optional_s(limits, "client_idle_timeout"),
            resume_window_s=seconds(limits.resume_window),
            max_text_message_chars=limits.max_text_message_chars,
            max_buffered_chars=limits.max_buffered_chars,
            max_audio_message_bytes=limits.max_audio_message_bytes,
            max_concurrent_sessions=limits.max_concurrent_sessions,
            active_sessions=limits.active_sessions,
        ),
        trace_id=message.trace_id,
        resumed=message.resumed,
        input_sequence_acknowledged=message.input_sequence_acknowledged,
        gateway_version=message.gateway_version,
    )


def settings_ack(message: types_pb2.SettingsAck) -> events.SettingsAck:
    """One step of a change of settings."""
    ack = types_pb2.SettingsAck
    return events.SettingsAck(
        update_id=message.update_id,
        state=_name(ack.State, message.state, "STATE_"),
        mechanism=_name(ack.Mechanism, message.mechanism, "MECHANISM_"),
        fields=tuple(
            events.FieldOutcome(f.path, _name(ack.Mechanism, f.mechanism, "MECHANISM_"))
            for f in message.fields
        ),
        settings_revision=message.settings_revision,
        settings=_settings(message.settings),
        first_utterance_id=message.first_utterance_id,
        applied_after_input_sequence=message.applied_after_input_sequence,
        audio_offset_s=_optional_s(message, "audio_offset"),
        apply_duration_s=seconds(message.apply_duration),
        error=_error(message, "error"),
    )


def connection_event(message: types_pb2.ConnectionEvent) -> events.ConnectionEvent:
    """A change of the upstream connection."""
    return events.ConnectionEvent(
        state=_name(types_pb2.ConnectionEvent.State, message.state, "STATE_"),
        reason=_name(types_pb2.ConnectionEvent.Reason, message.reason, "REASON_"),
        attempt=message.attempt,
        max_attempts=message.max_attempts,
        next_retry_delay_s=seconds(message.next_retry_delay),
        handshake_duration_s=seconds(message.handshake_duration),
        close_code=message.close_code if message.HasField("close_code") else None,
        upstream=upstream_info(message.upstream) if message.HasField("upstream") else None,
        replayed_audio_duration_s=seconds(message.replayed_audio_duration),
        lost_audio_duration_s=seconds(message.lost_audio_duration),
        replayed_character_count=message.replayed_character_count,
        cause=_error(message, "cause"),
    )


def gateway_warning(message: types_pb2.Warning) -> events.GatewayWarning:
    """A warning."""
    return events.GatewayWarning(
        reason=message.reason,
        message=message.message,
        metadata=dict(message.metadata),
        utterance_id=message.utterance_id,
    )


def _go_away(message: types_pb2.GoAway) -> events.GoAway:
    return events.GoAway(seconds(message.time_left), message.reason, message.resumable)


def session_ended(message: types_pb2.SessionEnded) -> events.SessionEnded:
    """The last event."""
    return events.SessionEnded(
        reason=_name(types_pb2.SessionEnded.Reason, message.reason, "REASON_"),
        error=_error(message, "status"),
        usage=_usage(message.usage),
    )


_SHARED: Mapping[str, Callable[[Any], Any]] = {
    "session_started": session_started,
    "settings_ack": settings_ack,
    "connection": connection_event,
    "warning": gateway_warning,
    "go_away": _go_away,
    "session_ended": session_ended,
}

# --- of synthesis ---------------------------------------------------------------------------------


def _utterance_started(message: synthesis_service_pb2.UtteranceStarted) -> events.UtteranceStarted:
    return events.UtteranceStarted(
        message.utterance_id, message.first_input_sequence, message.settings_revision
    )


def _audio_chunk(message: synthesis_service_pb2.AudioChunk) -> events.AudioChunk:
    return events.AudioChunk(
        message.audio,
        message.utterance_id,
        message.chunk_index,
        seconds(message.start_offset),
        message.discontinuity,
    )


def _word_timings(message: synthesis_service_pb2.WordTimings) -> events.WordTimings:
    return events.WordTimings(
        message.utterance_id,
        tuple(
            events.TimedWord(w.text, w.word_index, seconds(w.start_offset), seconds(w.end_offset))
            for w in message.words
        ),
    )


def _utterance_metrics(message: synthesis_service_pb2.UtteranceMetrics) -> events.UtteranceMetrics:
    return events.UtteranceMetrics(
        time_to_first_audio_s=_optional_s(message, "time_to_first_audio"),
        upstream_time_to_first_audio_s=_optional_s(message, "upstream_time_to_first_audio"),
        total_duration_s=seconds(message.total_duration),
        audio_duration_s=seconds(message.audio_duration),
        max_chunk_gap_s=seconds(message.max_chunk_gap),
        input_character_count=message.input_character_count,
        audio_bytes=message.audio_bytes,
        chunk_count=message.chunk_count,
        reconnect_count=message.reconnect_count,
        admission_wait_s=seconds(message.admission_wait),
    )


def _utterance_completed(message: synthesis_service_pb2.UtteranceCompleted) -> events.UtteranceCompleted:
    source = synthesis_service_pb2.UtteranceCompleted.CompletionSource
    return events.UtteranceCompleted(
        utterance_id=message.utterance_id,
        metrics=_utterance_metrics(message.metrics),
        completion_source=_name(source, message.completion_source, "COMPLETION_SOURCE_"),
        settings_revision=message.settings_revision,
        upstreams=tuple(upstream_info(u) for u in message.upstreams),
        end_unconfirmed=message.end_unconfirmed,
    )


def utterance_cancelled(message: synthesis_service_pb2.UtteranceCancelled) -> events.UtteranceCancelled:
    """The end of an utterance that was cancelled."""
    return events.UtteranceCancelled(
        utterance_id=message.utterance_id,
        method=_name(synthesis_service_pb2.UtteranceCancelled.Method, message.method, "METHOD_"),
        spoken_text=message.spoken_text,
        remaining_text=message.remaining_text,
        estimate_source=_name(
            synthesis_service_pb2.EstimateSource, message.estimate_source, "ESTIMATE_SOURCE_"
        ),
        metrics=_utterance_metrics(message.metrics),
        discarded_audio_duration_s=seconds(message.discarded_audio_duration),
    )


def _utterance_failed(message: synthesis_service_pb2.UtteranceFailed) -> events.UtteranceFailed:
    return events.UtteranceFailed(
        utterance_id=message.utterance_id,
        error=error_from_status(message.error),
        retryable=message.retryable,
        audio_sent_duration_s=seconds(message.audio_sent_duration),
    )


_SYNTHESIS: Mapping[str, Callable[[Any], events.SynthesisEvent]] = {
    **_SHARED,
    "utterance_started": _utterance_started,
    "audio": _audio_chunk,
    "word_timings": _word_timings,
    "utterance_completed": _utterance_completed,
    "utterance_cancelled": utterance_cancelled,
    "utterance_failed": _utterance_failed,
}


def synthesis_event(
    response: synthesis_service_pb2.SynthesizeStreamResponse | synthesis_service_pb2.SynthesizeResponse,
) -> events.SynthesisEvent | None:
    """The event of a response; `None` for a kind that only a newer gateway knows."""
    kind = response.WhichOneof("event")
    return _SYNTHESIS[kind](getattr(response, kind)) if kind in _SYNTHESIS else None


# --- of transcription -----------------------------------------------------------------------------


def word(message: transcription_service_pb2.Word) -> events.Word:
    """A recognised word."""
    return events.Word(
        text=message.text,
        start_offset_s=seconds(message.start_offset),
        end_offset_s=seconds(message.end_offset),
        confidence=message.confidence if message.HasField("confidence") else None,
        speaker=message.speaker,
        speaker_confidence=message.speaker_confidence if message.HasField("speaker_confidence") else None,
    )


def sentence(message: transcription_service_pb2.Sentence) -> events.Sentence:
    """A recognised sentence."""
    return events.Sentence(
        message.text, seconds(message.start_offset), seconds(message.end_offset), message.speaker
    )


def _transcript(message: transcription_service_pb2.Transcript) -> events.Transcript:
    trigger = transcription_service_pb2.Transcript.FinalTrigger
    metrics = message.metrics
    return events.Transcript(
        segment_id=message.segment_id,
        segment_revision=message.segment_revision,
        text=message.text,
        is_final=message.is_final,
        is_last=message.is_last,
        speech_final=message.speech_final,
        final_trigger=_name(trigger, message.final_trigger, "FINAL_TRIGGER_"),
        finalize_id=message.finalize_id,
        words=tuple(word(w) for w in message.words),
        sentences=tuple(sentence(s) for s in message.sentences),
        language_codes=tuple(message.language_codes),
        start_offset_s=seconds(message.start_offset),
        end_offset_s=seconds(message.end_offset),
        stable_prefix_length=message.stable_prefix_length,
        full_text=message.full_text,
        redacted_entities=tuple(message.redacted_entities),
        settings_revision=message.settings_revision,
        upstream=upstream_info(message.upstream) if message.HasField("upstream") else None,
        metrics=events.TranscriptMetrics(
            finalize_latency_s=_optional_s(metrics, "finalize_latency"),
            audio_latency_s=_optional_s(metrics, "audio_latency"),
            capture_latency_s=_optional_s(metrics, "capture_latency"),
        ),
        extra=struct_from_wire(message.extra),
    )


def _progress(message: transcription_service_pb2.AudioProgress) -> events.AudioProgress:
    return events.AudioProgress(
        received_duration_s=seconds(message.received_duration),
        forwarded_duration_s=seconds(message.forwarded_duration),
        finalized_duration_s=seconds(message.finalized_duration),
        lost_duration_s=seconds(message.lost_duration),
    )


_TRANSCRIPTION: Mapping[str, Callable[[Any], events.TranscriptionEvent]] = {
    **_SHARED,
    "transcript": _transcript,
    "speech_started": lambda m: events.SpeechStarted(seconds(m.audio_offset)),
    "speech_ended": lambda m: events.SpeechEnded(seconds(m.audio_offset)),
    "progress": _progress,
}


def transcription_event(
    response: transcription_service_pb2.TranscribeStreamResponse,
) -> events.TranscriptionEvent | None:
    """The event of a response; `None` for a kind that only a newer gateway knows."""
    kind = response.WhichOneof("event")
    return _TRANSCRIPTION[kind](getattr(response, kind)) if kind in _TRANSCRIPTION else None


# --- asked for ------------------------------------------------------------------------------------


def control_event(
    response: session_service_pb2.UpdateSettingsResponse,
) -> events.SettingsAck | events.ConnectionEvent | events.SessionEnded | None:
    """What a settings stream reports; `None` for a kind that only a newer gateway knows."""
    kind = response.WhichOneof("event")
    if kind == "ack":
        return settings_ack(response.ack)
    if kind == "connection":
        return connection_event(response.connection)
    return session_ended(response.session_ended) if kind == "session_ended" else None


def session_info(message: session_service_pb2.Session) -> events.SessionInfo:
    """A live session."""
    kind: Literal["synthesis", "transcription", "unknown"] = (
        message.settings.WhichOneof("settings") or "unknown"
    )
    return events.SessionInfo(
        session_id=message.session_id,
        kind=kind,
        state=_name(session_service_pb2.Session.State, message.state, "STATE_"),
        settings=_settings(message.settings),
        settings_revision=message.settings_revision,
        audio_format=audio_format_from_wire(message.audio_format),
        usage=_usage(message.usage),
        upstream=upstream_info(message.upstream) if message.HasField("upstream") else None,
        labels=dict(message.labels),
        create_time=_time(message, "create_time"),
        last_activity_time=_time(message, "last_activity_time"),
        trace_id=message.trace_id,
    )


def voice(message: synthesis_service_pb2.Voice) -> events.Voice:
    """A voice of the catalogue."""
    return events.Voice(
        voice_id=message.voice_id,
        display_name=message.display_name,
        models=tuple(message.models),
        language_codes=tuple(message.language_codes),
        tags={tag.key: tuple(tag.values) for tag in message.tags},
        word_timings_supported=message.word_timings_supported,
    )
