"""Language tags of callers (BCP-47) to the upstream's own codes.

The upstream's codes are ISO 639-1 with a few of its own. Its tables go stale, so a code that is not listed
here is passed on, and the caller is warned.
"""

from __future__ import annotations

import re

# `language` of the TTS API description; `auto` lets the upstream decide.
TTS_CODES = frozenset(
    "auto en hi mr kn ta bn gu te ml pa or es de fr it nl sv pt ru el fi no pl ar zh id ja ko ms tr vi".split()
)
# `language` of the streaming and the pre-recorded STT API descriptions together, and `pa`, which clients that
# work send.
STT_CODES = frozenset(
    (
        "en hi de es ru it fr nl pt zh yue ja ko gu mr or bn ta te kn ml north_indic multi-asian "
        "multi-south-indic uk pl cs sk lv et ro fi sv bg hu da lt mt multi-eu multi-indic pa"
    ).split()
)

# Tags whose primary subtag is not the upstream's code: regional and macrolanguage tags, ISO 639-2/3 codes.
_WHOLE_TAGS = {
    "zh-hk": "yue",
    "zh-yue": "yue",
    "zh-mo": "yue",
    "multi-eu": "multi-eu",
    "multi-asian": "multi-asian",
    "multi-indic": "multi-indic",
    "multi-south-indic": "multi-south-indic",
    "north-indic": "north_indic",
}
_PRIMARY = {
    "nb": "no",
    "nn": "no",
    "cmn": "zh",
    "in": "id",
    "eng": "en",
    "hin": "hi",
    "mar": "mr",
    "kan": "kn",
    "tam": "ta",
    "ben": "bn",
    "guj": "gu",
    "tel": "te",
    "mal": "ml",
    "pan": "pa",
    "ori": "or",
    "spa": "es",
    "deu": "de",
    "fra": "fr",
    "ita": "it",
    "nld": "nl",
    "swe": "sv",
    "por": "pt",
    "rus": "ru",
    "zho": "zh",
    "jpn": "ja",
    "kor": "ko",
    "arb": "ar",
    "ukr": "uk",
    "pol": "pl",
    "ces": "cs",
    "slk": "sk",
    "lav": "lv",
    "est": "et",
    "ron": "ro",
    "fin": "fi",
    "bul": "bg",
    "hun": "hu",
    "dan": "da",
    "lit": "lt",
    "mlt": "mt",
    "ell": "el",
    "nor": "no",
    "nob": "no",
    "nno": "no",
    "tur": "tr",
    "vie": "vi",
    "ind": "id",
    "msa": "ms",
    "ory": "or",
    "ekk": "et",
    "lvs": "lv",
}
_TAG = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*")


def is_tag(tag: str) -> bool:
    """Whether `tag` has the shape of a language tag, known or not."""
    return len(tag) <= 35 and _TAG.fullmatch(tag) is not None


def to_upstream(tag: str, known: frozenset[str]) -> tuple[str, bool]:
    """Map a tag to the upstream's code; the flag says whether the code is one of `known`.

    An unknown tag comes back as the caller wrote it.
    """
    if tag in known:
        return tag, True
    folded = tag.lower().replace("_", "-")
    if folded in known:
        return folded, True
    whole = _WHOLE_TAGS.get(folded)
    if whole in known:
        return whole, True
    primary = folded.partition("-")[0]
    code = _PRIMARY.get(primary, primary)
    if code in known:
        return code, True
    return tag, False
