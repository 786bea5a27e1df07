"""What the local upstream can be told to do differently.

The sources disagree about the real service in many places. Each such place is one field here, and one
switch of `waves-local`: the default is what the public description says, or, where it says nothing, what the
clients that ship rely on. Every field's help text is the switch's help text too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

T = TypeVar("T")


def _option(default: T, help_text: str) -> T:
    """A field with its help. (Typed as its default: a dataclass replaces the field object by the value.)"""
    value: Any = field(default=default, metadata={"help": help_text})
    return value  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Options:
    """The behaviour of one local upstream. Times are in the unit that the field's name says."""

    # --- who may come in, and how much of it ---------------------------------------------------------
    keys: tuple[str, ...] = _option((), "The only keys that are good. None given: any key is.")
    forbidden_keys: tuple[str, ...] = _option((), "Keys that are known but not allowed: 403.")
    active_requests: int = _option(
        0, "Active TTS requests that a key may have, over all models and endpoints. 0: no limit."
    )
    tts_sockets: int = _option(
        0, "TTS sockets that a key may hold; more get 429. 0: five times the active requests."
    )
    stt_sockets: int = _option(
        0,
        "STT sockets that a key may hold; more are accepted and closed with 1008. "
        "0: five times the active requests.",
    )
    slot_freed_by: Literal["last_chunk", "complete"] = _option(
        "last_chunk", "What ends an active TTS request: its last chunk, or its (late) `complete`."
    )
    slot_linger_s: float = _option(
        0.0, "Seconds for which a request whose socket was cut in mid-speech still counts as active."
    )
    retry_after_s: int = _option(1, "`Retry-After` of a 429, in seconds. 0 sends none.")

    # --- text to speech: messages in -----------------------------------------------------------------
    unknown_fields: Literal["ignored", "rejected"] = _option(
        "ignored", "Fields of a TTS request that no document names."
    )
    unknown_voices: Literal["rejected", "accepted"] = _option(
        "rejected", "Voices that are not in the catalogue (`voice_…` clones are always accepted)."
    )
    unknown_languages: Literal["rejected", "accepted"] = _option(
        "rejected", "Language codes that the documents do not list, for TTS and STT."
    )
    live_languages: Literal["clients", "documented"] = _option(
        "clients",
        "Languages of live transcription: those that clients send as well, or those of its description alone.",
    )
    hyphenated_models: Literal["rejected", "accepted"] = _option(
        "rejected", "TTS model names with hyphens, as in `lightning-v3.1`."
    )
    continuations: Literal["on", "ignored", "rejected"] = _option(
        "on", "`context_id`, `max_buffer_delay_ms` and `cancel_request`: obeyed, not known, or an error."
    )
    cancel: Literal["obeyed", "ignored"] = _option("obeyed", "Whether `cancel_request` stops the speech.")
    cancel_answer: Literal["none", "complete", "cancelled"] = _option(
        "none", "The frame that answers an obeyed `cancel_request`, if any."
    )
    blank_text: Literal["silent", "spoken", "rejected"] = _option(
        "silent", "A text of nothing but blanks, as the keepalive of some clients."
    )
    text_while_speaking: Literal["queued", "rejected", "interrupts"] = _option(
        "queued",
        "Text of another turn while one is spoken: waits, is answered by an error, or takes its place.",
    )
    max_text_chars: int = _option(0, "The longest `text` of one message, in code points. 0: no limit.")
    optimal_chars: int = _option(
        200,
        "Flush way with max_buffer_flush_ms above 0: buffered code points that are released without waiting.",
    )
    default_max_buffer_delay_ms: int = _option(3000, "`max_buffer_delay_ms` where a message has none.")
    default_complete_backoff_ms: int = _option(4000, "`complete_backoff_ms` where a message has none.")
    idle_timeout_s: float = _option(60.0, "TTS idle timeout where the URL has no `timeout`. 0: never.")
    idle_close_code: int = _option(1000, "Close code after an idle timeout.")
    ping_resets_idle: bool = _option(
        False, "Whether a WebSocket ping counts as a message for the idle clock."
    )
    filtered_words: tuple[str, ...] = _option(("damn", "bastard"), "The word list of `content_filter`.")

    # --- text to speech: frames out ------------------------------------------------------------------
    complete_per: Literal["turn", "release", "request", "none"] = _option(
        "turn",
        "One `complete` a turn, a release (a piece of text spoken in one go), a message with text, or none.",
    )
    complete_late_s: float = _option(
        0.0, "Seconds by which `complete` comes later than `complete_backoff_ms` asks for."
    )
    complete_closes: bool = _option(False, "Whether the server closes the socket after `complete`.")
    complete_extra: bool = _option(False, "Whether `complete` also has `message` and `done: true`.")
    complete_overtaken: Literal["prompt", "merge", "late"] = _option(
        "prompt",
        "A `complete` still waiting when the next text is spoken: sent first, dropped in favour of the next "
        "one, or sent late, among the next text's frames.",
    )
    empty_turn_complete: bool = _option(False, "Whether a turn without speech gets a `complete`.")
    error_shape: Literal["message", "error", "error_object"] = _option(
        "message", "An error frame has `message`, `error`, or `error: {message, code}`."
    )
    error_closes: bool = _option(False, "Whether an error frame about a request is followed by a close.")
    error_close_code: int = _option(1000, "Close code after an error frame, if it closes.")
    echo_ids: bool = _option(True, "Whether frames echo `session_id` and `request_id` as `external_…`.")
    word_timings: Literal["by_voice", "always", "never"] = _option(
        "by_voice", "Which voices send `word_timestamp` frames when a request asks for them."
    )
    word_times_restart: bool = _option(
        True, "Whether word ids and times start at 0 for each request_id, or run through the turn."
    )
    socket_output_format: Literal["pcm", "honoured"] = _option(
        "pcm", "Whether a TTS WebSocket sends PCM whatever `output_format` says."
    )
    sse_shape: Literal["event", "websocket"] = _option(
        "event", "SSE data as `{audio, done, status}` or, as in old documents, as the WebSocket's frames."
    )

    # --- text to speech: pace ------------------------------------------------------------------------
    first_audio_delay_s: float = _option(0.0, "Seconds from a release to its first audio.")
    chunk_s: float = _option(0.1, "Seconds of audio in one chunk.")
    chunk_bytes: int = _option(0, "Bytes of audio in one chunk, also an odd number. 0: by chunk_s.")
    chunk_interval_s: float = _option(0.0, "Seconds between chunks, at least.")
    generation_speed: float = _option(
        0.0, "Seconds of audio made in one second. 0: as fast as the engine makes it."
    )

    # --- speech to text ------------------------------------------------------------------------------
    stt_models: tuple[str, ...] = _option(("pulse", "pulse-2"), "Models of the live STT endpoint.")
    default_language: str = _option("en", "Language of an STT connection or recording that names none.")
    default_word_timestamps: bool = _option(
        False, "Whether an STT connection that does not say so gets word timings."
    )
    language_required: bool = _option(False, "Whether a live STT connection without `language` is refused.")
    bad_booleans: Literal["rejected", "false"] = _option(
        "rejected", "STT switches that are neither `true` nor `false`."
    )
    region: Literal["", "in", "us"] = _option(
        "", "The region to play: some languages are served in one only. Empty: all are."
    )
    transcript_field: Literal["both", "transcript", "transcription"] = _option(
        "both", "The field of a transcription frame that carries the text."
    )
    partials: bool = _option(True, "Whether interim transcripts are sent.")
    speech_final: bool = _option(True, "Whether a final that silence made carries `speech_final: true`.")
    empty_finalize: Literal["answered", "silent"] = _option(
        "answered", "A `finalize` with nothing said since the last final."
    )
    last_apart: bool = _option(
        False, "Whether `is_last` comes in an empty frame of its own, after the last final."
    )
    speaker_type: Literal["string", "integer"] = _option("string", "How live STT writes `speaker`.")
    stt_keepalive: Literal["pong", "refused", "ignored"] = _option(
        "pong", 'The answer to `{"type":"keepalive"}`.'
    )
    stt_error_shape: Literal["message", "error"] = _option(
        "message", "An STT error frame has `type: error` and `message`, or `error` alone."
    )
    stt_idle_timeout_s: float = _option(
        60.0, "Seconds without a message that end an STT connection. 0: never."
    )
    stt_times_restart: bool = _option(
        True,
        "Whether STT times start at 0 on each socket, or run on from the last socket of the same key and "
        "`external_session_id`.",
    )
    listening_speed: float = _option(
        0.0, "Seconds of audio that live STT hears in one second. 0: as fast as the engine hears it."
    )
    listens_behind: bool = _option(
        False,
        "Whether a slow listener takes audio at once all the same and hears it later: pings are answered at once, "
        "as behind a proxy that buffers.",
    )
    stt_delay_s: float = _option(0.0, "Seconds from audio to the transcript that it makes.")
    max_words: int = _option(30, "Words that force a final where `max_words` is not given. 0: never.")

    # --- HTTP, old paths -----------------------------------------------------------------------------
    old_tts_paths: Literal["served", "gone", "missing"] = _option(
        "served", "`…/get_speech/stream`: served, 410, or 404."
    )
    old_stt_paths: Literal["served", "gone", "missing"] = _option(
        "served", "`…/pulse/get_text`: served, 410, or 404."
    )
    max_upload_mb: int = _option(250, "The largest recording, in MB; a larger one is refused with 413.")
    fetch_urls: Literal["loopback", "any", "none"] = _option(
        "loopback", "Which `url` of a pre-recorded transcription may be fetched."
    )
    content_expiry: str = _option("not-entitled", "The `x-content-expiry` that answers `x-expire-content`.")

    # --- the journal and the control endpoint --------------------------------------------------------
    control: bool = _option(True, "Whether `/_waves_local/…` answers (to loopback clients only).")
    journal_connections: int = _option(500, "Connections that the journal remembers.")
    journal_messages: int = _option(5000, "Messages that the journal remembers of one connection.")
    journal_audio: bool = _option(False, "Whether the journal keeps the audio that it receives.")

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if isinstance(value, (int, float)) and value < 0:
                raise ValueError(f"{option.name} must not be negative")
        if self.chunk_s <= 0:
            raise ValueError("chunk_s must be more than 0")
