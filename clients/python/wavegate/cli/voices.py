"""`wavegate voices`: the catalogue."""

from __future__ import annotations

import click

from wavegate.cli.command import Connection, command
from wavegate.cli.output import event_object


@click.command()
@click.option("--model", default="", help="Only those that it has.")
@click.option("--language", metavar="CODE", default="", help="Only those that speak it.")
@command
async def voices(connection: Connection, model: str, language: str) -> None:
    """Lists the voices.

    In a pipe each is a line: id, name, languages, models, what the catalogue says of it.
    """
    async with connection.client() as client:
        found = [voice async for voice in client.list_voices(model=model, language_code=language)]
    if connection.output.as_json:
        for voice in found:
            connection.output.json(event_object(voice))
        return
    connection.output.table(
        ("voice", "name", "languages", "models", "tags"),
        [
            (
                voice.voice_id,
                voice.display_name,
                " ".join(voice.language_codes),
                " ".join(voice.models),
                " ".join(f"{key}:{','.join(values)}" for key, values in voice.tags.items()),
            )
            for voice in found
        ],
    )
    if not found:
        connection.output.note("There are no such voices.")
