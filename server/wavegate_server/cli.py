"""`wavegate-server`: arguments only. Flags and their help come from the table in `config.py`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Final, NoReturn

import click
from click.core import ParameterSource

from wavegate_server import config
from wavegate_server.config import Address, Config, ConfigError, Option

PROGRAM: Final = "wavegate-server"

EPILOG: Final = (
    f"The upstream's API key comes from {config.API_KEY_ENV} or --api-key-file. Spans and metrics go out over OTLP "
    "when OTEL_EXPORTER_OTLP_ENDPOINT is set; the other standard OTEL_ variables hold as well. A flag wins over its "
    "environment variable."
)


class _Value(click.ParamType[Any]):
    """A value as the table parses it."""

    def __init__(self, option: Option) -> None:
        assert option.parse is not None
        self.name = option.unit
        self._parse: Callable[[str], Any] = option.parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class _Switch(click.types.BoolParamType):
    """What a switch's environment variable may say."""

    _meanings: ClassVar = {
        **dict.fromkeys(("on", "true", "yes", "1"), True),
        **dict.fromkeys(("off", "false", "no", "0"), False),
    }

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        if isinstance(value, bool):
            return value
        meaning = self._meanings.get(str(value).strip().lower())
        if meaning is None:
            self.fail(f"must be on or off, got {value!r}", param, ctx)
        return meaning


class _Command(click.Group):
    """Shows the options in the table's groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        group_of = {row.name: row.group for row in config.options()}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                groups.setdefault(group_of.get(param.name or "", "Help"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)
        self.format_commands(ctx, formatter)


class _Flag(click.Option):
    """The flag of a row. Its environment variable counts where the flag is not given."""

    def __init__(self, row: Option) -> None:
        self._row = row
        if row.parse is None:
            super().__init__([row.flag], is_flag=True, type=_Switch(), default=None, envvar=row.env)
        else:
            super().__init__([row.flag], type=_Value(row), metavar=row.unit, envvar=row.env)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        row = self._row
        return f"{row.flag} {row.unit}".rstrip(), f"{row.help} [{row.env}; default: {row.shown_default}]"

    def get_error_hint(self, ctx: click.Context | None) -> str:
        if ctx is not None and ctx.get_parameter_source(self.name or "") is ParameterSource.ENVIRONMENT:
            return self._row.env
        return self._row.flag


@click.command(
    cls=_Command,
    name=PROGRAM,
    params=[_Flag(row) for row in config.options()],
    invoke_without_command=True,
    epilog=EPILOG,
    context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]},
)
@click.version_option(version("wavegate"), prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def command(ctx: click.Context, /, **values: Any) -> None:
    """Serve the wavegate speech services over gRPC: synthesis, transcription, and the control of sessions.

    Without an API key it serves with an embedded local upstream, on loopback only. The first line on stdout says
    where it listens and which upstream it uses; logs go to stderr.
    """
    ctx.obj = Config(**{name: value for name, value in values.items() if value is not None})
    if ctx.invoked_subcommand is None:
        ctx.exit(_serve(ctx.obj))


def _serve(chosen: Config) -> int:
    # grpc's core writes lines of its own to stderr, in a format of its own; what matters is said by us.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Late, since it loads the whole gateway, and --help shall not wait for that.
    from wavegate_server import app  # noqa: PLC0415

    return app.run(chosen)


@command.command()
@click.option(
    "--target",
    metavar="HOST:PORT",
    help="The gateway to ask. [default: the address of --listen, by its loopback if it is a wildcard]",
)
@click.option(
    "--tls-ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Authorities (PEM) of its certificate; given, the check goes over TLS.",
)
@click.option("--tls-server-name", default="", help="The name in its certificate, if not the target's host.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 60.0),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait.",
)
@click.pass_context
def healthcheck(
    ctx: click.Context, target: str | None, tls_ca: Path | None, tls_server_name: str, timeout: float
) -> None:
    """Ask a running gateway whether it serves: exit code 0 if it does, 1 if not."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from wavegate_server.healthcheck import check  # noqa: PLC0415

    try:
        address = Address.parse(target) if target else ctx.obj.listen.reachable
    except ValueError as exc:
        raise click.BadParameter(str(exc), ctx, param_hint="--target") from exc
    answer = check(address, tls_ca.read_bytes() if tls_ca else None, tls_server_name, timeout)
    click.echo(answer, err=answer != "SERVING")
    ctx.exit(0 if answer == "SERVING" else 1)


_PROBED: Final = (
    "upstream",
    "upstream_proxy",
    "api_key_file",
    "upstream_active_requests",
    "default_tts_model",
    "default_voice",
)
"""Options that may stand behind `probe`, too."""


@command.command(params=[_Flag(row) for row in config.options() if row.name in _PROBED])
@click.option("--json", "as_json", is_flag=True, help="One JSON object a question.")
@click.pass_context
def probe(ctx: click.Context, /, as_json: bool, **values: Any) -> None:
    """Ask the upstream what its documents leave open, and say which flags follow.

    Takes about a minute, and speaks about a dozen short texts: they cost what speaking costs. Of several keys it
    uses the first. While it asks, nobody else should use the account.
    """
    from wavegate_server import app  # noqa: PLC0415

    given = {name: value for name, value in values.items() if value is not None}
    ctx.exit(app.probe(replace(ctx.obj, **given), as_json=as_json))


def main() -> NoReturn:
    """The entry point. Exit codes: 0 stopped as told, 1 failed while serving, 2 cannot start as configured."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    try:
        code = command.main(prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as exc:
        _fail(exc.format_message())
    except ConfigError as exc:
        _fail(str(exc))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(sentence: str) -> NoReturn:
    click.echo(f"{PROGRAM}: {sentence}", err=True)
    sys.exit(2)
