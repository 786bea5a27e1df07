"""The catalogue, and how espeak-ng makes each of its voices and languages.

Every voice is a Klatt synthesis at its own pitch: formants and a voiced source by formula, the kind that the
recogniser understands best, and American English ones by far. (Word error rates over 20 sentences, with the
library's own settings: Klatt 0.08, espeak-ng's usual voice 0.50, Klatt with a British accent 0.35.) Women speak
higher, but with the formants of men: shorter vocal tracts came back as 0.3 to 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

from waves_local.engine import Voice

STANDARD = "lightning_v3.1"
PRO = "lightning_v3.1_pro"
OLD = "lightning-v2"


@dataclass(frozen=True, slots=True)
class SpokenVoice:
    """A voice of the catalogue with its settings for espeak-ng."""

    listed: Voice
    language: str
    """The language it speaks where a request names none, e.g. `en`."""
    english: str
    """The espeak-ng voice for its accent of English."""
    variant: str
    pitch: int
    """0 to 100; 50 is a low male voice of about 100 Hz."""
    pitch_range: int
    """0 (monotone) to 100; 50 is usual."""


_ENGLISH_BY_ACCENT = {"american": "en-us", "british": "en"}

# What the catalogue calls a language, and espeak-ng's voice for its code.
_LANGUAGES = {
    "ar": ("arabic", "ar"),
    "bn": ("bengali", "bn"),
    "de": ("german", "de"),
    "el": ("greek", "el"),
    "en": ("english", "en-us"),
    "es": ("spanish", "es"),
    "fi": ("finnish", "fi"),
    "fr": ("french", "fr"),
    "gu": ("gujarati", "gu"),
    "hi": ("hindi", "hi"),
    "id": ("indonesian", "id"),
    "it": ("italian", "it"),
    "ja": ("japanese", "ja"),
    "kn": ("kannada", "kn"),
    "ko": ("korean", "ko"),
    "ml": ("malayalam", "ml"),
    "mr": ("marathi", "mr"),
    "ms": ("malay", "ms"),
    "nl": ("dutch", "nl"),
    "no": ("norwegian", "nb"),
    "or": ("odia", "or"),
    "pa": ("punjabi", "pa"),
    "pl": ("polish", "pl"),
    "pt": ("portuguese", "pt"),
    "ru": ("russian", "ru"),
    "sv": ("swedish", "sv"),
    "ta": ("tamil", "ta"),
    "te": ("telugu", "te"),
    "tr": ("turkish", "tr"),
    "vi": ("vietnamese", "vi"),
    "yue": ("cantonese", "yue"),
    "zh": ("chinese", "cmn"),
}
_ESPEAK_ACCENTS = {"en-gb": "en", "en-us": "en-us", "pt-br": "pt-br", "es-419": "es-419", "es-mx": "es-419"}


def espeak_language(code: str, voice: SpokenVoice) -> str:
    """The espeak-ng voice for a language code (`de`, `pt-BR`); English in the voice's accent for an unknown one."""
    code = code.lower().replace("_", "-")
    if code in _ESPEAK_ACCENTS:
        return _ESPEAK_ACCENTS[code]
    primary = code.partition("-")[0]
    return voice.english if primary == "en" or primary not in _LANGUAGES else _LANGUAGES[primary][1]


def _voice(
    voice_id: str,
    models: tuple[str, ...],
    languages: str,
    accent: str,
    gender: str,
    age: str,
    espeak: tuple[str, int, int],
    usecases: tuple[str, ...] = ("conversational",),
) -> SpokenVoice:
    variant, pitch, pitch_range = espeak
    codes = languages.split()
    return SpokenVoice(
        Voice(
            voice_id=voice_id,
            display_name=voice_id.capitalize(),
            models=models,
            languages=tuple(_LANGUAGES[code][0] for code in codes),
            accent=accent,
            gender=gender,
            age=age,
            usecases=usecases,
            # As with the real service, only some voices send any.
            word_timestamps=OLD not in models and codes[0] in {"en", "hi"},
        ),
        language=codes[0],
        english=_ENGLISH_BY_ACCENT.get(accent, "en-us"),
        variant=variant,
        pitch=pitch,
        pitch_range=pitch_range,
    )


_BOTH = (STANDARD, PRO)
_INDIC = "hi mr gu pa bn or ta te kn ml"
_TELLER = ("narration", "audiobook")
_AGENT = ("conversational", "support")

VOICES = {
    spoken.listed.voice_id: spoken
    for spoken in (
        _voice("magnus", _BOTH, "en", "american", "male", "middle aged", ("klatt3", 50, 50), _TELLER),
        _voice("avery", _BOTH, "en", "american", "female", "young", ("klatt5", 72, 55)),
        _voice("jordan", (STANDARD,), "en", "american", "male", "young", ("klatt5", 50, 50), _AGENT),
        _voice("mia", (STANDARD,), "en", "american", "female", "young", ("klatt5", 80, 60)),
        _voice("kaitlyn", _BOTH, "en", "american", "female", "middle aged", ("klatt3", 70, 50), _AGENT),
        _voice("sophia", (STANDARD,), "en", "american", "female", "young", ("klatt3", 75, 55)),
        _voice("walter", (STANDARD,), "en", "american", "male", "senior", ("klatt3", 35, 40), _TELLER),
        _voice("ruth", (STANDARD,), "en", "american", "female", "senior", ("klatt3", 65, 40), _TELLER),
        _voice("liam", _BOTH, "en", "british", "male", "young", ("klatt3", 50, 50)),
        _voice("imogen", (STANDARD,), "en", "british", "female", "middle aged", ("klatt5", 72, 50), _TELLER),
        _voice("meher", _BOTH, "en hi", "indian", "female", "young", ("klatt5", 70, 50), _AGENT),
        _voice("devansh", _BOTH, "hi en", "indian", "male", "young", ("klatt3", 45, 50)),
        _voice("kartik", _BOTH, "hi en", "indian", "male", "middle aged", ("klatt5", 42, 45), _AGENT),
        _voice("maithili", _BOTH, "hi en mr", "indian", "female", "young", ("klatt3", 72, 60)),
        _voice("mishka", (PRO,), f"en {_INDIC}", "indian", "female", "young", ("klatt5", 76, 60)),
        _voice("kanik", (STANDARD,), "en hi", "indian", "male", "young", ("klatt5", 47, 55)),
        _voice("lukas", _BOTH, "de nl sv en", "german", "male", "middle aged", ("klatt3", 42, 45)),
        _voice("ines", _BOTH, "es pt en", "spanish", "female", "young", ("klatt5", 74, 60)),
        _voice("chiara", _BOTH, "it en", "italian", "female", "young", ("klatt5", 78, 60)),
        _voice("mathis", _BOTH, "fr en", "french", "male", "young", ("klatt3", 55, 55)),
        _voice("mei", (PRO,), "zh en", "chinese", "female", "young", ("klatt5", 75, 60)),
        _voice("emily", (STANDARD, OLD), "en", "american", "female", "young", ("klatt5", 68, 45)),
        _voice("raj", (STANDARD, OLD), "en hi", "indian", "male", "middle aged", ("klatt3", 40, 45)),
        _voice("jasmine", (OLD,), "en", "american", "female", "middle aged", ("klatt3", 68, 60)),
    )
}
