"""`wavegate trace`: where the time of a session went."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any, Final

import click
from rich.console import Console

from wavegate.cli import trace_names as names
from wavegate.cli.command import Connection, Failure, command
from wavegate.cli.jaeger import DEFAULT_URL, KNOCK_S, Jaeger, JaegerError
from wavegate.cli.output import Output, event_object, standard_output
from wavegate.cli.time_spent import is_chunk, number, time_spent
from wavegate.cli.waterfall import IN_ASCII, waterfall
from wavegate.client import Client
from wavegate.errors import SessionNotFoundError, WavegateError
from wavegate.synthesis import SynthesisSession
from wavegate.traces import TraceSpan
from wavegate.transcription import TranscriptionSession

PIPE_WIDTH: Final = 100
_TRACE_ID: Final = re.compile("[0-9a-fA-F]{32}")
_END_WAIT_S: Final = 2.0
"""A call's own span and its sums end a moment after its caller knows that the call has."""


@click.command()
@click.argument("key", metavar="TRACE_ID|SESSION_ID")
@click.option(
    "--jaeger",
    "jaeger_url",
    metavar="URL",
    envvar="WAVEGATE_JAEGER",
    help="Ask this Jaeger, and nobody else. [env WAVEGATE_JAEGER]",
)
@click.option("--all", "all_chunks", is_flag=True, help="A line for each chunk.")
@command
async def trace(connection: Connection, key: str, jaeger_url: str | None, all_chunks: bool) -> None:
    """Shows the timeline of a session, and where its time went.

    The ids are in `session_started`, in `wavegate sessions --json` and in the gateway's log. The spans come from the
    Jaeger of --jaeger; without it from one at http://127.0.0.1:16686, if that knows the trace; else from the gateway,
    which holds the newest spans of your own sessions.

    Chunks of one direction are one line, with the 50th and 95th percentile and the maximum: `residence` is the whole
    time in the gateway, `queue` the part before it was handed on, `write` the part that the other side took to take it.

    \b
      wavegate trace 4bf92f3577b34da6a3ce929d0e0e4736
      wavegate trace s-8f14e45fceea167a5a36dedd4bea2543 --all
    """
    if not key.strip():
        raise click.UsageError("the id is empty")
    spans = await _found(connection, key.strip(), jaeger_url)
    show(connection.output, spans, all_chunks=all_chunks)


async def _found(connection: Connection, key: str, jaeger_url: str | None) -> Sequence[TraceSpan]:
    """Raises `Failure` or `WavegateError` where there is nothing."""
    is_trace = _TRACE_ID.fullmatch(key) is not None
    asked = ""
    try:
        jaeger = Jaeger(jaeger_url or DEFAULT_URL)
        if not jaeger_url:
            await asyncio.to_thread(jaeger.services, KNOCK_S)
        lookup = jaeger.trace if is_trace else jaeger.session
        spans = await asyncio.to_thread(lookup, key.lower() if is_trace else key)
        if spans:
            return spans if is_trace else of_session(spans, key)
        asked = f"Jaeger at {jaeger.url} knows no trace of {key}"
    except JaegerError as exc:
        if jaeger_url:
            raise Failure(str(exc), 3) from exc
    if jaeger_url:
        raise Failure(f"{asked}; a gateway sends spans there with OTEL_EXPORTER_OTLP_ENDPOINT set", 4)
    async with connection.client() as client:
        try:
            if is_trace:
                return await client.get_trace(trace_id=key)
            return of_session(await client.get_trace(session_id=key), key)
        except SessionNotFoundError as exc:
            also = f"\n  {asked}" if asked else ""
            raise Failure(f"{exc}{also}", 4) from exc
        except WavegateError as exc:
            raise _too_old(exc) from exc


def of_session(spans: Sequence[TraceSpan], session_id: str) -> list[TraceSpan]:
    """Of traces that may hold several sessions, the spans of one."""
    by_id = {(span.trace_id, span.span_id): span for span in spans}

    def is_of_it(span: TraceSpan | None) -> bool:
        while span is not None:
            if of := span.attributes.get(names.SESSION_ID):
                return of == session_id
            span = by_id.get((span.trace_id, span.parent_id))
        return False

    return [span for span in spans if is_of_it(span)]


trace_option = click.option("--trace", "traced", is_flag=True, help="Show its timeline in the end.")


@contextlib.asynccontextmanager
async def shown(
    output: Output,
    client: Client,
    session: SynthesisSession | TranscriptionSession,
    *,
    traced: bool,
    to_stderr: bool = False,
) -> AsyncIterator[None]:
    """Shows the timeline of the session that ends in the block, if that is wanted, also where it fails."""
    try:
        yield
    except WavegateError:
        if traced:
            await _show_after(output, client, session, to_stderr=to_stderr)
        raise
    if traced:
        await _show_after(output, client, session, to_stderr=to_stderr)


def is_complete(spans: Sequence[TraceSpan]) -> bool:
    """Whether the call of a session has ended, and all of its chunks are summed up."""
    counts = (names.SEGMENT_CHUNKS_IN, names.SEGMENT_CHUNKS_OUT)
    summed = sum(number(span, name) or 0 for span in spans for name in counts)
    return any(span.kind == "SERVER" for span in spans) and summed >= sum(map(is_chunk, spans))


async def _show_after(
    output: Output,
    client: Client,
    session: SynthesisSession | TranscriptionSession,
    *,
    to_stderr: bool,
) -> None:
    """Where there is none it says why, and that is all."""
    try:
        session_id = session.session_id
    except RuntimeError:  # it never began
        return
    loop = asyncio.get_running_loop()
    end = loop.time() + _END_WAIT_S
    try:
        while True:
            spans = of_session(await client.get_trace(session_id=session_id), session_id)
            if is_complete(spans) or loop.time() >= end:
                break
            await asyncio.sleep(0.02)
    except WavegateError as exc:
        output.note(f"no trace: {_too_old(exc)}")
        return
    show(output, spans, to_stderr=to_stderr)


def show(
    output: Output, spans: Sequence[TraceSpan], *, all_chunks: bool = False, to_stderr: bool = False
) -> None:
    """Prints a timeline: with --json its spans and sums, else lines as wide as the terminal."""
    if output.as_json:
        for span in sorted(spans, key=lambda s: (s.start_ns, s.end_ns)):
            output.json(event_object(span))
        spent = time_spent(spans)
        output.json({"event": "time_spent", **(_rounded(asdict(spent)) if spent is not None else {})})
        return
    file = sys.stderr if to_stderr else standard_output()
    console = Console(file=file, highlight=False)
    width = console.width if console.is_terminal else PIPE_WIDTH
    for line in waterfall(spans, width=width, all_chunks=all_chunks):
        if not console.encoding.lower().startswith("utf"):
            line.plain = line.plain.translate(IN_ASCII).encode("ascii", "replace").decode()
        console.print(line, soft_wrap=True)


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value if value is None else round(value, 6) for name, value in values.items()}


def _too_old(error: WavegateError) -> WavegateError:
    if error.code == "UNIMPLEMENTED":
        return WavegateError(
            "this gateway is older than `wavegate trace`: ask its Jaeger with --jaeger", code="UNIMPLEMENTED"
        )
    return error
