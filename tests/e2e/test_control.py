"""Settings while they run, in-band and from outside, and the sessions as SessionService shows them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
import grpc.aio
import pytest
import waves_local
from wavegate.speech import v1
from wavegate.speech.v1 import session_service_pb2_grpc
from wavegate_server.rpc.auth import Authenticator, parse_tokens
from wavegate_server.waves.tts import Mode

from tests.support.calls import (
    PATIENCE_S,
    Failure,
    Speaking,
    change,
    end_utterance,
    failure,
    failure_of,
    failure_of_error,
    flush,
    request,
    seconds,
    together,
)
from tests.support.gateway import END, RunningGateway, running_gateway, start, text

OK = Failure(grpc.StatusCode.OK)
Ack = v1.SettingsAck
APPLIED, QUEUED, REJECTED = Ack.STATE_APPLIED, Ack.STATE_QUEUED, Ack.STATE_REJECTED
NO_CHANGE, IN_PLACE = Ack.MECHANISM_NO_CHANGE, Ack.MECHANISM_IN_PLACE
NEXT_UTTERANCE, RECONNECT = Ack.MECHANISM_NEXT_UTTERANCE, Ack.MECHANISM_RECONNECT
SLOW = waves_local.Options(chunk_interval_s=0.03)
LONG = "A sentence that lasts for some moments."


def speaking(gateway: RunningGateway, **options: Any) -> Speaking:
    return Speaking(gateway.synthesis.SynthesizeStream(**options))


def spoken(stream: Speaking, utterance_id: str | None = None) -> str:
    return waves_local.spoken(stream.audio(utterance_id))


def sent(gateway: RunningGateway) -> list[dict[str, Any]]:
    """All messages that reached the upstream."""
    assert gateway.upstream is not None
    return [m for record in gateway.upstream.journal.of("tts") for m in record.texts]


def mechanisms(ack: Any) -> dict[str, int]:
    return {f.path: f.mechanism for f in ack.fields}


class Controlling:
    """One UpdateSettings call as a test drives it."""

    def __init__(self, gateway: RunningGateway, **options: Any) -> None:
        self.call = gateway.sessions.UpdateSettings(**options)
        self.got: list[Any] = []

    async def say(self, *requests: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            for message in requests:
                await self.call.write(message)

    async def next(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            try:
                response = await self.call.read()
            except grpc.aio.AioRpcError:
                return None
        if response is grpc.aio.EOF:
            return None
        self.got.append(response)
        return response

    async def ack(self, update_id: str, state: int | None = None) -> Any:
        """Read up to an ack of this delta, in this state."""
        while (response := await self.next()) is not None:
            ack = response.ack
            if response.HasField("ack") and ack.update_id == update_id and state in (None, ack.state):
                return ack
        raise AssertionError(f"no such ack: {self.got}; ended with {await failure_of(self.call)}")

    async def end(self, *requests: Any) -> Failure:
        """Write, half-close, read to the end."""
        await self.say(*requests)
        await self.call.done_writing()
        while await self.next() is not None:
            pass
        return await failure_of(self.call)

    def states(self, update_id: str) -> list[int]:
        return [r.ack.state for r in self.got if r.HasField("ack") and r.ack.update_id == update_id]


def delta(session_id: str, update_id: str, reset: tuple[str, ...] = (), **fields: Any) -> Any:
    """A delta from outside; keywords of the request itself go by name, all others are synthesis settings."""
    names = {f.name for f in v1.UpdateSettingsRequest.DESCRIPTOR.fields}
    own = {name: fields.pop(name) for name in list(fields) if name in names}
    message = v1.UpdateSettingsRequest(session_id=session_id, update_id=update_id, **own)
    message.reset_mask.paths.extend(reset)
    if fields:
        message.synthesis.CopyFrom(v1.SynthesisSettings(**fields))
    return message


# -- in the stream -----------------------------------------------------------------------------------------------


async def test_a_delta_is_applied_at_once_while_nothing_is_spoken() -> None:
    """The ack says all of it; the next utterance, and no earlier one, has the new settings."""
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        await stream.begin(start(speed=1.0), text("Before.", "u1", True))
        await stream.until("utterance_completed")
        await stream.say(change("d1", speed=2.0, voice_id="sophia", max_chunk_bytes=4096))
        ack = await stream.until("settings_ack")
        assert (ack.update_id, ack.state) == ("d1", APPLIED)
        assert ack.mechanism == NEXT_UTTERANCE
        assert mechanisms(ack) == {
            "voice_id": NEXT_UTTERANCE,
            "speed": NEXT_UTTERANCE,
            "max_chunk_bytes": IN_PLACE,
        }
        assert ack.settings_revision == 2
        assert (ack.settings.synthesis.speed, ack.settings.synthesis.voice_id) == (2.0, "sophia")
        assert ack.applied_after_input_sequence == 3
        assert not ack.HasField("error")
        assert seconds(ack.apply_duration) >= 0
        await stream.say(text("After.", "u2", True))
        assert await stream.end(END) == OK
        first, second = sent(gateway)
        assert (first["speed"], first["voice_id"]) == (1.0, "magnus")
        assert (second["speed"], second["voice_id"]) == (2.0, "sophia")
        assert stream.one("utterance_started", "u2").settings_revision == 2
        assert stream.one("utterance_completed", "u1").settings_revision == 1
        assert stream.one("utterance_completed", "u2").settings_revision == 2
        assert len(stream.all("settings_ack")) == 1


async def test_a_delta_before_the_text_governs_the_first_utterance() -> None:
    """Sent with `start`, before the upstream has even answered."""
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        await stream.say(start(), change("d1", speed=0.5), text("Slow from the start.", "u1", True))
        assert await stream.end(END) == OK
        assert {m["speed"] for m in sent(gateway)} == {0.5}
        assert stream.one("settings_ack").state == APPLIED


async def test_a_delta_while_speaking_is_queued_and_applied_at_the_utterances_end() -> None:
    async with running_gateway(SLOW) as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text(LONG, "u1", True))
        await stream.until("audio")
        await stream.say(
            text("Waits with the old ones.", "u2", True), change("d1", speed=1.5), text("New.", "u3", True)
        )
        queued = await stream.until("settings_ack")
        assert (queued.update_id, queued.state) == ("d1", QUEUED)
        assert mechanisms(queued) == {"speed": NEXT_UTTERANCE}
        applied = await stream.until("settings_ack")
        assert (applied.update_id, applied.state) == ("d1", APPLIED)
        assert applied.settings_revision == 2
        assert applied.first_utterance_id == "u3"
        assert applied.applied_after_input_sequence == 4
        assert [e.utterance_id for e in stream.all("utterance_completed")] == ["u1", "u2"]
        assert await stream.end(END) == OK
        assert [m.get("speed") for m in sent(gateway)] == [None, None, 1.5]
        assert [e.settings_revision for e in stream.all("utterance_started")] == [1, 1, 2]


@pytest.mark.parametrize("mode", list(Mode), ids=lambda m: m.value)
async def test_an_immediate_delta_changes_the_rest_of_an_utterance(mode: Mode) -> None:
    """The context is closed and another opened, under the same utterance: one end, all characters once."""
    async with running_gateway(mode=mode) as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text("First half.", "u1"))
        if mode is Mode.FLUSH:
            await stream.say(flush())
        await stream.until("audio")
        await stream.say(change("d1", apply_policy=v1.APPLY_POLICY_IMMEDIATE, voice_id="sophia", speed=2.0))
        ack = await stream.until("settings_ack")
        assert (ack.state, ack.settings_revision) == (APPLIED, 2)
        assert mechanisms(ack) == {"voice_id": IN_PLACE, "speed": IN_PLACE}
        assert ack.first_utterance_id == "u1"
        await stream.say(text(" Second half.", "u1", True))
        completed = await stream.until("utterance_completed")
        assert spoken(stream, "u1") == "First half. Second half."
        assert completed.settings_revision == 2
        assert len(completed.upstreams) == 2
        assert await stream.end(END) == OK
        voices = [(m["voice_id"], m["text"]) for m in sent(gateway) if m.get("text")]
        assert voices == [("magnus", "First half."), ("sophia", " Second half.")]
        assert len({m["request_id"] for m in sent(gateway)}) == 2


async def test_an_immediate_delta_pulls_earlier_ones_along() -> None:
    async with running_gateway(SLOW) as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text(LONG, "u1"))
        await stream.until("audio")
        await stream.say(
            change("d1", speed=1.5),
            change("d2", voice_id="sophia", apply_policy=v1.APPLY_POLICY_IMMEDIATE),
            text(" The rest.", "u1", True),
        )
        assert await stream.end(END) == OK
        acks = [(a.update_id, a.state, a.settings_revision) for a in stream.all("settings_ack")]
        assert acks == [("d1", QUEUED, acks[0][2]), ("d1", APPLIED, 2), ("d2", APPLIED, 3)]
        last = sent(gateway)[-1]
        assert (last["speed"], last["voice_id"]) == (1.5, "sophia")
        assert spoken(stream) == LONG + " The rest."


async def test_deltas_that_are_overtaken_are_superseded() -> None:
    async with running_gateway(SLOW) as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text(LONG, "u1", True))
        await stream.until("audio")
        await stream.say(change("d1", speed=1.5), change("d2", speed=1.75), change("d3", math_notation=True))
        assert await stream.end(text("New.", "u2", True), END) == OK
        states = {}
        for ack in stream.all("settings_ack"):
            states.setdefault(ack.update_id, []).append(ack.state)
        assert states == {
            "d1": [QUEUED, Ack.STATE_SUPERSEDED],
            "d2": [QUEUED, APPLIED],
            "d3": [QUEUED, APPLIED],
        }
        assert (sent(gateway)[-1]["speed"], sent(gateway)[-1]["math_notation"]) == (1.75, True)


async def test_a_reset_puts_fields_back_to_the_gateways_defaults() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        await stream.begin(start(speed=1.5, voice_id="sophia", language_code="en"))
        await stream.say(change("d1", reset=["speed", "voice_id"], math_notation=True))
        ack = await stream.until("settings_ack")
        assert ack.state == APPLIED
        assert set(mechanisms(ack)) == {"speed", "voice_id", "math_notation"}
        settings = ack.settings.synthesis
        assert not settings.HasField("speed")
        assert (settings.voice_id, settings.language_code, settings.math_notation) == ("magnus", "en", True)
        assert await stream.end(text("Reset.", "u1", True), END) == OK
        assert "speed" not in sent(gateway)[0]


async def test_what_changes_nothing_makes_no_revision() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        await stream.begin(start(speed=1.5))
        await stream.say(change("same", speed=1.5), change("none"))
        for _ in range(2):
            ack = await stream.until("settings_ack")
            assert (ack.state, ack.mechanism, ack.settings_revision) == (APPLIED, NO_CHANGE, 1)
        assert await stream.end(END) == OK


async def test_a_bad_delta_is_rejected_whole_and_the_stream_goes_on() -> None:
    """Every violation at once, with paths from the request message; nothing of it is applied."""
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        await stream.begin(start())
        extra = {"voice_id": "x", "fine": 1}
        bad = change("d1", reset=["pitch", "math_notation"], speed=9.0, voice_id=" ", math_notation=True)
        bad.update_settings.settings.extra.update(extra)
        bad.update_settings.settings.max_buffer_delay.FromMilliseconds(5001)
        await stream.say(bad)
        ack = await stream.until("settings_ack")
        assert (ack.update_id, ack.state, ack.settings_revision) == ("d1", REJECTED, 1)
        error = failure(ack.error)
        assert error.what == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert set(error.violations) == {
            "update_settings.settings.speed",
            "update_settings.settings.voice_id",
            "update_settings.settings.max_buffer_delay",
            "update_settings.settings.extra.voice_id",
            "update_settings.reset_mask",
        }
        assert not ack.settings.synthesis.HasField("math_notation")
        await stream.say(text("Goes on.", "u1", True))
        assert await stream.end(END) == OK
        assert "math_notation" not in sent(gateway)[0]
        assert spoken(stream) == "Goes on."


async def test_revisions_guard_against_lost_updates() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        await stream.begin(start())
        await stream.say(
            change("d1", speed=1.5, expected_revision=1), change("d2", speed=1.6, expected_revision=1)
        )
        assert (await stream.until("settings_ack")).state == APPLIED
        ack = await stream.until("settings_ack")
        assert ack.state == REJECTED
        assert failure(ack.error).what == ("ABORTED", "REVISION_MISMATCH")
        assert failure(ack.error).metadata["settings_revision"] == "2"
        assert ack.settings.synthesis.speed == 1.5
        assert await stream.end(END) == OK


async def test_validate_only_changes_nothing() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        await stream.begin(start())
        await stream.say(
            change("d1", speed=1.5, validate_only=True), change("d2", speed=5, validate_only=True)
        )
        ack = await stream.until("settings_ack")
        assert (ack.state, ack.settings.synthesis.speed) == (Ack.STATE_VALIDATED, 1.5)
        assert mechanisms(ack) == {"speed": NEXT_UTTERANCE}
        assert (await stream.until("settings_ack")).state == REJECTED
        assert await stream.end(text("As before.", "u1", True), END) == OK
        assert "speed" not in sent(gateway)[0]
        assert stream.one("utterance_completed").settings_revision == 1


async def test_an_update_id_is_applied_once() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        await stream.begin(start())
        await stream.say(
            change("d1", speed=1.5), change("d1", speed=2.0), change("", speed=0.75), change("", speed=0.8)
        )
        assert await stream.end(END) == OK
        assert [a.settings.synthesis.speed for a in stream.all("settings_ack")] == [1.5, 0.75, 0.8]
        assert stream.all("settings_ack")[-1].settings_revision == 4
        assert len(stream.warnings()) == 1


async def test_a_model_with_another_path_needs_another_connection() -> None:
    """RECONNECT in the ack, refused with NO_RECONNECT; a field of the old model alone is refused."""
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        await stream.begin(start(voice_id="emily"))
        policy = v1.APPLY_POLICY_NO_RECONNECT
        await stream.say(change("d0", model="lightning-v2", apply_policy=policy))
        ack = await stream.until("settings_ack")
        assert ack.state == REJECTED
        assert failure(ack.error).reason == "RECONNECT_REQUIRED"
        await stream.say(change("d1", speed=1.5, apply_policy=policy))
        assert (await stream.until("settings_ack")).state == APPLIED
        await stream.say(change("d2", enhancement=1))
        ack = await stream.until("settings_ack")
        assert set(failure(ack.error).violations) == {"update_settings.settings.enhancement"}
        await stream.say(change("d3", model="lightning-v2", enhancement=1))
        ack = await stream.until("settings_ack")
        assert (ack.state, ack.mechanism) == (APPLIED, RECONNECT)
        assert mechanisms(ack) == {"model": RECONNECT, "enhancement": NEXT_UTTERANCE}
        assert await stream.end(text("Old path.", "u1", True), END) == OK
        assert spoken(stream) == "Old path."
        assert gateway.upstream is not None
        first, second = gateway.upstream.journal.of("tts")
        assert first.texts == []
        assert second.path == "/waves/v1/lightning-v2/get_speech/stream"
        assert second.texts[0]["enhancement"] == 1


async def test_a_delta_that_still_waits_when_the_session_ends_says_so() -> None:
    async with running_gateway(SLOW) as gateway:
        stream = speaking(gateway)
        await stream.begin(start(), text(LONG, "u1"))
        await stream.until("audio")
        assert (
            await stream.end(change("d1", speed=1.5), request(end_session=v1.EndSession(discard=True))) == OK
        )
        states = [a.state for a in stream.all("settings_ack")]
        assert states[0] == QUEUED
        assert states[1:] in ([Ack.STATE_SESSION_ENDED], [APPLIED])
        assert stream.kinds()[-1] == "session_ended"


# -- from outside ------------------------------------------------------------------------------------------------


async def test_a_delta_from_outside_means_the_same_and_is_acknowledged_on_both_sides() -> None:
    async with running_gateway(SLOW) as gateway:
        stream = speaking(gateway)
        session_id = (await stream.begin(start(), text(LONG, "u1", True))).session_id
        await stream.until("audio")
        control = Controlling(gateway)
        assert await control.end(delta(session_id, "d1", speed=1.5)) == OK
        assert control.states("d1") == [QUEUED, APPLIED]
        assert {r.session_id for r in control.got} == {session_id}
        assert await stream.end(text("New.", "u2", True), END) == OK
        assert stream.all("settings_ack") == [r.ack for r in control.got]
        assert sent(gateway)[-1]["speed"] == 1.5


async def test_one_control_stream_serves_many_sessions() -> None:
    """Unknown and ended ones are refused in the ack, and the call goes on."""
    async with running_gateway() as gateway:
        streams = [speaking(gateway) for _ in range(3)]
        ids = [(await s.begin(start())).session_id for s in streams]
        assert await streams[2].end(END) == OK
        control = Controlling(gateway)
        status = await control.end(
            delta("s-unknown", "d1", speed=1.1),
            delta(ids[0], "d1", speed=1.2),
            delta(ids[2], "d1", speed=1.3),
            delta(ids[1], "d1", speed=1.4),
        )
        assert status == OK
        acks = {r.session_id: r.ack for r in control.got}
        assert [acks[i].state for i in (ids[0], ids[1])] == [APPLIED, APPLIED]
        for gone in ("s-unknown", ids[2]):
            assert acks[gone].update_id == "d1"
            assert acks[gone].state == REJECTED
            assert failure(acks[gone].error).what == ("NOT_FOUND", "SESSION_NOT_FOUND")
            assert not acks[gone].HasField("settings")
        for stream, speed in zip(streams, (1.2, 1.4), strict=False):
            assert await stream.end(text("x", "u1", True), END) == OK
            assert stream.one("settings_ack").settings.synthesis.speed == speed


async def test_a_control_request_without_its_ids_ends_the_call() -> None:
    """After the acks of what came before; the sessions live on."""
    async with running_gateway() as gateway:

        async def ends(missing: str, value: str) -> None:
            stream = speaking(gateway)
            session_id = (await stream.begin(start())).session_id
            control = Controlling(gateway)
            bad = delta(session_id, "d2", speed=1.5)
            setattr(bad, missing, value)
            status = await control.end(delta(session_id, "d1", speed=1.2), bad)
            assert status.what == ("INVALID_ARGUMENT", "FIELD_INVALID"), (missing, value)
            assert set(status.violations) == {missing}
            assert control.states("d1") == [APPLIED]
            assert await stream.end(END) == OK

        bad = ("", "white space", "ü", "x" * 129)
        await together(*(ends(missing, value) for missing in ("session_id", "update_id") for value in bad))


async def test_settings_of_the_other_kind_are_rejected() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        session_id = (await stream.begin(start())).session_id
        wrong = v1.UpdateSettingsRequest(
            session_id=session_id, update_id="d1", transcription=v1.TranscriptionSettings(max_words=5)
        )
        control = Controlling(gateway)
        assert await control.end(wrong, delta(session_id, "d2", speed=9.0)) == OK
        first, second = (r.ack for r in control.got)
        assert first.state == second.state == REJECTED
        assert set(failure(first.error).violations) == {"transcription"}
        assert set(failure(second.error).violations) == {"synthesis.speed"}
        assert await stream.end(END) == OK


async def test_a_delta_can_wait_for_an_input_message() -> None:
    """It applies right after that message, which still has the old settings; those behind it wait along."""
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        session_id = (await stream.begin(start())).session_id
        control = Controlling(gateway)
        await control.say(
            delta(session_id, "d1", speed=1.5, after_input_sequence=3),
            delta(session_id, "d2", math_notation=True),
        )
        await control.ack("d1", QUEUED)
        await control.ack("d2", QUEUED)
        await stream.say(text("Old.", "u2", True))
        await stream.until("utterance_completed")
        await stream.say(text("Still old.", "u3", True), text("New.", "u4", True))
        assert await control.end() == OK
        assert control.states("d1") == control.states("d2") == [QUEUED, APPLIED]
        applied = [r.ack for r in control.got if r.ack.state == APPLIED]
        assert [a.applied_after_input_sequence for a in applied] == [3, 3]
        assert [a.settings_revision for a in applied] == [2, 3]
        assert await stream.end(END) == OK
        speeds = [(m["text"], m.get("speed"), m.get("math_notation")) for m in sent(gateway)]
        assert speeds == [("Old.", None, None), ("Still old.", None, None), ("New.", 1.5, True)]


async def test_an_input_message_that_has_passed_is_waited_for_no_longer() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        session_id = (await stream.begin(start(), text("One.", "u1", True))).session_id
        await stream.until("utterance_completed")
        control = Controlling(gateway)
        assert await control.end(delta(session_id, "d1", speed=1.5, after_input_sequence=1)) == OK
        assert control.states("d1") == [APPLIED]
        assert await stream.end(END) == OK


async def test_a_delta_that_waits_for_an_input_that_never_comes_ends_with_the_session() -> None:
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        session_id = (await stream.begin(start())).session_id
        control = Controlling(gateway)
        await control.say(delta(session_id, "d1", speed=1.5, after_input_sequence=1000))
        await control.ack("d1", QUEUED)
        assert await stream.end(END) == OK
        assert await control.end() == OK
        assert control.states("d1") == [QUEUED, Ack.STATE_SESSION_ENDED]
        assert [a.state for a in stream.all("settings_ack")] == [QUEUED, Ack.STATE_SESSION_ENDED]


async def test_a_repeated_delta_is_answered_but_not_applied_again() -> None:
    """A repeat while the first one waits does not keep the call open for an ack that never comes."""
    async with running_gateway(SLOW) as gateway:
        stream = speaking(gateway)
        session_id = (await stream.begin(start(), text(LONG, "u1", True))).session_id
        await stream.until("audio")
        control = Controlling(gateway)
        again = delta(session_id, "d1", speed=1.5)
        assert await control.end(again, again, again) == OK
        assert control.states("d1") == [QUEUED, APPLIED]
        later = Controlling(gateway)
        assert await later.end(again) == OK
        assert later.states("d1") == [APPLIED]
        assert later.got[0].ack.settings_revision == 2
        assert await stream.end(END) == OK
        assert [a.state for a in stream.all("settings_ack")] == [QUEUED, APPLIED]


async def test_cancelling_the_control_call_revokes_nothing() -> None:
    async with running_gateway(SLOW) as gateway:
        stream = speaking(gateway)
        session_id = (await stream.begin(start(), text(LONG, "u1", True))).session_id
        await stream.until("audio")
        control = Controlling(gateway)
        await control.say(delta(session_id, "d1", speed=1.5))
        await control.ack("d1", QUEUED)
        control.call.cancel()
        assert await stream.end(text("New.", "u2", True), END) == OK
        assert sent(gateway)[-1]["speed"] == 1.5


async def test_a_watched_session_is_reported_to_its_end() -> None:
    """Deltas of others, connections, the end; the call stays open that long, and no longer."""
    async with running_gateway() as gateway:
        assert gateway.upstream is not None
        stream = speaking(gateway)
        session_id = (await stream.begin(start())).session_id
        control = Controlling(gateway)
        await control.say(delta(session_id, "look", watch=True))
        assert (await control.ack("look")).mechanism == NO_CHANGE
        await control.call.done_writing()
        await stream.say(change("in-band", speed=1.5))
        await control.ack("in-band", APPLIED)
        other = Controlling(gateway)
        assert await other.end(delta(session_id, "other", speed=1.6)) == OK
        await control.ack("other", APPLIED)
        gateway.upstream.faults.add("tts:close=1000,nth=1")
        gone = await control.next()
        assert gone.connection.state == v1.ConnectionEvent.STATE_DISCONNECTED
        await stream.say(text("Back.", "u1", True))
        back = await control.next()
        assert back.connection.state == v1.ConnectionEvent.STATE_CONNECTED
        assert await stream.end(END) == OK
        last = await control.next()
        assert last.session_ended == stream.ended
        assert await control.next() is None
        assert await failure_of(control.call) == OK
        assert [r.WhichOneof("event") for r in other.got] == ["ack"]


async def test_who_watches_is_told_when_the_sessions_caller_goes() -> None:
    """A caller that cancels leaves deltas unapplied and a watcher waiting: both get their last word."""
    async with running_gateway(SLOW) as gateway:
        stream = speaking(gateway)
        session_id = (await stream.begin(start(), text(LONG, "u1"))).session_id
        await stream.until("audio")
        watcher, patient = Controlling(gateway), Controlling(gateway)
        await watcher.say(delta(session_id, "look", watch=True))
        await watcher.ack("look")
        await patient.say(delta(session_id, "d1", speed=1.5))
        await patient.ack("d1", QUEUED)
        stream.call.cancel()
        assert await patient.end() == OK
        assert patient.states("d1") == [QUEUED, Ack.STATE_SESSION_ENDED]
        assert await watcher.end() == OK
        assert watcher.got[-1].WhichOneof("event") == "session_ended"
        assert watcher.got[-1].session_ended.status.code != 0


# -- whose sessions ----------------------------------------------------------------------------------------------


def bearer(token: str) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer {token}"),)}


ALICE, BOB = bearer("alice-token-0123456789"), bearer("bob-token-0123456789")
TOKENS = parse_tokens("alice:alice-token-0123456789\nbob:bob-token-0123456789")


async def test_another_callers_session_is_as_good_as_none() -> None:
    async with running_gateway(auth=Authenticator(lambda: TOKENS)) as gateway:
        stream = speaking(gateway, **ALICE)
        session_id = (await stream.begin(start())).session_id
        control = Controlling(gateway, **BOB)
        assert await control.end(delta(session_id, "d1", speed=1.5), delta("s-none", "d1", speed=1.5)) == OK
        mine, unknown = (r.ack for r in control.got)
        assert failure(mine.error).what == ("NOT_FOUND", "SESSION_NOT_FOUND")
        assert failure(mine.error).message.replace(session_id, "*") == failure(unknown.error).message.replace(
            "s-none", "*"
        )
        for call in (
            gateway.sessions.GetSession(v1.GetSessionRequest(session_id=session_id), **BOB),
            gateway.sessions.CloseSession(v1.CloseSessionRequest(session_id=session_id), **BOB),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert failure_of_error(caught.value).what == ("NOT_FOUND", "SESSION_NOT_FOUND")
        assert not (await gateway.sessions.ListSessions(v1.ListSessionsRequest(), **BOB)).sessions
        (seen,) = (await gateway.sessions.ListSessions(v1.ListSessionsRequest(), **ALICE)).sessions
        assert seen.session_id == session_id
        assert await stream.end(END) == OK
        assert stream.all("settings_ack") == []


async def test_who_does_not_say_who_they_are_gets_nothing() -> None:
    async with running_gateway(auth=Authenticator(lambda: TOKENS)) as gateway:
        for metadata in ((), *(b["metadata"] for b in (bearer("wrong-token-0123456789"), bearer("")))):
            refused = [
                gateway.synthesis.SynthesizeStream(metadata=metadata),
                gateway.sessions.UpdateSettings(metadata=metadata),
            ]
            for call in refused:
                await call.done_writing()
                with contextlib.suppress(grpc.aio.AioRpcError):
                    while await call.read() is not grpc.aio.EOF:
                        pass
                assert (await failure_of(call)).what == ("UNAUTHENTICATED", "CALLER_UNAUTHENTICATED")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await gateway.sessions.ListSessions(v1.ListSessionsRequest(), metadata=metadata)
            assert failure_of_error(caught.value).what == ("UNAUTHENTICATED", "CALLER_UNAUTHENTICATED")
        assert gateway.upstream is not None
        assert not list(gateway.upstream.journal)


# -- sessions as they are shown ----------------------------------------------------------------------------------


async def shown(gateway: RunningGateway, session_id: str) -> Any:
    return (await gateway.sessions.GetSession(v1.GetSessionRequest(session_id=session_id))).session


async def test_a_session_is_shown_as_it_is() -> None:
    async with running_gateway(SLOW) as gateway:
        stream = speaking(gateway)
        opening = start(speed=1.5)
        opening.start.labels.update({"tenant": "acme", "env": "test"})
        opening.start.audio_format.sample_rate_hertz = 8000
        started = await stream.begin(opening)
        fresh = await shown(gateway, started.session_id)
        assert fresh.session_id == started.session_id
        assert fresh.state == v1.Session.STATE_ACTIVE
        assert fresh.settings == started.settings
        assert fresh.settings_revision == 1
        assert fresh.audio_format == started.audio_format
        assert dict(fresh.labels) == {"tenant": "acme", "env": "test"}
        assert fresh.trace_id == started.trace_id
        assert (fresh.usage.utterance_count, fresh.usage.audio_bytes) == (0, 0)
        assert not fresh.usage.HasField("end_time")
        assert fresh.upstream.endpoint.endswith("/waves/v1/tts/live")
        assert fresh.upstream.connection_index == 0
        assert fresh.create_time.ToNanoseconds() <= fresh.last_activity_time.ToNanoseconds()

        await stream.say(text(LONG * 3, "u1", True))
        await stream.until("audio")
        during = await shown(gateway, started.session_id)
        assert during.usage.utterance_count == 0, "it has not ended"
        assert during.usage.input_character_count == 3 * len(LONG)
        assert during.usage.audio_bytes > 0
        assert during.upstream.session_id.startswith("ws_")
        typed = during.last_activity_time.ToNanoseconds()
        await stream.until("audio")
        await stream.until("audio")
        assert (await shown(gateway, started.session_id)).last_activity_time.ToNanoseconds() > typed
        await stream.say(change("d1", speed=2.0), END)
        await stream.until("settings_ack")
        finishing = await shown(gateway, started.session_id)
        assert finishing.state == v1.Session.STATE_DRAINING
        assert await stream.end() == OK
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await shown(gateway, started.session_id)
        assert failure_of_error(caught.value).what == ("NOT_FOUND", "SESSION_NOT_FOUND")


async def test_a_session_without_a_connection_shows_the_latest_it_had() -> None:
    async with running_gateway() as gateway:
        assert gateway.upstream is not None
        stream = speaking(gateway)
        session_id = (await stream.begin(start(), text("One.", "u1", True))).session_id
        await stream.until("utterance_completed")
        before = (await shown(gateway, session_id)).upstream
        gateway.upstream.faults.add("tts:close=1000,nth=1")
        await stream.until("connection")
        assert (await shown(gateway, session_id)).upstream == before
        assert await stream.end(END) == OK


async def test_a_session_that_dials_is_connecting() -> None:
    async with running_gateway() as gateway:
        assert gateway.upstream is not None
        fault = gateway.upstream.faults.add("tts:hang")
        stream = speaking(gateway)
        await stream.say(start())
        session_id = dict(await stream.call.initial_metadata())["wavegate-session-id"]
        connecting = await shown(gateway, session_id)
        assert connecting.state == v1.Session.STATE_CONNECTING
        control = Controlling(gateway)
        assert await control.end(delta(session_id, "d1", speed=1.5)) == OK
        assert control.states("d1") == [APPLIED]
        await gateway.sessions.CloseSession(v1.CloseSessionRequest(session_id=session_id, discard=True))
        status = await stream.end()
        assert status.what == ("ABORTED", "SESSION_CLOSED")
        assert stream.kinds() == ["session_ended"]
        gateway.upstream.faults.remove(fault)


async def test_sessions_are_listed_in_pages_oldest_first() -> None:
    async with running_gateway() as gateway:
        streams = []
        for number in range(5):
            stream = speaking(gateway)
            opening = start()
            opening.start.labels.update({"parity": "odd" if number % 2 else "even", "number": str(number)})
            await stream.begin(opening)
            streams.append(stream)
        ids = [s.one("session_started").session_id for s in streams]

        async def listed(**fields: Any) -> Any:
            return await gateway.sessions.ListSessions(v1.ListSessionsRequest(**fields))

        everything = await listed()
        assert [s.session_id for s in everything.sessions] == ids
        assert everything.next_page_token == ""
        first = await listed(page_size=2)
        assert [s.session_id for s in first.sessions] == ids[:2]
        # One of the next page ends between the pages: the others are neither lost nor repeated.
        assert await streams[2].end(END) == OK
        rest = await listed(page_size=2, page_token=first.next_page_token)
        assert [s.session_id for s in rest.sessions] == ids[3:]
        assert rest.next_page_token == ""
        assert [s.session_id for s in (await listed(labels={"parity": "odd"})).sessions] == [ids[1], ids[3]]
        assert [s.session_id for s in (await listed(labels={"parity": "even", "number": "4"})).sessions] == [
            ids[4]
        ]
        assert not (await listed(labels={"parity": "none"})).sessions
        assert len((await listed(page_size=5000)).sessions) == 4
        for stream in (streams[0], streams[1], streams[3], streams[4]):
            assert await stream.end(END) == OK
        assert not (await listed()).sessions


TOKENS_NOBODY_GAVE = ["x", "@@@@", "====", "aGVsbG8=", "bm93IHMtMQ==", "ü", "c2Vzc2lvbnMgbm93IHg=", "////"]


BAD_LOOKUPS: list[tuple[str, dict[str, Any]]] = [
    *((method, {"page_size": -1}) for method in ("ListSessions", "ListVoices")),
    *((method, {"page_token": t}) for method in ("ListSessions", "ListVoices") for t in TOKENS_NOBODY_GAVE),
    *((m, {"session_id": i}) for m in ("GetSession", "CloseSession") for i in ("", "a b", "x" * 129)),
]


async def test_bad_lookups_are_refused() -> None:
    async with running_gateway() as gateway:
        for method, fields in BAD_LOOKUPS:
            stub = gateway.synthesis if method == "ListVoices" else gateway.sessions
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await getattr(stub, method)(getattr(v1, f"{method}Request")(**fields))
            error = failure_of_error(caught.value)
            assert error.what == ("INVALID_ARGUMENT", "FIELD_INVALID"), (method, fields)
            assert set(error.violations) == set(fields)


async def test_a_page_token_is_good_for_its_own_list_only() -> None:
    async with running_gateway() as gateway:
        page = await gateway.synthesis.ListVoices(v1.ListVoicesRequest(page_size=1))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.sessions.ListSessions(v1.ListSessionsRequest(page_token=page.next_page_token))
        assert failure_of_error(caught.value).what == ("INVALID_ARGUMENT", "FIELD_INVALID")


async def test_closing_a_session_lets_it_finish() -> None:
    async with running_gateway(SLOW) as gateway:
        stream = speaking(gateway)
        session_id = (await stream.begin(start(), text(LONG, "u1", True), text("Open.", "u2"))).session_id
        await stream.until("audio")
        await gateway.sessions.CloseSession(v1.CloseSessionRequest(session_id=session_id))
        assert await stream.rest() == OK
        assert stream.ended.reason == v1.SessionEnded.REASON_CLOSED_BY_OPERATOR
        assert (spoken(stream, "u1"), spoken(stream, "u2")) == (LONG, "Open.")


async def test_closing_a_session_with_discard_aborts_its_call() -> None:
    async with running_gateway(SLOW) as gateway:
        stream = speaking(gateway)
        session_id = (
            await stream.begin(start(), text(LONG, "u1", True), text("Two.", "u2", True))
        ).session_id
        await stream.until("audio")
        await gateway.sessions.CloseSession(v1.CloseSessionRequest(session_id=session_id, discard=True))
        status = await stream.end()
        assert status.what == ("ABORTED", "SESSION_CLOSED")
        assert stream.ended.reason == v1.SessionEnded.REASON_CLOSED_BY_OPERATOR
        assert [e.utterance_id for e in stream.all("utterance_cancelled")] == ["u1", "u2"]
        assert len(stream.audio()) < len(LONG) * 0.06 * 48000


async def test_the_sync_api_controls_too() -> None:
    """Settings by a blocking stub in a thread, while the session speaks on this loop."""
    async with running_gateway() as gateway:
        stream = speaking(gateway)
        session_id = (await stream.begin(start(), text("Open", "u1"))).session_id

        def blocking(target: str) -> list[Any]:
            with grpc.insecure_channel(target) as channel:
                stub: Any = session_service_pb2_grpc.SessionServiceStub(channel)
                requests = iter(
                    [delta(session_id, "d1", math_notation=True, apply_policy=v1.APPLY_POLICY_IMMEDIATE)]
                )
                acks = list(stub.UpdateSettings(requests, timeout=PATIENCE_S))
                session = stub.GetSession(v1.GetSessionRequest(session_id=session_id)).session
                assert session.settings_revision == 2
                return acks

        acks = await asyncio.to_thread(blocking, gateway.target)
        assert [a.ack.state for a in acks] == [APPLIED]
        assert await stream.end(end_utterance("u1"), END) == OK
        assert spoken(stream) == "Open"


async def test_a_control_stream_that_is_not_read_is_read_no_further() -> None:
    """Bounded on both sides: unread acks stop the reading of requests, and none is lost."""
    async with running_gateway() as gateway:
        control = Controlling(gateway)
        count = 6000
        taken = 0

        async def write() -> None:
            nonlocal taken
            for number in range(count):
                await control.call.write(delta("s-none", f"d{number}", speed=1.5))
                taken += 1
            await control.call.done_writing()

        writer = asyncio.create_task(write())
        before = -1
        while before != taken:
            before = taken
            await asyncio.sleep(0.3)
        while await control.next() is not None:
            pass
        await writer
        assert [r.ack.update_id for r in control.got] == [f"d{n}" for n in range(count)]
        assert await failure_of(control.call) == OK
