"""`wavegate recognize`: a whole recording in one request."""

from __future__ import annotations

import re
from pathlib import Path

import click

from wavegate.cli.command import Connection, Failure, command
from wavegate.cli.inputs import in_thread, standard_input
from wavegate.cli.options import encoding_option, rate_option, set_option, settings_from
from wavegate.cli.output import event_object
from wavegate.settings import AudioEncoding, AudioFormat
from wavegate.speech.v1 import types_pb2


@click.command()
@click.argument("source", metavar="FILE|URL")
@click.option("--model", help="pulse, or pulse-pro, which takes recordings only.")
@click.option("--language", metavar="CODE", help="BCP-47, such as en or hi-IN.")
@rate_option
@encoding_option(
    "LINEAR16", "LINEAR32", "MULAW", "ALAW", help="Of raw samples; a recording says itself what it is."
)
@set_option
@command
async def recognize(
    connection: Connection,
    source: str,
    model: str | None,
    language: str | None,
    rate: int | None,
    encoding: AudioEncoding | None,
    assignments: tuple[str, ...],
) -> None:
    """Transcribes a recording in one request.

    FILE (WAV, FLAC, MP3, Ogg; `-` is standard input) goes upstream as it is and as a whole, which some models need and
    all understand best; up to 32 MiB. Of a URL the upstream fetches the recording. `wavegate listen` takes any length,
    and prints words while they come.

    \b
      wavegate recognize meeting.mp3 --model pulse-pro --language en
      wavegate recognize https://example.com/meeting.wav
      wavegate recognize call.ulaw --encoding mulaw --rate 8000
    """
    settings = settings_from(
        types_pb2.TranscriptionSettings, assignments, {"model": model, "language_code": language}
    )
    audio_format = None
    if rate is not None or encoding is not None:
        audio_format = AudioFormat(encoding or "LINEAR16", rate or 16000)
    uri = source if re.match(r"https?://", source, re.IGNORECASE) else None
    if uri is not None and audio_format is not None:
        raise click.UsageError("a recording at a URL says itself what it is: leave --rate and --encoding out")
    recording = await _content(source, described=audio_format is not None) if uri is None else None
    async with connection.client() as client:
        found = await client.transcribe_once(recording, uri=uri, audio_format=audio_format, **settings)
    if connection.output.as_json:
        connection.output.json(event_object(found))
    elif found.text:
        connection.output.line(found.text)
    else:
        connection.output.note("Nothing was understood.")


async def _content(source: str, *, described: bool) -> bytes:
    """The recording as it is. Raises `Failure` where nothing is there.

    Raises `AudioFileError` for what holds no audio, unless it is `described` as raw samples, which may look like
    anything.
    """
    if source == "-":
        stdin = standard_input()
        if stdin.isatty():
            raise click.UsageError("standard input is the terminal: pipe a recording in, or name a file")
        name, content = "standard input", await in_thread(stdin.read)
    elif not source:
        raise click.UsageError("the name of the file is empty")
    else:
        name, content = source, await in_thread(Path(source).read_bytes)
    if not content:
        raise Failure(f"{name} is empty", 2)
    if not described:
        from wavegate.recordings import check_content  # noqa: PLC0415 - codecs are slow to load

        check_content(content, name)
    return content
