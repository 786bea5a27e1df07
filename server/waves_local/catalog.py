"""Voices: a part of the real catalogue, enough for what clients ask for by default and for each kind of voice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from waves_local.engine import Voice

_STANDARD = ("lightning_v3.1",)
_PRO = ("lightning_v3.1_pro",)
_V2 = ("lightning_v3.1", "lightning-v2")
_INDIC = (
    "english", "hindi", "marathi", "gujarati", "punjabi", "bengali", "odia", "tamil", "telugu", "kannada", "malayalam",
)  # fmt: skip


def _voice(
    voice_id: str,
    models: tuple[str, ...],
    languages: tuple[str, ...],
    accent: str,
    gender: str,
    *,
    words: bool = False,
) -> Voice:
    return Voice(
        voice_id=voice_id,
        display_name=voice_id.capitalize(),
        models=models,
        languages=languages,
        accent=accent,
        gender=gender,
        age="young",
        usecases=("conversational",),
        word_timestamps=words,
    )


# Word timings: documented for meher, devansh, kartik, maithili, liam and avery only.
VOICES: tuple[Voice, ...] = (
    _voice("meher", _PRO, ("english", "hindi"), "indian", "female", words=True),
    _voice("devansh", _PRO, ("hindi", "english"), "indian", "male", words=True),
    _voice("kartik", _PRO, ("hindi", "english"), "indian", "male", words=True),
    _voice("maithili", _PRO, ("hindi", "english"), "indian", "female", words=True),
    _voice("liam", _PRO, ("english",), "british", "male", words=True),
    _voice("avery", _PRO, ("english",), "american", "female", words=True),
    _voice("kaitlyn", _PRO, ("english",), "american", "female"),
    _voice("mishka", _PRO, _INDIC, "indian", "female"),
    _voice("magnus", _STANDARD, ("english",), "american", "male"),
    _voice("sophia", _STANDARD, ("english",), "american", "female"),
    _voice("jordan", _STANDARD, ("english",), "american", "male"),
    _voice("kanik", _STANDARD, ("english", "hindi"), "indian", "male"),
    _voice("emily", _V2, ("english",), "american", "female"),
    _voice("raj", _V2, ("english", "hindi"), "indian", "male"),
)


def as_listed(voice: Voice) -> dict[str, Any]:
    """A voice as `get_voices` lists it."""
    return {
        "voiceId": voice.voice_id,
        "displayName": voice.display_name,
        "tags": {
            "language": list(voice.languages),
            "accent": voice.accent,
            "gender": voice.gender,
            "age": voice.age,
            "emotions": list(voice.emotions),
            "usecases": list(voice.usecases),
        },
    }


def as_catalogued(voice: Voice) -> dict[str, Any]:
    """A voice as the browsing catalogue lists it."""
    languages = ", ".join(voice.languages)
    return {
        "_id": voice.voice_id.encode().hex().ljust(24, "0")[:24],
        "voiceId": voice.voice_id,
        "displayName": voice.display_name,
        "description": f"{voice.display_name}, {voice.accent} {voice.gender} voice ({languages}).",
        "audioPreview": "",
        "tags": {"age": voice.age, "emotions": list(voice.emotions), "language": list(voice.languages)},
    }


def by_id(voices: Iterable[Voice]) -> dict[str, Voice]:
    return {voice.voice_id: voice for voice in voices}
