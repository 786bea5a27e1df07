"""A recording as the gateway takes it: one channel, one rate, one raw encoding."""

from __future__ import annotations

import atexit
import io
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, ClassVar
from weakref import WeakSet

import numpy as np
import numpy.typing as npt
import soxr

from wavegate.audio import RAW_ENCODINGS, RawFormat
from wavegate.errors import AudioFileError
from wavegate.recordings import _kinds, _pcm
from wavegate.recordings._input import Input
from wavegate.recordings._link import LEFT_OUT, Link, NotAudioError, Notes, amount
from wavegate.recordings._mix import mixed
from wavegate.recordings._ogg import is_ogg_opus
from wavegate.recordings._samples import Samples, encode
from wavegate.settings import AudioEncoding, AudioFormat

__all__ = ["AudioSource", "decode", "open_audio"]

DEFAULT_INPUT_RATE_HZ = 16000

_PIECE_S = 0.1
"""Playing time that is handed on at a time, at most."""


class AudioSource(AbstractContextManager["AudioSource"]):
    """A recording that is converted while it is read: an iterator of pieces of at most 0.1 s; `open_audio` makes it."""

    def __init__(self, name: str, pieces: Iterator[bytes], notes: Notes, stream: BinaryIO | None) -> None:
        self._name = name
        self._pieces = pieces
        self._notes = notes
        self._stream = stream
        self._waiting: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The next piece, once the stream has it. Raises `AudioFileError` where nothing more can be decoded."""
        if self._waiting:
            return self._waiting.pop()
        try:
            return next(self._pieces)
        except NotAudioError as exc:
            raise AudioFileError(f"{self._name} {exc}", exc.cure) from exc

    def _wait_for_audio(self) -> None:
        first = next(self, None)
        if first is not None:
            self._waiting.append(first)

    @property
    def warnings(self) -> list[str]:
        """Sentences on the parts left out so far; complete once the iteration has ended.

        A recording that is cut off or damaged gives what can be decoded, and is told of here.
        """
        return [f"{self._name} {sentence}" for sentence in self._notes.sentences]

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a stream that was handed in stays open."""
        if self._stream is not None:
            self._stream.close()


def open_audio(
    source: str | Path | bytes | BinaryIO,
    audio_format: AudioFormat,
    *,
    name: str | None = None,
    raw: RawFormat | None = None,
    raw_unless_known: bool = False,
    channel: int | None = None,
) -> AudioSource:
    """A recording of any rate and number of channels in a raw format, converted while it is read.

    `source` is a path, the recording itself, or a binary stream, which need not seek or end: pipes, FIFOs and devices
    are read as files are. Its content says which kind it is: WAV, FLAC, Ogg (Opus, Vorbis, FLAC), MP3, AIFF, AU, CAF,
    W64, several of them after each other, and what else libsndfile knows. `raw` says instead that it is samples
    without a header, and of which kind; with `raw_unless_known` that counts only where the content shows nothing else.
    Several channels are mixed into one, in which every voice is as loud as in its own; `channel` takes one alone,
    counted from 1. For OGG_OPUS it has to be such a stream, which then goes out as it is. A rate of 0 is 16000 Hz.
    `name` is what errors call it.

    Returns once the first audio is there, which blocks for as long as the stream does. Raises `AudioFileError` for
    what is no recording or holds no audio, `OSError` for what cannot be read, `ValueError` for a format into which
    nothing is converted here.
    """
    stream: BinaryIO
    own = isinstance(source, str | Path | bytes)
    if isinstance(source, bytes):
        name, stream = name or "the recording", io.BytesIO(source)
    elif isinstance(source, str | Path):
        name, stream = name or str(source), Path(source).open("rb", buffering=0)  # noqa: SIM115
    else:
        name, stream = name or str(getattr(source, "name", "the stream")), source
    try:
        pieces, notes = _open(stream, audio_format, raw, raw_unless_known, channel)
        result = AudioSource(name, pieces, notes, stream if own else None)
        result._wait_for_audio()
        return result
    except NotAudioError as exc:
        if own:
            stream.close()
        raise AudioFileError(f"{name} {exc}", exc.cure) from exc
    except BaseException:
        if own:
            stream.close()
        raise


def _open(
    stream: BinaryIO,
    audio_format: AudioFormat,
    raw: RawFormat | None,
    raw_unless_known: bool,
    channel: int | None,
) -> tuple[Iterator[bytes], Notes]:
    source, notes = Input(stream), Notes()
    if audio_format.encoding == "OGG_OPUS":
        if not is_ogg_opus(source):
            raise NotAudioError("is no Ogg Opus file; choose another encoding and it is converted")
        return iter(source.read_some, b""), notes
    if audio_format.encoding not in RAW_ENCODINGS:
        raise ValueError(
            f"no file can be converted to {audio_format.encoding} here; there are {', '.join(RAW_ENCODINGS)}"
        )
    rate_hz = audio_format.sample_rate_hz or DEFAULT_INPUT_RATE_HZ
    if source.ended:
        raise NotAudioError("is empty")
    if raw is not None and not raw_unless_known:
        link = _pcm.open_raw(source, raw, notes)
    else:
        _kinds.skip_tags(source)
        known = _kinds.next_link(source, notes, is_first=True, raw_expected=raw is not None)
        if known is None:
            assert raw is not None, "otherwise it is a recording, or an error"
            if raw == RawFormat.of(AudioFormat(audio_format.encoding, rate_hz)) and channel in (None, 1):
                return _pcm.untouched(source, raw, notes), notes
            link = _pcm.open_raw(source, raw, notes)
        else:
            link = known
    return _converted(_links(link, source, notes), rate_hz, audio_format.encoding, channel), notes


def _links(link: Link | None, source: Input, notes: Notes) -> Iterator[Link]:
    """The recordings that follow each other in a stream, from this one on."""
    while link is not None:
        yield link
        _kinds.skip_tags(source)
        if source.ended:
            return
        link = _kinds.next_link(source, notes, is_first=False)
    if left_out := _left_out(source):
        notes.add(LEFT_OUT.format(amount(left_out)))


def _left_out(source: Input) -> int:
    """How much is there behind the audio; 0 where it is a tag or nothing but zeros."""
    count, is_zero = 0, True
    if source.peek(3) == b"TAG" or source.peek(8) in (b"APETAGEX", b"LYRICSBE"):
        return 0
    while content := source.read_some():
        count += len(content)
        is_zero = is_zero and not any(content)
        if count > 1 << 30:  # an endless stream
            break
    return 0 if is_zero else count


def _converted(
    links: Iterator[Link], rate_hz: int, encoding: AudioEncoding, channel: int | None
) -> Iterator[bytes]:
    heard = False
    for link in links:
        blocks = _one_channel(link, channel)
        resampler = None if link.rate_hz == rate_hz else _Resampler(link.rate_hz, rate_hz)
        for block in blocks:
            heard = heard or bool(len(block))
            samples = block if resampler is None else resampler.resampled(block)
            yield from _pieces(samples, rate_hz, encoding)
        if resampler is not None:
            yield from _pieces(resampler.resampled(np.zeros(0, np.float32), last=True), rate_hz, encoding)
    if not heard:
        raise NotAudioError("holds no audio")


class _Resampler:
    """A stream of samples at another rate, of one channel, until the process ends.

    A daemon thread that waits for a pipe holds what it works with for ever; of a soxr object that is still held at
    the end its library complains on standard error.
    """

    _all: ClassVar[WeakSet[_Resampler]] = WeakSet()

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._stream: soxr.ResampleStream | None = soxr.ResampleStream(from_hz, to_hz, 1, "float32")
        self._all.add(self)

    def resampled(self, samples: Samples, *, last: bool = False) -> Samples:
        """Return what is ready once `samples` are in, with `last` all of it. Nothing once the process ends."""
        stream = self._stream
        return np.zeros(0, np.float32) if stream is None else stream.resample_chunk(samples, last=last)

    @classmethod
    def let_go(cls) -> None:
        """Drop every resampler that is still in use."""
        for resampler in list(cls._all):
            resampler._stream = None


atexit.register(_Resampler.let_go)


def _one_channel(link: Link, channel: int | None) -> Iterator[Samples]:
    if channel is None:
        return mixed(link.blocks, link.channels, link.rate_hz)
    if not 1 <= channel <= link.channels:
        have = "one channel" if link.channels == 1 else f"{link.channels} channels"
        raise NotAudioError(f"has {have}: there is no channel {channel}")
    return (block[:, channel - 1] for block in link.blocks)


def _pieces(samples: Samples, rate_hz: int, encoding: AudioEncoding) -> Iterator[bytes]:
    step = max(1, int(rate_hz * _PIECE_S))
    for at in range(0, len(samples), step):
        yield encode(samples[at : at + step], encoding)


def decode(source: str | Path | bytes, sample_rate_hz: int) -> npt.NDArray[np.int16]:
    """A whole recording as 16-bit samples of one channel. Raises as `open_audio` does."""
    with open_audio(source, AudioFormat("LINEAR16", sample_rate_hz)) as audio:
        return np.frombuffer(b"".join(audio), np.dtype("<i2"))
