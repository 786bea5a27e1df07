"""Listening through the whole gateway: gRPC in front, the local upstream behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import waves_local
from wavegate.speech import v1
from wavegate_server.session.context import Bounds
from waves_local.deterministic import encode_text

from tests.support.calls import Failure, Speaking, eventually, failure, failure_of, seconds
from tests.support.gateway import RunningGateway, running_gateway

RATE_HZ = 16000
TEXT = "we hold these truths to be self evident that all of them are whole"


def pcm(text: str) -> bytes:
    return encode_text(text, RATE_HZ)


def request(**fields: Any) -> Any:
    return v1.TranscribeStreamRequest(**fields)


def start(**fields: Any) -> Any:
    """A `start` with these settings, and LINEAR16 at 16 kHz."""
    return request(
        start=v1.StartTranscription(
            audio_format=v1.AudioFormat(), settings=v1.TranscriptionSettings(**fields)
        )
    )


def audio(content: bytes, size: int = 3200) -> list[Any]:
    return [
        request(audio=v1.AudioInput(content=content[at : at + size])) for at in range(0, len(content), size)
    ]


def finalize(finalize_id: str = "") -> Any:
    return request(finalize=v1.Finalize(finalize_id=finalize_id))


END = request(end_session=v1.EndSession())


class Listening(Speaking):
    """One `TranscribeStream` call."""

    async def rest(self) -> Failure:
        while await self.next() is not None:
            pass
        status = await failure_of(self.call)
        assert [r.sequence for r in self.got] == list(range(1, len(self.got) + 1)), "sequence has a gap"
        acknowledged = [r.acknowledged_input_sequence for r in self.got]
        assert acknowledged == sorted(acknowledged)
        assert self.kinds()[-1] == "session_ended"
        if len(self.got) > 1:
            assert self.kinds()[0] == "session_started"
        assert failure(self.ended.status) == status
        return status

    @property
    def transcripts(self) -> list[Any]:
        return self.all("transcript")

    @property
    def text(self) -> str:
        return " ".join(t.text for t in self.transcripts if t.is_final and t.text)


@asynccontextmanager
async def listening(
    options: waves_local.Options | None = None, **changes: Any
) -> AsyncIterator[tuple[Listening, RunningGateway]]:
    async with running_gateway(options, **changes) as gateway:
        call = Listening(gateway.transcription.TranscribeStream())
        yield call, gateway
        call.call.cancel()


async def test_audio_in_transcripts_out() -> None:
    async with listening() as (call, gateway):
        await call.say(start(word_timings=True, full_transcript=True))
        await call.say(*audio(pcm(TEXT)), END)
        status = await call.rest()
        assert status.code is grpc.StatusCode.OK
        assert call.text == TEXT
        started = call.one("session_started")
        assert started.settings.transcription == v1.TranscriptionSettings(
            model="pulse", language_code="en", word_timings=True, full_transcript=True
        )
        assert started.audio_format.sample_rate_hertz == RATE_HZ
        last = call.transcripts[-1]
        assert (last.is_last, last.full_text) == (True, TEXT)
        assert last.final_trigger == v1.Transcript.FINAL_TRIGGER_END
        assert seconds(last.words[0].start_offset) == 0.0
        assert last.upstream.endpoint.endswith("/waves/v1/stt/live")
        assert "?" not in last.upstream.endpoint
        usage = call.ended.usage
        assert usage.audio_bytes == len(pcm(TEXT))
        assert seconds(usage.audio_duration) == pytest.approx(len(pcm(TEXT)) / 2 / RATE_HZ)
        assert call.ended.reason == v1.SessionEnded.REASON_CLIENT_END
        assert len(gateway.gateway.registry) == 0
        metadata = dict(await call.call.initial_metadata())
        assert metadata["wavegate-session-id"] == started.session_id


async def test_half_close_delivers_the_rest() -> None:
    async with listening() as (call, _):
        status = await call.end(start(), *audio(pcm("one two three"), 777))
        assert status.code is grpc.StatusCode.OK
        assert call.ended.reason == v1.SessionEnded.REASON_CLIENT_HALF_CLOSE
        assert call.text == "one two three"
        assert [t.is_last for t in call.transcripts].count(True) == 1


async def test_a_cancelled_call_finalizes_nothing_upstream() -> None:
    async with listening() as (call, gateway):
        assert gateway.upstream is not None
        await call.begin(start())
        await call.say(*audio(pcm("one two three")))
        await call.until("transcript")
        call.call.cancel()
        await eventually(lambda: gateway.upstream is not None and gateway.upstream.open_connections == 0)
        (record,) = gateway.upstream.journal.of("stt")
        assert record.texts == []
        await eventually(lambda: len(gateway.gateway.registry) == 0)


async def test_turns() -> None:
    async with listening() as (call, _):
        await call.begin(start())
        for turn in ("one two", "three"):
            await call.say(*audio(pcm(turn)), finalize(turn.replace(" ", "-")))
            answer = await call.until("transcript", is_final=True)
            assert (answer.text, answer.finalize_id) == (turn, turn.replace(" ", "-"))
            assert answer.final_trigger == v1.Transcript.FINAL_TRIGGER_CLIENT_FINALIZE
            assert answer.metrics.HasField("finalize_latency")
        assert (await call.end(END, half_close=False)).code is grpc.StatusCode.OK


@pytest.mark.parametrize("in_band", [True, False])
async def test_settings_change_in_the_stream_and_beside_it(in_band: bool) -> None:
    async with listening() as (call, gateway):
        assert gateway.upstream is not None
        started = await call.begin(start())
        await call.say(*audio(pcm("one two ")))
        delta = v1.TranscriptionSettings(language_code="hi", interim_results=False)
        if in_band:
            update = v1.UpdateTranscriptionSettings(
                update_id="u", settings=delta, apply_policy=v1.APPLY_POLICY_IMMEDIATE
            )
            await call.say(request(update_settings=update))
        else:
            control = gateway.sessions.UpdateSettings()
            await control.write(
                v1.UpdateSettingsRequest(
                    update_id="u",
                    session_id=started.session_id,
                    transcription=delta,
                    apply_policy=v1.APPLY_POLICY_IMMEDIATE,
                )
            )
            await control.done_writing()
            states = [r.ack.state async for r in control]
            assert states == [v1.SettingsAck.STATE_QUEUED, v1.SettingsAck.STATE_APPLIED]
        ack = await call.until("settings_ack", state=v1.SettingsAck.STATE_APPLIED)
        assert ack.update_id == "u"
        assert ack.mechanism == v1.SettingsAck.MECHANISM_RECONNECT
        assert {f.path: f.mechanism for f in ack.fields} == {
            "language_code": v1.SettingsAck.MECHANISM_RECONNECT,
            "interim_results": v1.SettingsAck.MECHANISM_IN_PLACE,
        }
        assert ack.settings_revision == 2
        assert ack.settings.transcription.language_code == "hi"
        assert ack.HasField("audio_offset")
        await call.say(*audio(pcm("three four")))
        assert (await call.end(END, half_close=False)).code is grpc.StatusCode.OK
        assert call.text == "one two three four"
        assert [r.query["language"] for r in gateway.upstream.journal.of("stt")] == ["en", "hi"]
        assert call.ended.usage.reconnect_count == 1


async def test_a_drop_is_told_and_nothing_is_lost() -> None:
    async with listening() as (call, gateway):
        assert gateway.upstream is not None
        gateway.upstream.faults.add("stt:drop,after-bytes=40000,nth=1")
        status = await call.end(start(word_timings=True), *audio(pcm(TEXT)), END)
        assert status.code is grpc.StatusCode.OK
        assert call.text == TEXT
        states = [c.state for c in call.all("connection")]
        event = v1.ConnectionEvent
        assert states == [
            event.STATE_CONNECTED,
            event.STATE_DISCONNECTED,
            event.STATE_RECONNECTING,
            event.STATE_CONNECTED,
        ]
        lost, again, back = call.all("connection")[1:]
        assert (lost.close_code, lost.reason) == (1006, event.REASON_NETWORK_ERROR)
        assert failure(lost.cause).reason == "UPSTREAM_UNAVAILABLE"
        assert (again.attempt, again.max_attempts) == (1, 3)
        assert back.upstream.connection_index == 1
        assert seconds(back.replayed_audio_duration) > 0
        assert seconds(back.lost_audio_duration) == 0


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([request(start=v1.StartTranscription())], "start.audio_format"),
        ([start(max_words=0)], "start.settings.max_words"),
        ([start(), request(audio=v1.AudioInput())], "audio.content"),
        ([start(), request(audio=v1.AudioInput(content=bytes(5000)))], "audio.content"),
        ([start(), finalize("no blanks")], "finalize.finalize_id"),
    ],
)
async def test_bad_input_is_named(requests: list[Any], field: str) -> None:
    async with listening(bounds=Bounds(max_audio_message_bytes=4000)) as (call, _):
        status = await call.end(*requests)
        assert status.code is grpc.StatusCode.INVALID_ARGUMENT
        assert status.reason == "FIELD_INVALID"
        assert set(status.violations) == {field}


@pytest.mark.parametrize("requests", [[finalize()], [start(), start()]])
async def test_the_order_of_messages(requests: list[Any]) -> None:
    async with listening() as (call, _):
        assert (await call.end(*requests)).what == ("INVALID_ARGUMENT", "MESSAGE_ORDER")


@pytest.mark.parametrize(
    ("options", "settings", "what"),
    [
        ({"keys": ("another",)}, {}, ("FAILED_PRECONDITION", "UPSTREAM_CREDENTIAL")),
        ({}, {"model": "pulse-pro"}, ("INVALID_ARGUMENT", "UPSTREAM_REJECTED")),
        ({}, {"language_code": "xx"}, ("INVALID_ARGUMENT", "UPSTREAM_REJECTED")),
        ({"old_stt_paths": "gone"}, {}, None),
    ],
)
async def test_what_the_upstream_refuses(
    options: dict[str, Any], settings: dict[str, Any], what: tuple[str, str] | None
) -> None:
    async with listening(waves_local.Options(**options)) as (call, _):
        status = await call.end(start(**settings), *audio(pcm("one")))
        assert status.what == (what or ("OK", ""))


async def test_a_full_account_ends_a_session_that_was_accepted() -> None:
    async with running_gateway(waves_local.Options(stt_sockets=1)) as gateway:
        first = Listening(gateway.transcription.TranscribeStream())
        await first.begin(start())
        second = Listening(gateway.transcription.TranscribeStream())
        await second.say(start())
        status = await second.rest()
        assert status.what == ("RESOURCE_EXHAUSTED", "UPSTREAM_CAPACITY")
        assert status.retry_s is not None
        assert (await first.end(*audio(pcm("one")), END)).code is grpc.StatusCode.OK
        assert first.text == "one"


async def test_twenty_listeners_at_once_hear_their_own() -> None:
    async with running_gateway() as gateway:

        async def listen(number: int) -> None:
            text = f"listener {'abcdefghijklmnopqrst'[number]} heard all of this"
            call = Listening(gateway.transcription.TranscribeStream())
            assert (await call.end(start(), *audio(pcm(text), 999), END)).code is grpc.StatusCode.OK
            assert call.text == text

        await asyncio.gather(*[listen(n) for n in range(20)])


async def test_recordings() -> None:
    async with running_gateway() as gateway:
        response = await gateway.transcription.Recognize(
            v1.RecognizeRequest(
                content=pcm("hello there"),
                audio_format=v1.AudioFormat(),
                settings=v1.TranscriptionSettings(word_timings=True, sentence_timings=True),
            )
        )
        assert response.text == "hello there"
        assert [w.text for w in response.words] == ["hello", "there"]
        assert [s.text for s in response.sentences] == ["hello there"]
        assert seconds(response.audio_duration) == pytest.approx(
            len(pcm("hello there")) / 2 / RATE_HZ, abs=0.01
        )
        assert response.upstream.endpoint.endswith("/waves/v1/stt/")
        for bad in (v1.RecognizeRequest(), v1.RecognizeRequest(content=bytes(100))):
            call = gateway.transcription.Recognize(bad)
            assert (await failure_of(call)).what == ("INVALID_ARGUMENT", "FIELD_INVALID")
        call = gateway.transcription.Recognize(
            v1.RecognizeRequest(
                content=pcm("x"),
                audio_format=v1.AudioFormat(),
                settings=v1.TranscriptionSettings(model="no-such-model"),
            )
        )
        assert (await failure_of(call)).what == ("INVALID_ARGUMENT", "UPSTREAM_REJECTED")


CARD = "my card is 4111 1111 1111 1111"
AND = "and it is 4222 2222 2222 2222"


def update(number: int, policy: str = "IMMEDIATE", **fields: Any) -> Any:
    return request(
        update_settings=v1.UpdateTranscriptionSettings(
            update_id=f"u{number}",
            settings=v1.TranscriptionSettings(**fields),
            apply_policy=v1.ApplyPolicy.Value(f"APPLY_POLICY_{policy}"),
        )
    )


@pytest.mark.parametrize("policy", ["IMMEDIATE", "NEXT_BOUNDARY"])
@pytest.mark.parametrize(
    ("options", "faults"),
    [
        ({}, []),
        ({"empty_finalize": "silent", "last_apart": True}, []),
        ({"stt_delay_s": 0.5}, []),
        ({"stt_sockets": 1}, []),
        ({}, ["stt:drop,nth=1,after-bytes=40000"]),
        ({}, ["stt:drop,nth=1,after-frames=2"]),
        ({}, ["stt:close=1011,nth=1,after-bytes=90000", "stt:drop,nth=3,after-bytes=30000"]),
    ],
    ids=str,
)
async def test_a_card_number_stays_hidden_when_redaction_is_turned_off_behind_it(
    policy: str, options: dict[str, Any], faults: list[str]
) -> None:
    """Whatever becomes of the connection that heard it. No final and no word of one shows a digit of it."""
    async with listening(waves_local.Options(**options)) as (call, gateway):
        for fault in faults:
            gateway.upstream.faults.add(fault)
        first = pcm(CARD)
        await call.say(start(redact_pci=True, word_timings=True, interim_results=True))
        await call.say(*audio(first))
        await call.say(update(1, policy, redact_pci=False))
        await call.say(*audio(pcm(" " + AND)), END)
        assert (await call.rest()).code is grpc.StatusCode.OK
        applied = [a for a in call.all("settings_ack") if a.state == v1.SettingsAck.STATE_APPLIED]
        (offset,) = (seconds(a.audio_offset) for a in applied)
        assert offset >= len(first) / 2 / RATE_HZ
        finals = [t for t in call.transcripts if t.is_final and t.text]
        assert not [t.text for t in finals if "1111" in t.text]
        assert not [w.text for t in finals for w in t.words if "1111" in w.text]
        assert " ".join(t.text for t in finals if t.settings_revision == 1).startswith("my card is [")
        if policy == "IMMEDIATE":
            assert offset == pytest.approx(len(first) / 2 / RATE_HZ)
            assert " ".join(t.text for t in finals if t.settings_revision == 2) == AND
        heard = [r.query.get("redact_pci") for r in gateway.upstream.journal.of("stt") if r.status == 101]
        assert heard[-1] == "false"


async def test_redaction_hides_what_follows_when_it_is_turned_on() -> None:
    async with listening() as (call, gateway):
        await call.say(start(word_timings=True))
        await call.say(*audio(pcm(CARD)))
        await call.say(update(1, redact_pci=True))
        await call.say(*audio(pcm(AND)), END)
        assert (await call.rest()).code is grpc.StatusCode.OK
        finals = [(t.text, t.settings_revision) for t in call.transcripts if t.is_final and t.text]
        assert [revision for _, revision in finals] == [1, 2]
        assert finals[0][0] == CARD
        assert finals[1][0].startswith("and it is [")
        assert "2222" not in finals[1][0]
        old, new = gateway.upstream.journal.of("stt")
        assert (old.audio_bytes, new.audio_bytes) == (len(pcm(CARD)), len(pcm(AND)))


async def test_each_stretch_of_audio_has_its_own_settings() -> None:
    """Several deltas in a row, as fast as they can be sent."""
    async with listening() as (call, gateway):
        await call.say(start(language_code="en", max_words=2))
        await call.say(*audio(pcm("one two three")))
        await call.say(update(1, max_words=1))
        await call.say(*audio(pcm("four five")))
        await call.say(update(2, language_code="de"), update(3, max_words=9))
        await call.say(*audio(pcm("six seven")), END)
        assert (await call.rest()).code is grpc.StatusCode.OK
        finals = [(t.text, t.settings_revision) for t in call.transcripts if t.is_final and t.text]
        assert finals == [("one two", 1), ("three", 1), ("four", 2), ("five", 2), ("six seven", 4)]
        records = [r for r in gateway.upstream.journal.of("stt") if r.audio_bytes]
        assert [(r.query["language"], r.query["max_words"]) for r in records] == [
            ("en", "2"),
            ("en", "1"),
            ("de", "9"),
        ]
        offsets = [seconds(a.audio_offset) for a in call.all("settings_ack") if a.state == 2]
        before = [len(pcm("one two three")), len(pcm("one two threefour five"))]
        assert offsets == pytest.approx([n / 2 / RATE_HZ for n in (before[0], before[1], before[1])])
