"""Which host serves which language: some are served in one region only. Pure.

A table maps the upstream's language codes to base URLs (scheme, host and port); a language that is not in it is served
where the gateway is pointed at.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from wavegate_server.waves.languages import STT_CODES, TTS_CODES, is_tag, to_upstream

INDIA_URL: Final = "wss://api.smallest.ai"
US_URL: Final = "wss://api.us.smallest.ai"

_CODES: Final = {"stt": STT_CODES, "tts": TTS_CODES}


@dataclass(frozen=True, slots=True)
class Regions:
    """Base URLs by language code, for each kind of session."""

    stt: Mapping[str, str] = field(default_factory=dict)
    tts: Mapping[str, str] = field(default_factory=dict)

    def base_url(self, kind: str, language: str, otherwise: str) -> str:
        """Where this language is served; `otherwise` where the table does not say. `kind` is `stt` or `tts`."""
        table = self.stt if kind == "stt" else self.tts
        if not table or not language:
            return otherwise
        return table.get(to_upstream(language, _CODES[kind])[0], otherwise)


EVERYWHERE: Final = Regions()
"""Every host serves all."""

REAL: Final = Regions(
    stt={
        **dict.fromkeys(("zh", "yue", "ja", "ko", "multi-asian"), US_URL),
        **dict.fromkeys(("ta", "te", "kn", "ml", "multi-south-indic"), INDIA_URL),
    }
)
"""The real service: East Asian languages are heard in the US only, South Indian ones in India only."""


def built_in(base_url: str) -> Regions:
    """The table for a gateway that is pointed at `base_url`: the real service's, or none."""
    hosts = {urlsplit(url).hostname for url in (INDIA_URL, US_URL)}
    return REAL if urlsplit(base_url).hostname in hosts else EVERYWHERE


def parse(text: str, check_url: Callable[[str], str]) -> Regions:
    """A table as TOML: sections `[stt]` and `[tts]` of `language = "URL"`. Raises `ValueError`.

    `check_url` returns a base URL in its plain form, or raises `ValueError`.
    """
    try:
        sections = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ValueError(f"it is not TOML: {exc}") from exc
    tables: dict[str, dict[str, str]] = {}
    for kind, section in sections.items():
        if kind not in _CODES or not isinstance(section, dict):
            raise ValueError(f"it may have the sections [stt] and [tts], and nothing else, such as {kind!r}")
        tables[kind] = {}
        for language, url in section.items():
            if not is_tag(language):
                raise ValueError(f"[{kind}] {language!r} is no language tag")
            if not isinstance(url, str):
                raise ValueError(f"[{kind}] {language} must be a URL in quotes")
            try:
                tables[kind][to_upstream(language, _CODES[kind])[0]] = check_url(url)
            except ValueError as exc:
                raise ValueError(f"[{kind}] {language}: {exc}") from exc
    return Regions(**tables)
