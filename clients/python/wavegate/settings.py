"""Settings of a session: what a caller may set, and what the gateway says is in force.

A setting that is not given stays as it is. Durations are seconds (`..._s`); names are otherwise the contract's, and
so is what is said of each.
"""

from __future__ import annotations

from wavegate.speech.v1.settings import (
    SynthesisOptions,
    SynthesisSettings,
    TranscriptionOptions,
    TranscriptionSettings,
)
from wavegate.values import (
    ApplyPolicy,
    AudioEncoding,
    AudioFormat,
    ContentFilter,
    JsonValue,
    Keyword,
    Numerals,
)

__all__ = [
    "ApplyPolicy",
    "AudioEncoding",
    "AudioFormat",
    "ContentFilter",
    "JsonValue",
    "Keyword",
    "Numerals",
    "SynthesisOptions",
    "SynthesisSettings",
    "TranscriptionOptions",
    "TranscriptionSettings",
]
