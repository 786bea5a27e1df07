"""Every other kind that libsndfile knows: rare ones, and encodings that are rare in their container."""

from __future__ import annotations

from collections.abc import Iterator
from tempfile import SpooledTemporaryFile

import soundfile

from wavegate.recordings._input import Input
from wavegate.recordings._link import Link, NotAudioError
from wavegate.recordings._samples import Decoder, Samples

__all__ = ["open_general"]

_IN_MEMORY_BYTES = 32 << 20


def open_general(source: Input) -> Link:
    """The rest of the stream, decoded once all of it is there: libsndfile jumps back and forth in it."""
    file = SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 - closed behind the last block
    try:
        while content := source.read_some():
            file.write(content)
        file.seek(0)
        decoder = Decoder(file)
    except soundfile.LibsndfileError as exc:
        file.close()
        raise NotAudioError(f"cannot be decoded: {exc.error_string}", "convert") from exc
    except BaseException:
        file.close()
        raise

    def blocks() -> Iterator[Samples]:
        with file, decoder:
            try:
                yield from decoder.blocks()
            except soundfile.LibsndfileError as exc:
                raise NotAudioError(f"is damaged: {exc.error_string}") from exc

    return Link(decoder.samplerate, decoder.channels, blocks())
