"""A user's program shows no `Any` to a strict type checker, and mistakes in it are found."""

from __future__ import annotations

from pathlib import Path

import pytest

api = pytest.importorskip("mypy.api")

PROGRAM = """
import asyncio
from collections.abc import AsyncIterator

from wavegate import AudioChunk, Client, Transcript, UtteranceCancelled, UtteranceCompleted, WavegateError, sync


async def tokens() -> AsyncIterator[str]:
    yield "a"


async def main() -> None:
    async with Client("host:1", token="t") as client:
        async with client.synthesize(voice_id="magnus", speed=1.0, extra={"a": [1]}) as session:
            utterance = await session.say(tokens())
            async for audio in utterance.audio():
                print(len(audio))
            outcome = await utterance.wait()
            if isinstance(outcome, UtteranceCancelled):
                print(outcome.spoken_text)
            ack = await session.update_settings(speed=1.5, reset=["model"], apply="IMMEDIATE")
            print(ack.state, ack.fields[0].mechanism, ack.settings)
            async for event in session:
                match event:
                    case AudioChunk(audio=audio):
                        print(len(audio))
                    case UtteranceCompleted():
                        print(event.metrics.time_to_first_audio_s)
                    case _:
                        print(event)
            try:
                await session.cancel(playback_offset_s=1.0)
            except WavegateError as error:
                print(error.code, error.retry_delay_s, [v.field for v in error.field_violations])
        async with client.transcribe(language_code="en", keywords=["a"]) as listening:
            await listening.send_file("a.wav", paced=True)
            final: Transcript = await listening.finalize()
            print(final.words[0].confidence, final.extra)
            async for transcript in listening.finals():
                print(transcript.full_text)
        speech = await client.synthesize_once("x", voice_id="magnus")
        print(speech.audio, speech.completed.metrics.audio_bytes)
        print((await client.transcribe_once("a.wav")).text)
        async for voice in client.list_voices():
            print(voice.tags)
        async for live in client.list_sessions():
            print(live.settings)
        async with client.settings_stream() as control:
            print((await control.update_synthesis("s", speed=1.0, watch=True)).state)
            async for change in control:
                print(change.event)


with sync.Client() as client, client.synthesize(voice_id="magnus") as session:
    for audio in session.say(["a", "b"]).audio():
        print(len(audio))
    for event in session:
        print(event)
asyncio.run(main())
"""

MISTAKES = {
    "Client().synthesize(sped=1.0)": "Unexpected keyword argument",
    'Client().synthesize(speed="fast")': "incompatible type",
    'AudioFormat("OGG")': "incompatible type",
    'def f(e: SettingsAck) -> bool: return e.state == "APLIED"': "Non-overlapping equality check",
    "def g(e: SynthesisEvent) -> bytes: return e.audio": "has no attribute",
}


def check(tmp_path: Path, program: str, *options: str) -> tuple[str, int]:
    path = tmp_path / "program.py"
    path.write_text(program)
    cache = f"--cache-dir={tmp_path / 'cache'}"
    out, err, code = api.run(["--config-file=", cache, "--strict", *options, str(path)])
    assert err == ""
    return out, code


def test_a_program_without_any(tmp_path: Path) -> None:
    out, code = check(tmp_path, PROGRAM, "--disallow-any-expr")
    assert code == 0, out


def test_mistakes_are_found(tmp_path: Path) -> None:
    lines = ["from wavegate import AudioFormat, Client, SettingsAck, SynthesisEvent", *MISTAKES]
    out, _ = check(tmp_path, "\n".join(lines))
    for number, expected in enumerate(MISTAKES.values(), 2):
        assert [line for line in out.splitlines() if f":{number}:" in line and expected in line], out
