"""The fields of a TTS request: types, ranges and defaults, as documented, for sockets and HTTP alike."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from waves_local.engine import VoiceRequest
from waves_local.options import Options

MODELS = ("lightning_v3.1", "lightning_v3.1_pro")
MODEL_V2 = "lightning-v2"
LANGUAGES = frozenset(
    "auto en hi mr kn ta bn gu te ml pa or es de fr it nl sv pt ru el fi no pl ar zh id ja ko ms tr vi".split()
)
# The older model's documents name one more language.
LANGUAGES_V2 = LANGUAGES | {"he"}
SAMPLE_RATES_HZ = (8000, 16000, 24000, 44100)
OUTPUT_FORMATS = ("pcm", "wav", "mp3", "mulaw", "ulaw", "alaw")

ID_PATTERN = re.compile(r"[a-zA-Z0-9_\-.]{1,128}\Z")
_CLONE = re.compile(r"voice_[A-Za-z0-9_\-]+\Z")

_CONTINUATION_FIELDS = frozenset({"context_id", "max_buffer_delay_ms", "cancel_request"})
_V2_FIELDS = frozenset({"consistency", "similarity", "enhancement"})
_KNOWN_FIELDS = (
    frozenset(
        "text voice_id model language number_pronunciation_language math_notation sample_rate speed "
        "session_id request_id word_timestamps continue flush max_buffer_flush_ms complete_backoff_ms "
        "output_format content_filter pronunciation_dicts".split()
    )
    | _CONTINUATION_FIELDS
    | _V2_FIELDS
)


class RequestError(Exception):
    """Raised when a request is not what the documents allow. The message is meant for the client."""

    def __init__(self, message: str, code: str = "INVALID_REQUEST") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class TtsRequest:
    """One message of a TTS socket, or the body of a TTS POST."""

    text: str = ""
    voice_id: str = ""
    model: str = MODELS[0]
    language: str | None = None
    number_language: str | None = None
    math_notation: bool = False
    sample_rate_hz: int = 44100
    speed: float = 1.0
    session_id: str | None = None
    request_id: str | None = None
    word_timestamps: bool = False
    continues: bool = False
    flush: bool = False
    max_buffer_flush_ms: int = 0
    complete_backoff_ms: float = 4000
    output_format: str = "pcm"
    context_id: str | None = None
    max_buffer_delay_ms: int = 3000
    cancel: bool = False
    filter_action: str | None = None
    consistency: float | None = None
    similarity: float | None = None
    enhancement: int | None = None
    is_bare_flush: bool = False
    """`{"flush": true}` and nothing else: it speaks what is buffered, with the settings of that."""

    def voice_request(self, text: str) -> VoiceRequest:
        """What the engine is asked."""
        # An omitted language follows the numbers' language, as documented.
        return VoiceRequest(
            text=text,
            voice_id=self.voice_id,
            model=self.model,
            language=self.language or self.number_language,
            number_language=self.number_language,
            speed=self.speed,
            sample_rate_hz=self.sample_rate_hz,
            math_notation=self.math_notation,
            consistency=self.consistency,
            similarity=self.similarity,
            enhancement=self.enhancement,
        )


class _Fields:
    """Reads fields one by one. `null` counts as not given."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._body = body

    def has(self, name: str) -> bool:
        return self._body.get(name) is not None

    def string(self, name: str) -> str | None:
        value = self._body.get(name)
        if value is not None and not isinstance(value, str):
            raise RequestError(f"'{name}' must be a string.")
        return value

    def choice(self, name: str, allowed: tuple[str, ...] | frozenset[str]) -> str | None:
        value = self.string(name)
        if value is not None and value not in allowed:
            raise RequestError(
                f"'{name}' must be one of: {', '.join(sorted(allowed))}. Received: {value[:64]}"
            )
        return value

    def boolean(self, name: str) -> bool:
        value = self._body.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise RequestError(f"'{name}' must be a boolean.")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        value = self._body.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise RequestError(f"'{name}' must be a number.")
        if not low <= value <= high:
            raise RequestError(f"'{name}' must be between {low:g} and {high:g}.")
        return float(value)

    def integer(self, name: str, low: int, high: int) -> int | None:
        value = self._body.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise RequestError(f"'{name}' must be an integer.")
        if not low <= value <= high:
            raise RequestError(f"'{name}' must be between {low} and {high}.")
        return value

    def identifier(self, name: str) -> str | None:
        value = self.string(name)
        if value is not None and not ID_PATTERN.match(value):
            raise RequestError(
                f"'{name}' may hold only letters, digits, hyphens, underscores and dots, at most 128 of them."
            )
        return value


def read_request(
    body: Any, options: Options, voices: frozenset[str], *, over_socket: bool, is_v2: bool = False
) -> TtsRequest:
    """Check a message or body. Raises RequestError.

    `voices` are the ids of the catalogue. `is_v2` is for the old lightning-v2 paths, whose model is in the path.
    """
    if not isinstance(body, dict):
        raise RequestError("The request must be a JSON object.")
    fields = _Fields(body)

    if over_socket and options.continuations != "on":
        if options.continuations == "rejected":
            for name in sorted(_CONTINUATION_FIELDS & body.keys()):
                raise RequestError(f"Unrecognized field: '{name}'.")
        body = {k: v for k, v in body.items() if k not in _CONTINUATION_FIELDS}
        fields = _Fields(body)
    if options.unknown_fields == "rejected":
        for name in sorted(body.keys() - _KNOWN_FIELDS):
            raise RequestError(f"Unrecognized field: '{name[:64]}'.")

    # Two messages need no text: one that drops a context, and the bare flush that some clients send.
    context_id = (
        (fields.identifier("context_id") if body.get("context_id") != "" else None) if over_socket else None
    )
    cancel = fields.boolean("cancel_request") if over_socket else False
    if cancel:
        if context_id is None:
            raise RequestError("'cancel_request' needs a 'context_id'.")
        return TtsRequest(
            context_id=context_id,
            cancel=True,
            session_id=fields.identifier("session_id"),
            request_id=fields.identifier("request_id"),
        )
    if over_socket and body.keys() <= {"flush", "continue"} and fields.boolean("flush"):
        return TtsRequest(flush=True, continues=fields.boolean("continue"), is_bare_flush=True)

    text = fields.string("text")
    if text is None:
        raise RequestError("The 'text' field is required.")
    if options.max_text_chars and len(text) > options.max_text_chars:
        raise RequestError(f"'text' may have at most {options.max_text_chars} characters.")
    voice_id = fields.string("voice_id")
    if not voice_id:
        raise RequestError("The 'voice_id' field is required.")
    if options.unknown_voices == "rejected" and voice_id not in voices and not _CLONE.match(voice_id):
        raise RequestError(f"Voice not found: {voice_id[:64]}", "VOICE_NOT_FOUND")

    if is_v2:
        model = MODEL_V2
    else:
        model = fields.string("model") or MODELS[0]
        if options.hyphenated_models == "accepted":
            model = model.replace("-", "_")
        if model not in MODELS:
            raise RequestError(
                f"'model' must be one of: {', '.join(MODELS)}. Received: {model[:64]}", "INVALID_MODEL"
            )

    languages = LANGUAGES_V2 if is_v2 else LANGUAGES
    if options.unknown_languages == "accepted":
        language, number_language = fields.string("language"), fields.string("number_pronunciation_language")
    else:
        language = fields.choice("language", languages)
        number_language = fields.choice("number_pronunciation_language", languages)

    sample_rate_hz = fields.integer("sample_rate", 1, 1_000_000)
    if sample_rate_hz is not None and sample_rate_hz not in SAMPLE_RATES_HZ:
        raise RequestError(f"'sample_rate' must be one of: {', '.join(map(str, SAMPLE_RATES_HZ))}.")

    filter_action = _filter_action(body.get("content_filter"))
    if filter_action == "reject" and _is_filtered(text, options.filtered_words):
        raise RequestError("The text was blocked by the content filter.", "CONTENT_FILTER_BLOCKED")
    dicts = body.get("pronunciation_dicts")
    if dicts is not None and not (isinstance(dicts, list) and all(isinstance(d, str) for d in dicts)):
        raise RequestError("'pronunciation_dicts' must be a list of strings.")

    defaults = TtsRequest()
    speed = fields.number("speed", 0.5, 2.0)
    max_buffer_flush_ms = fields.integer("max_buffer_flush_ms", 0, 1000)
    complete_backoff_ms = fields.number("complete_backoff_ms", 0, 10000)
    max_buffer_delay_ms = fields.integer("max_buffer_delay_ms", 0, 5000)
    return TtsRequest(
        text=text,
        voice_id=voice_id,
        model=model,
        language=language,
        number_language=number_language,
        math_notation=fields.boolean("math_notation"),
        sample_rate_hz=defaults.sample_rate_hz if sample_rate_hz is None else sample_rate_hz,
        speed=1.0 if speed is None else speed,
        session_id=fields.identifier("session_id"),
        request_id=fields.identifier("request_id"),
        word_timestamps=fields.boolean("word_timestamps"),
        continues=fields.boolean("continue"),
        flush=fields.boolean("flush"),
        max_buffer_flush_ms=0 if max_buffer_flush_ms is None else max_buffer_flush_ms,
        complete_backoff_ms=(
            options.default_complete_backoff_ms if complete_backoff_ms is None else complete_backoff_ms
        ),
        output_format=fields.choice("output_format", OUTPUT_FORMATS) or "pcm",
        context_id=context_id,
        max_buffer_delay_ms=(
            options.default_max_buffer_delay_ms if max_buffer_delay_ms is None else max_buffer_delay_ms
        ),
        filter_action=filter_action,
        consistency=fields.number("consistency", 0, 1) if is_v2 else None,
        similarity=fields.number("similarity", 0, 1) if is_v2 else None,
        enhancement=_integral(fields.number("enhancement", 0, 2)) if is_v2 else None,
    )


def _integral(value: float | None) -> int | None:
    if value is not None and value != int(value):
        raise RequestError("'enhancement' must be an integer.")
    return None if value is None else int(value)


def _filter_action(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("enabled"), bool):
        raise RequestError("'content_filter' must be an object with a boolean 'enabled'.")
    action = value.get("action", "reject")
    if action not in {"reject", "flag"}:
        raise RequestError("'content_filter.action' must be one of: flag, reject.")
    return action if value["enabled"] else None


def _is_filtered(text: str, words: tuple[str, ...]) -> bool:
    heard = set(re.findall(r"\w+", text.casefold()))
    return any(word.casefold() in heard for word in words)
