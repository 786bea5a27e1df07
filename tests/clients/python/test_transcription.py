"""Transcription sessions against a gateway that keeps the contract."""
# ruff: noqa: PT012 - where in a session's block it fails is the gateway's to choose

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import soundfile
from wavegate import (
    AudioFormat,
    Client,
    ConnectionLostError,
    Keyword,
    SessionEnded,
    SessionStarted,
    SpeechStarted,
    Transcript,
    TranscriptionSettings,
)
from wavegate.audio import RawFormat, wav_header
from wavegate.errors import AudioFileError, AudioFileWarning

from tests.clients.python.fake_gateway import FakeGateway


class TestAudio:
    async def test_goes_out_in_the_callers_pieces(self, gateway: FakeGateway, client: Client) -> None:
        async with client.transcribe(model="pulse", language_code="en") as session:
            assert session.started.audio_format == AudioFormat("LINEAR16", 16000)
            for size in (640, 2, 32000):
                await session.send_audio(bytes(size))
            await session.send_audio(b"")
        assert [len(a.content) for a in gateway.inputs("audio")] == [640, 2, 32000]

    async def test_is_cut_between_samples_where_a_message_would_be_too_large(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        gateway.max_audio_message_bytes = 1001
        async with client.transcribe() as session:
            await session.send_audio(bytes(2500), capture_time=datetime(2026, 1, 2, tzinfo=UTC))
        sent = gateway.inputs("audio")
        assert [len(a.content) for a in sent] == [1000, 1000, 500]
        assert [a.HasField("capture_time") for a in sent] == [True, False, False]
        assert sent[0].capture_time.ToDatetime(UTC) == datetime(2026, 1, 2, tzinfo=UTC)

    async def test_a_capture_time_without_a_zone_is_local_time(
        self, gateway: FakeGateway, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        try:
            async with client.transcribe() as session:
                await session.send_audio(bytes(2), capture_time=datetime(2026, 1, 2, 12, 0))
                east = timezone(timedelta(hours=9))
                await session.send_audio(bytes(2), capture_time=datetime(2026, 1, 2, 15, 30, tzinfo=east))
        finally:
            monkeypatch.undo()
            time.tzset()
        times = [a.capture_time.ToDatetime(UTC) for a in gateway.inputs("audio")]
        assert times == [datetime(2026, 1, 2, 6, 30, tzinfo=UTC)] * 2

    async def test_an_opus_packet_stays_whole(self, gateway: FakeGateway, client: Client) -> None:
        gateway.max_audio_message_bytes = 100
        async with client.transcribe(audio_format=AudioFormat("OPUS", 48000)) as session:
            await session.send_audio(bytes(400))
        assert [len(a.content) for a in gateway.inputs("audio")] == [400]

    async def test_streams_from_a_microphone(self, gateway: FakeGateway, client: Client) -> None:
        async def microphone() -> AsyncIterator[bytes]:
            for n in range(3):
                yield bytes([n]) * 640

        def device() -> Iterator[bytes]:
            yield from (b"\x07" * 640, b"\x08" * 640)

        async with client.transcribe() as session:
            await session.stream_audio(microphone())
            await session.stream_audio(device())
        assert [a.content[0] for a in gateway.inputs("audio")] == [0, 1, 2, 7, 8]

    async def test_paced_audio_takes_its_time(self, gateway: FakeGateway, client: Client) -> None:
        loop = asyncio.get_running_loop()
        async with client.transcribe(audio_format=AudioFormat("MULAW", 8000)) as session:
            begin = loop.time()
            await session.stream_audio([bytes(8000 * 3 // 10)], paced=True)
            assert loop.time() - begin >= 0.29
        assert [len(a.content) for a in gateway.inputs("audio")] == [800, 800, 800]

    async def test_what_has_no_fixed_rate_cannot_be_paced(self, client: Client) -> None:
        async with client.transcribe(audio_format=AudioFormat("OGG_OPUS", 48000)) as session:
            with pytest.raises(ValueError, match="OGG_OPUS has no fixed rate"):
                await session.stream_audio([b"x"], paced=True)

    async def test_a_file_is_converted_to_the_sessions_format(
        self, gateway: FakeGateway, client: Client, tmp_path: Path
    ) -> None:
        path = tmp_path / "stereo.flac"
        soundfile.write(path, np.zeros((44100, 2)), 44100)
        async with client.transcribe(audio_format=AudioFormat("MULAW", 8000)) as session:
            await session.send_file(path)
        assert sum(len(a.content) for a in gateway.inputs("audio")) == 8000

    async def test_a_file_may_be_described_and_one_channel_chosen(
        self, gateway: FakeGateway, client: Client, tmp_path: Path
    ) -> None:
        (tmp_path / "samples").write_bytes(bytes(44100 * 4 * 2))
        async with client.transcribe(audio_format=AudioFormat("MULAW", 8000)) as session:
            await session.send_file(tmp_path / "samples", raw=RawFormat("f32le", 44100, 2), channel=2)
        assert sum(len(a.content) for a in gateway.inputs("audio")) == 8000

    async def test_what_a_damaged_file_lacks_is_a_warning(self, client: Client, tmp_path: Path) -> None:
        path = tmp_path / "cut.wav"
        path.write_bytes(wav_header(AudioFormat("LINEAR16", 16000), 64000) + bytes(32000))
        async with client.transcribe() as session:
            with pytest.warns(AudioFileWarning, match=r"cut\.wav is cut off: its header tells of 2\.00 s"):
                await session.send_file(path)
            final = await session.finalize()
        assert final.text == "heard 0 to 32000"

    async def test_a_file_that_is_none_leaves_the_session_alone(self, client: Client, tmp_path: Path) -> None:
        (tmp_path / "letter.txt").write_text("Dear Sir or Madam")
        async with client.transcribe() as session:
            with pytest.raises(AudioFileError, match=r"letter\.txt is text, no recording"):
                await session.send_file(tmp_path / "letter.txt")
            with pytest.raises(FileNotFoundError):
                await session.send_file(tmp_path / "missing.wav")
            await session.send_audio(bytes(640))
            final = await session.finalize()
        assert final.text == "heard 0 to 640"


class TestTranscripts:
    async def test_finalize_waits_for_its_own_final(self, client: Client) -> None:
        async with client.transcribe() as session:
            await session.send_audio(bytes(640))
            first = await session.finalize()
            await session.send_audio(bytes(320))
            second = await session.finalize("turn-2")
        assert (first.text, first.is_final) == ("heard 0 to 640", True)
        assert first.final_trigger == "CLIENT_FINALIZE"
        assert first.metrics.finalize_latency_s == 0.007
        assert (second.text, second.finalize_id) == ("heard 640 to 960", "turn-2")
        assert second.full_text == "heard 0 to 640 heard 640 to 960"

    async def test_several_turns_may_be_finalized_at_once(self, client: Client) -> None:
        async with client.transcribe() as session:
            finals = await asyncio.gather(*(session.finalize() for _ in range(5)))
            with pytest.raises(ValueError, match="still under way"):
                await asyncio.gather(session.finalize("same"), session.finalize("same"))
        assert len({f.finalize_id for f in finals}) == 5

    async def test_events_are_kept_until_they_are_read(self, client: Client) -> None:
        async with client.transcribe() as session:
            await session.send_audio(bytes(640))
            await session.send_audio(bytes(640))
            await session.end()
            events = [event async for event in session]
        assert [type(e) for e in events] == [
            SessionStarted,
            SpeechStarted,
            Transcript,
            Transcript,
            Transcript,
            SessionEnded,
        ]
        last = events[-2]
        assert isinstance(last, Transcript)
        assert (last.is_last, last.final_trigger) == (True, "END")

    async def test_finals_leave_the_partials_out(self, client: Client) -> None:
        async with client.transcribe() as session:
            for _ in range(3):
                await session.send_audio(bytes(640))
            await session.end()
            assert [t.text async for t in session.finals()] == ["heard 0 to 1920"]

    async def test_a_whole_file_may_be_sent_before_anything_is_read(self, client: Client) -> None:
        async with client.transcribe() as session:
            for _ in range(500):
                await session.send_audio(bytes(64))
            await session.end()
            assert len([t async for t in session.transcripts()]) == 501


class TestSession:
    async def test_start_carries_every_argument(self, gateway: FakeGateway, client: Client) -> None:
        async with client.transcribe(
            client_session_id="mine",
            keep_alive=False,
            initial_audio_offset_s=12.5,
            resume_window_s=3,
            keywords=["gRPC", Keyword("codec", 2.0)],
            vad_min_speech_s=0.25,
        ) as session:
            settings = session.settings
        start = gateway.inputs("start")[0]
        assert (start.client_session_id, start.keep_alive) == ("mine", False)
        assert start.HasField("keep_alive")
        assert (start.initial_audio_offset.seconds, start.initial_audio_offset.nanos) == (12, 500_000_000)
        assert start.resume_window.seconds == 3
        assert settings.keywords == (Keyword("gRPC"), Keyword("codec", 2.0))
        assert settings.vad_min_speech_s == 0.25

    async def test_settings_change_in_mid_stream(self, client: Client) -> None:
        async with client.transcribe(language_code="en") as session:
            ack = await session.update_settings(language_code="hi", apply="IMMEDIATE")
        assert (ack.state, ack.mechanism) == ("APPLIED", "RECONNECT")
        assert isinstance(ack.settings, TranscriptionSettings)
        assert ack.settings.language_code == session.settings.language_code == "hi"

    async def test_a_lost_connection_ends_a_wait_for_a_final(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        gateway.lose = True
        with pytest.raises(ConnectionLostError):
            async with client.transcribe() as session:
                await session.send_audio(bytes(640))
                await session.finalize()
