"""What a command shows: data on stdout, everything else on stderr.

On a terminal stderr has one live line besides; in a pipe there are plain lines only. With `--json` stdout carries
one JSON object a line.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TextIO

import click
from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from wavegate.errors import WavegateError
from wavegate.events import ConnectionEvent, GatewayWarning, GoAway, SessionMoved, SessionResumed


def standard_output() -> TextIO:
    """Return standard output; raises `click.UsageError` where the process was started without one, as by `>&-`."""
    if sys.stdout is None:
        raise click.UsageError("standard output is closed")
    return sys.stdout


class Output:
    """The two streams of one command."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        # A fresh console each time: the streams may have been replaced since this module was loaded.
        self._console = Console(file=sys.stderr, highlight=False)
        self._live: Live | None = None

    def line(self, text: str) -> None:
        """A line of data."""
        stdout = standard_output()
        if not stdout.isatty():
            click.echo(text)
        elif self._live is not None:
            print_wrapped(self._console, text)  # above the line that changes
        else:
            print_wrapped(Console(file=stdout, highlight=False), text)

    def json(self, value: Mapping[str, Any]) -> None:
        """An object of data."""
        standard_output()
        click.echo(json.dumps(value, ensure_ascii=False))

    def note(self, text: str, *, indent: int = 0) -> None:
        """A line for the person at the terminal; where it is too long, the rest is indented by so many columns."""
        if self._console.is_terminal:
            print_wrapped(self._console, text, indent=indent)
        else:
            click.echo(text, err=True)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Shows a line that changes, while on a terminal."""
        if not self._console.is_terminal or self.as_json:
            yield
            return
        with Live(
            console=self._console,
            transient=True,
            refresh_per_second=12,
            redirect_stdout=False,  # data stays data
            redirect_stderr=False,
        ) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def progress(self, text: str) -> None:
        """The line that changes; of a long one the end."""
        if self._live is not None:
            room = self._console.width - 1
            text = text if len(text) <= room else "…" + text[-(room - 1) :]
            self._live.update(Text(text, style="dim", no_wrap=True))

    def event(self, event: object, *, with_audio: bool = False) -> None:
        """An event: as JSON, or as a note where it is something to know."""
        if self.as_json:
            self.json(event_object(event, with_audio=with_audio))
        elif isinstance(event, GatewayWarning):
            self.note(f"warning: {event.message} ({event.reason})")
        elif isinstance(event, GoAway):
            self.note(f"the gateway shuts down in {event.time_left_s:.0f} s: {event.reason}")
        elif isinstance(event, SessionResumed):
            self.note(f"the connection was lost for {event.outage_s:.1f} s; nothing is missing")
        elif isinstance(event, SessionMoved):
            lost = f"; {event.lost_audio_s:.1f} s of audio were lost" if event.lost_audio_s else ""
            self.note(f"moved to another session at {event.target}{lost}")
        elif isinstance(event, ConnectionEvent) and event.reason != "INITIAL":
            cause = f": {event.cause.message}" if event.cause else ""
            self.note(f"upstream {event.state.lower()} ({event.reason.lower()}){cause}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows of data: in a pipe tab-separated lines without a head; on a terminal a table, or a paragraph for each
        row where the terminal is too narrow for one."""
        stdout = standard_output()
        if not stdout.isatty():
            for row in rows:
                self.line("\t".join(row))
            return
        console = Console(file=stdout, highlight=False)
        table = Table(box=None, pad_edge=False, header_style="bold")
        widths = []
        for at, name in enumerate(columns):
            # What is in the first column is copied into other commands: it is never broken.
            words = [word for row in (columns, *rows) for word in ([row[at]] if at == 0 else row[at].split())]
            widths.append(max(map(cell_len, words), default=0))
            table.add_column(name, no_wrap=at == 0, min_width=widths[-1])
        if sum(widths) + _GAP * (len(columns) - 1) > console.width:
            for first, *others in rows:
                print_wrapped(console, first)
                named = zip(columns[1:], others, strict=True)
                print_wrapped(console, "  " + ", ".join(f"{name} {cell}" for name, cell in named if cell))
            return
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)


_GAP = 2
"""Between two columns of a table."""


def print_wrapped(console: Console, text: str, *, indent: int = 0) -> None:
    """Print a text with its lines broken between words. A word that is too long for a line stays whole."""
    for line in text.split("\n"):
        hang = max(indent, len(line) - len(line.lstrip()))
        lead = line[:hang]
        for part in _parts(line[hang:], max(console.width - hang, 20)):
            console.print(Text(lead + part), soft_wrap=True)
            lead = " " * hang


def wrapped(text: str, width: int) -> str:
    """A text with its lines broken between words."""
    return "\n".join(part for line in text.split("\n") for part in _parts(line, width))


def _parts(line: str, room: int) -> Iterator[str]:
    """A line in parts of at most `room` columns, or of one word."""
    part = ""
    for word in line.split(" "):
        longer = f"{part} {word}" if part else word
        if part.strip() and cell_len(longer) > room:
            yield part.rstrip()
            part = word
        else:
            part = longer
    yield part


def event_object(event: object, *, with_audio: bool = False) -> dict[str, Any]:
    """An event as a JSON object: its name, then its fields as far as they are known.

    Audio itself is there only if asked for, in base64.
    """
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()
    return {"event": name, **_fields(event, with_audio=with_audio)}


def _fields(value: Any, *, with_audio: bool) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        if isinstance(content, bytes):
            result[f"{field.name}_bytes"] = len(content)
            if with_audio:
                result[field.name] = base64.b64encode(content).decode()
        elif content is not None:
            result[field.name] = _plain(content)
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, WavegateError):
        return error_object(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if dataclasses.is_dataclass(value):
        return _fields(value, with_audio=False)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return round(value, 6) if isinstance(value, float) else value


def error_object(error: WavegateError) -> dict[str, Any]:
    """A failure as a JSON object."""
    return {
        "code": error.code,
        "reason": error.reason,
        "message": error.message,
        "retryable": error.retryable,
        "retry_delay_s": error.retry_delay_s,
        "field_violations": [_plain(v) for v in error.field_violations],
        "quota_violations": [_plain(v) for v in error.quota_violations],
    }


def ms(duration_s: float | None) -> str:
    """A duration for people, in milliseconds."""
    return "-" if duration_s is None else f"{duration_s * 1000:.0f} ms"
