"""Where audio goes: a file, standard output, the speakers."""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, cast

import click

from wavegate.audio import RawFormat, WavWriter
from wavegate.cli.inputs import in_thread
from wavegate.cli.output import standard_output
from wavegate.settings import AudioEncoding, AudioFormat

SUFFIXES: dict[str, AudioEncoding | None] = {
    ".wav": None,
    ".mp3": "MP3",
    ".pcm": "LINEAR16",
    ".raw": "LINEAR16",
    ".ulaw": "MULAW",
    ".alaw": "ALAW",
}
"""What a file's name says of the encoding; a WAV file holds any but MP3."""


class Sink(ABC):
    """Takes audio. `open` is called before the first of it, once its format is known."""

    where: str
    """As the end of a sentence: where the audio is now."""

    @abstractmethod
    async def open(self, audio_format: AudioFormat) -> None:
        """Makes ready."""

    @abstractmethod
    async def write(self, audio: bytes) -> None:
        """Takes audio; returns when there is room for more."""

    def drop(self) -> None:  # noqa: B027 - a file keeps what it has
        """Forgets what was taken and is not heard yet."""

    @abstractmethod
    async def close(self) -> None:
        """Completes what was written, or plays it to its end."""

    @abstractmethod
    def abort(self) -> None:
        """Lets go at once."""


class StreamSink(Sink):
    """A file or a pipe: a WAV container around raw audio unless `raw`, MP3 as it is."""

    def __init__(self, path: Path | None, *, raw: bool) -> None:
        self.where = f"in {path}" if path else "on standard output"
        self._path = path
        self._raw = raw
        self._is_file = path is not None and (path.is_file() or not path.exists())
        """False where a reader may keep a writer waiting: standard output, a FIFO, a device."""
        self._stream: BinaryIO | None = None
        self._wav: WavWriter | None = None
        self._is_writing = False

    async def open(self, audio_format: AudioFormat) -> None:
        """Creates the file; waits for the reader of a FIFO."""
        if self._path is None:
            self._stream = _standard_output()
        elif self._is_file:
            self._stream = self._path.open("wb")
        else:
            self._stream = cast(BinaryIO, await in_thread(_Unbuffered, self._path, "wb"))
        if audio_format.encoding == "MP3":
            return
        if not self._raw:
            self._wav = WavWriter(self._stream, audio_format)
        elif self._path:  # without a header only whoever knows what it is can read it
            raw = RawFormat.of(audio_format)
            described = f"--raw {raw.encoding},{raw.sample_rate_hz}"
            self.where += f" (to hear it: wavegate listen {shlex.quote(str(self._path))} {described})"

    async def write(self, audio: bytes) -> None:
        """Appends; for a pipe in a thread, since its reader may be slow."""
        assert self._stream is not None
        write = self._wav.write if self._wav else self._stream.write
        if self._is_file:
            write(audio)
            return
        self._is_writing = True
        await in_thread(self._pipe, write, audio)
        self._is_writing = False

    def _pipe(self, write: Any, audio: bytes) -> None:
        write(audio)
        assert self._stream is not None
        self._stream.flush()  # somebody may be listening already

    async def close(self) -> None:
        """Completes the file."""
        self._complete()

    def abort(self) -> None:
        """Completes the file with what there is. A pipe that nobody reads is left as it is."""
        if self._is_writing:
            return
        with contextlib.suppress(OSError):  # what went wrong first is told, not this
            self._complete()

    def _complete(self) -> None:
        if self._stream is not None:
            if self._wav:
                self._wav.close()
            self._stream.flush()
            if self._path:
                self._stream.close()


class _Unbuffered(io.FileIO):
    """A descriptor that takes all of what is written. Python's own buffer has a lock, and a thread that waits in it for
    a reader would hold up the end of the process."""

    def write(self, content: Any) -> int:
        rest = memoryview(content)
        while rest:
            rest = rest[super().write(rest) :]
        return len(content)


def _standard_output() -> BinaryIO:
    try:
        return cast(BinaryIO, _Unbuffered(sys.stdout.fileno(), "wb", closefd=False))
    except io.UnsupportedOperation:  # something else has been put in its place
        return sys.stdout.buffer


class SpeakerSink(Sink):
    """The default speakers, with sounddevice."""

    where = "played"

    def __init__(self) -> None:
        self._device: Any = None
        self._format = AudioFormat()

    async def open(self, audio_format: AudioFormat) -> None:
        """Starts the device."""
        self._format = audio_format
        self._start()

    def _start(self) -> None:
        self._device = import_module("sounddevice").RawOutputStream(
            samplerate=self._format.sample_rate_hz, channels=1, dtype="int16"
        )
        self._device.start()

    async def write(self, audio: bytes) -> None:
        """Plays; returns when the device has room for more."""
        await in_thread(self._device.write, audio)

    def drop(self) -> None:
        """Falls silent."""
        self.abort()
        self._start()

    async def close(self) -> None:
        """Waits until everything is heard."""
        if self._device is not None:
            await in_thread(self._device.stop)
            self._device.close()

    def abort(self) -> None:
        """Falls silent for good."""
        if self._device is not None:
            self._device.abort()
            self._device.close()


def speakers_missing() -> str | None:
    """Why nothing can be played here; `None` if it can."""
    try:
        sounddevice = import_module("sounddevice")
    except ImportError:
        return "playing needs the package sounddevice: pip install 'wavegate[play]'"
    except OSError:
        return "playing needs PortAudio, which is not installed here (Debian: apt install libportaudio2)"
    try:
        sounddevice.check_output_settings(channels=1, dtype="int16")
    except Exception as exc:
        return f"this machine has no speakers that can be used ({exc})"
    return None


def choose_sink(output: str | None, *, play: bool, raw: bool, encoding: AudioEncoding | None) -> Sink:
    """The sink for `-o` and `--play`; raises `click.UsageError` for what does not go together."""
    if play and output is not None:
        raise click.UsageError("choose one: -o FILE or --play")
    if play or output is None:
        missing = speakers_missing()
        if missing is None and encoding in (None, "LINEAR16"):
            return SpeakerSink()
        if play:
            raise click.UsageError(missing or f"{encoding} cannot be played: leave --encoding out")
        output = "speech.mp3" if encoding == "MP3" else "speech.wav"
    if output == "-":
        if standard_output().isatty():
            raise click.UsageError("audio would go to the terminal: pipe it on, or name a file with -o")
        return StreamSink(None, raw=raw)
    path = Path(output)
    if path.is_dir():
        raise click.UsageError(f"{path} is a directory: name a file in it")
    if not path.parent.is_dir():
        raise click.UsageError(f"there is no directory {path.parent} for {path.name}")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise click.UsageError(f"{path.name} says nothing of its format: end it in {', '.join(SUFFIXES)}")
    if suffix == ".wav" and encoding == "MP3":
        raise click.UsageError("MP3 does not go into a WAV file: name it .mp3")
    return StreamSink(path, raw=raw or suffix not in (".wav", ".mp3"))


def encoding_for(output: str | None, encoding: AudioEncoding | None) -> AudioEncoding | None:
    """What a file's name says of the encoding, where no option says it; raises where the two differ."""
    implied = SUFFIXES.get(Path(output).suffix.lower()) if output and output != "-" else None
    if implied and encoding and implied != encoding:
        raise click.UsageError(f"{output} stands for {implied}, not {encoding}: change one of the two")
    return encoding or implied
