"""The accounts of one process: who is placed where, and what a change of keys does."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

import pytest
from wavegate_server import errors
from wavegate_server.session.account import Account
from wavegate_server.session.admission import Ticket
from wavegate_server.session.context import UpstreamTarget
from wavegate_server.session.events import ConnectionChanged, ConnectionState
from wavegate_server.session.pool import REFUSED_FOR_S, Upstreams
from wavegate_server.session.synthesis_events import AudioProduced, UtteranceCompleted
from wavegate_server.waves.regions import Regions
from wavegate_server.waves.tts import Mode

from tests.support.listening import Caller as Listener
from tests.support.listening import context as listening
from tests.support.recognizer import RATE_HZ, Recognizer, silence, speech
from tests.support.speaking import Caller, Voice
from tests.support.transport import FakeDialer, FakeTransport
from tests.support.virtual_time import virtual_time

TARGET = UpstreamTarget("ws://upstream", "")


class Keys:
    """A key file."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys

    def __call__(self) -> tuple[str, ...]:
        return self.keys


def pool(keys: Keys, active_requests: int = 1, *, standby: bool = False) -> Upstreams:
    return Upstreams(TARGET, keys, lambda: Account(active_requests, standby=standby))


def ask(target: UpstreamTarget) -> Ticket:
    return target.account.requests.ask("someone", lambda: None)


def bearer(transport: FakeTransport) -> str:
    return transport.headers["Authorization"].removeprefix("Bearer ")


# -- who is placed where --------------------------------------------------------------------------------------


def test_one_target_is_a_pool_of_one() -> None:
    target = UpstreamTarget("ws://upstream", "only")
    upstreams = Upstreams(target)
    chosen = upstreams.choose("tts")
    assert (chosen, chosen.account) == (target, target.account)


def test_accounts_without_load_take_turns() -> None:
    upstreams = pool(Keys("a", "b", "c"))
    for kind in ("tts", "stt"):
        placed = Counter(upstreams.choose(kind).key for _ in range(9))
        assert placed == {"a": 3, "b": 3, "c": 3}


def test_the_account_with_most_room_is_chosen() -> None:
    """Fewest waiting first, then fewest active."""
    upstreams = pool(Keys("a", "b"))
    a, b = upstreams.choose("tts"), upstreams.choose("tts")
    held = ask(a)
    assert {upstreams.choose("tts").key for _ in range(4)} == {"b"}
    held_b, waiting = ask(b), ask(b)
    assert not waiting.held
    assert {upstreams.choose("tts").key for _ in range(4)} == {"a"}
    waiting.release()
    held_b.release()
    assert {upstreams.choose("tts").key for _ in range(4)} == {"b"}
    held.release()


def test_transcription_goes_where_fewest_listen() -> None:
    upstreams = pool(Keys("a", "b"))
    upstreams.choose("stt").account.sessions["stt"] += 2
    ask(upstreams.choose("tts", current=TARGET))
    assert {upstreams.choose("stt").key for _ in range(4)} == {"b"}


def test_who_has_an_account_stays_there() -> None:
    upstreams = pool(Keys("a", "b"))
    mine = upstreams.choose("tts")
    for _ in range(3):
        ask(mine)
    assert upstreams.choose("tts", current=mine) is mine


@virtual_time
async def test_a_refused_key_does_not_attract_all_sessions(caplog: pytest.LogCaptureFixture) -> None:
    """An account that serves nobody looks the emptiest."""
    upstreams = pool(Keys("bad", "good"))
    bad = upstreams.choose("tts")
    with caplog.at_level(logging.WARNING):
        upstreams.refused(bad)
        upstreams.refused(bad)
    assert [r.getMessage() for r in caplog.records] == [
        "the upstream refused API key number 1 of 2; the others are used instead for 60 s"
    ]
    good = upstreams.choose("tts")
    ask(good)
    ask(good)
    assert {upstreams.choose(kind).key for kind in ("tts", "stt", "tts")} == {"good"}
    await asyncio.sleep(REFUSED_FOR_S)
    assert upstreams.choose("tts").key == "bad"


# -- keys that change -----------------------------------------------------------------------------------------


def test_new_keys_are_used_and_old_ones_are_not() -> None:
    keys = Keys("a")
    upstreams = pool(keys)
    old = upstreams.choose("tts")
    keys.keys = ("a", "b")
    assert {upstreams.choose("tts").key for _ in range(2)} == {"a", "b"}
    assert upstreams.choose("tts", current=old) is old
    keys.keys = ("b",)
    assert not upstreams.holds(old)
    assert upstreams.choose("tts", current=old).key == "b"


def test_a_renewed_key_has_the_limits_of_the_one_before() -> None:
    """What is active under the old key counts on."""
    keys = Keys("old", "other")
    upstreams = pool(keys)
    other, old = sorted((upstreams.choose("tts") for _ in range(2)), key=lambda t: t.key, reverse=True)
    held = ask(old)
    keys.keys = ("new", "other")
    assert upstreams.choose("tts").key == "other"
    assert upstreams.choose("tts", current=other) is other
    ask(other)
    ask(other)
    new = upstreams.choose("tts")
    waiting = ask(new)
    assert (new.key, waiting.held) == ("new", False)
    held.release()
    assert waiting.held


@virtual_time
async def test_what_was_opened_ahead_with_an_old_key_is_closed() -> None:
    for after in (("new",), ("kept",)):
        keys = Keys("old", *(k for k in after if k == "kept"))
        upstreams = pool(keys, standby=True)
        old = next(t for _ in range(2) if (t := upstreams.choose("tts")).key == "old")
        standby = old.account.standby
        assert standby is not None
        opened = FakeTransport("ws://upstream", {}, 0)

        async def open_one(transport: FakeTransport = opened) -> FakeTransport:
            return transport

        standby.want("url", open_one)
        await asyncio.sleep(1)
        assert opened.is_open
        keys.keys = after
        assert not upstreams.holds(old)
        assert not opened.is_open
        standby.want("url", open_one)
        assert standby.take("url") is None
        await upstreams.aclose()


# -- sessions -------------------------------------------------------------------------------------------------


@virtual_time
async def test_sessions_are_spread_and_stay() -> None:
    upstreams, dialer = pool(Keys("a", "b"), 0), FakeDialer(Voice)
    async with Caller(dialer, upstreams=upstreams) as one, Caller(dialer, upstreams=upstreams) as two:
        for turn in range(3):
            for caller in (one, two):
                caller.say("Hello.", f"u{turn}", end=True)
                await caller.until(UtteranceCompleted, turn + 1)
        one.end_session()
        two.end_session()
        await one.ended()
        await two.ended()
    assert sorted(map(bearer, dialer.transports)) == ["a", "b"]
    chosen = {t.key: t.account for t in (upstreams.choose("tts"), upstreams.choose("tts"))}
    assert [account.sessions["tts"] for account in chosen.values()] == [0, 0], "they have left"


@pytest.mark.parametrize("mode", list(Mode))
def test_a_synthesis_session_moves_when_its_key_is_gone(mode: Mode) -> None:
    @virtual_time
    async def scenario() -> None:
        keys, dialer = Keys("a"), FakeDialer(Voice)
        upstreams = Upstreams(
            UpstreamTarget("ws://upstream", "", tts_mode=mode), keys, lambda: Account(1, standby=True)
        )
        async with Caller(dialer, upstreams=upstreams, tts_mode=mode) as caller:
            caller.say("One.", "u1", end=True)
            await caller.until(UtteranceCompleted)
            first = upstreams.choose("tts").account
            keys.keys = ("b",)
            caller.say("Two.", "u2", end=True)
            await caller.until(UtteranceCompleted, 2)
            assert {bearer(t) for t in dialer.transports} == {"a"}, "a live connection is kept"
            moved_at = len(dialer.transports)
            for transport in list(dialer.transports):
                if transport.is_open:
                    transport.drop()
            caller.say("Three.", "u3", end=True)
            await caller.until(UtteranceCompleted, 3)
            assert {bearer(t) for t in dialer.transports[moved_at:]} == {"b"}
            second = upstreams.choose("tts").account
            assert first.requests is second.requests, "a renewed key"
            assert (second.sessions["tts"], second.requests.used) == (1, 0)
            caller.end_session()
            await caller.ended()
        assert second.sessions["tts"] == 0
        assert caller.text("u3") == "Three."
        await upstreams.aclose()

    scenario()


@virtual_time
async def test_a_key_that_is_taken_away_between_two_tries_is_not_tried_again() -> None:
    keys, dialer = Keys("a"), FakeDialer(Voice)
    upstreams = pool(keys)
    async with Caller(dialer, upstreams=upstreams) as caller:
        caller.say("One.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        dialer.refuse(errors.UpstreamUnavailable("gone"))
        dialer.last.drop()
        caller.say("Two.", "u2", end=True)
        await caller.until(ConnectionChanged, 1, lambda e: e.state is ConnectionState.RECONNECTING)
        keys.keys = ("b",)
        await caller.until(UtteranceCompleted, 2)
        assert [bearer(t) for t in dialer.transports] == ["a", "b"]
        account = upstreams.choose("tts").account
        assert account.sockets.used == 1
        caller.end_session()
        await caller.ended()
    assert account.sockets.used == 0


@virtual_time
async def test_a_connection_opened_to_try_settings_counts_where_it_was_opened() -> None:
    """Also when its key is taken away before it is used."""
    keys, dialer = Keys("a", "b"), FakeDialer(lambda upstream: Voice(upstream, chunk_interval_s=0.1))
    upstreams = pool(keys, 2)
    async with Caller(dialer, upstreams=upstreams) as caller:
        caller.say("x" * 100, "u1", end=True)
        await caller.until(AudioProduced)
        account = caller.session.target.account
        caller.update("d1", model="lightning-v2")
        await dialer.connection(1)
        assert account.sockets.used == 2
        taken = bearer(dialer.last)
        keys.keys = tuple({"a", "b"} - {taken})
        other = upstreams.choose("tts").account
        assert other is not account
        caller.say("Two.", "u2", end=True)
        await caller.until(UtteranceCompleted, 2)
        assert [bearer(t) for t in dialer.transports] == [taken, taken]
        assert (account.sockets.used, other.sockets.used) == (1, 0)
        caller.end_session()
        await caller.ended()
    assert (account.sockets.used, other.sockets.used) == (0, 0)


@virtual_time
async def test_who_waits_for_an_account_whose_key_is_gone_waits_for_another() -> None:
    keys, dialer = Keys("a"), FakeDialer(Voice)
    upstreams = pool(keys)
    account = upstreams.choose("tts").account
    sockets = [account.sockets.ask("other", lambda: None) for _ in range(5)]
    async with Caller(dialer, upstreams=upstreams) as caller:
        await asyncio.sleep(0.5)
        assert not dialer.dials
        keys.keys = ("b", "c")
        caller.say("Hello.", "u", end=True)
        await caller.until(UtteranceCompleted)
        assert bearer(dialer.last) in "bc"
        caller.end_session()
        await caller.ended()
    for ticket in sockets:
        ticket.release()


@virtual_time
async def test_a_transcription_session_moves_when_its_key_is_gone() -> None:
    keys, dialer = Keys("a"), FakeDialer(Recognizer)
    upstreams = pool(keys)
    caller = Listener(dialer, session_context=listening(dialer, upstreams=upstreams))
    await caller.send(speech([1]), paced_hz=RATE_HZ)
    keys.keys = ("b",)
    dialer.last.drop()
    await caller.send(speech([2]), paced_hz=RATE_HZ)
    ended = await caller.end()
    assert ended.error is None
    assert [bearer(t) for t in dialer.transports] == ["a", "b"]
    assert caller.text == "w1 w2"


@virtual_time
async def test_a_key_that_is_refused_fails_one_session_and_not_the_next() -> None:
    upstreams, dialer = pool(Keys("bad", "good"), 0), FakeDialer(Voice)
    dialer.refuse(errors.UpstreamCredential("no such key"))
    async with Caller(dialer, upstreams=upstreams) as caller:
        assert isinstance((await caller.ended()).error, errors.UpstreamCredential)
    for _ in range(3):
        async with Caller(dialer, upstreams=upstreams) as caller:
            caller.say("Hello.", "u", end=True)
            caller.end_session()
            assert (await caller.ended()).error is None
        assert bearer(dialer.last) == "good"


# -- regions --------------------------------------------------------------------------------------------------


@virtual_time
async def test_another_language_is_heard_in_its_region() -> None:
    dialer = FakeDialer(Recognizer)
    regions = Regions(stt={"ja": "wss://east", "ta": "wss://south"})
    upstreams = Upstreams(UpstreamTarget("wss://home", "a-key"), regions=regions)
    caller = Listener(
        dialer, {"language_code": "ja-JP"}, session_context=listening(dialer, upstreams=upstreams)
    )
    await caller.send(speech([1]), paced_hz=RATE_HZ)
    for language in ("en-GB", "ta-IN"):
        caller.update(f"to-{language}", language_code=language)
        await caller.send(speech([2]) + silence(2), 320, paced_hz=RATE_HZ)
    assert (await caller.end()).error is None
    assert [t.url.partition("/waves")[0] for t in dialer.transports] == [
        "wss://east",
        "wss://home",
        "wss://south",
    ]
    assert caller.text == "w1 w2 w2"


@virtual_time
async def test_a_synthesis_session_goes_where_an_override_says() -> None:
    dialer = FakeDialer(Voice)
    upstreams = Upstreams(UpstreamTarget("wss://home", "a-key"), regions=Regions(tts={"ja": "wss://east"}))
    async with Caller(dialer, {"language_code": "en"}, upstreams=upstreams) as caller:
        caller.say("One.", "u1", end=True)
        await caller.until(UtteranceCompleted)
        caller.update("d", language_code="ja")
        caller.say("Two.", "u2", end=True)
        await caller.until(UtteranceCompleted, 2)
        caller.end_session()
        await caller.ended()
    assert [t.url.partition("/waves")[0] for t in dialer.transports] == ["wss://home", "wss://east"]
    assert (caller.text("u1"), caller.text("u2")) == ("One.", "Two.")
    assert caller.ack_states("d") == ["APPLIED"]
