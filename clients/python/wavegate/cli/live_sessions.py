"""`wavegate sessions` and `wavegate settings`: live sessions, seen and changed from outside."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import click

from wavegate.cli.assignments import text_of
from wavegate.cli.command import Connection, command
from wavegate.cli.options import settings_from
from wavegate.cli.output import event_object
from wavegate.events import SessionInfo, SettingsAck
from wavegate.settings import ApplyPolicy, SynthesisSettings, TranscriptionSettings
from wavegate.speech.v1 import types_pb2


@click.command()
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only those that have it; may be repeated."
)
@command
async def sessions(connection: Connection, labels: tuple[str, ...]) -> None:
    """Lists your live sessions.

    In a pipe each is a line: id, kind, state, model, voice or language, revision, age.
    """
    wanted = {}
    for label in labels:
        key, equals, value = label.partition("=")
        if not equals:
            raise click.UsageError(f"{label!r} is no label: write KEY=VALUE")
        wanted[key] = value
    async with connection.client() as client:
        found = [session async for session in client.list_sessions(labels=wanted)]
    if connection.output.as_json:
        for session in found:
            connection.output.json(event_object(session))
        return
    connection.output.table(
        ("session", "kind", "state", "model", "voice/language", "revision", "age"),
        [_row(session) for session in found],
    )
    if not found:
        connection.output.note("There are no live sessions.")


def _row(session: SessionInfo) -> tuple[str, ...]:
    settings = session.settings
    who = (
        settings.voice_id if isinstance(settings, SynthesisSettings) else settings and settings.language_code
    )
    age = "-"
    if session.create_time is not None:
        age = f"{(datetime.now(UTC) - session.create_time).total_seconds():.0f} s"
    return (
        session.session_id,
        session.kind,
        session.state.lower(),
        (settings and settings.model) or "-",
        who or "-",
        str(session.settings_revision),
        age,
    )


@click.command()
@click.argument("session_id", metavar="SESSION")
@click.argument("assignments", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--reset", multiple=True, metavar="NAME", help="Put it back to its default; may be repeated.")
@click.option(
    "--immediate", is_flag=True, help="In the middle of an utterance, or by a reconnect, if need be."
)
@click.option("--no-reconnect", is_flag=True, help="Refuse what would need a reconnect.")
@click.option("--validate", is_flag=True, help="Only say what would happen.")
@click.option(
    "--expect-revision", type=int, metavar="N", help="Refuse if the settings are not at this revision."
)
@command
async def settings(
    connection: Connection,
    session_id: str,
    assignments: tuple[str, ...],
    reset: tuple[str, ...],
    immediate: bool,
    no_reconnect: bool,
    validate: bool,
    expect_revision: int | None,
) -> None:
    """Changes the settings of a live SESSION.

    Says how each took effect; without any shows those in force. Times are seconds, or end in ms. Lists are separated
    by commas; a keyword may carry its boost.

    \b
      wavegate settings SESSION speed=1.2 voice_id=lena
      wavegate settings SESSION language_code=hi keywords=wavegate:2,codec --immediate
      wavegate settings SESSION --reset speed --validate
    """
    if immediate and no_reconnect:
        raise click.UsageError("choose one: --immediate or --no-reconnect")
    policy: ApplyPolicy = "IMMEDIATE" if immediate else "NO_RECONNECT" if no_reconnect else "NEXT_BOUNDARY"
    async with connection.client() as client:
        session = await client.get_session(session_id)
        if not assignments and not reset:
            _show(connection, session)
            return
        synthesis = session.kind == "synthesis"
        options: dict[str, Any]
        if synthesis:
            options = settings_from(types_pb2.SynthesisSettings, assignments, {})
        else:
            options = settings_from(types_pb2.TranscriptionSettings, assignments, {})
        options |= {
            "reset": reset,
            "apply": policy,
            "validate_only": validate,
            "expected_revision": expect_revision,
        }
        async with client.settings_stream() as control:
            try:
                if synthesis:
                    ack = await control.update_synthesis(session_id, **options)
                else:
                    ack = await control.update_transcription(session_id, **options)
            except TypeError as exc:  # an unknown name in --reset
                raise click.UsageError(str(exc)) from exc
    _show_ack(connection, ack)


def _show(connection: Connection, session: SessionInfo) -> None:
    if connection.output.as_json:
        connection.output.json(event_object(session))
    elif session.settings is not None:
        for name, value in _in_force(session.settings).items():
            connection.output.line(f"{name}={text_of(value)}")


def _in_force(settings: SynthesisSettings | TranscriptionSettings) -> dict[str, Any]:
    values = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    return {name: value for name, value in values.items() if value is not None}


def _show_ack(connection: Connection, ack: SettingsAck) -> None:
    output = connection.output
    if output.as_json:
        output.json(event_object(ack))
        return
    for field in ack.fields:
        output.line(f"{field.path}: {field.mechanism.lower().replace('_', ' ')}")
    how = {"APPLIED": "applied", "VALIDATED": "would be accepted"}.get(ack.state, ack.state.lower())
    text = f"{how} at revision {ack.settings_revision}"
    if ack.first_utterance_id:
        text += f", from utterance {ack.first_utterance_id} on"
    if ack.audio_offset_s is not None:
        text += f", {ack.audio_offset_s:.2f} s into the audio"
    output.line(f"{text} ({ack.apply_duration_s * 1000:.0f} ms)")
