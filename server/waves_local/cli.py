"""`waves-local`: the local upstream from the command line."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
import uvloop

from waves_local.deterministic import DEFAULT_CHARACTER_S, deterministic_engine
from waves_local.engine import Engine
from waves_local.faults import Fault, FaultSyntaxError
from waves_local.options import Options
from waves_local.server import serve

_SWITCH_OF_FIELD = {
    "keys": "key",
    "forbidden_keys": "forbidden-key",
    "filtered_words": "filtered-word",
    "stt_models": "stt-model",
}
"""Lists are given one by one, so their switches are singular."""


def _behaviour_switches(command: Callable[..., None]) -> Callable[..., None]:
    """One switch for each field of Options, with its help."""
    hints = get_type_hints(Options)
    for field in reversed(dataclasses.fields(Options)):
        hint, text = hints[field.name], str(field.metadata["help"])
        name = _SWITCH_OF_FIELD.get(field.name, field.name.replace("_", "-"))
        # Named after the switch; click would name it after the field.
        environment = "WAVES_LOCAL_" + name.upper().replace("-", "_")
        more: dict[str, Any] = {"default": field.default, "help": text}
        declaration = f"--{name}"
        if hint is bool:
            declaration = f"--{name}/--no-{name}"
        elif get_origin(hint) is tuple:
            more |= {"multiple": True, "default": list(field.default), "help": f"{text} Repeatable."}
        elif get_origin(hint) is Literal:
            more["type"] = click.Choice([str(v) for v in get_args(hint)])
        else:
            more["type"] = hint
        add = click.option(declaration, field.name, show_default=True, envvar=environment, **more)
        command = add(command)
    return command


class _Address(click.ParamType[tuple[str, int]]):
    """HOST:PORT."""

    name = "host:port"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, separator, port = str(value).rpartition(":")
        if not separator or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            self.fail(f"{value!r} is not HOST:PORT, as in 127.0.0.1:8090", param, ctx)
        return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--listen",
    type=_Address(),
    default="127.0.0.1:8090",
    show_default=True,
    help="Address to serve on. Port 0 picks a free one.",
)
@click.option(
    "--port-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that gets the port once it serves, and is removed when it stops.",
)
@click.option(
    "--engine",
    type=click.Choice(["speech", "deterministic"]),
    default="speech",
    show_default=True,
    help="Real speech (espeak-ng and pocketsphinx, the extra wavegate[speech]), or provable audio for tests.",
)
@click.option(
    "--character-s",
    type=click.FloatRange(0.005, 1.0),
    default=DEFAULT_CHARACTER_S,
    show_default=True,
    help="Deterministic engine: seconds of one spoken character.",
)
@click.option(
    "--varying/--no-varying",
    default=False,
    show_default=True,
    help="Deterministic engine: the same text sounds different each time.",
)
@click.option(
    "--fault",
    multiple=True,
    metavar="SPEC",
    help="A scripted fault, KIND:ACTION[=VALUE][,KEY=VALUE]…, as in tts:close=1011,after-frames=3. Repeatable.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    show_default=True,
    help="Least severe messages to log, on standard error.",
)
@_behaviour_switches
def _command(
    listen: tuple[str, int],
    port_file: Path | None,
    engine: str,
    character_s: float,
    varying: bool,
    fault: tuple[str, ...],
    log_level: str,
    **behaviour: Any,
) -> None:
    """Serve a Waves-compatible speech API for development and tests.

    Each option can be given as an environment variable too: --port-file as WAVES_LOCAL_PORT_FILE, and so on.
    """
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        faults = [Fault.parse(spec) for spec in fault]
    except FaultSyntaxError as error:
        raise click.BadParameter(str(error), param_hint="--fault") from error
    try:
        options = Options(**behaviour)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if engine == "deterministic":
        chosen = deterministic_engine(character_s=character_s, varying=varying)
    else:
        chosen = _speech_engine()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(listen, port_file, chosen, options, faults))


def _speech_engine() -> Engine:
    try:
        speech = importlib.import_module("waves_local.speech")
        engine = speech.load_engine()
    except ImportError as error:
        raise click.ClickException(
            "The speech engine is not installed: pip install 'wavegate[speech]', or use --engine deterministic. "
            f"({error})"
        ) from error
    assert isinstance(engine, Engine)
    return engine


async def _serve(
    listen: tuple[str, int], port_file: Path | None, engine: Engine, options: Options, faults: list[Fault]
) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stopped.set)
    host, port = listen
    async with contextlib.AsyncExitStack() as stack:
        write_port = stack.enter_context(_port_file(port_file))
        try:
            upstream = await stack.enter_async_context(
                serve(engine=engine, host=host, port=port, options=options, faults=faults)
            )
        except OSError as error:
            raise click.ClickException(
                f"Cannot listen on {host}:{port}: {error.strerror or error}"
            ) from error
        write_port(upstream.port)
        click.echo(f"waves-local listens on {upstream.url} ({engine.name} engine)")
        for note in engine.notes:
            click.echo(f"  {note}")
        if not options.keys:
            click.echo("  any API key is good (--key limits them)")
        await stopped.wait()


@contextlib.contextmanager
def _port_file(path: Path | None) -> Iterator[Callable[[int], None]]:
    """Gives what writes the port into the file, which is there as a whole or not at all, and only while it serves.

    One that an earlier run left is removed. Raises click.ClickException where that, or the writing, cannot be done.
    """
    if path is None:
        yield lambda port: None
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")

    def write(port: int) -> None:
        try:
            draft.write_text(f"{port}\n")
            draft.replace(path)
        except OSError as error:
            raise click.ClickException(f"Cannot write {path}: {error.strerror or error}") from error

    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise click.ClickException(f"Cannot write {path}: {error.strerror or error}") from error
    try:
        yield write
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def main() -> None:
    """The entry point of `waves-local`."""
    _command(auto_envvar_prefix="WAVES_LOCAL")
