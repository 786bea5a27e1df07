"""Options that several commands take, and settings from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import click

from wavegate._settings_wire import MessageT, settings_to_wire
from wavegate.audio import RawEncoding, RawFormat
from wavegate.cli.assignments import parse_assignments

set_option = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any other setting of the contract, such as word_timings=true; may be repeated.",
)


def encoding_option(*names: str, help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--encoding` with these values."""
    choice = click.Choice([n.lower() for n in names], case_sensitive=False)
    return click.option("--encoding", type=choice, help=help, callback=lambda _c, _p, v: v and v.upper())


rate_option = click.option(
    "--rate",
    type=click.IntRange(min=1),
    metavar="HZ",
    help="Samples a second; the gateway knows which it can.",
)


def _raw_format(_context: click.Context, _parameter: click.Parameter, value: str | None) -> RawFormat | None:
    if value is None:
        return None
    encoding, *numbers = value.lower().split(",")
    try:
        if not 1 <= len(numbers) <= 2:
            raise ValueError("it takes an encoding, a rate and perhaps a number of channels: s16le,44100,2")
        for number, what in zip(numbers, ("rate in Hz", "number of channels"), strict=False):
            if not number.strip().removeprefix("-").isdecimal():
                raise ValueError(f"{number!r} is no {what}; write it as in s16le,44100,2")
        rate_hz, *channels = map(int, numbers)
        return RawFormat(cast(RawEncoding, encoding), rate_hz, *channels)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


raw_option = click.option(
    "--raw",
    metavar="ENCODING,HZ[,CHANNELS]",
    callback=_raw_format,
    help="The recording is raw samples of this kind: u8, s8, s16le, s24le, s32le, f32le, f64le (be for big-endian), "
    "mulaw or alaw.",
)


def settings_from(
    message_type: type[MessageT], assignments: tuple[str, ...], named: dict[str, Any]
) -> dict[str, Any]:
    """The settings of `--set` and of options with a name of their own; raises `click.UsageError`."""
    try:
        options = parse_assignments(message_type, assignments)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    for name, value in named.items():
        if value is None:
            continue
        if name in options:
            raise click.UsageError(f"{name} is given twice")
        options[name] = value
    try:
        settings_to_wire(message_type, options)
    except (TypeError, ValueError) as exc:
        raise click.UsageError(str(exc)) from exc
    return options
