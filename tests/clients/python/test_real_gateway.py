"""The client and the real gateway, in front of the local upstream's deterministic engine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import soundfile
import waves_local
from click.testing import CliRunner
from wavegate import (
    AudioFormat,
    Client,
    InvalidRequestError,
    SessionEnded,
    SessionNotFoundError,
    UpstreamError,
    UtteranceCancelled,
    UtteranceCompleted,
)
from wavegate.cli import own_gateway as own
from wavegate.cli.app import app
from wavegate.cli.command import Failure

from tests.support.gateway import RunningGateway, running_gateway

TEXT = "The quick brown fox jumps over the lazy dog, twice."


@pytest.fixture
async def gateway() -> AsyncIterator[RunningGateway]:
    async with running_gateway() as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[Client]:
    async with Client(gateway.target) as client:
        yield client


async def tokens(text: str) -> AsyncIterator[str]:
    for token in re.findall(r"\s*\S+", text):
        await asyncio.sleep(0)
        yield token


async def test_token_by_token_every_letter_is_spoken_once(client: Client) -> None:
    async with client.synthesize(voice_id="magnus") as session:
        first = await session.say(tokens(TEXT))
        second = await session.say("And then it rests.")
        assert waves_local.spoken(await first.read()) == TEXT
        assert waves_local.spoken(await second.read()) == "And then it rests."
        outcome = await first.wait()
    assert isinstance(outcome, UtteranceCompleted)
    assert outcome.metrics.time_to_first_audio_s is not None
    assert session.ended is not None
    assert session.ended.reason == "CLIENT_END"
    assert session.ended.usage.utterance_count == 2


async def test_barge_in_silences_at_once_and_the_session_goes_on(client: Client) -> None:
    async with client.synthesize(voice_id="magnus") as session:
        story = await session.say(TEXT * 10)
        async for _ in story.audio():
            await story.cancel(playback_offset_s=0.05)
        outcome = await story.wait()
        assert isinstance(outcome, UtteranceCancelled)
        assert (outcome.spoken_text + outcome.remaining_text) == TEXT * 10 or outcome.remaining_text
        answer = await session.say("Yes?")
        assert waves_local.spoken(await answer.read()) == "Yes?"


async def test_settings_in_band_and_from_outside(client: Client) -> None:
    async with client.synthesize(voice_id="magnus") as session, client.settings_stream() as control:
        ack = await session.update_settings(speed=2.0, word_timings=True)
        assert (ack.state, ack.settings_revision) == ("APPLIED", 2)
        ack = await control.update_synthesis(session.session_id, reset=["speed"])
        assert (ack.state, ack.settings_revision) == ("APPLIED", 3)
        with pytest.raises(InvalidRequestError) as caught:
            await session.update_settings(speed=9, max_buffer_delay_s=-1)
        assert len(caught.value.field_violations) == 2
        with pytest.raises(SessionNotFoundError):
            await control.update_synthesis("nowhere", speed=1.0)
        assert (await client.get_session(session.session_id)).settings_revision == 3


async def test_what_is_heard_is_what_was_said(client: Client) -> None:
    words = ["seven", "blue", "trains"]
    speech = waves_local.speak(words, 16000, tail_s=0.5)
    async with client.transcribe(audio_format=AudioFormat("LINEAR16", 16000), language_code="en") as session:
        await session.stream_audio([speech[at : at + 3200] for at in range(0, len(speech), 3200)])
        final = await session.finalize()
        assert re.findall(r"\w+", final.text.lower()) == words
        assert final.final_trigger == "CLIENT_FINALIZE"
        ack = await session.update_settings(language_code="hi", apply="IMMEDIATE")
        assert ack.state == "APPLIED"
        await session.end()
        events = [event async for event in session]
    assert isinstance(events[-1], SessionEnded)
    assert events[-1].error is None


async def test_one_request_each(client: Client) -> None:
    speech = await client.synthesize_once("Hello there.", voice_id="magnus")
    assert waves_local.spoken(speech.audio) == "Hello there."
    voices = [voice async for voice in client.list_voices()]
    assert "magnus" in {voice.voice_id for voice in voices}
    with pytest.raises(InvalidRequestError):
        await client.synthesize_once("", voice_id="magnus")


async def test_a_bad_upstream_key_is_the_upstreams_failure() -> None:
    async with (
        running_gateway(waves_local.Options(keys=frozenset({"another"}))) as gateway,
        Client(gateway.target) as client,
    ):
        with pytest.raises(UpstreamError) as caught:
            async with client.synthesize(voice_id="magnus"):
                pytest.fail("it cannot open")
        assert caught.value.reason == "UPSTREAM_CREDENTIAL"


class TestOwnGateway:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WAVEGATE_LOCAL_ENGINE", "deterministic")
        monkeypatch.delenv("WAVEGATE_TARGET", raising=False)
        monkeypatch.delenv("SMALLEST_API_KEY", raising=False)
        monkeypatch.setattr("wavegate.client.DEFAULT_TARGET", "127.0.0.1:1")

    def test_the_demo_starts_one_where_there_is_none(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(app, ["demo", "--fast", "-o", str(tmp_path / "demo.wav")])
        assert result.exit_code == 0, result.output
        assert "starting one for the demo" in result.stderr
        spoken, rate_hz = soundfile.read(tmp_path / "demo.wav", dtype="int16")
        assert rate_hz == 24000
        assert "short tour of a speech gateway" in waves_local.spoken(spoken.tobytes())
        rows = dict(line.split("\t") for line in result.stdout.splitlines())
        assert all(value != "-" for value in rows.values()), rows

    async def test_one_that_does_not_start_says_why(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        program = tmp_path / "wavegate-server"
        program.write_text("#!/bin/sh\necho the port is taken >&2\nexit 1\n")
        program.chmod(0o755)
        monkeypatch.setattr(own, "_program", lambda: str(program))
        with pytest.raises(Failure, match=r"ended at once:\nthe port is taken") as caught:
            async with own.own_gateway():
                pytest.fail("it cannot start")
        assert caught.value.exit_code == 3

    async def test_one_that_is_not_installed_says_so(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(Failure, match="no wavegate-server to start one"):
            async with own.own_gateway():
                pytest.fail("it cannot start")

    async def test_one_that_will_not_stop_is_killed(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        program = tmp_path / "wavegate-server"
        program.write_text('#!/bin/sh\ntrap "" TERM\necho 7 > "$4"\nwhile true; do sleep 0.1; done\n')
        program.chmod(0o755)
        monkeypatch.setattr(own, "_program", lambda: str(program))
        monkeypatch.setattr(own, "_STOP_S", 0.3)
        async with own.own_gateway() as target:
            assert target == "127.0.0.1:7"
