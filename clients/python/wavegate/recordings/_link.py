"""The result of every reader of one kind of recording: a link of a stream, notes, or an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from wavegate.errors import Cure
from wavegate.recordings._samples import Samples

__all__ = ["LEFT_OUT", "Link", "NotAudioError", "Notes", "amount", "check_shape", "cut_off", "span"]


LEFT_OUT = "holds {} behind its audio that are no recording of a known kind and were left out"
_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 1000, 10_000_000
_MOST_CHANNELS = 1024


class NotAudioError(Exception):
    """This cannot be decoded; `str()` goes on where the recording's name ends, as in "is no audio file".

    `cure` is as in `AudioFileError`.
    """

    def __init__(self, message: str, cure: Cure = None) -> None:
        super().__init__(message)
        self.cure: Cure = cure


class Notes:
    """Sentences on the parts of a recording that were left out, going on where its name ends; each is told once."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def add(self, sentence: str) -> None:
        """Note it, unless it is noted already."""
        if sentence not in self.sentences:
            self.sentences.append(sentence)


@dataclass(frozen=True, slots=True)
class Link:
    """One of the recordings that may follow each other in a stream: all of its audio has one rate.

    Iterating over `blocks` reads it. Behind the last one the stream is where its audio ends.
    """

    rate_hz: int
    channels: int
    blocks: Iterator[Samples] = field(repr=False)

    def __post_init__(self) -> None:
        check_shape(self.rate_hz, self.channels)


def check_shape(rate_hz: int, channels: int) -> None:
    """Raise `NotAudioError` for a header that was damaged, or is none."""
    if not _LOWEST_RATE_HZ <= rate_hz <= _HIGHEST_RATE_HZ or not 1 <= channels <= _MOST_CHANNELS:
        plural = "" if channels == 1 else "s"
        raise NotAudioError(f"is damaged: {channels} channel{plural} at {rate_hz} Hz cannot be speech")


def amount(count: int) -> str:
    """A number of bytes as a person reads it."""
    if count < 10_000:
        return f"{count} bytes"
    return f"{count / 1e3:.0f} kB" if count < 10_000_000 else f"{count / 1e6:.0f} MB"


def cut_off(claimed: int, there: int, rate_hz: int) -> str:
    """A sentence on frames that a header tells of, and that are not all there."""
    told, heard = span(claimed, rate_hz), span(there, rate_hz)
    if told != heard:
        return f"is cut off: its header tells of {told} of audio, {heard} are there"
    if (missing := claimed - there) > 1:
        return f"is cut off: the last {missing} samples that its header tells of are not there"
    return "is cut off: the last sample that its header tells of is not there"


def span(frames: int, rate_hz: int) -> str:
    """A number of frames as a playing time."""
    return f"{frames / rate_hz:.2f} s"
