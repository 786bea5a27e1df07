"""What is not a session of one's own: control over live ones, whole texts and recordings, the catalogue, metadata."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import grpc
import pytest
from wavegate import (
    AudioChunk,
    Client,
    ConnectionEvent,
    ConnectionLostError,
    GatewayUnavailableError,
    InvalidRequestError,
    SessionNotFoundError,
    SettingsAck,
    SynthesisSettings,
    UpstreamError,
    UtteranceCompleted,
    sync,
)

from tests.clients.python.fake_gateway import FakeGateway, status, text_of


class TestSettingsStream:
    async def test_changes_any_session_of_the_caller(self, gateway: FakeGateway, client: Client) -> None:
        async with (
            client.synthesize(voice_id="magnus") as speaking,
            client.transcribe(language_code="en") as listening,
            client.settings_stream() as control,
        ):
            ack = await control.update_synthesis(speaking.session_id, speed=1.5, after_input_sequence=1)
            assert isinstance(ack.settings, SynthesisSettings)
            assert (ack.state, ack.settings.speed) == ("APPLIED", 1.5)
            ack = await control.update_transcription(listening.session_id, language_code="hi")
            assert ack.state == "APPLIED"
        request = next(r for r in gateway.requests if hasattr(r, "session_id"))
        assert request.after_input_sequence == 1

    async def test_a_refusal_raises_and_the_stream_goes_on(self, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as speaking, client.settings_stream() as control:
            with pytest.raises(SessionNotFoundError, match="no session nowhere"):
                await control.update_synthesis("nowhere", speed=1.5)
            with pytest.raises(InvalidRequestError):
                await control.update_synthesis(speaking.session_id, speed=9)
            assert (await control.update_synthesis(speaking.session_id, speed=1.5)).state == "APPLIED"

    async def test_the_session_sees_changes_from_outside(self, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as speaking:
            async with client.settings_stream() as control:
                await control.update_synthesis(speaking.session_id, speed=1.5, update_id="from-outside")
            await speaking.end()
            acks = [e async for e in speaking if isinstance(e, SettingsAck)]
        assert (speaking.settings.speed, speaking.settings_revision) == (1.5, 2)
        assert [a.update_id for a in acks] == ["from-outside"]

    async def test_watching_tells_what_else_happens(self, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as speaking, client.settings_stream() as control:
            await control.update_synthesis(speaking.session_id, speed=1.5, watch=True)
            changes = [await anext(control), await anext(control)]
        assert [c.session_id for c in changes] == [speaking.session_id] * 2
        assert isinstance(changes[0].event, SettingsAck)
        assert isinstance(changes[1].event, ConnectionEvent)
        assert changes[1].event.reason == "SETTINGS_UPDATE"

    async def test_no_gateway_shows_with_the_first_update(self) -> None:
        async with Client("127.0.0.1:1") as client, client.settings_stream() as control:
            with pytest.raises(GatewayUnavailableError, match="no gateway at"):
                await control.update_synthesis("s", speed=1)

    async def test_unknown_settings_are_a_mistake_of_the_program(self, client: Client) -> None:
        async with client.settings_stream() as control:
            with pytest.raises(TypeError, match="there is no setting 'sped': did you mean speed"):
                await control.update_synthesis("s", sped=1)  # type: ignore[call-arg]


class TestSessions:
    async def test_are_listed_over_all_pages(self, client: Client) -> None:
        async with (
            client.synthesize(voice_id="magnus", labels={"team": "a"}) as first,
            client.transcribe(labels={"team": "b"}) as second,
            client.synthesize(voice_id="lena", labels={"team": "a"}) as third,
        ):
            everything = [s async for s in client.list_sessions()]
            assert [s.session_id for s in everything] == [x.session_id for x in (first, second, third)]
            assert [s.kind for s in everything] == ["synthesis", "transcription", "synthesis"]
            team = [s.session_id async for s in client.list_sessions(labels={"team": "a"})]
            assert team == [first.session_id, third.session_id]

    async def test_one_by_its_name(self, client: Client) -> None:
        async with client.synthesize(voice_id="magnus", labels={"a": "b"}) as session:
            info = await client.get_session(session.session_id)
            assert (info.state, info.labels, info.audio_format.sample_rate_hz) == (
                "ACTIVE",
                {"a": "b"},
                24000,
            )
            assert info.create_time is None
        with pytest.raises(SessionNotFoundError, match="there is no session"):
            await client.get_session(session.session_id)
        with pytest.raises(SessionNotFoundError):
            await client.close_session(session.session_id)


class TestWholes:
    async def test_a_text_is_spoken_whole(self, client: Client) -> None:
        speech = await client.synthesize_once("Hello there", voice_id="magnus")
        assert text_of(speech.audio) == "Hello there"
        assert speech.audio_format.sample_rate_hz == 24000
        assert speech.completed.metrics.input_character_count == 11
        assert [w.reason for w in speech.warnings] == ["VOICE_UNKNOWN"]

    async def test_half_a_character_of_a_text_is_replaced(self, client: Client) -> None:
        speech = await client.synthesize_once("half \udc80", voice_id="magnus")
        assert speech.completed.metrics.input_character_count == 6

    async def test_or_event_by_event(self, client: Client) -> None:
        events = [e async for e in client.synthesize_once("Hello there", voice_id="magnus")]
        assert [type(e) for e in events][2:] == [AudioChunk, AudioChunk, UtteranceCompleted]

    async def test_half_a_speech_is_no_speech(self, gateway: FakeGateway, client: Client) -> None:
        gateway.lose = True
        with pytest.raises(ConnectionLostError, match="before it was complete"):
            await client.synthesize_once("Hello there", voice_id="magnus")

    async def test_what_the_gateway_says_against_it(self, gateway: FakeGateway, client: Client) -> None:
        gateway.refuse = status(grpc.StatusCode.FAILED_PRECONDITION, "UPSTREAM_GONE", "that model is retired")
        with pytest.raises(UpstreamError, match="retired"):
            await client.synthesize_once("Hello", voice_id="magnus")
        with pytest.raises(UpstreamError, match="retired"):
            await client.transcribe_once(b"audio")

    async def test_a_recording_is_recognized(self, client: Client, tmp_path: Path) -> None:
        (tmp_path / "a.wav").write_bytes(bytes(100))
        recognition = await client.transcribe_once(tmp_path / "a.wav", language_code="en")
        assert (recognition.text, recognition.audio_duration_s) == ("100 bytes", 2)
        assert recognition.words[0].confidence == 0.5
        assert recognition.words[0].end_offset_s == 0.25
        assert (await client.transcribe_once(bytes(7))).text == "7 bytes"
        assert (
            await client.transcribe_once(uri="https://example.com/a.wav")
        ).text == "https://example.com/a.wav"
        with pytest.raises(TypeError, match="either a recording or its uri"):
            await client.transcribe_once()
        with pytest.raises(FileNotFoundError):
            await client.transcribe_once(tmp_path / "missing.wav")

    @pytest.mark.parametrize("source", ["bytes", "file", "pipe"])
    async def test_a_recording_that_is_too_large_is_not_sent(
        self, gateway: FakeGateway, tmp_path: Path, source: str
    ) -> None:
        """No retry would help: the same recording is as large later, so it is no `CapacityError`."""
        options = [("grpc.max_send_message_length", 1000)]
        content = bytes(1001)
        async with Client(gateway.target, options=options) as client:
            recording: bytes | Path = content
            if source == "file":
                recording = tmp_path / "long.wav"
                recording.write_bytes(content)
            elif source == "pipe":
                recording = tmp_path / "pipe"
                os.mkfifo(recording)
                writing = asyncio.create_task(asyncio.to_thread(recording.write_bytes, content))
            with pytest.raises(InvalidRequestError, match=r"at most 1000 bytes.*stream.*send_file") as caught:
                await client.transcribe_once(recording)
            if source == "pipe":
                await writing
            assert [v.field for v in caught.value.field_violations] == ["content"]
            assert not caught.value.retryable
            assert gateway.metadata == []
            assert (await client.transcribe_once(bytes(900))).text == "900 bytes"

    async def test_a_message_that_grpc_finds_too_large_on_either_side(self, gateway: FakeGateway) -> None:
        async with Client(gateway.target, options=[("grpc.max_send_message_length", -1)]) as client:
            with pytest.raises(
                InvalidRequestError, match=r"the request is too large.*got 5000\d\d\d.*stream"
            ) as caught:
                await client.transcribe_once(bytes(5_000_000))  # more than a gRPC server takes by default
            assert not caught.value.retryable
        async with Client(gateway.target, options=[("grpc.max_receive_message_length", 10)]) as client:
            with pytest.raises(InvalidRequestError, match=r"the answer .* is too large.*takes 10"):
                await client.transcribe_once(b"a")

    async def test_no_gateway_for_any_of_it(self) -> None:
        async with Client("127.0.0.1:1") as client:
            with pytest.raises(GatewayUnavailableError, match=r"no gateway at 127\.0\.0\.1:1"):
                await client.synthesize_once("Hello", voice_id="magnus")
            with pytest.raises(GatewayUnavailableError, match="wavegate-server"):
                await client.get_session("s")


async def test_voices_come_over_all_pages(client: Client) -> None:
    voices = [v async for v in client.list_voices(model="lightning_v2")]
    assert [v.voice_id for v in voices] == [f"voice-{n}" for n in range(5)]
    assert voices[0].models == ("lightning_v2",)
    assert voices[0].tags == {"gender": ("female",)}


class TestMetadata:
    async def test_token_and_own_entries_go_with_every_call(self, gateway: FakeGateway) -> None:
        async with Client(gateway.target, token="secret", metadata=[("x-team", "a")]) as client:
            async with client.synthesize(voice_id="magnus"):
                pass
            await client.transcribe_once(b"a")
        for metadata in gateway.metadata:
            assert (metadata["authorization"], metadata["x-team"]) == ("Bearer secret", "a")

    async def test_the_current_span_is_the_parent(self, gateway: FakeGateway, client: Client) -> None:
        from opentelemetry import trace

        context = trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
        with trace.use_span(trace.NonRecordingSpan(context)):
            async with client.synthesize(voice_id="magnus"):
                pass
        assert gateway.metadata[0]["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"

    async def test_target_and_token_come_from_the_environment(
        self, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WAVEGATE_TARGET", gateway.target)
        monkeypatch.setenv("WAVEGATE_TOKEN", "from-the-environment")
        async with Client() as client, client.synthesize(voice_id="magnus"):
            assert client.target == gateway.target
        assert gateway.metadata[0]["authorization"] == "Bearer from-the-environment"

    @pytest.mark.parametrize("make", [Client, sync.Client])
    @pytest.mark.parametrize(
        ("token", "told"),
        [
            ("a\n", "the token holds a line break"),
            ("a\rb", "the token holds a line break"),
            ("gehéim", r"the token holds a character that is not printable ASCII \(at character 3\)"),
            ("a\0", r"the token holds a character that is not printable ASCII \(at character 1\)"),
        ],
    )
    def test_a_token_that_no_header_takes_is_told_without_repeating_it(
        self, monkeypatch: pytest.MonkeyPatch, make: type[Client | sync.Client], token: str, told: str
    ) -> None:
        with pytest.raises(ValueError, match=f"^{told}$"):
            make("127.0.0.1:1", token=token)
        monkeypatch.setattr(os, "environ", {"WAVEGATE_TOKEN": token})
        with pytest.raises(ValueError, match=f"^{told}$"):
            make("127.0.0.1:1")


async def test_one_client_carries_many_sessions(client: Client) -> None:
    async def talk(n: int) -> str:
        async with client.synthesize(voice_id="magnus") as session:
            return text_of(await (await session.say(f"session {n} speaks for itself")).read())

    spoken = await asyncio.gather(*(talk(n) for n in range(20)))
    assert spoken == [f"session {n} speaks for itself" for n in range(20)]


def test_a_client_may_be_made_before_there_is_a_loop() -> None:
    client = Client("127.0.0.1:1")

    async def use() -> None:
        async with client:
            with pytest.raises(GatewayUnavailableError):
                await client.get_session("s")

    asyncio.run(use())
    asyncio.run(Client("127.0.0.1:1").close())


async def test_tls_is_spoken_where_it_is_asked_for(gateway: FakeGateway) -> None:
    """A plain gateway does not understand it, which shows that it was tried."""
    async with Client(gateway.target, tls=True) as client:
        with pytest.raises(GatewayUnavailableError, match="no gateway at"):
            await client.get_session("s")


@pytest.mark.parametrize("pem", [b"", b"not a certificate"])
def test_authorities_that_are_none_never_mean_a_call_in_the_clear(pem: bytes) -> None:
    with pytest.raises(ValueError, match="holds no certificate"):
        Client("127.0.0.1:1", root_certificates=pem)
