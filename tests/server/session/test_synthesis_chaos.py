"""A synthesis session in any order of texts, flushes, cancels, settings, drops, refusals, slowness and silence.

The upstream is a puppet of the machine: it says the characters of its requests, once and in order, and now and
then nothing, nonsense or good-bye. What the caller hears is held against what it said.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from wavegate_server import errors
from wavegate_server.session.events import AckState, SessionEnded, SessionStarted
from wavegate_server.session.synthesis_events import (
    AudioProduced,
    UtteranceCancelled,
    UtteranceCompleted,
    UtteranceFailed,
    UtteranceStarted,
)
from wavegate_server.waves.ending import Habits
from wavegate_server.waves.tts import Completion, Mode

from tests.support.seeds import repetitions
from tests.support.speaking import Caller, id_of, spoken_pcm, spoken_text
from tests.support.transport import FakeDialer, FakeTransport, Message, tts_chunk, tts_complete, tts_error
from tests.support.virtual_time import VirtualTimeLoop, settle


@dataclass
class Asked:
    """A request as the upstream sees it."""

    name: str
    text: str = ""
    closed: bool = False
    cancelled: bool = False
    spoken: int = 0
    over: bool = False


class Puppet:
    """One upstream connection, which does nothing of its own accord."""

    def __init__(self, upstream: FakeTransport) -> None:
        self.upstream = upstream
        self.requests: dict[str, Asked] = {}

    def received(self, message: Message) -> None:
        body = json.loads(message)
        if body.get("cancel_request"):
            self.requests[body["context_id"]].cancelled = True
        elif "continue" in body:
            asked = self.requests.setdefault(body["request_id"], Asked(body["request_id"]))
            assert not asked.closed, "text after the closing fragment"
            asked.text += body["text"]
            asked.closed = not body["continue"]

    def current(self) -> Asked | None:
        """The request that is to be spoken."""
        waiting = [r for r in self.requests.values() if not (r.cancelled or r.over)]
        for asked in waiting[:-1]:
            assert not any(c.isalnum() for c in asked.text), "one request at a time"
            asked.over = True  # there was nothing to say, and nobody waited for that for ever
        return waiting[-1] if waiting else None

    def speak(self, count: int) -> None:
        asked = self.current()
        if asked is not None and (piece := asked.text[asked.spoken : asked.spoken + count]):
            asked.spoken += len(piece)
            self.upstream.say(tts_chunk(spoken_pcm(piece), asked.name, f"up-{asked.name}"))

    def complete(self) -> None:
        asked = self.current()
        if asked is not None and asked.closed and asked.spoken == len(asked.text):
            asked.over = True
            self.upstream.say(tts_complete(asked.name, f"up-{asked.name}"))

    def refuse(self) -> None:
        asked = self.current()
        if asked is not None:
            asked.over = True
            self.upstream.say(tts_error("Invalid text", asked.name))


IDS = st.sampled_from(["", "a", "b", "c", "d"])
PIECES = st.text(st.sampled_from("abc. "), min_size=0, max_size=6)


def letters(text: str) -> str:
    """The part of a text that is sure to be heard. A request of dots and blanks may rightly have no audio."""
    return "".join(c for c in text if c.isalnum())


class Chaos(RuleBasedStateMachine):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        asyncio.set_event_loop(self.loop)
        self.puppets: list[Puppet] = []
        self.habits = Habits(sends_complete=True)
        self.texts: dict[str, str] = {}
        """What the caller said, by utterance; the oldest first."""
        self.updates: list[str] = []
        self.caller: Caller

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        self.loop.run_until_complete(work)

    def do(self, action: Any) -> None:
        """Do something on the loop, and let everything come of it that can without time passing."""

        async def work() -> None:
            # Else a silence would teach that this upstream sends no `complete`, and ends would be guessed.
            self.habits.sends_complete = True
            action()
            await settle()

        self.run(work())

    def meet(self, upstream: FakeTransport) -> Puppet:
        self.puppets.append(Puppet(upstream))
        return self.puppets[-1]

    @property
    def ended(self) -> bool:
        return self.caller.session.ended is not None

    def live(self) -> Puppet | None:
        """The connection in use."""
        return next((p for p in reversed(self.puppets) if not p.upstream.gone), None)

    @initialize(mode=st.sampled_from(list(Mode)), lead_s=st.sampled_from([None, None, 0.2]))
    def open(self, mode: Mode, lead_s: float | None) -> None:
        async def begin() -> None:
            self.caller = Caller(
                FakeDialer(self.meet),
                tts_mode=mode,
                habits=self.habits,
                max_audio_lead_s=lead_s,
                max_waiting_audio_s=0.1,
                idle_timeout_s=10**6,
            )
            await self.caller.__aenter__()

        self.run(begin())

    # -- the caller ---------------------------------------------------------------------------------------------

    @rule(text=PIECES, name=IDS, end=st.booleans())
    def say(self, text: str, name: str, end: bool) -> None:
        line = self.caller.session._line
        opened = line.open.utterance_id if line.open else ""
        if not name and not opened:
            name = f"new-{len(self.texts)}"  # ids that the session makes are nobody's to foresee
        taken = name in ("", opened) or not line.is_used(name)
        if taken and not self.ended:
            utterance_id = name or opened
            self.texts[utterance_id] = self.texts.get(utterance_id, "") + text
        self.do(lambda: self.caller.say(text, name, end=end))

    @rule(name=IDS)
    def flush(self, name: str) -> None:
        self.do(lambda: self.caller.flush(name))

    @rule(name=IDS)
    def end(self, name: str) -> None:
        self.do(lambda: self.caller.end(name))

    @rule(name=IDS, heard_s=st.none() | st.floats(0, 2))
    def cancel(self, name: str, heard_s: float | None) -> None:
        self.do(lambda: self.caller.cancel(name, heard_s))

    @rule(speed=st.sampled_from([0.5, 1.0, 1.5, 9.0]), at_once=st.booleans())
    def change(self, speed: float, at_once: bool) -> None:
        update_id = f"d{len(self.updates)}"
        if not self.ended:
            self.updates.append(update_id)
        self.do(lambda: self.caller.update(update_id, speed=speed, at_once=at_once))

    @rule(model=st.sampled_from(["lightning_v3.1", "lightning-v2"]))
    def change_model(self, model: str) -> None:
        update_id = f"d{len(self.updates)}"
        if not self.ended:
            self.updates.append(update_id)
        self.do(lambda: self.caller.update(update_id, model=model))

    @rule()
    def stop_reading(self) -> None:
        self.caller.stop_reading()

    @rule()
    def read_on(self) -> None:
        self.do(self.caller.read_on)

    # -- the upstream -------------------------------------------------------------------------------------------

    @precondition(lambda self: self.live() is not None)
    @rule(count=st.integers(1, 12))
    def speak(self, count: int) -> None:
        live = self.live()
        assert live is not None
        self.do(lambda: live.speak(count))

    @precondition(lambda self: self.live() is not None)
    @rule()
    def speak_to_the_end(self) -> None:
        live = self.live()
        assert live is not None
        self.do(lambda: live.speak(10**6))
        self.do(live.complete)

    @precondition(lambda self: self.live() is not None)
    @rule(code=st.sampled_from([None, 1000, 1011]))
    def drop(self, code: int | None) -> None:
        live = self.live()
        assert live is not None
        self.do(lambda: live.upstream.drop(code))

    @precondition(lambda self: self.live() is not None)
    @rule(nonsense=st.sampled_from(["nonsense", '{"status": "unheard of"}', b"\x00"]))
    def talk_nonsense(self, nonsense: Message) -> None:
        live = self.live()
        assert live is not None
        self.do(lambda: live.upstream.say(nonsense))

    @precondition(lambda self: self.live() is not None)
    @rule()
    def refuse_the_text(self) -> None:
        live = self.live()
        assert live is not None
        self.do(live.refuse)

    @precondition(lambda self: self.live() is not None)
    @rule()
    def speak_what_was_cancelled(self) -> None:
        """The upstream does not obey, or its audio was under way."""
        live = self.live()
        assert live is not None

        def say() -> None:
            for asked in live.requests.values():
                if asked.cancelled and asked.spoken < len(asked.text):
                    piece = asked.text[asked.spoken :]
                    asked.spoken = len(asked.text)
                    live.upstream.say(tts_chunk(spoken_pcm(piece), asked.name, f"up-{asked.name}"))

        self.do(say)

    @rule(count=st.integers(1, 5), full=st.booleans())
    def refuse_connections(self, count: int, full: bool) -> None:
        refusal = errors.UpstreamCapacity("429") if full else errors.UpstreamUnavailable("unreachable")
        self.caller.dialer.refuse(*[refusal] * count)

    @rule(seconds=st.sampled_from([0.05, 0.3, 0.7, 2.5, 6.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    # -- what must hold -----------------------------------------------------------------------------------------

    def heard_text(self, utterance_id: str) -> str:
        pcm = b"".join(e.audio for e in self.caller.of(AudioProduced, utterance_id))
        return spoken_text(pcm)

    @invariant()
    def each_utterance_is_told_in_order_and_ends_once(self) -> None:
        ended: set[str] = set()
        begun: list[str] = []
        indices: dict[str, int] = {}
        for event in self.caller.heard:
            match event:
                case UtteranceStarted():
                    assert event.utterance_id not in begun, "an utterance begins once"
                    assert set(begun) <= ended, "one at a time"
                    begun.append(event.utterance_id)
                case AudioProduced():
                    assert id_of(event) == begun[-1]
                    assert id_of(event) not in ended, "no audio after the end"
                    assert event.chunk_index == indices.get(id_of(event), -1) + 1
                    indices[id_of(event)] = event.chunk_index
                case UtteranceCompleted() | UtteranceCancelled() | UtteranceFailed():
                    assert id_of(event) not in ended, "one end"
                    ended.add(id_of(event))

    @invariant()
    def what_is_heard_is_what_was_said(self) -> None:
        for utterance_id in {id_of(e) for e in self.caller.of(AudioProduced)}:
            heard = letters(self.heard_text(utterance_id))
            assert letters(self.texts[utterance_id]).startswith(heard), "in order, and once"
        for completed in self.caller.of(UtteranceCompleted):
            said = self.texts[id_of(completed)]
            assert completed.source is not Completion.QUIET_TIMEOUT or not said.strip(" .")
            if any(c.isalnum() for c in said):
                heard = self.heard_text(id_of(completed))
                assert letters(heard) == letters(said), "and all of it"
        for cancelled in self.caller.of(UtteranceCancelled):
            assert cancelled.spoken_text + cancelled.remaining_text == cancelled.utterance.text
            assert cancelled.discarded_audio_s >= 0
        broken: list[UtteranceCancelled | UtteranceFailed] = [*self.caller.of(UtteranceCancelled)]
        broken += self.caller.of(UtteranceFailed)
        for ending in broken:
            metrics = ending.utterance.metrics
            chunks = self.caller.of(AudioProduced, id_of(ending))
            assert metrics.audio_samples == sum(c.samples for c in chunks)
            assert metrics.audio_bytes == sum(len(c.audio) for c in chunks)
            assert metrics.chunk_count == len(chunks)

    @invariant()
    def deltas_are_answered_once(self) -> None:
        for update_id in self.updates:
            states = [a.state for a in self.caller.acks(update_id)]
            assert states.count(AckState.QUEUED) <= 1
            assert sum(s.terminal for s in states) <= 1
            assert AckState.QUEUED not in states[1:]
        revisions = [a.settings_revision for a in self.caller.acks() if a.state is AckState.APPLIED]
        assert revisions == sorted(revisions)

    def teardown(self) -> None:
        """Left alone, the session finishes all that was asked of it."""
        if not hasattr(self, "caller"):
            self.loop.close()
            return
        try:
            self.run(self._finish())
            assert isinstance(self.caller.heard[-1], SessionEnded)
            if not self.caller.of(SessionStarted):
                assert len(self.caller.heard) == 1, "what never began has nothing to tell"
                return
            ends = [id_of(e) for e in self.caller.heard if isinstance(e, ENDS)]
            assert sorted(ends) == sorted(self.texts), "each utterance has ended"
            self.each_utterance_is_told_in_order_and_ends_once()
            self.what_is_heard_is_what_was_said()
            self.deltas_are_answered_once()
            for update_id in self.updates:
                assert sum(a.state.terminal for a in self.caller.acks(update_id)) == 1
            usage = self.caller.session.usage()
            assert usage.utterance_count == len(ends)
            assert usage.audio_bytes == sum(len(e.audio) for e in self.caller.of(AudioProduced))
        finally:
            self.run(self._leave())
            self.loop.close()
            asyncio.set_event_loop(None)

    async def _finish(self) -> None:
        caller = self.caller
        caller.dialer._refusals.clear()
        caller.read_on()
        caller.end_session()
        for _ in range(10_000):
            self.habits.sends_complete = True
            if (live := self.live()) is not None:
                live.speak(10**6)
                live.complete()
            await asyncio.sleep(0.1)
            if caller.of(SessionEnded):
                return
        raise AssertionError(f"the session does not end: {caller.story()}")

    async def _leave(self) -> None:
        await self.caller.__aexit__(None, None, None)
        await settle()


ENDS = UtteranceCompleted | UtteranceCancelled | UtteranceFailed

Chaos.TestCase.settings = settings(
    max_examples=repetitions(60, 300),
    stateful_step_count=40,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestChaos = Chaos.TestCase
