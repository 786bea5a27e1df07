"""The voice catalogues: what `GET …/get_voices` says, as values. Sans-IO.

Each family of models has its own. The one of lightning_v3.1 holds the voices of its Pro pool as well, and does not say
which of them are of which.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from wavegate_server import errors
from wavegate_server.waves.languages import TTS_CODES, to_upstream
from wavegate_server.waves.settings import LIGHTNING_V2, canonical_tts_model

VOICES_PATH = "/waves/v1/lightning-v3.1/get_voices"
VOICES_V2_PATH = "/waves/v1/lightning-v2/get_voices"
PATHS = (VOICES_PATH, VOICES_V2_PATH)
"""The catalogues that are known: first the current one, then those of models that may be retired."""

_MODELS = {VOICES_PATH: ("lightning_v3.1", "lightning_v3.1_pro"), VOICES_V2_PATH: (LIGHTNING_V2,)}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

# The catalogue writes languages out in English.
_LANGUAGE_NAMES = {
    "english": "en",
    "hindi": "hi",
    "marathi": "mr",
    "kannada": "kn",
    "tamil": "ta",
    "bengali": "bn",
    "gujarati": "gu",
    "telugu": "te",
    "malayalam": "ml",
    "punjabi": "pa",
    "odia": "or",
    "spanish": "es",
    "german": "de",
    "french": "fr",
    "italian": "it",
    "dutch": "nl",
    "swedish": "sv",
    "portuguese": "pt",
    "russian": "ru",
    "greek": "el",
    "finnish": "fi",
    "norwegian": "no",
    "polish": "pl",
    "arabic": "ar",
    "chinese": "zh",
    "mandarin": "zh",
    "indonesian": "id",
    "japanese": "ja",
    "korean": "ko",
    "malay": "ms",
    "turkish": "tr",
    "vietnamese": "vi",
}

_WORD_TIMING_LANGUAGES = frozenset({"en", "hi"})
"""The upstream times words of English and Hindi voices only (tts-ws, `word_timestamps`)."""


def path_of(model: str) -> str:
    """The catalogue of a model, whether it is known here or not. Raises `errors.InvalidInput` for what is no name."""
    known = next((path for path, models in _MODELS.items() if model in models), None)
    if known is not None:
        return known
    name = model.lower().replace("_", "-")
    if not _NAME.fullmatch(name):
        raise errors.InvalidInput.field("model", "must be the name of a model, such as lightning_v3.1")
    return f"/waves/v1/{name}/get_voices"


def models_of(path: str) -> tuple[str, ...]:
    """The models whose voices a catalogue holds. Empty: they are not known."""
    return _MODELS.get(path, ())


def merged(*catalogues: Iterable[CatalogueVoice]) -> tuple[CatalogueVoice, ...]:
    """Several catalogues as one, sorted by id: a voice that is in more than one has the models of all."""
    found: dict[str, CatalogueVoice] = {}
    for voice in (v for catalogue in catalogues for v in catalogue):
        first = found.setdefault(voice.voice_id, voice)
        if first is not voice:
            models = tuple(dict.fromkeys((*first.models, *voice.models)))
            found[voice.voice_id] = replace(first, models=models)
    return tuple(sorted(found.values(), key=lambda v: v.voice_id))


@dataclass(frozen=True, slots=True)
class CatalogueVoice:
    """A voice. `tags` maps what the catalogue says of it (gender, accent, …) to its values."""

    voice_id: str
    display_name: str
    models: tuple[str, ...]
    language_codes: tuple[str, ...]
    tags: Mapping[str, tuple[str, ...]]
    word_timings_supported: bool

    def serves(self, model: str, language_code: str) -> bool:
        """Whether it fits a filter; an empty filter always does, and so does a model the catalogue is silent on."""
        if model and self.models and model not in self.models:
            return False
        if not language_code:
            return True
        return to_upstream(language_code, TTS_CODES)[0] in self.language_codes


def parse(raw: bytes, models: tuple[str, ...] = ()) -> tuple[CatalogueVoice, ...]:
    """Read a catalogue's answer. `models` are those of a voice of which it does not say any. Raises
    `errors.UpstreamProtocol`."""
    try:
        answer = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise errors.UpstreamProtocol("the upstream's voice catalogue is not JSON") from exc
    voices = answer.get("voices") if isinstance(answer, dict) else None
    if not isinstance(voices, list):
        raise errors.UpstreamProtocol("the upstream's voice catalogue has no list of voices")
    return tuple(_voice(v, models) for v in voices if isinstance(v, dict) and _text(v.get("voiceId")))


def _voice(entry: Mapping[str, Any], family: tuple[str, ...]) -> CatalogueVoice:
    raw_tags = entry.get("tags")
    tags = {str(k): _values(v) for k, v in raw_tags.items()} if isinstance(raw_tags, Mapping) else {}
    codes = tuple(dict.fromkeys(_LANGUAGE_NAMES.get(name.lower(), name) for name in tags.get("language", ())))
    models = entry.get("models", entry.get("model"))
    return CatalogueVoice(
        entry["voiceId"],
        _text(entry.get("displayName")) or entry["voiceId"],
        tuple(canonical_tts_model(m) for m in _values(models)) or family,
        codes,
        {k: v for k, v in tags.items() if v and k != "language"},
        not codes or not _WORD_TIMING_LANGUAGES.isdisjoint(codes),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _values(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value else ()
    if isinstance(value, list):
        return tuple(str(v) for v in value if v not in (None, ""))
    return ()
