"""The settings of both kinds of session, one row a field.

A set of settings is a plain mapping from the contract's field name to a value; a name that is absent is not
set. The same mapping is the initial configuration, the delta and the echo. Everything that is done with a
field — checking it, sending it upstream, saying how a change of it takes effect — reads its row here.

Durations are seconds (float). `keywords` is a tuple of `Keyword`, `extra` a plain dict.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

from wavegate_server.errors import Violation
from wavegate_server.waves import languages

Settings = Mapping[str, Any]

IDENTIFIER = re.compile(r"[A-Za-z0-9_.-]{1,128}")
"""Ids that a caller may give; the upstream's own rule for `session_id` and `request_id`."""


@dataclass(frozen=True, slots=True)
class Keyword:
    """A phrase to boost. `boost` is the upstream's INTENSIFIER; None leaves it to the upstream (1.0)."""

    phrase: str
    boost: float | None = None


class Kind(Enum):
    """Type of a field's value."""

    TEXT = "text"
    LANGUAGE = "language"
    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    DURATION = "duration"
    NUMERALS = "numerals"
    CONTENT_FILTER = "content_filter"
    KEYWORDS = "keywords"
    EXTRA = "extra"


class Place(Enum):
    """Where a field takes effect."""

    UPSTREAM = "upstream"
    GATEWAY = "gateway"
    """Never sent: the gateway does it."""


@dataclass(frozen=True, slots=True)
class Field:
    """One setting. `upstream` is its name in the upstream's message or URL."""

    name: str
    kind: Kind
    upstream: str = ""
    low: float = -math.inf
    high: float = math.inf
    models: tuple[str, ...] = ()
    """Models that have it; empty means all."""

    @property
    def place(self) -> Place:
        return Place.UPSTREAM if self.upstream else Place.GATEWAY


@dataclass(frozen=True, slots=True)
class Schema:
    """The fields of one kind of session."""

    arm: str
    """Name of the oneof arm: `synthesis` or `transcription`."""
    fields: tuple[Field, ...]
    canonical_model: Callable[[str], str]
    languages: frozenset[str]
    owned: frozenset[str]
    """Upstream names that the gateway itself sends, so that `extra` may not."""

    def field(self, name: str) -> Field | None:
        return next((f for f in self.fields if f.name == name), None)

    def names(self) -> frozenset[str]:
        return frozenset(f.name for f in self.fields)


LIGHTNING_V2 = "lightning-v2"


def canonical_tts_model(model: str) -> str:
    """The upstream's spelling of a TTS model name that users write with hyphens or underscores."""
    folded = model.strip().lower().replace("-", "_")
    if folded == "lightning_v2":
        return LIGHTNING_V2
    return folded if folded.startswith("lightning_") else model.strip()


def canonical_stt_model(model: str) -> str:
    """The upstream's spelling of an STT model name."""
    return model.strip().lower().replace("_", "-")


# Ranges: tts-ws (speed, buffer, backoff), the lightning-v2 API (consistency, similarity, enhancement). The
# continuations way allows 5 s of buffering; the flush way 1 s, which `check` narrows.
SYNTHESIS = Schema(
    arm="synthesis",
    canonical_model=canonical_tts_model,
    languages=languages.TTS_CODES,
    fields=(
        Field("voice_id", Kind.TEXT, "voice_id"),
        Field("model", Kind.TEXT, "model"),
        Field("language_code", Kind.LANGUAGE, "language"),
        Field("number_language_code", Kind.LANGUAGE, "number_pronunciation_language"),
        Field("speed", Kind.FLOAT, "speed", 0.5, 2.0),
        Field("word_timings", Kind.BOOL, "word_timestamps"),
        Field("math_notation", Kind.BOOL, "math_notation"),
        Field("max_buffer_delay", Kind.DURATION, "max_buffer_delay_ms", 0, 5),
        Field("completion_backoff", Kind.DURATION, "complete_backoff_ms", 0, 10),
        Field("max_chunk_bytes", Kind.INT, "", 1, 2**20),
        Field("consistency", Kind.FLOAT, "consistency", 0, 1, (LIGHTNING_V2,)),
        Field("similarity", Kind.FLOAT, "similarity", 0, 1, (LIGHTNING_V2,)),
        Field("enhancement", Kind.INT, "enhancement", 0, 2, (LIGHTNING_V2,)),
        Field("extra", Kind.EXTRA, "extra"),
        Field("content_filter", Kind.CONTENT_FILTER, "content_filter"),
    ),
    owned=frozenset(
        "text voice_id model language number_pronunciation_language speed word_timestamps math_notation "
        "max_buffer_delay_ms max_buffer_flush_ms complete_backoff_ms consistency similarity enhancement "
        "content_filter sample_rate output_format session_id request_id context_id continue flush "
        "cancel_request".split()
    ),
)

# No range is documented for the timeouts; a minute is far beyond any use of them and catches a wrong unit.
TRANSCRIPTION = Schema(
    arm="transcription",
    canonical_model=canonical_stt_model,
    languages=languages.STT_CODES,
    fields=(
        Field("model", Kind.TEXT, "model"),
        Field("language_code", Kind.LANGUAGE, "language"),
        Field("interim_results", Kind.BOOL),
        Field("word_timings", Kind.BOOL),
        Field("sentence_timings", Kind.BOOL, "sentence_timestamps"),
        Field("diarization", Kind.BOOL, "diarize"),
        Field("voice_activity_events", Kind.BOOL),
        Field("end_of_utterance_timeout", Kind.DURATION, "eou_timeout_ms", 0, 60),
        Field("auto_finalize_on_words", Kind.BOOL, "finalize_on_words"),
        Field("max_words", Kind.INT, "max_words", 1, 10_000),
        Field("formatting", Kind.BOOL, "format"),
        Field("punctuation", Kind.BOOL, "punctuate"),
        Field("capitalization", Kind.BOOL, "capitalize"),
        Field("inverse_text_normalization", Kind.BOOL, "itn_normalize"),
        Field("redact_pii", Kind.BOOL, "redact_pii"),
        Field("redact_pci", Kind.BOOL, "redact_pci"),
        Field("keywords", Kind.KEYWORDS, "keywords"),
        Field("full_transcript", Kind.BOOL),
        Field("numerals", Kind.NUMERALS, "numerals"),
        Field("extra", Kind.EXTRA, "extra"),
        Field("endpointing", Kind.BOOL, "endpointing"),
        Field("endpointing_timeout", Kind.DURATION, "endpointing_timeout", 0, 60),
        Field("emotion_detection", Kind.BOOL, "emotion_detection", models=("pulse-2",)),
        Field("gender_detection", Kind.BOOL, "gender_detection", models=("pulse-2",)),
        Field("vad_threshold", Kind.FLOAT, "vad_threshold", 0, 1),
        Field("vad_min_speech", Kind.DURATION, "vad_min_speech_ms", 0, 60),
        Field("no_format_delay", Kind.BOOL, "no_format_delay"),
    ),
    owned=frozenset(
        "model language sample_rate encoding word_timestamps vad_events vad sentence_timestamps diarize "
        "eou_timeout_ms finalize_on_words max_words format punctuate capitalize itn_normalize redact_pii "
        "redact_pci keywords full_transcript numerals endpointing endpointing_timeout emotion_detection "
        "gender_detection vad_threshold vad_min_speech_ms no_format_delay external_session_id".split()
    ),
)

MAX_KEYWORDS = 10_000
"""Upstream's limit a session (stt-live, `keywords`)."""


def merge(base: Settings, delta: Settings, reset: Iterable[str], defaults: Settings) -> dict[str, Any]:
    """Apply a delta: reset names go back to `defaults`, set names take the delta's value."""
    merged = dict(base)
    for name in reset:
        if name in defaults:
            merged[name] = defaults[name]
        else:
            merged.pop(name, None)
    merged.update(delta)
    return merged


def canonical(schema: Schema, settings: Settings) -> dict[str, Any]:
    """Spell the model as the upstream does; leave all else as the caller wrote it."""
    result = dict(settings)
    if isinstance(model := result.get("model"), str):
        result["model"] = schema.canonical_model(model)
    return result


def unknown_languages(schema: Schema, settings: Settings) -> list[tuple[str, str]]:
    """Fields whose language the tables do not list: (field name, tag)."""
    return [
        (f.name, settings[f.name])
        for f in schema.fields
        if f.kind is Kind.LANGUAGE
        and f.name in settings
        and not languages.to_upstream(settings[f.name], schema.languages)[1]
    ]


def check(
    schema: Schema,
    given: Settings,
    prefix: str,
    *,
    effective: Settings | None = None,
    max_buffer_delay_s: float = 5.0,
) -> list[Violation]:
    """Every violation in `given`, with paths under `prefix`.

    `effective` is what would be in force with `given` applied: fields that only some models have are checked
    against it. `max_buffer_delay_s` is the bound of the protocol in use.
    """
    found: list[Violation] = []
    for field in schema.fields:
        if field.name not in given:
            continue
        bound = max_buffer_delay_s if field.name == "max_buffer_delay" else field.high
        for suffix, text in _problems(schema, field, given[field.name], bound):
            found.append(Violation(f"{prefix}.{field.name}{suffix}", text))
    if effective is not None:
        model = effective.get("model", "")
        for field in schema.fields:
            if field.models and field.name in effective and model not in field.models:
                # Where it was not set now, it is the model that changed, or that was reset.
                name = field.name if field.name in given else "model"
                only = f"{field.name} exists with {' and '.join(field.models)} only, not with {model!r}"
                found.append(Violation(f"{prefix}.{name}", only))
    return found


def _problems(schema: Schema, field: Field, value: Any, high: float) -> Iterable[tuple[str, str]]:
    """Pairs of (path suffix, what is wrong and what would be right)."""
    match field.kind:
        case Kind.TEXT:
            if not value.strip():
                yield "", "must not be empty; leave it out for the default"
            elif len(value) > 128 or not value.isprintable():
                yield "", "must be at most 128 printable characters"
        case Kind.LANGUAGE:
            if not languages.is_tag(value):
                yield "", "must be a BCP-47 language tag such as 'en' or 'hi-IN'"
        case Kind.INT | Kind.FLOAT:
            if not field.low <= value <= high:  # nor is NaN
                yield "", f"must be from {_decimal(field.low)} to {_decimal(high)}, got {_decimal(value)}"
        case Kind.DURATION:
            if not field.low <= value <= high:
                yield "", f"must be from {_decimal(field.low)} to {_decimal(high)} s, got {_decimal(value)} s"
        case Kind.KEYWORDS:
            yield from _keyword_problems(value)
        case Kind.EXTRA:
            yield from _extra_problems(schema, value)


def _keyword_problems(keywords: tuple[Keyword, ...]) -> Iterable[tuple[str, str]]:
    if len(keywords) > MAX_KEYWORDS:
        yield "", f"at most {MAX_KEYWORDS} keywords, got {len(keywords)}"
        return
    for index, keyword in enumerate(keywords):
        at = f".keywords[{index}]"
        if not keyword.phrase.strip():
            yield f"{at}.phrase", "must not be empty"
        elif "," in keyword.phrase or ":" in keyword.phrase:
            yield f"{at}.phrase", "must hold neither ',' nor ':'; the upstream separates keywords by them"
        if keyword.boost is not None and not (math.isfinite(keyword.boost) and keyword.boost > 0):
            yield f"{at}.boost", f"must be a number above 0, got {_decimal(keyword.boost)}"


_CREDENTIALS = frozenset(
    "auth authorization authorisation authentication bearer jwt passwd passphrase pwd credential credentials cookie "
    "signature".split()
)
_CREDENTIAL_ENDS = (
    "token",
    "secret",
    "password",
    "apikey",
    "authkey",
    "accesskey",
    "secretkey",
    "privatekey",
)
_CREDENTIAL_KEYS = frozenset(
    {"api", "access", "private", "secret", "auth", "subscription", "account", "client"}
)
"""What stands before `key` where it is no key of a map or of music."""
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def is_credential(key: str) -> bool:
    """Whether a parameter of this name would hold a credential, however the name is written."""
    words = [w.lower() for w in _WORDS.findall(key)]
    named_key = any(w == "key" and (n == 0 or words[n - 1] in _CREDENTIAL_KEYS) for n, w in enumerate(words))
    return (
        named_key
        or not _CREDENTIALS.isdisjoint(words)
        or any(w.endswith(_CREDENTIAL_ENDS) for w in (*words, "".join(words)))
    )


def _folded(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def _extra_problems(schema: Schema, extra: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for key, value in extra.items():
        if _folded(key) in schema.owned:
            yield f".{key}", "belongs to the gateway; use the setting of its own"
        elif is_credential(key):
            yield (
                f".{key}",
                "looks like a credential; the gateway sends its own, and none may stand in a setting",
            )
        elif not key.strip():
            yield "", "a key must not be empty"
        elif schema is TRANSCRIPTION and not isinstance(value, str | int | float):
            yield f".{key}", "must be a string, a number or a boolean: it becomes a URL parameter"
        elif not _finite(value):
            yield f".{key}", "must not hold NaN or an infinite number: JSON has none"


def _finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_finite(v) for v in value.values())
    if isinstance(value, list):
        return all(_finite(v) for v in value)
    return not isinstance(value, float) or math.isfinite(value)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _decimal(number: float) -> str:
    """A number as people and URLs write it: exact, whole ones without a point, none with an exponent."""
    if not math.isfinite(number):
        return str(number)
    return format(Decimal(repr(number)).normalize() + 0, "f")


CONTENT_FILTERS: dict[str, dict[str, Any]] = {
    "flag": {"enabled": True, "action": "flag"},
    "reject": {"enabled": True, "action": "reject"},
    "off": {"enabled": False},
}
# STT `numerals`: pipecat sends "auto", LiveKit "true" and "false".
NUMERALS = {"auto": "auto", "always": "true", "none": "false"}


def upstream_value(schema: Schema, field: Field, value: Any) -> Any:
    """The value as JSON (synthesis); transcription puts it through `query_value` as well."""
    match field.kind:
        case Kind.LANGUAGE:
            return languages.to_upstream(value, schema.languages)[0]
        case Kind.DURATION:
            return _milliseconds(value)
        case Kind.CONTENT_FILTER:
            return CONTENT_FILTERS[value]
        case Kind.NUMERALS:
            return NUMERALS[value]
        case Kind.KEYWORDS:
            return ",".join(k.phrase if k.boost is None else f"{k.phrase}:{_decimal(k.boost)}" for k in value)
        case _:
            return value


def upstream_values(schema: Schema, settings: Settings) -> dict[str, Any]:
    """All set fields under the upstream's names; `extra` is unfolded among them."""
    out: dict[str, Any] = {}
    for field in schema.fields:
        if field.name not in settings or not field.upstream:
            continue
        value = settings[field.name]
        if field.kind is Kind.EXTRA:
            out.update(value)
        elif field.kind is Kind.KEYWORDS and not value:
            continue  # an empty parameter would register one empty keyword
        else:
            out[field.upstream] = upstream_value(schema, field, value)
    return out


def query_value(value: Any) -> str:
    """A value as the upstream reads it in a URL."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    return _decimal(value) if isinstance(value, float) else str(value)
