"""Synthesis sessions against a gateway that keeps the contract."""
# ruff: noqa: PT012 - where in a session's block it fails is the gateway's to choose

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from wavegate import (
    AudioChunk,
    AudioFormat,
    CapacityError,
    Client,
    ConflictError,
    ConnectionLostError,
    DeadlineError,
    GatewayUnavailableError,
    GatewayWarning,
    InvalidRequestError,
    SessionClosedError,
    SessionEnded,
    SessionStarted,
    UpstreamError,
    UtteranceCancelled,
    UtteranceCompleted,
    UtteranceFailed,
    UtteranceStarted,
)
from wavegate.synthesis import BUFFER_LIMIT_BYTES

from tests.clients.python.fake_gateway import FakeGateway, status, text_of


async def tokens(*pieces: str) -> AsyncIterator[str]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


async def soon(condition: Callable[[], object]) -> None:
    """Waits for something that the other side does in its own time."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - it happens in another process's stead, without an event of ours
            await asyncio.sleep(0.005)


class TestOpening:
    async def test_says_who_it_is_and_what_is_in_force(self, gateway: FakeGateway, client: Client) -> None:
        async with client.synthesize(voice_id="magnus", speed=1.5, labels={"team": "a"}) as session:
            assert session.session_id == "s-1"
            assert session.started.audio_format == AudioFormat("LINEAR16", 24000)
            assert (session.settings.speed, session.settings_revision) == (1.5, 1)
            assert session.started.trace_id == "0af7651916cd43dd8448eb211c80319c"
            assert "OPEN s-1" in repr(session)
        assert "ENDED s-1" in repr(session)
        assert gateway.inputs("start")[0].labels == {"team": "a"}

    async def test_no_gateway_is_a_sentence_that_says_what_to_do(self) -> None:
        async with Client("127.0.0.1:1") as client:
            with pytest.raises(
                GatewayUnavailableError, match=r"no gateway at 127\.0\.0\.1:1; start one with"
            ):
                async with client.synthesize(voice_id="magnus"):
                    pytest.fail("it cannot open")

    async def test_a_refusal_has_reason_and_delay(self, gateway: FakeGateway, client: Client) -> None:
        gateway.refuse = status(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "GATEWAY_CAPACITY",
            "full",
            retry_s=2,
            quota=("sessions", "9 of 9"),
        )
        with pytest.raises(CapacityError) as caught:
            async with client.synthesize(voice_id="magnus"):
                pytest.fail("it cannot open")
        assert caught.value.reason == "GATEWAY_CAPACITY"
        assert caught.value.retry_delay_s == 2
        assert caught.value.retryable
        assert caught.value.quota_violations[0].subject == "sessions"

    async def test_wrong_settings_are_named_field_by_field(self, client: Client) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            async with client.synthesize(voice_id="magnus", speed=9):
                pytest.fail("it cannot open")
        assert [v.field for v in caught.value.field_violations] == ["start.settings.speed"]
        assert "must be between 0.5 and 2.0" in str(caught.value)

    async def test_a_silent_gateway_is_not_waited_for_for_ever(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        await anext(client.list_voices())  # connected, so that the call gets there in any case
        gateway.silent_start = True
        with pytest.raises(DeadlineError, match=r"did not open the session in 0\.5 s"):
            async with client.synthesize(voice_id="magnus", open_timeout_s=0.5):
                pytest.fail("it cannot open")
        await soon(lambda: gateway.cancelled_calls == 1)

    async def test_is_opened_once(self, client: Client) -> None:
        session = client.synthesize(voice_id="magnus")
        with pytest.raises(RuntimeError, match="not open yet"):
            await session.say("too early")
        with pytest.raises(RuntimeError, match="not open yet"):
            session.session_id  # noqa: B018
        async with session:
            pass
        with pytest.raises(RuntimeError, match="opened once"):
            async with session:
                pass

    async def test_events_of_a_newer_contract_are_passed_over(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        gateway.unknown_events = True
        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say("hello")
            assert text_of(await utterance.read()) == "hello"


class TestText:
    async def test_a_string_is_one_message_and_its_audio_is_there(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say("Hello there, how are you?")
            assert text_of(await utterance.read()) == "Hello there, how are you?"
            outcome = await utterance.wait()
            assert utterance.done()
            assert repr(utterance.done()) == "True"
            with pytest.warns(DeprecationWarning, match="utterance.wait"):
                assert await utterance.done() is outcome
        assert isinstance(outcome, UtteranceCompleted)
        assert outcome.metrics.time_to_first_audio_s == 0.005
        assert [t.text for t in gateway.inputs("text")] == ["Hello there, how are you?"]
        assert len(gateway.inputs("end_session")) == 1

    async def test_tokens_go_out_as_they_come_under_one_id(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.stream_text(tokens("Hel", "", "lo ", "there"), utterance_id="answer")
            assert utterance.utterance_id == "answer"
            assert text_of(await utterance.read()) == "Hello there"
        assert [t.text for t in gateway.inputs("text")] == ["Hel", "lo ", "there"]
        assert {t.utterance_id for t in gateway.inputs("text")} == {"answer"}

    async def test_say_takes_tokens_and_returns_before_they_end(self, client: Client) -> None:
        go_on = asyncio.Event()

        async def slow() -> AsyncIterator[str]:
            yield "first "
            await go_on.wait()
            yield "second"

        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say(slow())
            go_on.set()
            assert text_of(await utterance.read()) == "first second"

    async def test_a_blocking_iterator_does_not_block_the_loop(self, client: Client) -> None:
        loop = asyncio.get_running_loop()
        reached = asyncio.Event()

        def blocking() -> Iterator[str]:
            yield "one "
            # Waits for the loop: were the iterator asked in the loop itself, this would never return.
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(timeout=30)
            loop.call_soon_threadsafe(reached.set)
            yield "two"

        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say(blocking())
            assert text_of(await utterance.read()) == "one two"
        assert reached.is_set()

    async def test_text_without_an_id_belongs_to_the_open_utterance(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            first = await session.send_text("one ")
            again = await session.send_text("two", end_utterance=True)
            second = await session.send_text("three")
            await session.flush()
            await session.end_utterance()
            assert first is again
            assert text_of(await first.read()) == "one two"
            assert text_of(await second.read()) == "three"
        ids = [t.utterance_id for t in gateway.inputs("text")]
        assert ids == [first.utterance_id, first.utterance_id, second.utterance_id]
        assert gateway.inputs("flush")[0].utterance_id == second.utterance_id
        assert gateway.inputs("end_utterance")[0].utterance_id == second.utterance_id

    async def test_no_text_at_all_completes_without_audio(self, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            for nothing in ("", "   ", tokens(), []):
                utterance = await session.say(nothing)
                outcome = await utterance.wait()
                assert isinstance(outcome, UtteranceCompleted)
                assert outcome.metrics.time_to_first_audio_s is None
                assert await utterance.read() == b""

    async def test_long_texts_are_cut_between_words(self, gateway: FakeGateway, client: Client) -> None:
        gateway.max_text_message_chars = 10
        text = "one two three four fiveandsixandseven eight"
        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say(text)
            assert text_of(await utterance.read()) == text
        sent = [t.text for t in gateway.inputs("text")]
        assert sent == ["one two ", "three ", "four ", "fiveandsix", "andseven ", "eight"]
        assert [t.end_utterance for t in gateway.inputs("text")] == [False] * 5 + [True]

    async def test_half_a_character_does_not_end_the_session(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        """As in JSON that was cut within an emoji: UTF-8, and so gRPC, cannot carry it."""
        async with client.synthesize(voice_id="magnus") as session:
            await session.send_text("whole \ud83d\ude42, half \ud83d", utterance_id="u", end_utterance=True)
            await session.end()
            assert text_of(b"".join([chunk async for chunk in session.audio()])) != ""
        assert [t.text for t in gateway.inputs("text")] == ["whole 🙂, half \ufffd"]

    async def test_what_the_token_source_raises_comes_out_of_the_handle(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        async def broken() -> AsyncIterator[str]:
            yield "Hello "
            raise LookupError("the model is gone")

        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say(broken())
            with pytest.raises(LookupError, match="the model is gone"):
                await utterance.read()
            with pytest.raises(LookupError):
                await utterance.wait()
        assert gateway.inputs("cancel")[0].utterance_id == utterance.utterance_id

    async def test_and_out_of_the_block_where_nobody_asked(self, client: Client) -> None:
        async def broken() -> AsyncIterator[str]:
            yield "Hello "
            raise LookupError("the model is gone")

        with pytest.raises(LookupError, match="the model is gone"):
            async with client.synthesize(voice_id="magnus") as session:
                await session.say(broken())

    async def test_what_is_said_together_is_spoken_one_after_the_other(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            first = await session.say(tokens("to", "ken ", "by ", "token"))
            second = await session.say("a sentence")
            third = await session.say(tokens("and ", "more"))
            assert text_of(await first.read()) == "token by token"
            assert text_of(await second.read()) == "a sentence"
            assert text_of(await third.read()) == "and more"
        ids = [t.utterance_id for t in gateway.inputs("text")]
        assert ids == sorted(ids, key=[u.utterance_id for u in (first, second, third)].index)

    async def test_every_input_is_numbered(self, gateway: FakeGateway, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            await asyncio.gather(*(session.say(f"text {n}") for n in range(20)))
        assert [r.input_sequence for r in gateway.requests] == list(range(1, 23))


class TestEvents:
    async def test_come_in_order_and_end(self, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            await session.say("Hello there")
            await session.end()
            kinds = [type(event) async for event in session]
        assert kinds == [
            SessionStarted,
            UtteranceStarted,
            AudioChunk,
            AudioChunk,
            UtteranceCompleted,
            SessionEnded,
        ]
        assert session.ended is not None
        assert session.ended.usage.utterance_count == 3

    async def test_audio_alone_runs_through_all_utterances(self, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            await session.say("One. ")
            await session.say("Two.")
            await session.end()
            assert text_of(b"".join([a async for a in session.audio()])) == "One. Two."

    async def test_a_failed_utterance_raises_and_the_session_goes_on(self, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            first = await session.say("this will [fail]")
            second = await session.say("and this not")
            with pytest.raises(UpstreamError, match="the upstream is down") as caught:
                await first.read()
            assert caught.value.retry_delay_s == 3
            assert text_of(await second.read()) == "and this not"
            assert isinstance(first.outcome, UtteranceFailed)
            assert first.outcome.retryable

    async def test_audio_of_the_session_can_go_on_after_a_failure(self, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            await session.say("[fail]")
            await session.say("spoken")
            await session.end()
            with pytest.raises(UpstreamError):
                _ = [a async for a in session.audio()]
            assert text_of(b"".join([a async for a in session.audio()])) == "spoken"

    async def test_a_cancelled_wait_for_an_event_loses_none(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            assert isinstance(await anext(session), SessionStarted)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(session), 0.05)
            utterance = await session.say("still here")
            assert text_of(await utterance.read()) == "still here"
        assert gateway.cancelled_calls == 0

    async def test_unread_audio_waits_in_the_gateway(self, gateway: FakeGateway, client: Client) -> None:
        gateway.chunk_chars = 500
        text = "x" * 400_000  # 800 kB of audio; the transports between take some
        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say(text)
            await soon(lambda: session._buffered_bytes >= BUFFER_LIMIT_BYTES)
            await asyncio.sleep(0.2)
            assert session._buffered_bytes < BUFFER_LIMIT_BYTES + 1000
            assert gateway.sent_chunks < 0.5 * len(text) / 500
            assert len(await utterance.read()) == 800_000

    async def test_but_an_answer_behind_unread_audio_is_found(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        gateway.chunk_chars = 500
        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say("x" * 400_000)
            outcome = await asyncio.wait_for(utterance.wait(), 30)
            assert isinstance(outcome, UtteranceCompleted)
            assert len(await utterance.read()) == 800_000


class TestBargeIn:
    async def test_no_audio_comes_after_a_cancel(self, gateway: FakeGateway, client: Client) -> None:
        gateway.hold.clear()
        gateway.late_audio_chunks = 5
        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say("A long story that nobody wants to hear to its end.")
            heard = b""
            async for audio in utterance.audio():
                heard += audio
                await session.cancel(playback_offset_s=0.25)
            assert text_of(heard) == "A long s"
            outcome = await utterance.wait()
            assert isinstance(outcome, UtteranceCancelled)
            assert outcome.method == "UPSTREAM_CANCEL"
            assert outcome.remaining_text.startswith("tory that")
            gateway.hold.set()
            answer = await session.say("Yes?")
            await session.end()
            assert text_of(b"".join([a async for a in session.audio()])) == "Yes?"
            assert answer.outcome is not None
        assert gateway.inputs("cancel")[0].playback_offset.nanos == 250_000_000

    async def test_silence_does_not_wait_for_the_gateways_word(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        gateway.hold.clear()
        gateway.slow_cancel = True
        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say("A long story that nobody wants to hear to its end.")
            listening = asyncio.create_task(utterance.read())
            await soon(lambda: gateway.sent_chunks)
            await session.cancel()
            assert text_of(await asyncio.wait_for(listening, 30)) in ("", "A long s")
            assert utterance.outcome is None
            await soon(lambda: gateway.inputs("cancel"))  # else it might be spoken to its end first
            gateway.hold.set()
            assert isinstance(await utterance.wait(), UtteranceCancelled)

    @pytest.mark.parametrize("alone", [True, False])
    async def test_what_was_never_sent_is_cancelled_here(
        self, gateway: FakeGateway, client: Client, alone: bool
    ) -> None:
        """The gateway has not heard of an utterance that still waits for the one before, and would not answer."""
        first_token = asyncio.Event()

        async def thinking() -> AsyncIterator[str]:
            yield "Well, "
            first_token.set()
            await asyncio.Event().wait()

        async with client.synthesize(voice_id="magnus") as session:
            speaking = await session.say(thinking())
            waiting = await session.say("after that")
            await first_token.wait()
            await session.cancel(waiting.utterance_id if alone else None)
            outcome = await asyncio.wait_for(waiting.wait(), 30)
            assert isinstance(outcome, UtteranceCancelled)
            assert outcome.method == "NOT_SENT"
            assert await waiting.read() == b""
            if alone:
                assert not gateway.inputs("cancel")
                await speaking.cancel()
            assert isinstance(await asyncio.wait_for(speaking.wait(), 30), UtteranceCancelled)
            await session.send_text("after that", utterance_id=waiting.utterance_id)  # too late
            await session.end()
            ended = [e.utterance_id async for e in session if isinstance(e, UtteranceCancelled)]
        assert sorted(ended) == sorted({speaking.utterance_id, waiting.utterance_id})
        assert "after that" not in [t.text for t in gateway.inputs("text")]

    async def test_what_is_over_is_not_begun_again(self, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            await (await session.say("once", utterance_id="a")).wait()
            with pytest.raises(ValueError, match="utterance 'a' is over"):
                await session.say("twice", utterance_id="a")
            with pytest.raises(ValueError, match="utterance 'a' is over"):
                await session.stream_text(["twice"], utterance_id="a")

    async def test_what_is_buffered_here_is_dropped(self, gateway: FakeGateway, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say("Nobody has read any of this yet.")
            await utterance.wait()
            assert session._buffered_bytes
            await session.cancel()
            assert not session._buffered_bytes
            assert await utterance.read() == b""

    async def test_one_utterance_can_be_cancelled_alone(self, gateway: FakeGateway, client: Client) -> None:
        gateway.hold.clear()
        async with client.synthesize(voice_id="magnus") as session:
            first = await session.say("This one stays to its end.")
            second = await session.say("This one goes.")
            await second.cancel()
            gateway.hold.set()
            assert isinstance(await second.wait(), UtteranceCancelled)
            assert text_of(await first.read()) == "This one stays to its end."
        assert first.cancelled is False
        assert second.cancelled is True

    async def test_a_cancel_stops_the_source_of_the_text(self, client: Client) -> None:
        stopped = asyncio.Event()

        async def endless() -> AsyncIterator[str]:
            try:
                while True:
                    yield "and on "
                    await asyncio.sleep(0.01)
            finally:
                stopped.set()

        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say(endless())
            await asyncio.sleep(0.05)
            await utterance.cancel()
            await asyncio.wait_for(stopped.wait(), 30)
            assert isinstance(await utterance.wait(), UtteranceCancelled)

    async def test_a_foreground_stream_ends_early_without_an_error(self, client: Client) -> None:
        async def endless() -> AsyncIterator[str]:
            while True:
                yield "and on "
                await asyncio.sleep(0.01)

        async with client.synthesize(voice_id="magnus") as session:
            talking = asyncio.create_task(session.stream_text(endless(), utterance_id="talk"))
            await asyncio.sleep(0.05)
            await session.cancel("talk")
            utterance = await asyncio.wait_for(talking, 30)
            assert utterance.cancelled

    async def test_late_text_is_reported_not_spoken(self, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.send_text("Hello", utterance_id="a")
            await session.cancel("a")
            await utterance.wait()
            late = await session.send_text(" there", utterance_id="a")
            assert late is utterance
            await session.end()
            events = [event async for event in session]
        assert [e.reason for e in events if isinstance(e, GatewayWarning)] == ["STALE_TEXT"]
        assert not [e for e in events if isinstance(e, AudioChunk)]

    async def test_playback_is_reported(self, gateway: FakeGateway, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            await session.report_playback("a", 1.5)
        report = gateway.inputs("playback")[0]
        assert (report.utterance_id, report.playback_offset.seconds) == ("a", 1)


class TestSettings:
    async def test_an_applied_change_says_how(self, gateway: FakeGateway, client: Client) -> None:
        async with client.synthesize(voice_id="magnus", language_code="en") as session:
            ack = await session.update_settings(voice_id="lena", speed=1.25, reset=["language_code"])
            assert ack.state == "APPLIED"
            assert ack.mechanism == "NEXT_UTTERANCE"
            assert [f.path for f in ack.fields] == ["voice_id", "speed"]
            assert ack.settings is not None
            assert (ack.settings.language_code, ack.settings.speed) == (None, 1.25)
            assert ack.settings_revision == session.settings_revision == 2
            assert (session.settings.voice_id, session.settings.language_code) == ("lena", None)

    async def test_the_wait_passes_over_queued(self, gateway: FakeGateway, client: Client) -> None:
        gateway.hold.clear()
        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say("being spoken right now")
            await anext(utterance.audio())
            ack = await session.update_settings(speed=1.25)
            assert ack.state == "APPLIED"
            gateway.hold.set()

    async def test_a_refusal_raises_field_by_field(self, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            with pytest.raises(InvalidRequestError) as caught:
                await session.update_settings(speed=9)
            assert caught.value.field_violations[0].field == "synthesis.speed"
            assert (await session.update_settings(speed=2)).state == "APPLIED"

    async def test_arguments_go_out_under_their_names(self, gateway: FakeGateway, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            ack = await session.update_settings(
                speed=1.1, apply="IMMEDIATE", expected_revision=1, validate_only=True, update_id="mine"
            )
            assert (ack.update_id, ack.state) == ("mine", "VALIDATED")
            with pytest.raises(ConflictError, match="elsewhere"):
                await session.update_settings(speed=1.1, expected_revision=7)
        update = gateway.inputs("update_settings")[0]
        assert (update.apply_policy, update.expected_revision, update.validate_only) == (2, 1, True)

    async def test_a_cancelled_wait_leaves_the_session_alone(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            change = asyncio.create_task(session.update_settings(speed=1.25))
            await asyncio.sleep(0)
            change.cancel()
            with pytest.raises(asyncio.CancelledError):
                await change
            assert (await session.update_settings(speed=1.5)).state == "APPLIED"


class TestEnding:
    async def test_leaving_the_block_finishes_everything(self, gateway: FakeGateway, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say(tokens("to ", "the ", "very ", "end"))
        assert isinstance(utterance.outcome, UtteranceCompleted)
        assert "".join(t.text for t in gateway.inputs("text")) == "to the very end"
        assert gateway.cancelled_calls == 0

    async def test_an_exception_ends_it_at_once(self, gateway: FakeGateway, client: Client) -> None:
        gateway.hold.clear()  # nothing would ever be finished
        with pytest.raises(ZeroDivisionError):
            async with client.synthesize(voice_id="magnus") as session:
                await session.say("Never to be finished, this one.")
                raise ZeroDivisionError
        await soon(lambda: gateway.cancelled_calls == 1)
        assert gateway.inputs("end_session") == []

    async def test_cancelling_the_task_never_hangs(self, gateway: FakeGateway, client: Client) -> None:
        gateway.hold.clear()

        async def talk() -> None:
            async with client.synthesize(voice_id="magnus") as session:
                utterance = await session.say("Never to be finished, this one.")
                await utterance.read()

        talking = asyncio.create_task(talk())
        await soon(lambda: gateway.sent_chunks == 1)
        talking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(talking, 30)
        await soon(lambda: gateway.cancelled_calls == 1)

    async def test_nor_does_cancelling_it_while_it_leaves(self, gateway: FakeGateway, client: Client) -> None:
        gateway.hold.clear()

        async def talk() -> None:
            async with client.synthesize(voice_id="magnus") as session:
                await session.say("Never to be finished, this one.")

        talking = asyncio.create_task(talk())
        await soon(lambda: gateway.inputs("end_session"))
        talking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(talking, 30)
        await soon(lambda: gateway.cancelled_calls == 1)

    async def test_discard_drops_what_is_not_spoken(self, gateway: FakeGateway, client: Client) -> None:
        gateway.hold.clear()
        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say("Never to be finished, this one.")
            await anext(utterance.audio())
            await session.discard()
            events = [event async for event in session]
        assert isinstance(events[-1], SessionEnded)
        assert isinstance(utterance.outcome, UtteranceCancelled)

    async def test_nothing_can_be_sent_after_the_end(self, gateway: FakeGateway, client: Client) -> None:
        gateway.hold.clear()  # the input has ended, and the session has not
        async with client.synthesize(voice_id="magnus") as session:
            await session.say("This takes a while.")
            await session.end()
            with pytest.raises(SessionClosedError, match="input has ended"):
                await session.say("late")
            gateway.hold.set()
        with pytest.raises(SessionClosedError, match="has ended; open another"):
            await session.say("later")

    async def test_closed_from_outside_is_no_failure(self, gateway: FakeGateway, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            await client.close_session(session.session_id)
            events = [event async for event in session]
            with pytest.raises(SessionClosedError):
                await session.say("anybody there?")
        assert isinstance(events[-1], SessionEnded)
        assert events[-1].reason == "CLOSED_BY_OPERATOR"


class TestFailing:
    async def test_the_events_end_with_the_failure(self, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            await session.say("[break]")
            events = []
            with pytest.raises(UpstreamError, match="key is bad") as caught:
                async for event in session:
                    events.append(event)
        assert isinstance(events[-1], SessionEnded)
        assert events[-1].error is caught.value
        assert caught.value.reason == "UPSTREAM_CREDENTIAL"
        assert not caught.value.retryable

    async def test_the_call_ends_with_the_same_status(self, client: Client) -> None:
        """A client that cut the call off behind the last event would leave CANCELLED in everybody's records."""
        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.say("[break]")
            with pytest.raises(UpstreamError):
                await utterance.wait()
        line: Any = session._line
        assert await line._call.code() is grpc.StatusCode.FAILED_PRECONDITION

    async def test_everybody_who_waits_hears_of_it(self, client: Client) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            utterance = await session.send_text("[break]", utterance_id="a")
            later = await session.say("never spoken")
            for waiting in (utterance.wait(), later.read(), session.say("more")):
                with pytest.raises(UpstreamError):
                    await waiting

    async def test_the_block_raises_it_where_nobody_has_seen_it(self, client: Client) -> None:
        with pytest.raises(UpstreamError, match="key is bad"):
            async with client.synthesize(voice_id="magnus") as session:
                await session.say("[break]")

    async def test_also_where_only_the_sender_of_an_iterator_could_have(self, client: Client) -> None:
        async def endless() -> AsyncIterator[str]:
            while True:
                yield "and on "
                await asyncio.sleep(0.001)

        with pytest.raises(UpstreamError, match="key is bad"):
            async with client.synthesize(voice_id="magnus") as session:
                await session.say("[break]")
                await session.say(endless())

    async def test_the_status_survives_an_abort_under_full_writing(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        """A call that is aborted while the client writes may lose its status; `session_ended` does not."""
        gateway.rude = True
        for _ in range(10):
            with pytest.raises(UpstreamError) as caught:
                async with client.synthesize(voice_id="magnus") as session:
                    await session.say("[break]")
                    while True:
                        await session.send_text("and more and more ", utterance_id="flood")
            assert caught.value.reason == "UPSTREAM_CREDENTIAL"

    async def test_a_lost_connection_is_told_from_an_absent_gateway(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        gateway.lose = True
        with pytest.raises(ConnectionLostError, match=r"was lost .*; open a new session") as caught:
            async with client.synthesize(voice_id="magnus") as session:
                utterance = await session.say("Hello")
                await utterance.read()
        assert caught.value.retryable

    async def test_a_gateway_that_dies_ends_all_waiting(self, gateway: FakeGateway, client: Client) -> None:
        gateway.lose = True
        async with client.synthesize(voice_id="magnus") as session:
            with pytest.raises(ConnectionLostError):
                await (await session.say("Hello")).wait()


class TestResumeRoom:
    @pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "CANCELLED", "UNKNOWN"])
    async def test_a_call_that_does_not_live_long_is_not_tried_for_ever_without_a_pause(
        self, gateway: FakeGateway, client: Client, code: str
    ) -> None:
        """Whatever proxies make of a loss, it is one. This gateway loses every call as soon as text comes."""
        gateway.resume_window_s = 1
        gateway.lose = True
        gateway.lose_with = grpc.StatusCode[code]
        with pytest.raises(ConnectionLostError, match=r"could not be resumed[^$]*\n  lost: utterance one"):
            async with client.synthesize(voice_id="magnus") as session:
                await (await session.say("Hello", utterance_id="one")).wait()
        starts = gateway.inputs("start")
        # At once, and after 0.1, 0.3 and 1 s; a machine under load does not come so far in the window.
        assert 2 <= len(starts) <= 5
        assert {start.resume_session_id for start in starts[1:]} == {session.session_id}
        assert {start.last_received_sequence for start in starts[1:]} == {1}

    async def test_unacknowledged_input_is_kept_where_a_resume_was_granted(
        self, gateway: FakeGateway, client: Client
    ) -> None:
        gateway.resume_window_s = 10
        gateway.acknowledge = False
        async with client.synthesize(voice_id="magnus", resume_window_s=10) as session:
            utterance = await session.say("keep me")
            await utterance.wait()
            kept = session._log.unacknowledged()
            assert [r.WhichOneof("input") for r in kept] == ["start", "text"]
            gateway.acknowledge = True
            await session.update_settings(speed=1.5)
            assert session._log.unacknowledged() == []

    async def test_and_nothing_is_kept_where_it_was_not(self, gateway: FakeGateway, client: Client) -> None:
        gateway.acknowledge = False
        async with client.synthesize(voice_id="magnus", resume_window_s=10) as session:
            await (await session.say("forget me")).wait()
            assert session._log.unacknowledged() == []
