"""Many synthesis sessions of one account, each with a random life, on virtual time.

The upstream counts what it sees: never more active requests and connections than the account has. Nothing is kept at
the end, every utterance ends once, and what is completed was spoken whole.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from typing import Any

import pytest
from wavegate_server import errors
from wavegate_server.session.account import Account
from wavegate_server.session.context import UpstreamTarget
from wavegate_server.session.pool import Upstreams
from wavegate_server.session.synthesis_events import UtteranceCompleted, UtteranceStarted
from wavegate_server.waves.tts import Mode

from tests.support.seeds import seeds
from tests.support.speaking import Caller, Voice, id_of
from tests.support.transport import FakeDialer, FakeTransport, Message
from tests.support.virtual_time import settle, virtual_time

REFUSALS = (errors.UpstreamUnavailable("gone"), errors.UpstreamCapacity("full", retry_after_s=0.3))


class Crowd:
    """What the upstream sees of an account with `limit` active requests."""

    def __init__(self, seed: int, limit: int) -> None:
        self.random = random.Random(seed)
        self.limit = limit
        self.active: set[tuple[FakeTransport, str]] = set()
        self.transports: list[FakeTransport] = []
        self.dialling = 0
        self.mistakes: list[str] = []

    def look(self) -> None:
        active = sum(not transport.gone for transport, _ in self.active)
        if active > self.limit:
            self.mistakes.append(f"{active} active requests")
        if self.dialling + self.open > 5 * self.limit:
            self.mistakes.append(f"{self.dialling + self.open} connections")

    @property
    def open(self) -> int:
        return sum(not t.gone for t in self.transports)


class CountedVoice(Voice):
    def __init__(self, upstream: FakeTransport, crowd: Crowd, **options: Any) -> None:
        super().__init__(upstream, **options)
        self.crowd = crowd

    def received(self, message: Message) -> None:
        body = json.loads(message)
        if body.get("cancel_request"):
            self.crowd.active.discard((self.upstream, body["request_id"]))
        elif "continue" in body:
            self.crowd.active.add((self.upstream, body["request_id"]))
            self.crowd.look()
        super().received(message)

    async def _speak(self, name: str, text: str) -> None:
        await super()._speak(name, text)
        self.crowd.active.discard((self.upstream, name))


class CountedDialer(FakeDialer):
    def __init__(self, crowd: Crowd, **voice: Any) -> None:
        pace_s = crowd.random.choice([0.0, 0.02, 0.1])
        super().__init__(lambda up: CountedVoice(up, crowd, chunk_interval_s=pace_s, **voice))
        self.crowd = crowd

    async def dial(self, url: str, headers: Mapping[str, str]) -> FakeTransport:
        crowd = self.crowd
        crowd.dialling += 1
        crowd.look()
        if crowd.random.random() < 0.15:
            self.refuse(crowd.random.choice(REFUSALS))
        try:
            transport = await super().dial(url, headers)
        finally:
            crowd.dialling -= 1
        crowd.transports.append(transport)
        crowd.look()
        return transport


async def live(crowd: Crowd, upstreams: Upstreams, name: str, mode: Mode) -> None:
    """One session, from its start to its end."""
    choose = crowd.random
    words = choose.random() < 0.5
    dialer = CountedDialer(crowd, words=words, obeys=choose.random() < 0.8)
    wait_s = choose.choice([1.0, 30.0])
    async with Caller(
        dialer,
        {"word_timings": words},
        upstreams=upstreams,
        session_id=name,
        tts_mode=mode,
        max_queue_wait_s=wait_s,
    ) as caller:
        dropping = asyncio.create_task(drop(dialer), name="drops")
        number = 0
        for step in range(25):
            await asyncio.sleep(choose.choice([0, 0.01, 0.1, 0.5, 2]))
            if caller.session.ended is not None:
                break
            match choose.choice(["say"] * 10 + ["flush", "end", "change"] * 2 + ["cancel"] * 4):
                case "say":
                    number += choose.random() < 0.5
                    text = "Hello there my friend, " * choose.randint(1, 3)
                    caller.say(text, f"u{number}", end=choose.random() < 0.4)
                case "flush":
                    caller.flush()
                case "end":
                    caller.end()
                case "change":
                    caller.update(f"d{step}", at_once=choose.random() < 0.5, speed=choose.choice([1.0, 1.5]))
                case _:
                    caller.cancel()
        dropping.cancel()
        caller.end_session(discard=choose.random() < 0.2)
        async with asyncio.timeout(300):
            await caller.ended()
        over = [line.split()[1] for line in caller.endings()]
        assert len(over) == len(set(over)), caller.story()
        assert {id_of(e) for e in caller.of(UtteranceStarted)} <= set(over), caller.story()
        if not words:  # with them, a word that was cut is heard again
            for event in caller.of(UtteranceCompleted):
                heard = caller.text(id_of(event))
                assert heard.split() == event.utterance.text.split(), caller.story()


async def drop(dialer: CountedDialer) -> None:
    """Cut the newest connection of a session, now and then."""
    choose = dialer.crowd.random
    while True:
        await asyncio.sleep(choose.uniform(0.2, 3))
        if dialer.transports and not dialer.last.gone:
            dialer.last.drop(choose.choice([None, 1000, 1011, 1013]))


@pytest.mark.parametrize("mode", list(Mode), ids=lambda m: m.value)
@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("seed", seeds(10))
@virtual_time
async def test_no_life_costs_the_account_anything(seed: int, limit: int, mode: Mode) -> None:
    crowd = Crowd(seed, limit)
    account = Account(active_requests=limit, standby=seed % 2 == 0)
    upstreams = Upstreams(UpstreamTarget("ws://upstream", "a-key", account=account, tts_mode=mode))
    async with asyncio.TaskGroup() as lives:
        for number in range(2 + 5 * (seed % 3)):
            lives.create_task(live(crowd, upstreams, f"s-{number}", mode))
    await account.aclose()
    await settle()
    assert crowd.mistakes == []
    for claims in (account.requests, account.sockets):
        assert (claims.used, claims.waiting) == (0, 0)
    assert crowd.open == 0
