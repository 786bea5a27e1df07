"""Upstreams that hear more slowly than they are sent audio, on virtual time: whole, only slower."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wavegate_server import errors
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.session.backlog import WINDOW_S
from wavegate_server.session.events import ConnectionChanged, SessionStarted
from wavegate_server.session.transcription_events import FinalTrigger, Transcribed
from wavegate_server.waves.stt import OWED_S

from tests.server.session.test_transcription import ogg_of_silence
from tests.support.listening import Caller, context
from tests.support.recognizer import RATE_HZ, Habits, Recognizer, silence, speech
from tests.support.transport import FakeDialer, FakeTransport, stt_transcript
from tests.support.virtual_time import settle, virtual_time

WORD_S = 0.25
"""A word and its gap."""


def now() -> float:
    return asyncio.get_running_loop().time()


class Upstream:
    """A dialer, and the recognisers that it led to."""

    def __init__(self, **habits: Any) -> None:
        self.habits = Habits(**habits)
        self.recognizers: list[Recognizer] = []
        self.dialer = FakeDialer(peer=self._meet)

    def _meet(self, transport: FakeTransport) -> Recognizer:
        self.recognizers.append(Recognizer(transport, self.habits))
        return self.recognizers[-1]


def check_whole(caller: Caller, words: list[tuple[int, float]]) -> None:
    """Each word once, where it was said, over one connection."""
    heard = [(w.text, w.start_s) for t in caller.finals for w in t.words]
    assert heard == [(f"w{number}", pytest.approx(at)) for number, at in words]
    assert caller.connections == [("CONNECTED", "INITIAL")]


@pytest.mark.parametrize("pongs", ["behind", "at_once", "never"])
@pytest.mark.parametrize("speed", [1.0, 2.0, 3.0])
@virtual_time
async def test_silence_before_the_first_word_is_waited_for(speed: float, pongs: Any) -> None:
    """28 s at once, of which 25 s are silent: 28 s later at real time, never given up."""
    upstream = Upstream(speed=speed, pongs=pongs)
    caller = Caller(upstream.dialer, {"word_timings": True})
    await caller.until(SessionStarted)
    begun_at = now()
    await caller.send(silence(25.0) + speech(range(12)), 1600)
    if pongs == "never":
        # Its transport would be cut for that; as long as it says something, it may go on.
        for second in range(1, 26):
            asyncio.get_running_loop().call_later(
                second, upstream.dialer.last.say, {"type": "speech_ended", "timestamp": float(second)}
            )
    assert (await caller.end()).error is None
    check_whole(caller, [(n, 25.0 + n * WORD_S) for n in range(12)])
    if pongs != "never":
        assert now() - begun_at == pytest.approx(28.0 / speed, abs=0.5)


@pytest.mark.parametrize("partials", [True, False])
@pytest.mark.parametrize("speed", [0.7, 1.0, 2.0])
@virtual_time
async def test_speech_of_minutes_is_whole(speed: float, partials: bool) -> None:
    upstream = Upstream(speed=speed, max_words=1000 if partials else 20)
    given = context(upstream.dialer, audio_history_s=10.0)
    caller = Caller(upstream.dialer, {"word_timings": True}, session_context=given)
    words, audio, at = [], b"", 0.0
    for sentence in range(20):
        numbers = range(sentence * 20, sentence * 20 + 20)
        words += [(n, at + i * WORD_S) for i, n in enumerate(numbers)]
        audio += speech(numbers) + silence(2.0)
        at += 20 * WORD_S + 2.0
    await caller.send(audio, 3200)
    assert (await caller.end()).error is None
    check_whole(caller, words)
    assert now() == pytest.approx(at / speed, abs=1.0)


@virtual_time
async def test_a_fast_sender_is_held_back_by_pongs() -> None:
    """No more than the window is ever unread, and the upstream never waits for audio."""
    upstream = Upstream(speed=2.0)
    given = context(upstream.dialer, audio_history_s=60.0)
    caller = Caller(upstream.dialer, session_context=given)
    await caller.until(SessionStarted)
    sending = asyncio.create_task(caller.send(silence(60.0), 1600))
    for _ in range(200):
        await asyncio.sleep(0.1)
        [recognizer] = upstream.recognizers
        assert recognizer.waiting_s <= WINDOW_S + 0.3
    assert 39.0 < upstream.recognizers[0].samples / RATE_HZ < 41.0
    await sending
    assert (await caller.end()).error is None


@virtual_time
async def test_a_source_in_real_time_is_sent_at_once_whatever_pongs_say() -> None:
    """A pong is a second late, as over a bad network: nothing waits for it."""

    class Late(Recognizer):
        def pinged(self, on_pong: Any) -> None:
            asyncio.get_running_loop().call_later(1.0, on_pong)

    dialer = FakeDialer(peer=Late)
    caller = Caller(dialer)
    await caller.until(SessionStarted)
    begun_at = now()
    await caller.send(silence(30.0), 1600, paced_hz=RATE_HZ)
    await settle()
    sent_at = [
        at for at, m in zip(dialer.last.sent_at, dialer.last.sent, strict=True) if isinstance(m, bytes)
    ]
    assert [at - begun_at for at in sent_at] == [pytest.approx(0.1 * (n + 1)) for n in range(300)]
    assert 25 <= dialer.last.pings <= 31
    await caller.end()


@virtual_time
async def test_a_slow_answer_to_finalize_is_not_taken_for_quiet() -> None:
    upstream = Upstream(speed=2.0)
    caller = Caller(upstream.dialer)
    await caller.until(SessionStarted)
    begun_at = now()
    await caller.send(silence(25.0) + speech(range(4)), 1600)
    caller.finalize("f1")
    final = await caller.until(Transcribed, lambda t: t.is_final)
    assert (final.text, final.finalize_id) == ("w0 w1 w2 w3", "f1")
    assert final.final_trigger is FinalTrigger.CLIENT_FINALIZE
    assert now() - begun_at == pytest.approx(26.0 / 2, abs=0.3)
    await caller.end()


@pytest.mark.parametrize("pongs", ["behind", "at_once"])
@virtual_time
async def test_a_final_on_the_way_does_not_hide_the_sound_behind_it(pongs: Any) -> None:
    """A sentence, a long pause, another one and `finalize`, all at once: the second sentence is the answer."""
    upstream = Upstream(speed=2.0, pongs=pongs, vad_events=False)
    caller = Caller(upstream.dialer)
    await caller.until(SessionStarted)
    loud = [2000, 2001]
    await caller.send(speech(loud) + silence(15.0) + speech([3000, 3001]), 1600)
    caller.finalize("f1")
    await caller.until(Transcribed, lambda t: bool(t.finalize_id))
    assert [(t.text, t.finalize_id) for t in caller.finals] == [("w2000 w2001", ""), ("w3000 w3001", "f1")]
    await caller.end()


@virtual_time
async def test_an_empty_finalize_is_answered_a_second_after_it_was_read() -> None:
    upstream = Upstream(speed=2.0, answers_empty_finalize=False)
    caller = Caller(upstream.dialer)
    await caller.until(SessionStarted)
    begun_at = now()
    await caller.send(silence(20.0), 1600)
    caller.finalize("f1")
    final = await caller.until(Transcribed)
    assert (final.text, final.finalize_id) == ("", "f1")
    assert now() - begun_at == pytest.approx(10.0 + 1.0, abs=0.2)
    await caller.end()


@virtual_time
async def test_silence_that_keeps_a_slow_connection_alive_is_counted() -> None:
    upstream = Upstream(speed=1.0, pongs="at_once")
    caller = Caller(upstream.dialer, {"word_timings": True})
    await caller.until(SessionStarted)
    await caller.send(silence(20.0), 1600)
    await asyncio.sleep(17.0)
    await caller.send(speech([1, 2]), 1600)
    assert (await caller.end()).error is None
    check_whole(caller, [(1, 20.0), (2, 20.25)])


# -- what is too slow all the same ------------------------------------------------------------------------------


def audio_bytes(transport: FakeTransport, until: float) -> int:
    return sum(
        len(m)
        for m, at in zip(transport.sent, transport.sent_at, strict=True)
        if isinstance(m, bytes) and at <= until
    )


@virtual_time
async def test_what_was_given_up_for_slowness_is_sent_again_more_slowly() -> None:
    dialer = FakeDialer()
    caller = Caller(dialer)
    await caller.until(SessionStarted)
    await caller.send(speech(range(80)), 1600)  # 20 s
    ended = await caller.end()
    assert isinstance(ended.error, errors.UpstreamStalled)
    paces = []
    for transport in dialer.transports:
        sent_s = audio_bytes(transport, transport.sent_at[0] + 5.0) / 2 / RATE_HZ
        paces.append(sent_s / 5.0)
    assert paces == [pytest.approx(p, abs=0.15) for p in (4.0, 2.1, 1.1, 1.1)]


@virtual_time
async def test_a_live_source_is_replayed_at_once() -> None:
    """It was never sent more than it plays, so its upstream did not fall silent for that."""
    upstream = Upstream(silent=True)
    caller = Caller(upstream.dialer)
    await caller.send(speech(range(10)) + silence(9.0), 320, paced_hz=RATE_HZ)
    await caller.until(ConnectionChanged, lambda c: c.state.value == "CONNECTED", count=2)
    at = now()
    await upstream.dialer.last.expect(lambda m: isinstance(m, bytes))
    await settle()
    assert audio_bytes(upstream.dialer.last, at) / 2 / RATE_HZ > 9.0 - 5.0
    await caller.vanish()


@virtual_time
async def test_the_pace_is_lifted_once_what_was_sent_again_is_transcribed() -> None:
    dialer = FakeDialer(handshake_s=0.0)
    caller = Caller(dialer)
    await caller.send(speech(range(20)), 1600)  # 5 s
    second = await dialer.connection(1)
    while len(second.audio_sent()) < 5.0 * RATE_HZ * 2:
        await second.expect(start=len(second.sent))
    second.say(
        stt_transcript("all of it", final=True, words=[("all", 0.0, 1.0), ("of", 2.0, 4.0), ("it", 4.0, 5.0)])
    )
    await caller.until(Transcribed)
    at = now()
    await caller.send(silence(4.0), 1600)
    await settle()
    assert audio_bytes(second, at) == 9.0 * RATE_HZ * 2
    await caller.vanish()


@virtual_time
async def test_a_dead_upstream_after_a_long_pause_is_noticed_as_soon_as_ever() -> None:
    """What was sent in real time was heard in real time: a pause before the question gives no more time."""
    dialer = FakeDialer()
    caller = Caller(dialer)
    await caller.send(silence(25.0) + speech(range(8)), 320, paced_hz=RATE_HZ)
    at = now()
    await caller.until(ConnectionChanged, lambda c: c.state.value == "DISCONNECTED")
    assert now() - at <= OWED_S
    await caller.vanish()


@pytest.mark.parametrize(
    ("encoding", "rate_hz", "content", "duration_s"),
    [
        (Encoding.LINEAR16, 16000, bytes(2 * 16000 * 12), 12.0),
        (Encoding.LINEAR32, 48000, bytes(4 * 48000 * 12), 12.0),
        (Encoding.MULAW, 8000, b"\xff" * 8000 * 12, 12.0),
        (Encoding.ALAW, 8000, b"\xd5" * 8000 * 12, 12.0),
        (Encoding.OPUS, 16000, b"\xf8\xff\xfe", 12.0),
        (Encoding.OGG_OPUS, 16000, ogg_of_silence(packets=600, pre_skip=0), 12.0),
    ],
    ids=lambda value: value.name if isinstance(value, Encoding) else "",
)
@virtual_time
async def test_every_encoding_is_counted_by_its_playing_time(
    encoding: Encoding, rate_hz: int, content: bytes, duration_s: float
) -> None:
    dialer = FakeDialer()
    caller = Caller(dialer, audio_format=AudioFormat(encoding, rate_hz))
    await caller.until(SessionStarted)
    if encoding is Encoding.OPUS:
        for _ in range(600):
            await caller.send(content)
    else:
        await caller.send(content, 64_000)
    ending = asyncio.create_task(caller.end())
    await dialer.last.expect(lambda m: m == {"type": "close_stream"})
    asked_at = now()
    await caller.until(ConnectionChanged, lambda c: c.state.value == "DISCONNECTED")
    assert now() - asked_at == pytest.approx(duration_s + OWED_S, abs=0.1)
    ending.cancel()
    await caller.vanish()
