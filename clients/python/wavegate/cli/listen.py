"""`wavegate listen`: speech to text."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Iterable

import click

from wavegate.audio import RawFormat
from wavegate.cli.command import Connection, command, converse
from wavegate.cli.inputs import is_live
from wavegate.cli.options import encoding_option, rate_option, raw_option, set_option, settings_from
from wavegate.cli.output import ms
from wavegate.cli.recording import Recording
from wavegate.cli.signals import LAST_INPUT_S
from wavegate.cli.trace import shown, trace_option
from wavegate.events import SessionEnded, SpeechEnded, SpeechStarted, Transcript
from wavegate.settings import AudioEncoding, AudioFormat
from wavegate.speech.v1 import types_pb2
from wavegate.transcription import TranscriptionSession

_UNCHANGED = {"--paced": "paced", "--raw": "raw samples", "--channel": "taken apart"}


@click.command()
@click.argument("file")
@click.option("--model")
@click.option("--language", metavar="CODE", help="BCP-47, such as en or hi-IN.")
@rate_option
@encoding_option(
    "LINEAR16",
    "LINEAR32",
    "MULAW",
    "ALAW",
    "OGG_OPUS",
    help="Of the audio as it goes to the gateway; recordings are converted to it.",
)
@raw_option
@click.option(
    "--channel",
    type=click.IntRange(min=1),
    metavar="N",
    help="Hear this channel alone; by default all are mixed.",
)
@click.option(
    "--paced/--fast",
    default=False,
    show_default=True,
    help="Send at the speed of speech, or as fast as it goes.",
)
@trace_option
@set_option
@command
async def listen(
    connection: Connection,
    file: str,
    model: str | None,
    language: str | None,
    rate: int | None,
    encoding: AudioEncoding | None,
    raw: RawFormat | None,
    channel: int | None,
    paced: bool,
    traced: bool,
    assignments: tuple[str, ...],
) -> None:
    """Prints what is said in FILE.

    Each final transcript is a line on standard output; what is not final yet shows on a terminal.

    FILE is a recording, a pipe or - for standard input, and is read while it comes. Its content says what it is, not
    its name: WAV, FLAC, Ogg (Opus, Vorbis, FLAC), MP3, AIFF, AU, CAF or W64, of any rate. Several channels are mixed
    into one. Other kinds, such as M4A and WebM, have to be converted: `ffmpeg -i talk.m4a talk.wav`.

    Raw samples have no header that says what they are: --raw does. Without it, what is no recording of a known kind
    is taken for samples in --encoding at --rate where one of these is given.

    \b
      wavegate listen meeting.mp3 --language en
      arecord -q -f S16_LE -r 16000 -t wav | wavegate listen -
      wavegate listen call.ulaw --raw mulaw,8000
      wavegate listen <(ffmpeg -i talk.m4a -f wav -)
    """
    settings = settings_from(
        types_pb2.TranscriptionSettings, assignments, {"model": model, "language_code": language}
    )
    audio_format = AudioFormat(encoding or "LINEAR16", rate or 16000)
    if audio_format.encoding == "OGG_OPUS" and (paced or raw or channel):
        option = "--paced" if paced else "--raw" if raw else "--channel"
        raise click.UsageError(
            f"Ogg Opus goes out as it is and cannot be {_UNCHANGED[option]}: leave {option} out"
        )
    recording = Recording(
        file,
        audio_format,
        raw=raw,
        # Samples that need no conversion are described already.
        may_be_raw=(rate or encoding) is not None,
        channel=channel,
    )
    source = recording.open()  # before the gateway is asked: a bad file needs none
    connection.interruption.input_may_end()
    async with connection.client() as client:
        session = client.transcribe(audio_format=audio_format, **settings)
        hearing = _Hearing(connection, session)
        async with shown(connection.output, client, session, traced=traced):
            with connection.output.live():
                async with session:
                    await converse(
                        hearing.send(source, paced=paced, is_live=is_live(file)), hearing.receive()
                    )
            for warning in recording.warnings:
                connection.output.note(f"warning: {warning}")
            hearing.summarize()


class _Hearing:
    """One run of the command: audio in, transcripts out, and what is to be told of them."""

    def __init__(self, connection: Connection, session: TranscriptionSession) -> None:
        self._output = connection.output
        self._interruption = connection.interruption
        self._session = session
        self._began_s = time.monotonic()
        self._sent_s: float | None = None
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._audio_s = 0.0
        self._said = False

    async def send(
        self, source: AsyncIterable[bytes] | Iterable[bytes], *, paced: bool, is_live: bool
    ) -> None:
        """Sends the audio, up to the first signal; of a live input also what is still on its way then."""
        await self._interruption.until_told(
            self._session.stream_audio(source, paced=paced), patience_s=LAST_INPUT_S if is_live else 0.0
        )
        self._sent_s = time.monotonic()
        await self._session.end()

    async def receive(self) -> None:
        """Prints finals, shows partials."""
        async for event in self._session:
            self._output.event(event)
            match event:
                case Transcript():
                    self._transcript(event)
                case SpeechStarted():
                    self._output.progress("...")
                case SpeechEnded():
                    self._output.progress("")
                case SessionEnded():
                    self._audio_s = event.usage.audio_duration_s

    def _transcript(self, transcript: Transcript) -> None:
        now_s = time.monotonic()
        if transcript.text and self._first_s is None:
            self._first_s = now_s
        if not transcript.is_final:
            self._output.progress(transcript.text)
            return
        self._last_s = now_s
        self._said = self._said or bool(transcript.text)
        self._output.progress("")
        if transcript.text and not self._output.as_json:
            self._output.line(transcript.text)

    def summarize(self) -> None:
        """The last line."""
        if self._output.as_json:
            return
        if not self._said:
            self._output.note("Nothing was understood.")
            return
        tail = None if self._last_s is None or self._sent_s is None else max(0.0, self._last_s - self._sent_s)
        first = None if self._first_s is None else self._first_s - self._began_s
        heard = f"{self._audio_s:.2f} s of audio, " if self._audio_s else ""
        self._output.note(
            f"{heard}first words after {ms(first)}, the last {ms(tail)} after the end of the audio"
        )
