"""`wavegate say`: text to speech."""

from __future__ import annotations

import re
import shlex
import time
import unicodedata
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from wavegate.cli.command import Connection, Failure, command, converse
from wavegate.cli.inputs import Utterances, from_thread, read_text, standard_input
from wavegate.cli.options import encoding_option, rate_option, set_option, settings_from
from wavegate.cli.output import Output, ms
from wavegate.cli.playback import SUFFIXES, Sink, choose_sink, encoding_for
from wavegate.cli.signals import LAST_INPUT_S
from wavegate.cli.trace import shown, trace_option
from wavegate.errors import WavegateError
from wavegate.events import AudioChunk, SessionStarted, UtteranceCompleted, UtteranceFailed
from wavegate.settings import AudioEncoding, AudioFormat
from wavegate.speech.v1 import types_pb2
from wavegate.synthesis import SynthesisSession

if TYPE_CHECKING:
    from wavegate.cli.plain_text import PlainText


class _TextCommand(click.Command):
    """Says how to write a text that begins with a dash, which looks like an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = [*args]
        if (text := self._taken_for_options(args)) is not None:
            raise click.UsageError(_behind_dashes(text), ctx)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as exc:
            text = next((a for a in given if a.startswith(exc.option_name)), exc.option_name)
            if " " in text or text[1:2].isdigit():
                raise click.UsageError(_behind_dashes(text), ctx) from exc
            raise

    def _taken_for_options(self, args: list[str]) -> str | None:
        """Return the first argument with a blank that would be read as options of one letter; `None` if none is.

        Values of options are none of them, nor is a file's name that is written right behind `-o`.
        """
        options = (p for p in self.params if isinstance(p, click.Option) and not p.is_flag)
        with_value = {name for option in options for name in option.opts}
        for before, arg in pairwise(["", *args]):
            if arg == "--":
                break
            is_file = arg.startswith("-o") and not arg[2:3].isspace() and Path(arg).suffix.lower() in SUFFIXES
            if re.match(r"-(?!-).*?\s", arg) and before not in with_value and not is_file:
                return arg
        return None


def _behind_dashes(text: str) -> str:
    return f"a text that begins with a dash goes behind --: wavegate say -- {shlex.quote(text)}"


@click.command(cls=_TextCommand)
@click.argument("text", nargs=-1)
@click.option("-o", "--output", metavar="FILE", help="Write the audio there; - is standard output.")
@click.option("--play", is_flag=True, help="Play it.")
@click.option("--raw", is_flag=True, help="Without a WAV header around it.")
@click.option("--voice", metavar="ID", help="See `wavegate voices`.")
@click.option("--model")
@click.option("--language", metavar="CODE", help="BCP-47, such as en or hi-IN.")
@click.option("--speed", type=float, help="0.5 to 2.0.")
@click.option(
    "--plain-text",
    is_flag=True,
    help="Take the text for Markdown, and say what it stands for: no marks, addresses or blocks of code.",
)
@rate_option
@encoding_option(
    "LINEAR16", "MULAW", "ALAW", "MP3", help="Of the audio; by default what the file's name says."
)
@trace_option
@set_option
@command
async def say(
    connection: Connection,
    text: tuple[str, ...],
    output: str | None,
    play: bool,
    raw: bool,
    voice: str | None,
    model: str | None,
    language: str | None,
    speed: float | None,
    plain_text: bool,
    rate: int | None,
    encoding: AudioEncoding | None,
    traced: bool,
    assignments: tuple[str, ...],
) -> None:
    """Speaks TEXT, or what comes on standard input.

    The text is spoken while it comes; a blank line in it ends an utterance. The audio goes to the file of -o (.wav,
    .mp3, .pcm, .ulaw, .alaw), with `-o -` to standard output, with --play to the speakers. Without any of them it is
    played where there are speakers, else written to speech.wav; with --json it is in the events. A text
    that begins with a dash goes behind --.

    \b
      wavegate say "Hello there" -o hello.wav
      llm "Tell me a story" | wavegate say --play --plain-text
      wavegate say -o - < story.txt | aplay
    """
    named = {"voice_id": voice, "model": model, "language_code": language, "speed": speed}
    settings = settings_from(types_pb2.SynthesisSettings, assignments, named)
    encoding = encoding_for(output, encoding)
    in_events = connection.output.as_json and output is None and not play
    if output == "-" and connection.output.as_json:
        raise click.UsageError("standard output carries either JSON or audio: choose a file with -o")
    sink = None if in_events else choose_sink(output, play=play, raw=raw, encoding=encoding)
    words = _checked(" ".join(text))
    from_stdin = not text or text == ("-",)
    stdin = standard_input() if from_stdin else None
    if stdin is not None and stdin.isatty():
        connection.output.note("Type what shall be said; Ctrl-D ends it.")
    elif stdin is not None:
        connection.interruption.input_may_end()
    elif not from_stdin and not _is_something(words):
        raise click.UsageError("there is nothing to say")
    audio_format = AudioFormat(encoding or "LINEAR16", rate or 0)

    def incoming(stdin: BinaryIO) -> AsyncIterator[str]:
        pieces = from_thread(lambda: read_text(stdin))
        return connection.interruption.cut(pieces, patience_s=LAST_INPUT_S)

    async with connection.client() as client:
        session = client.synthesize(audio_format=audio_format, **settings)
        speech = _Speech(connection.output, sink, session, plain_text=plain_text)
        async with shown(connection.output, client, session, traced=traced, to_stderr=output == "-"):
            try:
                with connection.output.live():
                    async with session:
                        await converse(
                            speech.send(words if stdin is None else incoming(stdin)),
                            speech.receive(),
                        )
                if sink is not None:
                    await sink.close()
            except BaseException:
                if sink is not None:
                    sink.abort()
                raise
            if not speech.was_given and connection.interruption.signum is None:
                raise Failure("there is nothing to say", 2)
            speech.summarize()


def _is_something(text: str) -> bool:
    """True if a text has more than blanks and characters that nobody sees or hears, such as controls."""
    return any(not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf") for c in text)


def _checked(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as exc:  # bytes of the command line that were no UTF-8
        raise click.UsageError(f"the text is not UTF-8 (at character {exc.start})") from exc
    return text


_LOOKED_AT_CHARS: Final = 20_000
"""So much of a text is looked at for signs of Markdown."""


def _markdown() -> PlainText:
    from wavegate.cli.plain_text import PlainText  # noqa: PLC0415 - a parser that few texts need

    return PlainText()


class _Speech:
    """One run of the command: text in, audio out, and what is to be told of it."""

    def __init__(
        self, output: Output, sink: Sink | None, session: SynthesisSession, *, plain_text: bool
    ) -> None:
        self._output = output
        self._sink = sink
        self._session = session
        self._began_s: float | None = None
        self._first_audio_s: float | None = None
        self._audio_s = 0.0
        self._audio_bytes = 0
        self._utterances = 0
        self._failure: WavegateError | None = None
        self._markdown = _markdown() if plain_text else None
        self._beginning = ""
        """Of the text, as far as it is looked at for signs of Markdown."""

    async def send(self, text: str | AsyncIterator[str]) -> None:
        """Sends the text as it comes, cut into utterances."""
        utterances = Utterances()
        utterance_id: str | None = None
        if isinstance(text, str):
            pieces = [part for piece in self._plain(text) for part in utterances.feed(piece)]
            await self._send([*pieces, *utterances.end()], None)
        else:
            async for given in text:
                for piece in self._plain(given, ends=False):
                    utterance_id = await self._send([*utterances.feed(piece)], utterance_id)
            for piece in self._plain(""):
                utterance_id = await self._send([*utterances.feed(piece)], utterance_id)
            await self._send([*utterances.end()], utterance_id)
        await self._session.end()

    def _plain(self, text: str, *, ends: bool = True) -> Iterator[str]:
        """What is to be said of a piece of text; `ends` where it is the last."""
        if self._markdown is None:
            self._beginning += text[: max(0, _LOOKED_AT_CHARS - len(self._beginning))]
            yield text
            return
        yield from self._markdown.feed(text)
        if ends:
            yield from self._markdown.end()

    async def _send(self, pieces: list[tuple[str, bool]], utterance_id: str | None) -> str | None:
        for piece, ends in pieces:
            if piece:
                if self._began_s is None:
                    self._began_s = time.monotonic()
                sent = await self._session.send_text(piece, utterance_id=utterance_id, end_utterance=ends)
                utterance_id = None if ends else sent.utterance_id
            elif ends:
                await self._session.end_utterance(utterance_id)
                utterance_id = None
        return utterance_id

    async def receive(self) -> None:
        """Takes the audio to where it goes, and tells of the rest."""
        async for event in self._session:
            self._output.event(event, with_audio=self._sink is None)
            match event:
                case AudioChunk():
                    await self._take(event)
                case UtteranceCompleted():
                    self._utterances += 1
                    self._audio_s += event.metrics.audio_duration_s
                case UtteranceFailed():
                    self._audio_s += event.audio_sent_duration_s
                    self._failure = event.error
                case SessionStarted():
                    self._output.progress("connected")
        if self._failure is not None:
            raise self._failure

    async def _take(self, chunk: AudioChunk) -> None:
        if self._first_audio_s is None:
            self._first_audio_s = time.monotonic()
            if self._sink is not None:
                await self._sink.open(self._session.started.audio_format)
        if self._sink is not None:
            await self._sink.write(chunk.audio)
        self._audio_bytes += len(chunk.audio)
        so_far_s = self._audio_s + chunk.start_offset_s
        self._output.progress(f"first audio after {ms(self._latency_s)}, {so_far_s:.1f} s so far")

    def _sign_of_markdown(self) -> str | None:
        if self._markdown is not None or not any(mark in self._beginning for mark in "#*_`[|-."):
            return None
        from wavegate.cli.plain_text import sign_of_markdown  # noqa: PLC0415 - a parser that few texts need

        return sign_of_markdown(self._beginning)

    @property
    def was_given(self) -> bool:
        """True once there was text to send."""
        return self._began_s is not None

    @property
    def _latency_s(self) -> float | None:
        if self._began_s is None or self._first_audio_s is None:
            return None
        return self._first_audio_s - self._began_s

    def summarize(self) -> None:
        """The last line."""
        if self._output.as_json:
            return
        if self._markdown is not None and (count := self._markdown.blocks_of_code):
            self._output.note(f"{count} block{'' if count == 1 else 's'} of code left out")
        elif sign := self._sign_of_markdown():
            self._output.note(f"This looks like Markdown ({sign}); --plain-text says it without its marks.")
        if not self._audio_bytes:
            self._output.note("There was nothing to say.")
            return
        where = f", {self._sink.where}" if self._sink is not None else ""
        plural = "" if self._utterances == 1 else "s"
        self._output.note(
            f"{self._audio_s:.2f} s of audio, {self._utterances} utterance{plural}, "
            f"first audio after {ms(self._latency_s)}{where}"
        )
