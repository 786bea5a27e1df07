"""The recording of `wavegate listen`: where it comes from, and what helps if it cannot be decoded."""

from __future__ import annotations

import re
import shlex
import stat
from collections.abc import AsyncIterable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from wavegate.audio import RawFormat
from wavegate.cli.command import Failure
from wavegate.cli.inputs import from_thread, standard_input
from wavegate.errors import AudioFileError
from wavegate.settings import AudioFormat

if TYPE_CHECKING:
    from wavegate.recordings import AudioSource

_SUGGESTED = {
    **dict.fromkeys((".ulaw", ".ul", ".mulaw"), "mulaw,8000"),
    **dict.fromkeys((".alaw", ".al"), "alaw,8000"),
    **dict.fromkeys((".sln", ".sln8"), "s16le,8000"),
}
"""Raw formats that a name hints at; suggested where the content has said nothing, and never assumed."""


_COMPRESSED = (".gsm", ".g722", ".g729", ".vox", ".ima", ".adpcm")
"""Names of recordings without a header whose samples are compressed."""


class Recording:
    """A file, a pipe or standard input in the gateway's format."""

    def __init__(
        self,
        file: str,
        audio_format: AudioFormat,
        *,
        raw: RawFormat | None,
        may_be_raw: bool,
        channel: int | None,
    ) -> None:
        self._file = file
        self._format = audio_format
        self._raw = raw
        self._may_be_raw = may_be_raw
        self._channel = channel
        self._source: AudioSource | None = None

    @property
    def warnings(self) -> list[str]:
        """Sentences on the parts left out so far."""
        return self._source.warnings if self._source else []

    def open(self) -> AsyncIterable[bytes] | Iterable[bytes]:
        """Its audio, as it comes. An error of a file that is there already is raised at once."""
        if self._file == "-":
            stdin = standard_input()
            if stdin.isatty():
                raise click.UsageError("standard input is the terminal: pipe audio in, or name a file")
            return from_thread(lambda: self._read(stdin, "standard input"))
        if not self._file:
            raise click.UsageError("the name of the file is empty")
        if re.match(r"https?://", self._file, re.IGNORECASE):
            address = shlex.quote(self._file)
            raise click.UsageError(
                f"listen takes no addresses: wavegate recognize {address}, "
                f"or: curl -fsSL {address} | wavegate listen -"
            )
        mode = Path(self._file).stat().st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode):
            return from_thread(lambda: self._read(self._file, self._file))  # its first byte may take its time
        self._source = self._opened(self._file, self._file)
        return self._pieces(self._source)

    def _read(self, origin: str | BinaryIO, name: str) -> Iterator[bytes]:
        self._source = self._opened(origin, name)
        yield from self._pieces(self._source)

    def _opened(self, origin: str | BinaryIO, name: str) -> AudioSource:
        from wavegate.recordings import open_audio  # noqa: PLC0415 - codecs are slow to load

        described = None
        if self._may_be_raw and self._format.encoding != "OGG_OPUS":
            described = RawFormat.of(self._format)
        try:
            return open_audio(
                origin,
                self._format,
                name=name,
                raw=self._raw or described,
                raw_unless_known=self._raw is None,
                channel=self._channel,
            )
        except AudioFileError as exc:
            raise self._failure(exc) from exc

    def _pieces(self, source: AudioSource) -> Iterator[bytes]:
        try:
            with source:
                yield from source
        except AudioFileError as exc:
            raise self._failure(exc) from exc

    def _failure(self, error: AudioFileError) -> Failure:
        from wavegate.recordings import TAKEN  # noqa: PLC0415 - codecs are slow to load

        path = Path(self._file)
        name = "-" if self._file == "-" else shlex.quote(self._file)
        lines = [str(error)]
        cure = "convert" if error.cure == "raw" and path.suffix.lower() in _COMPRESSED else error.cure
        if cure == "raw":
            raw = _SUGGESTED.get(path.suffix.lower(), "s16le,16000")
            lines.append(f"known by their content are {TAKEN}")
            lines.append(f"raw samples have to be described, as in: wavegate listen {name} --raw {raw}")
        elif cure == "convert" and self._file != "-" and path.is_file():
            converted = shlex.quote(f"{path.stem}.wav")
            lines.append(f"convert it first: ffmpeg -i {name} {converted} && wavegate listen {converted}")
        elif cure == "convert":
            lines.append("convert it first: ... | ffmpeg -i - -f wav - | wavegate listen -")
        return Failure("\n  ".join(lines), 2)
