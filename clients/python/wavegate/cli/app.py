"""The commands put together."""

from __future__ import annotations

import os
import sys
import textwrap
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click
from rich.console import Console

from wavegate.cli import demo, listen, live_sessions, recognize, say, trace, voices
from wavegate.cli.command import EXIT_CODES, Failure, common_options
from wavegate.cli.output import wrapped
from wavegate.errors import AudioFileError

EPILOG = "\b\nExit codes:\n" + "\n".join(
    textwrap.fill(text, 76, initial_indent=f"  {code:<5}", subsequent_indent=" " * 7, break_on_hyphens=False)
    for code, text in EXIT_CODES
)


class _App(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Turns what commands raise into sentences and exit codes."""
        try:
            return super().invoke(ctx)
        except click.UsageError as exc:
            console = Console(stderr=True)
            if not console.is_terminal:
                raise
            text = wrapped(exc.format_message(), console.width - len("Error: "))
            raise click.UsageError(text, exc.ctx or ctx) from exc
        except KeyboardInterrupt:
            raise Failure("interrupted", 130) from None
        except BrokenPipeError:
            # Nothing more can be written, not even what Python would flush at its end.
            if sys.stdout is not None:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(141)
        except OSError as exc:
            name = f"{exc.filename}: " if exc.filename else ""
            raise Failure(f"{name}{exc.strerror or exc}", 2) from exc
        except AudioFileError as exc:
            raise Failure(str(exc), 2) from exc


def _version() -> str:
    for distribution in ("wavegate", "wavegate-client"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "0+unknown"  # a source tree that was never installed


@click.group(cls=_App, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), message="%(version)s")
@common_options
@click.pass_context
def app(ctx: click.Context, /, **common: Any) -> None:
    """Speaks and listens through a wavegate speech gateway."""
    ctx.obj = {name: value for name, value in common.items() if value is not None}


for _command in (
    say.say,
    listen.listen,
    recognize.recognize,
    live_sessions.settings,
    live_sessions.sessions,
    trace.trace,
    voices.voices,
    demo.demo,
):
    app.add_command(_command)
