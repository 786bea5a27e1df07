"""What every command has in common: the gateway's options, failures as sentences with exit codes, an event loop."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import signal
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec

import click
from rich.console import Console

from wavegate._channel import check_token
from wavegate.cli.output import Output, error_object, print_wrapped
from wavegate.cli.signals import Interruption
from wavegate.client import Client, default_target
from wavegate.errors import (
    AccessDeniedError,
    CapacityError,
    ConflictError,
    DeadlineError,
    GatewayUnavailableError,
    InvalidRequestError,
    SessionNotFoundError,
    UpstreamError,
    WavegateError,
)

EXIT_CODES: Final = (
    (0, "done"),
    (1, "any other failure"),
    (2, "wrong use, seen before the gateway is asked: options, settings, files, nothing to say or to hear"),
    (3, "no gateway there, or the connection to it was lost"),
    (4, "the gateway refused: a value, a credential, a session that is not there, a change that may not be"),
    (5, "the upstream speech service failed"),
    (6, "no capacity left: try again later"),
    (130, "interrupted (Ctrl-C); `listen`, and `say` from a pipe, have finished what came before the first"),
    (141, "the program that read the output has gone"),
    (143, "terminated (SIGTERM), as 130"),
)
"""Every exit code of every command, and what it means."""

_CODES_OF_ERRORS: tuple[tuple[type[WavegateError], int], ...] = (
    (GatewayUnavailableError, 3),
    (InvalidRequestError, 4),
    (AccessDeniedError, 4),
    (SessionNotFoundError, 4),
    (ConflictError, 4),
    (UpstreamError, 5),
    (CapacityError, 6),
)
_CODES_OF_STATUSES: Mapping[str, int] = {"FAILED_PRECONDITION": 4, "UNIMPLEMENTED": 4, "ALREADY_EXISTS": 4}
"""Where the class of an error does not decide: by its gRPC code."""

_OPTIONS_OF_FIELDS: Mapping[str, tuple[str, str]] = {
    "voice_id": ("voice", "--voice"),
    "model": ("model", "--model"),
    "language_code": ("language", "--language"),
    "speed": ("speed", "--speed"),
    "sample_rate_hertz": ("rate", "--rate"),
    "encoding": ("encoding", "--encoding"),
}
"""Fields of the contract that have an option of their own: the parameter of the command, and how it is written."""

_WORDS_OF_FIELDS: Mapping[str, str] = {
    "audio_format": "--rate and --encoding",
    "content": "FILE",
    "uri": "URL",
}
"""The other fields that the command line fills."""

_CERTIFICATE: Final = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")

P = ParamSpec("P")


class Failure(click.ClickException):
    """A sentence on stderr and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for whole classes

    def show(self, file: Any = None) -> None:
        """Prints it."""
        console = Console(stderr=True, highlight=False)
        text = f"wavegate: {self.message}"
        if console.is_terminal:
            print_wrapped(console, text)
        else:
            click.echo(text, err=True)


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the gateway, and how to show what it says."""

    target: str
    is_default: bool
    is_from_environment: bool
    tls: bool
    ca_file: Path | None
    output: Output
    interruption: Interruption
    """The signals that came."""

    def client(self, target: str | None = None) -> Client:
        """A client of it; to be made inside the event loop."""
        certificates = self.ca_file.read_bytes() if self.ca_file else None
        if certificates is not None and not _CERTIFICATE.search(certificates):
            raise click.UsageError(f"{self.ca_file} holds no certificate (PEM)")
        try:
            check_token(os.environ.get("WAVEGATE_TOKEN", ""))
        except ValueError as exc:
            raise click.UsageError(f"WAVEGATE_TOKEN: {exc}") from exc
        try:
            return Client(target or self.target, tls=self.tls, root_certificates=certificates)
        except ValueError as exc:
            named_by = "WAVEGATE_TARGET" if self.is_from_environment else "--target"
            raise click.UsageError(f"{named_by}: {exc}") from exc


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--json", "as_json", is_flag=True, default=None, help="One JSON object a line on stdout."
        ),
        click.option(
            "--ca-file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Certificates (PEM) that the gateway's must come from; implies --tls.",
        ),
        click.option("--tls", is_flag=True, default=None, help="Encrypt the connection."),
        click.option(
            "--target",
            metavar="HOST:PORT",
            help="Where the gateway is. [env WAVEGATE_TARGET; default 127.0.0.1:50051]",
        ),
    ):
        function = option(function)
    return function


def command(
    function: Callable[Concatenate[Connection, P], Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    """Makes a coroutine the body of a command: adds the common options and runs it in an event loop."""

    @common_options
    @click.pass_context
    @functools.wraps(function)
    def body(ctx: click.Context, *args: Any, **options: Any) -> None:
        common = dict(ctx.obj or {})
        for name in ("target", "tls", "ca_file", "as_json"):
            given = options.pop(name)
            if given is not None:
                common[name] = given
        target = common.get("target")
        output = Output(as_json=bool(common.get("as_json")))
        connection = Connection(
            target=target or default_target(),
            is_default=not (target or os.environ.get("WAVEGATE_TARGET")),
            is_from_environment=not target and bool(os.environ.get("WAVEGATE_TARGET")),
            tls=bool(common.get("tls")),
            ca_file=common.get("ca_file"),
            output=output,
            interruption=Interruption(output),
        )
        try:
            asyncio.run(_watched(connection, function(connection, *args, **options)))
        except asyncio.CancelledError:
            pass
        except WavegateError as exc:
            if output.as_json:
                output.json({"event": "error", **error_object(exc)})
            raise _failure(exc, ctx) from exc
        if signum := connection.interruption.signum:
            what = "interrupted" if signum == signal.SIGINT else "terminated"
            raise Failure(what, 128 + signum)

    return body


async def _watched(connection: Connection, work: Coroutine[Any, Any, None]) -> None:
    """Runs a command until it ends or is told to stop; then sessions are closed and files completed."""
    connection.interruption.watch()
    await work


def _failure(error: WavegateError, ctx: click.Context) -> Failure:
    code = next((code for kind, code in _CODES_OF_ERRORS if isinstance(error, kind)), None)
    if code is None:
        no_answer = isinstance(error, DeadlineError) and not error.reason
        code = 3 if no_answer else _CODES_OF_STATUSES.get(error.code, 1)
    message = str(error)
    if error.field_violations:
        message = "\n  ".join(f"{_named(v.field, ctx)}: {v.description}" for v in error.field_violations)
    if error.retry_delay_s is not None:
        message += f"\n  try again in {error.retry_delay_s:g} s"
    if error.reason:
        message += f"\n  reason: {error.reason}"
    return Failure(message, code)


def _named(path: str, ctx: click.Context) -> str:
    """A field of a request as it is written on the command line: `start.settings.speed` is `--speed`."""
    if words := _WORDS_OF_FIELDS.get(path):
        return words
    *parents, name = path.split(".")
    parameter, option = _OPTIONS_OF_FIELDS.get(name.partition("[")[0], ("", ""))
    if ctx.params.get(parameter) is not None:
        return option
    if parents and parents[-1] in ("settings", "synthesis", "transcription"):
        return f"--set {name}" if "assignments" in ctx.params and "session_id" not in ctx.params else name
    return path


async def converse(send: Coroutine[Any, Any, None], receive: Coroutine[Any, Any, None]) -> None:
    """Sends and receives at once. The first failure stops the other side; so does the end of what is received."""
    sending, receiving = asyncio.create_task(send), asyncio.create_task(receive)
    try:
        await asyncio.wait([sending, receiving], return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            await sending
        await receiving
        if not sending.done():
            raise Failure("the session was ended from outside, before everything was sent", 1)
    finally:
        sending.cancel()
        receiving.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)
