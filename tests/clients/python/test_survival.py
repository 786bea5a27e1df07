"""Sessions of the client survive: cut connections, gateways that shut down. Against the real gateway."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import waves_local
from wavegate import (
    AudioChunk,
    AudioFormat,
    Client,
    ConnectionLostError,
    GatewayUnavailableError,
    GatewayWarning,
    SessionEnded,
    SessionMoved,
    SessionResumed,
    SessionStarted,
    SpeechEnded,
    SpeechStarted,
    SynthesisEvent,
    SynthesisSession,
    SynthesisSettings,
    Transcript,
    TranscriptionEvent,
    TranscriptionSession,
    UtteranceCompleted,
    UtteranceFailed,
    UtteranceStarted,
)
from wavegate.sync import Client as BlockingClient
from wavegate_server.errors import GatewayDraining
from wavegate_server.session.events import EndReason
from waves_local.codecs import mulaw_encode

from tests.clients.python.cutting_proxy import CuttingProxy, Direction, cutting_proxy
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.process import running
from tests.support.seeds import seeds

# Much work: on a machine under load it takes minutes.
pytestmark = pytest.mark.timeout(600)

CUTS = 50
STORY = (
    "Once upon a time there was a stream that lost its call.",
    "It came back.",
    "Nothing was missing, nothing was said twice, and everybody was content with it.",
    "The end.",
)


@pytest.fixture
async def gateway() -> AsyncIterator[RunningGateway]:
    # On a busy machine a call is lost for as long as silence would be sent in its place, in the middle of a word.
    options = waves_local.Options(chunk_interval_s=0.002)
    async with running_gateway(options, stt_keepalive="message") as gateway:
        yield gateway


@pytest.fixture
async def proxy(gateway: RunningGateway) -> AsyncIterator[CuttingProxy]:
    async with cutting_proxy(gateway.port) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: CuttingProxy) -> AsyncIterator[Client]:
    async with Client(proxy.target) as client:
        yield client


def budgets(
    chance: random.Random, up: tuple[int, int], down: tuple[int, int]
) -> Iterator[tuple[Direction, int]]:
    while True:
        if chance.random() < 0.5:
            yield "up", chance.randint(*up)
        else:
            yield "down", chance.randint(*down)


async def tokens(text: str) -> AsyncIterator[str]:
    for token in re.findall(r"\s*\S+", text):
        await asyncio.sleep(0.001)
        yield token


async def until(true: Callable[[], bool]) -> None:
    """Waits for what another side does by itself."""
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


async def forget_all(gateway: RunningGateway) -> None:
    """The windows of all sessions are over."""
    for session in gateway.gateway.registry:
        gateway.gateway.registry.remove(session)
        await session.cut()


async def all_of(session: SynthesisSession | TranscriptionSession) -> list[object]:
    """The events to the end."""
    return [event async for event in session]


async def flood(session: TranscriptionSession) -> None:
    """Audio without an end; returns once nobody takes any more."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            while True:
                await session.send_audio(bytes(3200))


def heard(events: list[SynthesisEvent]) -> dict[str, str]:
    """What each utterance said."""
    audio: dict[str, bytes] = {}
    for event in events:
        if isinstance(event, AudioChunk):
            audio[event.utterance_id] = audio.get(event.utterance_id, b"") + event.audio
    return {name: waves_local.spoken(pcm) for name, pcm in audio.items()}


SPOKEN = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def words_of(events: list[TranscriptionEvent]) -> list[str]:
    """What the finals say."""
    finals = [e for e in events if isinstance(e, Transcript) and e.is_final]
    return [word for final in finals for word in re.findall(r"\w+", final.text.lower())]


def check_segments(events: list[TranscriptionEvent]) -> None:
    """No segment goes on after its final, revisions grow, and offsets lie on one timeline."""
    final: set[str] = set()
    revisions: dict[str, int] = {}
    reached_s = 0.0
    for event in events:
        if isinstance(event, Transcript):
            assert event.segment_id not in final
            assert event.segment_revision > revisions.get(event.segment_id, 0)
            revisions[event.segment_id] = event.segment_revision
            if event.is_final:
                final.add(event.segment_id)
                if event.text:
                    assert event.start_offset_s >= reached_s - 0.001
                    reached_s = event.end_offset_s
    assert final == set(revisions), "a segment was left hanging"


class TestCuts:
    """Connections cut at random, but reproducibly; at least 50 in each direction."""

    @pytest.mark.parametrize("seed", seeds(1))
    async def test_every_word_is_spoken_once_wherever_the_connection_is_cut(
        self, gateway: RunningGateway, seed: int
    ) -> None:
        cuts = {"up": 0, "down": 0}

        async def talk(lane: int) -> None:
            chance = random.Random(f"{seed}/{lane}")
            async with cutting_proxy(gateway.port) as proxy, Client(proxy.target) as client:
                while min(cuts.values()) < CUTS:
                    before = dict(proxy.cuts)
                    proxy.arm(None)
                    async with client.synthesize(voice_id="magnus") as session:
                        proxy.arm(budgets(chance, (450, 1200), (500, 40_000)))
                        for number, text in enumerate(STORY):
                            await session.say(tokens(text), utterance_id=f"u{number}")
                        await session.end()
                        events = [event async for event in session]
                    for direction, count in proxy.cuts.items():
                        cuts[direction] += count - before[direction]
                    check(events)

        def check(events: list[SynthesisEvent]) -> None:
            assert heard(events) == {f"u{number}": text for number, text in enumerate(STORY)}
            done = [e.utterance_id for e in events if isinstance(e, UtteranceCompleted)]
            assert done == ["u0", "u1", "u2", "u3"]
            assert [type(e) for e in events].count(SessionStarted) == 1
            assert isinstance(events[-1], SessionEnded)
            indexes = [(e.utterance_id, e.chunk_index) for e in events if isinstance(e, AudioChunk)]
            assert indexes == sorted(set(indexes))

        await asyncio.gather(*(talk(lane) for lane in range(6)))
        assert min(cuts.values()) >= CUTS
        assert not [s for s in gateway.gateway.registry if s.ended is None]

    @pytest.mark.parametrize("seed", seeds(1))
    async def test_every_word_is_heard_once_wherever_the_connection_is_cut(
        self, gateway: RunningGateway, seed: int
    ) -> None:
        cuts = {"up": 0, "down": 0}
        speech = waves_local.speak(SPOKEN, 16000, gap_s=0.2, tail_s=0.3)
        pieces = [speech[at : at + 3200] for at in range(0, len(speech), 3200)]

        async def slowly() -> AsyncIterator[bytes]:
            for piece in pieces:
                await asyncio.sleep(0.005)
                yield piece

        async def listen(lane: int) -> None:
            chance = random.Random(f"{seed}/{lane}")
            async with cutting_proxy(gateway.port) as proxy, Client(proxy.target) as client:
                while min(cuts.values()) < CUTS:
                    before = dict(proxy.cuts)
                    proxy.arm(None)
                    async with client.transcribe(language_code="en", word_timings=True) as session:
                        proxy.arm(budgets(chance, (450, 60_000), (400, 2_000)))
                        await session.stream_audio(slowly())
                        answer = await session.finalize("turn")
                        assert answer.finalize_id == "turn"
                        await session.stream_audio(slowly())
                        await session.end()
                        events = [event async for event in session]
                    for direction, count in proxy.cuts.items():
                        cuts[direction] += count - before[direction]
                    assert words_of(events) == SPOKEN * 2
                    check_segments(events)
                    assert sum(isinstance(e, Transcript) and e.is_last for e in events) == 1

        await asyncio.gather(*(listen(lane) for lane in range(6)))
        assert min(cuts.values()) >= CUTS
        assert not [s for s in gateway.gateway.registry if s.ended is None]


def slow_dial(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch, delay_s: float = 0.3
) -> asyncio.Event:
    """The gateway's upstream takes its time from now on; set once it is being dialled."""
    dial = gateway.gateway.dialer.dial
    dialling = asyncio.Event()

    async def slowly(*arguments: Any) -> Any:
        dialling.set()
        await asyncio.sleep(delay_s)
        return await dial(*arguments)

    monkeypatch.setattr(gateway.gateway.dialer, "dial", slowly)
    return dialling


class TestResume:
    async def test_what_is_sent_meanwhile_is_taken_and_comes_later(
        self, proxy: CuttingProxy, client: Client
    ) -> None:
        async with client.synthesize(voice_id="magnus") as session:
            await (await session.say("Before.")).wait()
            proxy.refusing = True
            proxy.cut()
            async with asyncio.timeout(15):  # half the window: nobody waits for the connection
                await session.say("In between.", utterance_id="between")
                await until(lambda: proxy.accepted >= 2)
                await session.say("And on.", utterance_id="on")
            proxy.refusing = False
            await session.end()
            events = [event async for event in session]
        spoken = heard(events)
        assert (spoken["between"], spoken["on"]) == ("In between.", "And on.")
        (resumed,) = [e for e in events if isinstance(e, SessionResumed)]
        assert resumed.attempts > 1
        assert resumed.session_id == session.session_id
        assert isinstance(resumed.cause, ConnectionLostError)

    async def test_who_is_sending_as_the_connection_is_lost_need_not_wait(
        self, proxy: CuttingProxy, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def never(request: object) -> None:
            await asyncio.Event().wait()

        async with client.synthesize(voice_id="magnus") as session:
            assert session._line is not None
            monkeypatch.setattr(session._line._call, "write", never)
            sending = asyncio.create_task(session.say("Half out."))
            await until(lambda: session._waiting > 0)
            proxy.refusing = True
            proxy.cut()
            utterance = await asyncio.wait_for(sending, 15)  # half the window
            proxy.refusing = False
            assert waves_local.spoken(await utterance.read()) == "Half out."

    async def test_a_connection_that_leads_nowhere_is_given_up(
        self, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("wavegate._session.RESUME_TRY_S", 0.2)
        async with (
            Client(proxy.target, options=[("grpc.min_reconnect_backoff_ms", 1000)]) as client,
            client.synthesize(voice_id="magnus") as session,
        ):
            proxy.deaf = True
            proxy.cut()
            utterance = await session.say("Back again.")
            await until(lambda: proxy.accepted >= 2)
            proxy.deaf = False
            monkeypatch.undo()  # from here on it may be slow
            assert waves_local.spoken(await utterance.read()) == "Back again."

    async def test_no_more_is_taken_than_has_room(
        self, proxy: CuttingProxy, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("wavegate._session.KEPT_BYTES", 10_000)
        async with client.transcribe(language_code="en") as session:
            proxy.refusing = True
            proxy.cut()
            await until(lambda: session._line is not None and session._line.over)
            await flood(session)
            assert session._log.kept_bytes < 14_000
            proxy.refusing = False
            await session.send_audio(bytes(3200))

    async def test_a_session_that_has_expired_says_what_is_lost(
        self, gateway: RunningGateway, proxy: CuttingProxy, client: Client
    ) -> None:
        async def talk() -> None:
            async with client.synthesize(voice_id="magnus", resume_window_s=30) as session:
                await (await session.say("Before.")).wait()
                proxy.refusing = True
                proxy.cut()
                await session.say("Never heard.", utterance_id="lost")
                await forget_all(gateway)
                proxy.refusing = False
                await all_of(session)

        with pytest.raises(ConnectionLostError) as caught:
            await talk()
        assert re.search(
            r"was lost \(.*\); open a new session\n  it could not be resumed: there is no session .*"
            r"\n  lost: utterance lost",
            str(caught.value),
        )
        assert caught.value.reason == "SESSION_NOT_FOUND"

    async def test_it_is_not_tried_for_ever(self, proxy: CuttingProxy, client: Client) -> None:
        async def talk() -> None:
            async with client.transcribe(language_code="en", resume_window_s=0.3) as session:
                await session.send_audio(bytes(32_000))
                proxy.refusing = True
                proxy.cut()
                await all_of(session)

        with pytest.raises(ConnectionLostError, match="could not be resumed") as caught:
            await talk()
        assert "lost: the transcript of the audio from 0.00 s on" in str(caught.value)

    async def test_and_not_at_all_where_it_is_not_wanted(self, proxy: CuttingProxy, client: Client) -> None:
        async def talk() -> None:
            async with client.synthesize(voice_id="magnus", resume_window_s=0) as session:
                await session.say("Never heard.")
                proxy.cut()
                await all_of(session)

        with pytest.raises(ConnectionLostError, match=r"was lost .*; open a new session"):
            await talk()
        assert proxy.accepted == 1

    async def test_a_call_that_is_lost_while_it_opens_is_taken_up(
        self, gateway: RunningGateway, proxy: CuttingProxy, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The upstream takes its time; the gateway has named the session by then."""
        dial = gateway.gateway.dialer.dial
        is_cut = asyncio.Event()

        async def late(*arguments: Any) -> Any:
            await is_cut.wait()
            return await dial(*arguments)

        monkeypatch.setattr(gateway.gateway.dialer, "dial", late)
        session = client.synthesize(voice_id="magnus")

        async def cut() -> None:
            await until(lambda: any(line.session_id for line in session._openings))
            proxy.cut()
            is_cut.set()

        cutting = asyncio.create_task(cut())
        async with session:
            utterance = await session.say("Hello.")
            assert waves_local.spoken(await utterance.read()) == "Hello."
        await cutting
        assert proxy.accepted == 2
        assert session.ended is not None
        assert session.ended.usage.utterance_count == 1

    @pytest.mark.parametrize("how", ["exception", "cancel", "discard", "opening"])
    async def test_who_leaves_ends_the_session_at_the_gateway_too(
        self, gateway: RunningGateway, client: Client, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry = gateway.gateway.registry
        there = slow_dial(gateway, monkeypatch) if how == "opening" else asyncio.Event()

        async def talk() -> None:
            async with client.synthesize(voice_id="magnus") as session:
                await session.say(STORY[0] * 20)
                there.set()
                if how == "exception":
                    raise ZeroDivisionError
                if how == "discard":
                    await session.discard()
                async for _ in session:
                    pass

        talking = asyncio.create_task(talk())
        await there.wait()
        if how in ("cancel", "opening"):
            talking.cancel()
        with contextlib.suppress(ZeroDivisionError, asyncio.CancelledError):
            await talking
        await until(lambda: not len(registry))

    @pytest.mark.parametrize("is_full", [False, True])
    async def test_even_where_the_gateway_does_not_read(
        self, gateway: RunningGateway, client: Client, is_full: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The session is ended from outside: its own call is full to the brim, or what was sent over it is not read."""
        registry = gateway.gateway.registry

        async def never(self: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr("wavegate_server.session.transcription.TranscriptionSession.ready", never)
        monkeypatch.setattr("wavegate._session.CLOSE_TIMEOUT_S", 10.0)  # whatever the machine

        async def talk() -> None:
            async with client.transcribe(language_code="en", resume_window_s=60.0) as session:
                assert session.started.limits.resume_window_s == 60.0
                if is_full:
                    await flood(session)
                else:
                    await session.send_audio(bytes(3200))
                assert len(registry) == 1
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await talk()
        async with asyncio.timeout(50):  # sooner than it would end by itself
            await until(lambda: not len(registry))

    async def test_programs_without_a_loop_have_it_too(self, proxy: CuttingProxy) -> None:
        def talk(cut: Callable[[], None]) -> list[str]:
            with BlockingClient(proxy.target) as client, client.synthesize(voice_id="magnus") as session:
                spoken = []
                for text in STORY[:2]:
                    utterance = session.say(text)
                    cut()
                    spoken.append(waves_local.spoken(utterance.read()))
                return spoken

        loop = asyncio.get_running_loop()

        def cut() -> None:
            loop.call_soon_threadsafe(proxy.cut)

        spoken = await asyncio.to_thread(talk, cut)
        assert spoken == list(STORY[:2])
        assert proxy.accepted > 1


def drain(gateway: RunningGateway, time_left_s: float) -> None:
    """What a gateway does when it is told to stop."""
    gateway.gateway.registry.draining = True
    for session in gateway.gateway.registry:
        session.go_away(time_left_s)


def stop(gateway: RunningGateway) -> None:
    """And when its time is up."""
    for session in gateway.gateway.registry:
        session.fail(
            GatewayDraining("the gateway has stopped; open a new session elsewhere"), EndReason.DRAIN
        )


@pytest.fixture
async def pair(gateway: RunningGateway) -> AsyncIterator[tuple[RunningGateway, RunningGateway]]:
    options = waves_local.Options(chunk_interval_s=0.002)
    async with running_gateway(options, stt_keepalive="message") as other:
        yield gateway, other


class TestSynthesisMoves:
    async def test_at_the_next_utterance_every_word_is_spoken_once(
        self, pair: tuple[RunningGateway, RunningGateway]
    ) -> None:
        old, new = pair
        async with (
            Client(targets=[old.target, new.target]) as client,
            client.synthesize(voice_id="magnus", labels={"team": "a"}) as session,
        ):
            await session.update_settings(speed=1.25)
            first_id = session.session_id
            texts = {f"u{number}": text for number, text in enumerate(STORY)}
            for name, text in texts.items():
                await session.say(text, utterance_id=name)
            events: list[SynthesisEvent] = []
            async for event in session:
                events.append(event)
                if isinstance(event, AudioChunk) and len(events) < 20 and session.go_away is None:
                    drain(old, 20.0)
                if isinstance(event, SessionMoved):
                    (live,) = new.gateway.registry
                    assert live.context.labels == {"team": "a"}
                    await session.say("I am elsewhere.", utterance_id="late")
                    await session.end()
            assert heard(events) == {**texts, "late": "I am elsewhere."}
            (moved,) = [e for e in events if isinstance(e, SessionMoved)]
            assert (moved.previous_session_id, moved.target) == (first_id, new.target)
            assert moved.session_id == session.session_id != first_id
            assert isinstance(moved.started.settings, SynthesisSettings)
            assert (moved.started.settings.voice_id, moved.started.settings.speed) == ("magnus", 1.25)
            assert (session.settings, session.settings_revision) == (moved.started.settings, 1)
            assert isinstance(events[-1], SessionEnded)
            assert session.go_away is None
            # The utterance that was being heard was finished where it was, the last one elsewhere.
            kinds = [type(e) for e in events]
            assert kinds.count(SessionStarted) == 1
            assert UtteranceCompleted in kinds[: kinds.index(SessionMoved)]
            started = [e.utterance_id for e in events if isinstance(e, UtteranceStarted)]
            assert started == [*texts, "late"]
        await until(lambda: not len(old.gateway.registry))

    async def test_settings_that_changed_meanwhile_are_in_force_elsewhere(
        self, pair: tuple[RunningGateway, RunningGateway]
    ) -> None:
        """The other session was open already; another one is opened in its place."""
        old, new = pair
        async with (
            Client(targets=[old.target, new.target]) as client,
            client.synthesize(voice_id="magnus", max_audio_lead_s=0.5) as session,
        ):
            await session.say(STORY[0])
            await session.say("Quickly.", utterance_id="next")
            moved = None
            async for event in session:
                if isinstance(event, AudioChunk) and session.go_away is None and moved is None:
                    drain(old, 20.0)
                    await until(lambda: session._successor is not None)
                    ack = await session.update_settings(speed=1.5, apply="IMMEDIATE")
                    assert ack.state == "APPLIED"
                if isinstance(event, SessionMoved):
                    moved = event
                    await session.end()
            assert moved is not None
            assert isinstance(moved.started.settings, SynthesisSettings)
            assert moved.started.settings.speed == 1.5
        await until(lambda: not len(old.gateway.registry) and not len(new.gateway.registry))

    async def test_an_idle_session_moves_at_once(self, pair: tuple[RunningGateway, RunningGateway]) -> None:
        old, new = pair
        async with (
            Client(targets=[old.target, new.target]) as client,
            client.synthesize(voice_id="magnus") as session,
        ):
            await (await session.say("One.")).wait()
            drain(old, 20.0)
            await until(lambda: len(new.gateway.registry) == 1 and not len(old.gateway.registry))
            assert waves_local.spoken(await (await session.say("Two.")).read()) == "Two."

    async def test_tokens_go_on_where_the_utterance_is(
        self, pair: tuple[RunningGateway, RunningGateway]
    ) -> None:
        """Text that nobody has heard goes along, and the rest of it follows."""
        old, new = pair
        more = asyncio.Event()

        async def tokens_with_a_pause() -> AsyncIterator[str]:
            yield "This is "
            await more.wait()
            yield "one utterance."

        async with (
            Client(targets=[old.target, new.target]) as client,
            client.synthesize(voice_id="magnus", max_buffer_delay_s=5.0) as session,
        ):
            utterance = await session.say(tokens_with_a_pause())
            await until(lambda: bool(session._unfinished))
            drain(old, 20.0)
            await until(lambda: len(new.gateway.registry) == 1 and not len(old.gateway.registry))
            more.set()
            assert waves_local.spoken(await utterance.read()) == "This is one utterance."

    @pytest.mark.parametrize("in_time", [True, False])
    async def test_what_its_gateway_cannot_finish_fails_and_the_rest_is_spoken(
        self,
        pair: tuple[RunningGateway, RunningGateway],
        monkeypatch: pytest.MonkeyPatch,
        in_time: bool,
    ) -> None:
        """Whether another session is open by then or not."""
        old, new = pair
        if not in_time:
            slow_dial(new, monkeypatch, 1.5)
        async with (
            Client(targets=[old.target, new.target]) as client,
            client.synthesize(voice_id="magnus", max_audio_lead_s=0.5 if in_time else None) as session,
        ):
            long = await session.say(STORY[0] * 40, utterance_id="long")
            await session.say("Never cancelled.", utterance_id="rest")
            await session.end()
            events: list[SynthesisEvent] = []
            async for event in session:
                events.append(event)
                if isinstance(event, AudioChunk) and session.go_away is None and not session._moves:
                    drain(old, 0.2)
                    asyncio.get_running_loop().call_later(0.2, stop, old)
            (failed,) = [e for e in events if isinstance(e, UtteranceFailed)]
            assert failed.utterance_id == "long"
            assert failed.error.reason == "GATEWAY_DRAINING"
            assert 0 < failed.audio_sent_duration_s < 120
            assert heard(events)["rest"] == "Never cancelled."
            assert long.outcome == failed
            assert isinstance(events[-1], SessionEnded)
            assert events[-1].error is None

    async def test_late_text_of_what_was_cancelled_is_not_spoken_elsewhere(
        self, pair: tuple[RunningGateway, RunningGateway]
    ) -> None:
        old, new = pair
        async with (
            Client(targets=[old.target, new.target]) as client,
            client.synthesize(voice_id="magnus") as session,
        ):
            story = await session.send_text(STORY[0], utterance_id="story")
            await story.cancel()
            await story.wait()
            drain(old, 20.0)
            await until(lambda: not len(old.gateway.registry))
            await session.send_text("a late token", utterance_id="story", end_utterance=True)
            await session.say("Yes?", utterance_id="answer")
            await session.end()
            events = [event async for event in session]
        assert heard(events) == {"answer": "Yes?"}
        assert "STALE_TEXT" in [e.reason for e in events if isinstance(e, GatewayWarning)]

    async def test_a_gateway_that_vanishes_while_it_drains_is_survived(
        self, pair: tuple[RunningGateway, RunningGateway]
    ) -> None:
        """No resuming is possible any more; what was not heard is spoken elsewhere."""
        old, new = pair
        async with (
            cutting_proxy(old.port) as proxy,
            Client(targets=[proxy.target, new.target]) as client,
            client.synthesize(voice_id="magnus", max_audio_lead_s=0.5) as session,
        ):
            await session.say(STORY[0] * 20, utterance_id="long")
            await session.say("The rest.", utterance_id="rest")
            await session.end()
            events: list[SynthesisEvent] = []
            async for event in session:
                events.append(event)
                if isinstance(event, AudioChunk) and not proxy.refusing:
                    drain(old, 20.0)
                    await until(lambda: len(new.gateway.registry) == 1)
                    proxy.refusing = True
                    proxy.cut()
        (failed,) = [e for e in events if isinstance(e, UtteranceFailed)]
        assert isinstance(failed.error, ConnectionLostError)
        assert heard(events)["rest"] == "The rest."

    async def test_behind_one_address_there_may_be_another_process(
        self, pair: tuple[RunningGateway, RunningGateway]
    ) -> None:
        old, new = pair
        async with (
            cutting_proxy(old.port) as proxy,
            Client(proxy.target) as client,
            Client(proxy.target) as idle,
            client.synthesize(voice_id="magnus") as session,
        ):
            await anext(idle.list_voices())
            await (await session.say("One.")).wait()
            proxy.to_port = new.port
            drain(old, 20.0)
            await until(lambda: len(new.gateway.registry) == 1)
            assert waves_local.spoken(await (await session.say("Two.")).read()) == "Two."
            # New sessions of the client go there, too.
            for connected in (client, idle):
                async with connected.synthesize(voice_id="magnus") as another:
                    assert waves_local.spoken(await (await another.say("Three.")).read()) == "Three."

    async def test_calls_that_are_no_session_are_finished_where_they_are(
        self, pair: tuple[RunningGateway, RunningGateway]
    ) -> None:
        """Though the client has left that gateway for its sessions."""
        old, new = pair
        async with cutting_proxy(old.port) as proxy, Client(proxy.target) as client:
            audio = []
            async for event in client.synthesize_once(STORY[0], voice_id="magnus"):
                if isinstance(event, AudioChunk):
                    audio.append(event.audio)
                    if len(audio) == 1:
                        proxy.to_port = new.port
                        drain(old, 20.0)
                        async with client.synthesize(voice_id="magnus"):
                            assert len(new.gateway.registry) == 1
            assert waves_local.spoken(b"".join(audio)) == STORY[0]

    async def test_one_that_has_nowhere_to_go_ends_as_its_gateway_says(
        self, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("wavegate._session.MOVE_PATIENCE_S", 0.3)
        async with Client(gateway.target) as client:
            session = client.synthesize(voice_id="magnus", max_audio_lead_s=0.5)

            async def talk() -> None:
                async with session:
                    await session.say(STORY[0] * 20)
                    drain(gateway, 0.3)
                    asyncio.get_running_loop().call_later(0.3, stop, gateway)
                    await all_of(session)

            with pytest.raises(GatewayUnavailableError) as caught:
                await talk()
            assert caught.value.reason == "GATEWAY_DRAINING"
            assert session.ended is not None
            assert session.ended.reason == "DRAIN"

    async def test_a_session_opens_where_it_is_let_in(
        self, pair: tuple[RunningGateway, RunningGateway]
    ) -> None:
        old, new = pair
        drain(old, 20.0)
        async with Client(targets=["127.0.0.1:1", old.target, new.target]) as client:
            async with client.synthesize(voice_id="magnus") as session:
                assert waves_local.spoken(await (await session.say("Hello.")).read()) == "Hello."
            assert client.target == new.target
        async with Client(old.target) as client:
            with pytest.raises(GatewayUnavailableError, match="shutting down"):
                async with client.synthesize(voice_id="magnus"):
                    pytest.fail("it takes nothing new")

    async def test_a_session_opens_as_soon_as_its_address_leads_elsewhere(
        self, pair: tuple[RunningGateway, RunningGateway]
    ) -> None:
        """A balancer needs a moment to notice that a gateway shuts down."""
        old, new = pair
        drain(old, 20.0)
        async with cutting_proxy(old.port) as proxy, Client(proxy.target) as client:

            async def lead_elsewhere() -> None:
                await until(lambda: proxy.accepted >= 3)
                proxy.to_port = new.port

            leading = asyncio.create_task(lead_elsewhere())
            async with client.synthesize(voice_id="magnus") as session:
                assert waves_local.spoken(await (await session.say("Hello.")).read()) == "Hello."
            await leading


FORMATS = [AudioFormat("LINEAR16", 16000), AudioFormat("MULAW", 8000)]


class TestTranscriptionMoves:
    @pytest.mark.parametrize("audio_format", FORMATS, ids=lambda f: f.encoding)
    @pytest.mark.parametrize("piece_ms", [20, 900, 1700])
    @pytest.mark.parametrize("seed", seeds(1))
    async def test_no_word_is_lost_or_comes_twice(
        self, pair: tuple[RunningGateway, RunningGateway], audio_format: AudioFormat, seed: int, piece_ms: int
    ) -> None:
        old, new = pair
        chance = random.Random(seed)
        rate = audio_format.sample_rate_hz
        sentences = [SPOKEN[at : at + 3] for at in (0, 3, 6, 9)] * 2
        speech = bytes(rate) + b"".join(waves_local.speak(s, rate, gap_s=0.1, tail_s=1.2) for s in sentences)
        length_s = len(speech) / 2 / rate
        step = rate * piece_ms // 1000 * 2
        if audio_format.encoding == "MULAW":
            speech, step = mulaw_encode(speech), step // 2
        pieces = [speech[at : at + step] for at in range(0, len(speech), step)]
        moment = chance.randrange(len(pieces) // 8, len(pieces) * 7 // 8)
        async with (
            Client(targets=[old.target, new.target]) as client,
            client.transcribe(
                audio_format=audio_format,
                language_code="en",
                word_timings=True,
                full_transcript=True,
                voice_activity_events=True,
                initial_audio_offset_s=100.0,
            ) as session,
        ):
            events: list[TranscriptionEvent] = []

            async def read() -> None:
                async for event in session:
                    events.append(event)

            reading = asyncio.create_task(read())
            for number, piece in enumerate(pieces):
                await session.send_audio(piece)
                if number == moment:
                    drain(old, 20.0)
                await asyncio.sleep(0.05 * piece_ms / 1000)
            await session.finalize()
            await session.end()
            await reading
        assert words_of(events) == SPOKEN * 2
        check_segments(events)
        (moved,) = [e for e in events if isinstance(e, SessionMoved)]
        assert moved.lost_audio_s == 0
        assert moved.target == new.target
        last = [e for e in events if isinstance(e, Transcript) and e.full_text][-1]
        assert re.findall(r"\w+", last.full_text.lower()) == SPOKEN * 2
        # All offsets are where the words were put.
        words = [w for e in events if isinstance(e, Transcript) and e.is_final for w in e.words]
        assert words[0].start_offset_s == pytest.approx(100.5, abs=0.1)
        assert [w.start_offset_s for w in words] == sorted(w.start_offset_s for w in words)
        assert words[-1].end_offset_s == pytest.approx(100 + length_s - 1.2, abs=0.1)
        voices = [type(e) for e in events if isinstance(e, SpeechStarted | SpeechEnded)]
        assert voices == [SpeechStarted, SpeechEnded] * (len(voices) // 2)
        await until(lambda: not len(old.gateway.registry))

    async def test_audio_from_before_a_change_of_settings_is_not_sent_elsewhere_with_the_new_ones(
        self, pair: tuple[RunningGateway, RunningGateway]
    ) -> None:
        """Nor what lies behind the last word of it, which no final covers."""
        old, new = pair
        first = waves_local.speak(["my", "card"], 16000, gap_s=0.1, tail_s=3.0)
        second = waves_local.speak(["and", "more"], 16000, gap_s=0.1, tail_s=0.5)
        async with (
            Client(targets=[old.target, new.target]) as client,
            client.transcribe(language_code="en", redact_pci=True, word_timings=True) as session,
        ):
            await session.send_audio(first)
            ack = await session.update_settings(redact_pci=False, apply="IMMEDIATE")
            assert ack.audio_offset_s == pytest.approx(len(first) / 32000)
            drain(old, 20.0)
            await until(lambda: session._moves == 1)
            await session.send_audio(second)
            await session.end()
            events = [event async for event in session]
        assert words_of(events) == ["my", "card", "and", "more"]
        assert new.upstream is not None
        (record,) = new.upstream.journal.of("stt")
        assert record.query["redact_pci"] == "false"
        assert record.audio_bytes == len(second)

    async def test_a_gateway_that_vanishes_while_it_drains_is_survived(
        self, pair: tuple[RunningGateway, RunningGateway], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old, new = pair
        speech = waves_local.speak(SPOKEN, 16000, gap_s=0.2, tail_s=0.3)
        async with (
            cutting_proxy(old.port) as proxy,
            Client(targets=[proxy.target, new.target]) as client,
            client.transcribe(language_code="en") as session,
        ):
            await session.send_audio(speech[: len(speech) // 2])
            await until(lambda: session._hanging is not None)
            slow_dial(new, monkeypatch)
            drain(old, 20.0)
            await until(lambda: session.go_away is not None)
            proxy.refusing = True
            proxy.cut()
            await session.send_audio(speech[len(speech) // 2 :])
            await session.end()
            events = [event async for event in session]
        assert words_of(events) == SPOKEN
        check_segments(events)

    async def test_what_was_asked_and_not_answered_is_asked_again(
        self, pair: tuple[RunningGateway, RunningGateway]
    ) -> None:
        old, new = pair
        speech = waves_local.speak(["seven", "blue", "trains"], 16000, tail_s=0.3)
        async with (
            Client(targets=[old.target, new.target]) as client,
            client.transcribe(language_code="en") as session,
        ):
            await session.send_audio(speech)
            session._pause(True)  # its answer is not heard any more
            asking = asyncio.create_task(session.finalize())
            await asyncio.sleep(0.05)
            drain(old, 20.0)
            session._begin_moving(20.0)
            assert (await asyncio.wait_for(asking, 30)).text.lower().split() == ["seven", "blue", "trains"]

    async def test_what_was_kept_no_longer_is_counted(
        self, pair: tuple[RunningGateway, RunningGateway], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("wavegate.transcription.KEPT_AUDIO_S", 2.0)
        old, new = pair
        speech = waves_local.speak(SPOKEN, 16000, gap_s=0.05)
        length_s = len(speech) / 32_000
        async with (
            Client(targets=[old.target, new.target]) as client,
            client.transcribe(language_code="en", end_of_utterance_timeout_s=5.0) as session,
        ):
            await session.stream_audio([speech[at : at + 3200] for at in range(0, 3200 * 3, 3200)])
            await until(lambda: session._hanging is not None)
            await session.stream_audio([speech[at : at + 3200] for at in range(9600, len(speech), 3200)])
            drain(old, 20.0)
            async for event in session:
                if isinstance(event, SessionMoved):
                    assert event.lost_audio_s == pytest.approx(length_s - 2.0, abs=0.2)
                    break
            await session.discard()

    async def test_opus_is_sent_again_packet_by_packet(
        self, pair: tuple[RunningGateway, RunningGateway]
    ) -> None:
        old, new = pair
        async with (
            Client(targets=[old.target, new.target]) as client,
            client.transcribe(audio_format=AudioFormat("OPUS", 48000), language_code="en") as session,
        ):
            for _ in range(10):
                await session.send_audio(b"\xf8\xff\xfe")  # 20 ms of silence
            drain(old, 20.0)
            await until(lambda: len(new.gateway.registry) == 1 and not len(old.gateway.registry))
            (live,) = new.gateway.registry
            await until(lambda: live.usage().audio_duration_s == pytest.approx(0.2))
            assert live.usage().audio_bytes == 30
            await session.discard()

    @pytest.mark.parametrize("why", ["Ogg", "transcription", "synthesis"])
    async def test_what_cannot_move_or_shall_not_stays_and_is_finished(
        self, pair: tuple[RunningGateway, RunningGateway], why: str
    ) -> None:
        old, new = pair
        async with Client(targets=[old.target, new.target]) as client, contextlib.AsyncExitStack() as stack:
            match why:
                case "Ogg":
                    ogg = AudioFormat("OGG_OPUS", 48000)
                    made: Any = client.transcribe(audio_format=ogg, language_code="en")
                case "transcription":
                    made = client.transcribe(language_code="en", move=False)
                case _:
                    made = client.synthesize(voice_id="magnus", move=False)
            session = await stack.enter_async_context(made)
            drain(old, 20.0)
            await until(lambda: session.go_away is not None)
            await session.end()
            events = await all_of(session)
        assert not [e for e in events if isinstance(e, SessionMoved)]
        assert session.ended is not None
        assert session.ended.reason == "CLIENT_END"
        assert not len(new.gateway.registry)


async def test_a_process_that_is_told_to_stop_is_left_and_ends() -> None:
    """SIGTERM, as an orchestrator sends it: both sessions are gone long before the drain's time is up."""
    options = ("--local-engine", "deterministic", "--drain-timeout", "30")
    speech = waves_local.speak(SPOKEN[:6], 16000, gap_s=0.2, tail_s=0.3)
    async with running(*options) as old, running(*options) as new:
        async with (
            Client(targets=[old.target, new.target]) as client,
            client.synthesize(voice_id="magnus") as speaking,
            client.transcribe(language_code="en") as listening,
        ):
            await listening.send_audio(speech[: len(speech) // 2])
            utterances = [await speaking.say(text) for text in STORY]
            old.signal(signal.SIGTERM)
            assert [waves_local.spoken(await u.read()) for u in utterances] == list(STORY)
            assert await asyncio.wait_for(old.ended(), 25) == 0
            await listening.send_audio(speech[len(speech) // 2 :])
            await listening.end()
            assert words_of(await all_of(listening)) == SPOKEN[:6]
            assert (await speaking.say("Still here.")).utterance_id
        assert speaking.ended is not None
        assert speaking.ended.error is None
