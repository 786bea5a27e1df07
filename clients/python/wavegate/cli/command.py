"""What every command has in common: the gateway's options, failures as sentences with exit codes, an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import click

from wavegate.cli.output import Output, error_object
from wavegate.client import Client, default_target
from wavegate.errors import (
    AccessDeniedError,
    CapacityError,
    ConflictError,
    GatewayUnavailableError,
    InvalidRequestError,
    SessionNotFoundError,
    UpstreamError,
    WavegateError,
)

_EXIT_CODES: tuple[tuple[type[WavegateError], int], ...] = (
    (GatewayUnavailableError, 3),
    (InvalidRequestError, 4),
    (AccessDeniedError, 4),
    (SessionNotFoundError, 4),
    (ConflictError, 4),
    (UpstreamError, 5),
    (CapacityError, 6),
)

P = ParamSpec("P")


class Failure(click.ClickException):
    """A sentence on stderr and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for whole classes

    def show(self, file: Any = None) -> None:
        """Prints it."""
        click.echo(f"wavegate: {self.message}", err=True)


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the gateway, and how to show what it says."""

    target: str
    is_default: bool
    is_from_environment: bool
    tls: bool
    ca_file: Path | None
    output: Output

    def client(self, target: str | None = None) -> Client:
        """A client of it; to be made inside the event loop."""
        certificates = self.ca_file.read_bytes() if self.ca_file else None
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
        connection = Connection(
            target=target or default_target(),
            is_default=not (target or os.environ.get("WAVEGATE_TARGET")),
            is_from_environment=not target and bool(os.environ.get("WAVEGATE_TARGET")),
            tls=bool(common.get("tls")),
            ca_file=common.get("ca_file"),
            output=Output(as_json=bool(common.get("as_json"))),
        )
        try:
            asyncio.run(_until_told(function(connection, *args, **options)))
        except asyncio.CancelledError:
            raise Failure("terminated", 143) from None
        except WavegateError as exc:
            if connection.output.as_json:
                connection.output.json({"event": "error", **error_object(exc)})
            raise _failure(exc) from exc

    return body


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    """Runs a command; SIGTERM ends it as an interrupt does: sessions closed, files complete."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(
        NotImplementedError, RuntimeError, ValueError
    ):  # not the main thread, or not Unix
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await work


def _failure(error: WavegateError) -> Failure:
    code = next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)
    message = str(error)
    if error.retry_delay_s is not None:
        message += f"\n  try again in {error.retry_delay_s:g} s"
    if error.reason:
        message += f"\n  reason: {error.reason}"
    return Failure(message, code)


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
