"""Values that settings are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = [
    "ApplyPolicy",
    "AudioEncoding",
    "AudioFormat",
    "ContentFilter",
    "JsonValue",
    "Keyword",
    "Numerals",
]

JsonValue = None | bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]

AudioEncoding = Literal["LINEAR16", "LINEAR32", "MULAW", "ALAW", "OPUS", "OGG_OPUS", "MP3", "WAV"]
UNKNOWN = "UNKNOWN"
"""The encoding of a session that a newer client of this caller opened; nothing can be opened with it."""
ContentFilter = Literal["FLAG", "REJECT", "OFF"]
Numerals = Literal["AUTO", "ALWAYS", "NONE"]
ApplyPolicy = Literal["NEXT_BOUNDARY", "IMMEDIATE", "NO_RECONNECT"]
"""How much a change may disturb: wait for the end of an utterance or of speech (5 s at most), happen at once,
or be refused where it needs a reconnect."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """How audio is coded on the wire; fixed for the life of a session. One channel."""

    encoding: AudioEncoding = "LINEAR16"
    sample_rate_hz: int = 0
    """0: the gateway's default, 24000 for speech out and 16000 for speech in."""

    def __post_init__(self) -> None:
        """Check what is the same for every gateway; which rates there are, the gateway says.

        Raises `TypeError` for what is no encoding's name or no whole number, `ValueError` for an encoding that there is
        not, and for a rate below zero.
        """
        names: tuple[str, ...] = get_args(AudioEncoding)
        if not isinstance(self.encoding, str):
            raise TypeError(f"an encoding is one of {', '.join(names)}, not {self.encoding!r}")
        encoding = self.encoding.upper()
        if encoding not in (*names, UNKNOWN):
            raise ValueError(f"there is no encoding {self.encoding!r}; there are {', '.join(names)}")
        object.__setattr__(self, "encoding", encoding)
        if isinstance(self.sample_rate_hz, bool) or not isinstance(self.sample_rate_hz, int):
            raise TypeError(f"a sample rate is a whole number of Hz, not {self.sample_rate_hz!r}")
        if not 0 <= self.sample_rate_hz < 1 << 31:
            raise ValueError(
                f"a sample rate of {self.sample_rate_hz} Hz cannot be; 0 is the gateway's default"
            )


@dataclass(frozen=True, slots=True)
class Keyword:
    """A phrase that the recogniser shall expect."""

    phrase: str
    boost: float | None = None
