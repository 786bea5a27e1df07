"""Synthesis sessions that share an account, on virtual time: nobody keeps what nobody uses."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from wavegate_server import errors
from wavegate_server.session.account import Account
from wavegate_server.session.context import UpstreamTarget
from wavegate_server.session.events import ConnectionChanged, ConnectionState, SessionStarted
from wavegate_server.session.pool import Upstreams
from wavegate_server.session.synthesis_events import AudioProduced, UtteranceCompleted, UtteranceFailed

from tests.support.speaking import Caller, Voice
from tests.support.transport import FakeDialer, FakeTransport, Message
from tests.support.virtual_time import settle, virtual_time

LONG = "A text that takes a second and more to be made, piece by piece, so that others wait."


class Street:
    """Callers of one account."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.received: list[tuple[str, str]] = []
        """(request id, what) of the messages on all connections, in their order."""
        self._upstreams = Upstreams(UpstreamTarget("ws://upstream", "a-key", account=account))

    def caller(self, name: str, **options: Any) -> Caller:
        options.setdefault("max_queue_wait_s", 30.0)
        dialer = FakeDialer(self._voice)
        return Caller(dialer, upstreams=self._upstreams, session_id=name, **options)

    def _voice(self, upstream: FakeTransport) -> Voice:
        voice = Voice(upstream, chunk_interval_s=0.1)
        received = voice.received

        def noted(message: Message) -> None:
            body = json.loads(message)
            self.received.append((body["request_id"], "cancel" if body.get("cancel_request") else "text"))
            received(message)

        voice.received = noted  # type: ignore[method-assign]
        return voice


async def drop(caller: Caller) -> None:
    """Cut the connection that a session began with."""
    await caller.until(SessionStarted)
    caller.dialer.last.drop()
    await caller.until(ConnectionChanged, matches=lambda e: e.state is ConnectionState.DISCONNECTED)


@pytest.mark.parametrize("why", ["cancelled", "bad text", "discarded"])
@virtual_time
async def test_who_gives_up_waiting_for_a_request_leaves_the_queue(why: str) -> None:
    """And is not given the place later, when it has no use for it: the whole account would stand still."""
    street = Street(Account(active_requests=1))
    async with street.caller("s-1") as speaking, street.caller("s-2", max_text_message_chars=100) as waiting:
        speaking.say(LONG, "u1", end=True)
        await speaking.until(AudioProduced)
        waiting.say("Me too.", "u2")
        await settle()
        assert street.account.requests.waiting == 1
        match why:
            case "cancelled":
                waiting.cancel("u2")
            case "bad text":
                waiting.say("x" * 101, "u2")
            case _:
                waiting.end_session(discard=True)
        await settle()
        assert street.account.requests.waiting == 0
        await speaking.until(UtteranceCompleted)
        await settle()
        assert street.account.requests.used == 0


@virtual_time
async def test_each_utterance_waits_for_its_own_time() -> None:
    """One that follows a cancelled one is not charged with the wait of that one."""
    street = Street(Account(active_requests=1))
    async with street.caller("s-1") as speaking, street.caller("s-2", max_queue_wait_s=1.0) as waiting:
        speaking.say(LONG, "u1", end=True)
        await speaking.until(AudioProduced)
        waiting.say("Me too.", "u2")
        await asyncio.sleep(0.9)
        waiting.say("And me.", "u3")
        waiting.cancel("u2")
        waiting.end_session()
        await waiting.ended()
        assert waiting.endings() == ["cancelled u2", "completed u3"]


@virtual_time
async def test_each_utterance_waits_for_a_connection_for_its_own_time() -> None:
    """One that follows an utterance that waited in vain is not charged with the wait of that one."""
    street = Street(Account(active_requests=1))
    taken = [street.account.sockets.ask("other", lambda: None) for _ in range(4)]
    async with street.caller("s-1", max_queue_wait_s=1.0) as waiting:
        await drop(waiting)
        taken.append(street.account.sockets.ask("other", lambda: None))
        waiting.say("In vain.", "u1", end=True)
        waiting.say("In time.", "u2", end=True)
        await waiting.until(UtteranceFailed)
        await asyncio.sleep(0.5)
        assert waiting.endings() == ["failed u1"]
        taken.pop().release()
        await waiting.until(UtteranceCompleted)
        assert waiting.endings() == ["failed u1", "completed u2"]
        waiting.end_session()
        await waiting.ended()
    for ticket in taken:
        ticket.release()
    assert (street.account.sockets.used, street.account.sockets.waiting) == (0, 0)


@virtual_time
async def test_all_that_an_utterance_waits_for_counts_together() -> None:
    """A connection, then an active request, then an upstream that has no room all the same: 2 s in all."""
    street = Street(Account(active_requests=1))
    sockets = [street.account.sockets.ask("other", lambda: None) for _ in range(4)]
    async with street.caller("s-1", max_queue_wait_s=2.0) as waiting:
        await drop(waiting)
        sockets.append(street.account.sockets.ask("other", lambda: None))
        requests = street.account.requests.ask("other", lambda: None)
        began = asyncio.get_running_loop().time()
        waiting.say("Hello.", "u1", end=True)
        await asyncio.sleep(1.5)
        sockets.pop().release()
        failed = await waiting.until(UtteranceFailed)
        assert isinstance(failed.error, errors.UpstreamCapacity)
        assert asyncio.get_running_loop().time() - began == pytest.approx(2.0)
        requests.release()
        waiting.say("Again.", "u2", end=True)
        await waiting.until(UtteranceCompleted)
    for ticket in sockets:
        ticket.release()


@virtual_time
async def test_an_upstream_that_is_full_behind_the_queue_is_not_waited_for_anew() -> None:
    street = Street(Account(active_requests=1))
    async with street.caller("s-1", max_queue_wait_s=2.0) as waiting:
        await waiting.until(SessionStarted)
        requests = street.account.requests.ask("other", lambda: None)
        waiting.dialer.refuse(*[errors.UpstreamCapacity("full")] * 9)
        began = asyncio.get_running_loop().time()
        waiting.say("Hello.", "u1", end=True)
        await asyncio.sleep(1.0)
        waiting.dialer.last.drop()  # and no other connection is to be had
        await asyncio.sleep(0.2)
        requests.release()
        await waiting.until(UtteranceFailed)
        assert asyncio.get_running_loop().time() - began <= 2.0


@virtual_time
async def test_what_was_waited_for_before_is_forgotten_once_audio_comes() -> None:
    street = Street(Account(active_requests=1))
    async with street.caller("s-1", max_queue_wait_s=1.0) as waiting:
        await waiting.until(SessionStarted)
        requests = street.account.requests.ask("other", lambda: None)
        waiting.say(LONG, "u1", end=True)
        await asyncio.sleep(0.9)
        requests.release()
        await waiting.until(AudioProduced)
        await asyncio.sleep(0.5)
        waiting.dialer.refuse(errors.UpstreamCapacity("full"))
        waiting.dialer.last.drop()
        await waiting.until(UtteranceCompleted)


@virtual_time
async def test_waiting_ends_in_time_also_while_the_connection_is_lost() -> None:
    """A deadline that nobody looks at would ring for ever, and take a whole processor for it."""
    street = Street(Account(active_requests=1))
    async with street.caller("s-1") as speaking, street.caller("s-2", max_queue_wait_s=0.5) as waiting:
        speaking.say(LONG, "u1", end=True)
        await speaking.until(AudioProduced)
        waiting.say("Me too.", "u2", end=True)
        await settle()
        waiting.dialer.hold()
        waiting.dialer.last.drop()
        await asyncio.sleep(0.6)
        assert waiting.endings() == ["failed u2"]
        assert isinstance(waiting.of(UtteranceFailed)[0].error, errors.UpstreamCapacity)
        assert street.account.requests.waiting == 0
        waiting.dialer.let_go()


@virtual_time
async def test_who_gives_up_waiting_for_a_connection_leaves_the_queue() -> None:
    street = Street(Account(active_requests=1, sockets=1))
    async with street.caller("s-1") as first:
        await first.until(SessionStarted)
        async with street.caller("s-2") as second:
            await second.until(SessionStarted)  # the first one has nothing to say, and gave its own up
            first.say(LONG, "u1", end=True)
            await first.until(AudioProduced)
            second.say("Me too.", "u2")
            await settle()
            assert street.account.sockets.waiting == 1
            second.cancel("u2")
            await settle()
            assert street.account.sockets.waiting == 0
            await first.until(UtteranceCompleted)
            first.say("Again.", "u3", end=True)
            await first.until(UtteranceCompleted, 2)


@virtual_time
async def test_a_cancel_while_dialling_fails_gives_the_connection_back() -> None:
    street = Street(Account(active_requests=1, sockets=1))
    async with street.caller("s-1") as caller:
        await caller.until(SessionStarted)
        caller.dialer.last.drop()
        await settle()
        assert street.account.sockets.used == 0
        caller.dialer.refuse(*[errors.UpstreamUnavailable("cannot be reached")] * 4)
        caller.say("Hello.", "u1", end=True)
        await asyncio.sleep(0.07)
        assert street.account.sockets.used == 1
        caller.cancel()
        await asyncio.sleep(5)
        assert street.account.sockets.used == 0


@virtual_time
async def test_a_cancelled_request_counts_until_the_upstream_is_told() -> None:
    street = Street(Account(active_requests=1))
    async with street.caller("s-1") as speaking, street.caller("s-2") as waiting:
        speaking.say(LONG, "u1", end=True)
        await speaking.until(AudioProduced)
        waiting.say("Me too.", "u2", end=True)
        await settle()
        speaking.cancel("u1")
        speaking.say("And then?", "u3", end=True)
        await waiting.until(UtteranceCompleted)
        await speaking.until(UtteranceCompleted)
        assert street.received == [
            ("s-1-1", "text"),
            ("s-1-1", "cancel"),
            ("s-2-1", "text"),
            ("s-1-2", "text"),
        ]
        assert street.account.requests.used == 0


@virtual_time
async def test_a_cancel_that_cannot_be_sent_still_frees_its_request() -> None:
    street = Street(Account(active_requests=1))
    async with street.caller("s-1") as speaking:
        speaking.say(LONG, "u1", end=True)
        await speaking.until(AudioProduced)
        speaking.dialer.last.stop_reading()
        speaking.cancel("u1")
        await settle()
        assert street.account.requests.used == 1
        await asyncio.sleep(5)
        assert street.account.requests.used == 0
