"""A settings delta governs the audio behind it, and only that: deltas, drops, refusals and odd upstreams in any order,
on virtual time.

Each delta sets a mark of its own, which stands in the URL of every connection that has it. So the audio that each
connection was sent proves under which settings it was heard.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
from wavegate_server import errors
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.session.events import (
    AckState,
    ApplyPolicy,
    ConnectionChanged,
    SessionStarted,
    SettingsAcknowledged,
)
from wavegate_server.session.transcription_events import FinalTrigger, Transcribed

from tests.server.session.test_transcription import ogg_of_silence
from tests.support.listening import Caller
from tests.support.recognizer import (
    RATE_HZ,
    Habits,
    Recognizer,
    silence,
    speech,
    word,
)
from tests.support.transport import FakeDialer, FakeTransport
from tests.support.virtual_time import run_virtual, settle, virtual_time

IMMEDIATE = ApplyPolicy.IMMEDIATE


@dataclass
class Odd(Recognizer):
    """A recogniser that may pass over `finalize`, or over the end."""

    answers_finalize: bool = True
    answers_end: bool = True

    def received(self, message: str | bytes) -> None:
        if message == '{"type":"finalize"}' and not self.answers_finalize:
            return
        if message == '{"type":"close_stream"}' and not self.answers_end:
            return
        super().received(message)


def odd(**how: Any) -> FakeDialer:
    odd_fields = {k: how.pop(k) for k in list(how) if k in Odd.__dataclass_fields__}
    return FakeDialer(peer=lambda transport: Odd(transport, Habits(**how), **odd_fields))


def mark_of(transport: FakeTransport) -> int:
    """Number of the delta whose settings a connection has; 0 for those of the start."""
    return int(transport.query.get("mark", "0"))


def words_sent(transport: FakeTransport) -> set[int]:
    """Words of which a connection was sent any sample."""
    samples = np.frombuffer(transport.audio_sent(), dtype="<i2")
    return {int(level) - 1000 for level in np.unique(samples) if level}


def change(caller: Caller, number: int, policy: ApplyPolicy = IMMEDIATE) -> None:
    caller.update(f"u{number}", policy, extra={"mark": number})


def said(caller: Caller) -> list[tuple[str, int]]:
    """The finals with a text, and the revision of the settings that made each."""
    return [(t.text, t.settings_revision) for t in caller.finals if t.text]


def offsets(caller: Caller) -> list[float | None]:
    return [a.audio_offset_s for a in caller.all(SettingsAcknowledged) if a.state is AckState.APPLIED]


# -- one delta ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [ApplyPolicy.IMMEDIATE, ApplyPolicy.NEXT_BOUNDARY])
@pytest.mark.parametrize(
    "habits",
    [
        {},
        {"answers_finalize": False},
        {"answers_end": False},
        {"latency_s": 4.0},
        {"latency_s": 2.0, "answers_finalize": False},
        {"vad_events": False},
        {"last_apart": True, "answers_finalize": False},
        {"endpoint_s": None, "max_words": 1000},
        {"speed": 1.2, "answers_finalize": False},
        {"speed": 0.5, "pongs": "never"},
    ],
    ids=str,
)
def test_what_came_before_a_delta_is_never_heard_under_it(
    habits: dict[str, Any], policy: ApplyPolicy
) -> None:
    """Sent as fast as it is taken, with no pause around the delta."""

    @virtual_time
    async def scenario() -> None:
        dialer = odd(**habits)
        caller = Caller(dialer, {"word_timings": True})
        await caller.send(speech([1, 2, 3]), 1000)
        change(caller, 1, policy)
        await caller.send(speech([4, 5, 6]) + silence(0.5), 1000)
        await asyncio.sleep(30)
        if habits.get("answers_end", True):
            ended = await caller.end()
            assert ended.error is None, ended.error
        else:
            await caller.vanish()
        assert caller.text.split() == [word(n) for n in range(1, 7)]
        old, new = dialer.transports
        assert not words_sent(new) & {1, 2, 3}
        if policy is IMMEDIATE:
            assert words_sent(old) == {1, 2, 3}
            assert offsets(caller) == [0.75]
        (offset,) = offsets(caller)
        assert offset is not None
        assert offset >= 0.75
        for final in caller.finals:
            for heard in final.words:
                assert final.settings_revision == (1 if heard.start_s < offset else 2)

    scenario()


@virtual_time
async def test_an_upstream_without_word_times_is_cut_at_the_delta_too() -> None:
    dialer = odd(word_times=False, endpoint_s=None, max_words=1000)
    caller = Caller(dialer)
    await caller.send(speech([1, 2]), 320, paced_hz=RATE_HZ)
    change(caller, 1)
    await caller.send(speech([3]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert said(caller) == [("w1 w2", 1), ("w3", 2)]
    assert offsets(caller) == [0.5]


@virtual_time
async def test_without_word_times_a_boundary_in_mid_speech_lies_behind_what_was_heard() -> None:
    """Nobody can tell which of it lies before, so all of it keeps the old settings, and none is heard twice."""
    dialer = odd(word_times=False, endpoint_s=None, max_words=1000)
    caller = Caller(dialer)
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    change(caller, 1, ApplyPolicy.NEXT_BOUNDARY)
    await caller.send(speech(range(2, 30)), 320, paced_hz=RATE_HZ)
    await caller.end()
    (offset,) = offsets(caller)
    assert offset is not None
    first, second = (t for t in caller.finals if t.text)
    assert first.end_s == offset
    broken = [w for w in caller.text.split() if w.startswith("broken")]
    assert len(caller.text.split()) - len(broken) // 2 == 29
    assert len(broken) <= 2
    assert [t.settings_revision for t in (first, second)] == [1, 2]


@virtual_time
async def test_a_delta_before_any_audio_governs_all_of_it() -> None:
    dialer = odd()
    dialer.hold()
    caller = Caller(dialer, {"word_timings": True})
    change(caller, 1)
    await caller.send(speech([1]), 320)
    await settle()
    dialer.let_go()
    started = await caller.until(SessionStarted)
    assert started.settings_revision == 1
    await caller.end()
    assert said(caller) == [("w1", 2)]
    assert offsets(caller) == [0.0]
    assert [words_sent(t) for t in dialer.transports] == [set(), {1}]
    assert dialer.transports[0].json_sent() == []  # nothing was heard there: nothing is to be asked


@virtual_time
async def test_the_end_right_behind_a_delta_changes_nothing() -> None:
    dialer = odd()
    caller = Caller(dialer, {"word_timings": True})
    await caller.until(SessionStarted)
    await caller.send(speech([1, 2]), 320)
    change(caller, 1)
    await caller.end()
    assert said(caller) == [("w1 w2", 1)]
    assert caller.acks("u1")[-1].state.terminal
    assert words_sent(dialer.transports[0]) == {1, 2}
    assert all(not words_sent(t) for t in dialer.transports[1:])
    assert [t.is_last for t in caller.all(Transcribed)][-1]


@virtual_time
async def test_a_finalize_in_flight_is_answered_under_the_old_settings() -> None:
    dialer = odd(latency_s=0.5, endpoint_s=None)
    caller = Caller(dialer, {"word_timings": True})
    await caller.send(speech([1, 2]), 320, paced_hz=RATE_HZ)
    caller.finalize("before")
    change(caller, 1)
    caller.finalize("at")
    await caller.send(speech([3]), 320, paced_hz=RATE_HZ)
    caller.finalize("behind")
    await caller.end()
    answers = {t.finalize_id: (t.text, t.settings_revision) for t in caller.finals if t.finalize_id}
    assert answers == {"before": ("w1 w2", 1), "at": ("", 1), "behind": ("w3", 2)}
    assert caller.text == "w1 w2 w3"


@virtual_time
async def test_a_finalize_behind_the_delta_has_the_text_before_it() -> None:
    """No audio lies between the two, so it is the same turn."""
    dialer = odd(endpoint_s=None)
    caller = Caller(dialer, {"word_timings": True})
    await caller.send(speech([1, 2]), 320, paced_hz=RATE_HZ)
    change(caller, 1)
    caller.finalize("f")
    await caller.until(Transcribed, lambda t: t.finalize_id == "f")
    assert [(t.text, t.final_trigger, t.finalize_id) for t in caller.finals] == [
        ("w1 w2", FinalTrigger.CLIENT_FINALIZE, "f")
    ]
    await caller.vanish()


@virtual_time
async def test_a_refused_delta_leaves_the_old_connection_and_its_words() -> None:
    dialer = odd(max_words=1000, endpoint_s=None)
    caller = Caller(dialer, {"word_timings": True})
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    dialer.refuse(errors.UpstreamRejected("no such mark", http_status=400))
    dialer.handshake_s = 1.0
    change(caller, 1)
    await caller.send(speech([2]), 320, paced_hz=RATE_HZ)
    assert words_sent(dialer.transports[0]) == {1}  # it may yet be the other connection's
    await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.REJECTED)
    await caller.send(speech([3]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert said(caller) == [("w1 w2 w3", 1)]
    assert len(dialer.transports) == 1
    assert dialer.transports[0].json_sent() == [{"type": "close_stream"}]


@virtual_time
async def test_a_connection_that_cannot_be_had_is_not_tried_for_long() -> None:
    """Meanwhile nothing is heard of the audio behind the delta."""
    dialer = odd()
    caller = Caller(dialer, {"word_timings": True})
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    dialer.refuse(*[errors.UpstreamUnavailable("no answer")] * 9)
    dialer.handshake_s = 5.0
    began = asyncio.get_running_loop().time()
    change(caller, 1)
    await caller.send(speech(range(2, 20)), 320, paced_hz=RATE_HZ)
    ack = await caller.until(SettingsAcknowledged, lambda a: a.state.terminal)
    assert ack.state is AckState.REJECTED
    assert len(dialer.dials) == 2
    assert asyncio.get_running_loop().time() - began == pytest.approx(5.0)
    await caller.end()
    assert caller.text.split() == [word(n) for n in range(1, 20)]
    assert len(dialer.transports) == 1


@virtual_time
async def test_settings_refused_after_there_was_no_room_for_two_leave_the_old_ones() -> None:
    """The old connection had to go first, so another one of the old settings follows."""
    dialer = odd()
    caller = Caller(dialer, {"word_timings": True})
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    dialer.refuse(errors.UpstreamCapacity("full"), errors.UpstreamRejected("no such mark"))
    change(caller, 1)
    await caller.send(speech([2]), 320, paced_hz=RATE_HZ)
    await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.REJECTED)
    await caller.send(speech([3]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert caller.text == "w1 w2 w3"
    assert {t.settings_revision for t in caller.finals} == {1}
    assert [mark_of(t) for t in dialer.transports] == [0, 0]


@pytest.mark.parametrize("after", ["nothing", "finalize", "close_stream", "answer"])
@pytest.mark.parametrize("code", [None, 1000, 1011])
def test_an_old_connection_that_dies_is_followed_by_another_of_the_old_settings(
    after: str, code: int | None
) -> None:
    @virtual_time
    async def scenario() -> None:
        dialer = FakeDialer(
            peer=lambda t: Odd(t, Habits(latency_s=0.3, endpoint_s=None)) if t.index else Stale(t)
        )

        class Stale(Odd):
            def received(self, message: str | bytes) -> None:
                in_audio = after == "nothing" and isinstance(message, bytes) and len(self.pcm) >= 6000
                if in_audio or (after != "answer" and isinstance(message, str) and after in message):
                    self.transport.drop(code)
                else:
                    super().received(message)
                    if after == "answer" and "close_stream" in str(message):
                        asyncio.get_running_loop().call_later(0.15, self.transport.drop, code)

        caller = Caller(dialer, {"word_timings": True})
        await caller.send(speech([1, 2]), 320)
        change(caller, 1)
        await caller.send(speech([3]), 320)
        ended = await caller.end()
        assert ended.error is None
        assert said(caller) == [("w1 w2", 1), ("w3", 2)]
        assert offsets(caller) == [0.5]
        for transport in dialer.transports:
            assert words_sent(transport) <= ({1, 2} if mark_of(transport) == 0 else {3})

    scenario()


@virtual_time
async def test_an_upstream_with_nothing_to_say_lets_settings_change_at_once() -> None:
    """It answers no finalize, since it heard noise only, but it does answer the end."""
    dialer = odd(answers_finalize=False, word_times=False, silent=True)
    dialer.peer = lambda transport: Hum(transport, Habits(), answers_finalize=False)

    class Hum(Odd):
        def received(self, message: str | bytes) -> None:
            if isinstance(message, str):
                super().received(message)

    caller = Caller(dialer)
    await caller.send(b"\x00\x20" * RATE_HZ, 320, paced_hz=RATE_HZ)
    change(caller, 1)
    await caller.until(SettingsAcknowledged, lambda a: a.state is AckState.APPLIED)
    assert offsets(caller) == [1.0]
    assert asyncio.get_running_loop().time() < 1.5
    assert caller.finals == []
    await caller.vanish()


@virtual_time
async def test_packets_and_pages_from_before_a_delta_are_not_sent_again() -> None:
    for encoding in (Encoding.OPUS, Encoding.OGG_OPUS):

        class Ear(Odd):
            def received(self, message: str | bytes) -> None:
                if isinstance(message, str):
                    super().received(message)

        dialer = FakeDialer(peer=Ear)
        caller = Caller(dialer, audio_format=AudioFormat(encoding, 16000))
        if encoding is Encoding.OPUS:
            packets = [bytes([0xF8, n]) for n in range(50)]
            header: list[bytes] = []
        else:
            pages = [b"OggS" + page for page in ogg_of_silence(packets=50, pre_skip=312).split(b"OggS")[1:]]
            header, packets = pages[:2], pages[2:]
            await caller.send(b"".join(header))
        for packet in packets[:20]:
            await caller.send(packet)
        change(caller, 1)
        for packet in packets[20:]:
            await caller.send(packet)
        ended = await caller.end()
        assert ended.error is None
        sent = [[m for m in t.sent if isinstance(m, bytes)] for t in dialer.transports]
        assert sent == [header + packets[:20], header + packets[20:]]
        assert offsets(caller) == [pytest.approx(0.4, abs=0.01)]
        assert all(not c.lost_audio_s for c in caller.all(ConnectionChanged))


# -- several deltas -----------------------------------------------------------------------------------------------


@virtual_time
async def test_each_of_several_immediate_deltas_governs_its_own_stretch() -> None:
    dialer = odd(latency_s=0.3, endpoint_s=None)
    caller = Caller(dialer, {"word_timings": True})
    await caller.until(SessionStarted)
    for number in range(5):
        if number:
            change(caller, number)
        await caller.send(speech([number]), 320)
    await caller.end()
    assert said(caller) == [(f"w{n}", n + 1) for n in range(5)]
    assert [(mark_of(t), words_sent(t)) for t in dialer.transports] == [(n, {n}) for n in range(5)]
    assert offsets(caller) == [0.25 * n for n in range(1, 5)]


@virtual_time
async def test_deltas_at_one_place_share_a_connection_where_none_is_dialled_yet() -> None:
    dialer = odd()
    dialer.hold()
    caller = Caller(dialer, {"word_timings": True})
    await caller.send(speech([1]), 320)
    caller.update("u1", IMMEDIATE, extra={"mark": 1})
    caller.update("u2", IMMEDIATE, punctuation=False)
    await caller.send(speech([2]), 320)
    await settle()
    dialer.let_go()
    await caller.end()
    assert said(caller) == [("w1", 1), ("w2", 3)]
    assert [(mark_of(t), words_sent(t)) for t in dialer.transports] == [(0, {1}), (1, {2})]
    assert offsets(caller) == [0.25, 0.25]


@virtual_time
async def test_deltas_at_one_place_come_one_after_the_other_else() -> None:
    dialer = odd()
    caller = Caller(dialer, {"word_timings": True})
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    change(caller, 1)
    await settle()
    change(caller, 2)
    await caller.send(speech([2]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert said(caller) == [("w1", 1), ("w2", 3)]
    assert [(mark_of(t), words_sent(t)) for t in dialer.transports] == [(0, {1}), (1, set()), (2, {2})]
    assert offsets(caller) == [0.25, 0.25]


@virtual_time
async def test_an_immediate_delta_pulls_the_earlier_ones_to_its_own_place() -> None:
    dialer = odd(endpoint_s=None)
    caller = Caller(dialer, {"word_timings": True})
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    caller.update("u1", punctuation=False)
    await caller.send(speech([2]), 320, paced_hz=RATE_HZ)
    caller.update("u2", IMMEDIATE, interim_results=False)
    await caller.send(speech([3]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert said(caller) == [("w1 w2", 1), ("w3", 3)]
    assert offsets(caller) == [0.5, 0.5]


@virtual_time
async def test_a_delta_that_governed_audio_is_not_superseded() -> None:
    """Redaction is turned on and off again, before the connection for the first of the two is open."""
    dialer = odd()
    dialer.handshake_s = 2.0
    caller = Caller(dialer, {"word_timings": True})
    await caller.until(SessionStarted)
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    for number, on in enumerate([True, False, True], start=1):
        caller.update(f"u{number}", IMMEDIATE, redact_pci=on)
        await caller.send(speech([number + 1]), 320, paced_hz=RATE_HZ)
    await caller.end()
    assert [(t.query.get("redact_pci"), words_sent(t)) for t in dialer.transports] == [
        (None, {1}),
        ("true", {2}),
        ("false", {3}),
        ("true", {4}),
    ]
    assert caller.text == "w1 w2 w3 w4"


@virtual_time
async def test_a_delta_while_the_connection_is_lost_waits_for_what_came_before_it() -> None:
    dialer = odd(endpoint_s=None)
    caller = Caller(dialer, {"word_timings": True})
    await caller.send(speech([1]), 320, paced_hz=RATE_HZ)
    dialer.hold()
    dialer.transports[0].drop()
    await caller.send(speech([2]), 320, paced_hz=RATE_HZ)
    change(caller, 1)
    await caller.send(speech([3]), 320, paced_hz=RATE_HZ)
    change(caller, 2)
    await caller.send(speech([4]), 320, paced_hz=RATE_HZ)
    dialer.let_go()
    await caller.end()
    assert said(caller) == [("w1 w2", 1), ("w3", 2), ("w4", 3)]
    assert [(mark_of(t), words_sent(t)) for t in dialer.transports] == [
        (0, {1}),
        (0, {1, 2}),
        (1, {3}),
        (2, {4}),
    ]


@virtual_time
async def test_of_deltas_at_one_place_the_refused_one_takes_no_audio_with_it() -> None:
    dialer = odd(endpoint_s=None)
    dialer.hold()
    caller = Caller(dialer, {"word_timings": True})
    await caller.send(speech([1]), 320)
    bad = errors.UpstreamRejected("no such language", http_status=400)
    caller.update("good", IMMEDIATE, extra={"mark": 1})
    caller.update("bad", IMMEDIATE, language_code="xx")
    caller.update("later", IMMEDIATE, punctuation=False)
    await caller.send(speech([2]), 320)
    await settle()
    dialer.refuse(bad, None, bad, None)  # together, then each
    dialer.let_go()
    await caller.end()
    states = {a.update_id: a.state for a in caller.all(SettingsAcknowledged) if a.state.terminal}
    assert states == {"good": AckState.APPLIED, "bad": AckState.REJECTED, "later": AckState.APPLIED}
    assert said(caller) == [("w1", 1), ("w2", 3)]
    assert [words_sent(t) for t in dialer.transports] == [{1}, set(), {2}]
    assert offsets(caller) == [0.25, 0.25]


# -- at random ----------------------------------------------------------------------------------------------------


class Choosy(FakeDialer):
    """Refuses connections by their marks."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.refused: set[int] = set()
        self.full: set[int] = set()
        """Refused once."""

    async def dial(self, url: str, headers: Mapping[str, str]) -> FakeTransport:
        mark = int(dict(parse_qsl(urlsplit(url).query)).get("mark", "0"))
        if mark in self.refused:
            raise errors.UpstreamRejected("no such mark", http_status=400)
        if mark in self.full:
            self.full.remove(mark)
            raise errors.UpstreamCapacity("full")
        return await super().dial(url, headers)


@dataclass
class Delta:
    """A delta of a random conversation."""

    number: int
    policy: ApplyPolicy
    words_before: int
    position: int


@dataclass
class Conversation:
    """Words and deltas in a random order, before an upstream with random habits and faults."""

    seed: int
    deltas: list[Delta] = field(default_factory=list)
    words: int = 0
    position: int = 0
    drops: int = 0
    finals: int = 0
    caller: Caller | None = None

    def __post_init__(self) -> None:
        self.rng = rng = random.Random(self.seed)
        self.habits = Habits(
            latency_s=rng.choice([0.0, 0.05, 0.3, 1.5]),
            endpoint_s=rng.choice([0.3, 0.8, None]),
            max_words=rng.choice([2, 5, 1000]),
            answers_empty_finalize=rng.random() < 0.5,
            vad_events=rng.random() < 0.8,
            last_apart=rng.random() < 0.5,
            speed=rng.choice([0.0, 0.0, 1.2, 3.0]),
            pongs=rng.choice(["behind", "at_once"]),
        )
        self.answers_finalize = rng.random() < 0.7
        self.dialer = Choosy(peer=self.peer, handshake_s=rng.choice([0.0, 0.05, 0.7]))

    def peer(self, transport: FakeTransport) -> Recognizer:
        recognizer = Odd(transport, self.habits, answers_finalize=self.answers_finalize)
        if self.rng.random() < 0.5:
            limit = self.rng.randrange(1, 40_000)

            def drop(peer: Recognizer) -> None:
                if len(peer.pcm) >= limit and not transport.gone and self.may_drop():
                    transport.drop(self.rng.choice([None, 1001, 1011]))

            recognizer.on_audio = drop
        elif self.rng.random() < 0.3 and transport.index:
            received = recognizer.received

            def dies_when_asked(message: str | bytes) -> None:
                if isinstance(message, str) and not transport.gone and self.may_drop():
                    transport.drop()
                else:
                    received(message)

            recognizer.received = dies_when_asked  # type: ignore[method-assign]
        return recognizer

    def may_drop(self) -> bool:
        """More than three failures without a final in between would rightly end the session."""
        assert self.caller is not None
        said = self.caller.session._transcripts._segments._finals
        if (finals := len(said)) > self.finals:
            self.finals, self.drops = finals, 0
        self.drops += 1
        return self.drops <= 3

    async def run(self) -> Caller:
        rng = self.rng
        self.caller = caller = Caller(self.dialer, {"word_timings": True})
        for _ in range(rng.randrange(4, 12)):
            if rng.random() < 0.5:
                delta = Delta(
                    len(self.deltas) + 1, rng.choice(list(ApplyPolicy)[:2]), self.words, self.position
                )
                self.deltas.append(delta)
                if rng.random() < 0.3:
                    rng.choice([self.dialer.refused, self.dialer.full]).add(delta.number)
                change(caller, delta.number, delta.policy)
            else:
                count = rng.randrange(0, 5)
                audio = speech(range(self.words, self.words + count)) + silence(rng.choice([0, 0, 0.3, 1.2]))
                self.words += count
                self.position += len(audio) // 2
                await caller.send(audio, rng.choice([320, 1000, 4097]), paced_hz=rng.choice([0, RATE_HZ]))
            if rng.random() < 0.2:
                caller.finalize(f"f{self.position}")
            if rng.random() < 0.15:
                await asyncio.sleep(rng.choice([0.3, 6.0]))
        ended = await caller.end()
        assert ended.error is None, ended.error
        return caller


@pytest.mark.parametrize("seed", range(150))
def test_every_sample_is_heard_under_its_own_settings(seed: int) -> None:
    conversation = Conversation(seed)
    caller = run_virtual(conversation.run(), limit_s=3600)
    words = [(text, final) for final in caller.finals for text in final.words]
    assert [w.text for w, _ in words] == [word(n) for n in range(conversation.words)]

    ends = {a.update_id: a for a in caller.all(SettingsAcknowledged) if a.state.terminal}
    assert set(ends) == {f"u{d.number}" for d in conversation.deltas}
    applied = [a for a in caller.all(SettingsAcknowledged) if a.state is AckState.APPLIED]
    assert [a.settings_revision for a in applied] == [n + 2 for n in range(len(applied))]

    for delta in conversation.deltas:
        ack = ends[f"u{delta.number}"]
        for transport in conversation.dialer.transports:
            if mark_of(transport) >= delta.number:
                early = [n for n in words_sent(transport) if n < delta.words_before]
                assert not early, (
                    f"words of before delta {delta.number} sent to one with {mark_of(transport)}"
                )
        if ack.state is not AckState.APPLIED:
            continue
        assert ack.audio_offset_s is not None
        at = round(ack.audio_offset_s * RATE_HZ)
        assert at >= delta.position
        pulled = [d for d in conversation.deltas if d.number >= delta.number and d.policy is IMMEDIATE]
        if delta.policy is IMMEDIATE:
            assert at == delta.position
            # None of the audio behind it went to a connection without it.
            for transport in conversation.dialer.transports:
                if mark_of(transport) < delta.number:
                    assert all(n < delta.words_before for n in words_sent(transport))
        elif pulled:
            assert at <= pulled[0].position or ends[f"u{pulled[0].number}"].state is not AckState.APPLIED
        for heard, final in words:
            is_new = heard.start_s >= ack.audio_offset_s - 1e-9
            assert (final.settings_revision >= ack.settings_revision) == is_new, (heard, ack)
