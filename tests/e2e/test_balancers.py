"""Two gateways behind Envoy, behind nginx, and behind what the client itself does: docs/load-balancing.md."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import contains
from typing import Any

import grpc
import grpc.aio
import pytest
import waves_local
from wavegate import (
    Client,
    ConnectionLostError,
    GatewayUnavailableError,
    InvalidRequestError,
    SessionNotFoundError,
)
from wavegate.speech import v1
from wavegate.speech.v1 import synthesis_service_pb2_grpc
from wavegate_server.config import Config
from wavegate_server.rpc.server import KEEPALIVE_TIME_MS, KEEPALIVE_TIMEOUT_MS

from tests.clients.python.cutting_proxy import cutting_proxy
from tests.support import balancers, tools
from tests.support.balancers import Balancer
from tests.support.callers import CALLERS, RATE_HZ, Caller, Conversation, Failed, calling, in_process
from tests.support.calls import how_it_failed
from tests.support.gateway import SMALL_WINDOWS, audio_of, running_gateway
from tests.support.process import PATIENCE_S, Running, running, until

# Many processes: on a machine under load it takes minutes.
pytestmark = pytest.mark.timeout(300)

LOCAL = ("--upstream", "local", "--local-engine", "deterministic")
DRAIN_S = 30.0
RATE_BYTES = 48_000
"""A second of the default format."""
WINDOW_S = 10.0
STORY = (
    "Whoever listens to this hears of no gateway at all.",
    "One of them is told to stop while it speaks.",
    "The other one goes on, and nothing is said twice.",
)
SPOKEN = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
ROUND_ROBIN = [
    (
        "grpc.service_config",
        # With the second half a gateway that drains is passed over at once: gRPC watches its health.
        '{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}',
    )
]


@dataclass
class Place:
    """Two gateways and how they are reached."""

    way: str
    gateways: list[Running]
    targets: list[str]
    """What a client is given."""
    balancer: Balancer | None = None
    options: list[tuple[str, str]] = field(default_factory=list)

    @asynccontextmanager
    async def caller(self, name: str = "python") -> AsyncIterator[Caller]:
        if self.options:
            (target,) = self.targets
            async with in_process(Client(target, options=self.options)) as caller:
                yield caller
        else:
            async with calling(name, self.targets) as caller:
                yield caller

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with Client(targets=self.targets, options=self.options) as client:
            yield client

    @property
    def targets_behind(self) -> list[str]:
        """Where the gateways are."""
        return [gateway.target for gateway in self.gateways]

    @property
    def balancer_port(self) -> int:
        assert self.balancer is not None
        return self.balancer.port


@asynccontextmanager
async def behind(way: str, changes: Mapping[str, str] | None = None, *arguments: str) -> AsyncIterator[Place]:
    """Two gateways, reached in a way; `changes` are replacements in the balancer's configuration."""
    async with AsyncExitStack() as stack:
        started = (running(*LOCAL, "--drain-timeout", f"{DRAIN_S:g}", *arguments) for _ in range(2))
        gateways = [await stack.enter_async_context(gateway) for gateway in started]
        targets = [gateway.target for gateway in gateways]
        if way in PROXIES:
            balancer = await stack.enter_async_context(PROXIES[way](targets, changes))
            yield Place(way, gateways, [balancer.target], balancer)
        elif way == "round_robin":
            yield Place(way, gateways, ["ipv4:" + ",".join(targets)], options=ROUND_ROBIN)
        else:
            yield Place(way, gateways, targets)


PROXIES: Mapping[
    str, Callable[[Sequence[str], Mapping[str, str] | None], AbstractAsyncContextManager[Balancer]]
] = {"envoy": balancers.envoy, "nginx": balancers.nginx}
WAYS = (*PROXIES, "round_robin", "targets")
# A driver has no option for another way of choosing a connection.
BY = [
    (way, name) for way in WAYS for name, driver in CALLERS.items() if not (driver and way == "round_robin")
]


async def sessions_of(gateway: Running) -> set[str]:
    """The sessions that live there, asked of the gateway itself."""
    async with Client(gateway.target) as client:
        return {session.session_id async for session in client.list_sessions()}


async def open_on_both(place: Place, open_one: Callable[[], Awaitable[Conversation]]) -> list[Conversation]:
    """Sessions until both gateways have one: `round_robin` begins before it has connected to both."""
    found = []
    for _ in range(40):
        found.append(await open_one())
        if all([await sessions_of(gateway) for gateway in place.gateways]):
            return found
    raise AssertionError("all sessions are on one gateway")


@pytest.mark.parametrize("way", [way for way in WAYS if way != "targets"])
async def test_streams_are_spread(way: str) -> None:
    """Over the gateways by stream, whatever the connection: in turn, the emptier first, or by chance (nginx)."""
    async with behind(way) as place, place.caller() as caller:
        await open_on_both(place, caller.listen)
        before = [len(await sessions_of(gateway)) for gateway in place.gateways]
        for _ in range(10):
            await caller.speak()
            await caller.listen()
        added = [len(await sessions_of(g)) - count for g, count in zip(place.gateways, before, strict=True)]
    assert sum(added) == 20
    assert min(added) >= {"envoy": 5, "nginx": 1}.get(way, 10)


async def test_targets_are_for_failing_over() -> None:
    """One gateway has them all until it goes; who wants them spread gives the targets in another order."""
    async with behind("targets") as place, place.caller() as caller:
        for _ in range(6):
            await caller.speak()
        async with calling("python", place.targets[::-1]) as another:
            await another.speak()
            assert [len(await sessions_of(gateway)) for gateway in place.gateways] == [6, 1]


def on(gateway_sessions: set[str], conversations: Sequence[Conversation]) -> list[Conversation]:
    return [c for c in conversations if c.session_id in gateway_sessions]


async def converse(place: Place, caller: Caller) -> tuple[list[Conversation], list[Conversation]]:
    """Sessions of both kinds on both gateways (of a list of targets, on the first). Those that speak, in real time."""

    async def speak() -> Conversation:
        return await caller.speak(max_audio_lead_s=0.5, resume_window_s=WINDOW_S)

    async def listen() -> Conversation:
        return await caller.listen(resume_window_s=WINDOW_S)

    if place.way == "targets":
        return [await speak() for _ in range(3)], [await listen() for _ in range(3)]
    speaking = await open_on_both(place, speak)
    listening = [await listen() for _ in range(2)]
    while not all([on(await sessions_of(gateway), listening) for gateway in place.gateways]):
        assert len(listening) < 40
        listening.append(await listen())
    return speaking, listening


async def all_until(conversations: Sequence[Conversation], kind: str) -> None:
    """Wait until each has had an event of the kind."""
    for conversation in conversations:
        await conversation.until(partial(contains, conversation.kinds, kind))


@pytest.mark.parametrize(("way", "name"), BY)
async def test_a_gateway_is_drained_and_nobody_loses_or_repeats_a_word(way: str, name: str) -> None:
    """While streams of both kinds run through both gateways. What is new lands on the other one."""
    halves = [waves_local.speak(SPOKEN[at : at + 6], RATE_HZ, gap_s=0.2, tail_s=0.6) for at in (0, 6)]
    async with behind(way) as place, place.caller(name) as caller:
        speaking, listening = await converse(place, caller)
        everybody = [*speaking, *listening]
        for conversation in speaking:
            await conversation.say(STORY[0], "u0")
            await conversation.say(STORY[1], "u1")
        for conversation in listening:
            await conversation.send_audio(halves[0][: len(halves[0]) // 2])
        await all_until(speaking, "audio")
        drained, other = place.gateways
        left = on(await sessions_of(drained), everybody)

        drained.signal(signal.SIGTERM)
        for conversation in listening:
            await conversation.send_audio(halves[0][len(halves[0]) // 2 :])
        await all_until([c for c in left if c in listening], "session_moved")
        late = await caller.speak()
        assert late.session_id in await sessions_of(other)
        await late.say("I am new.", "n")
        for conversation in listening:
            await conversation.send_audio(halves[1])
            await conversation.end()
        for conversation in speaking:
            await conversation.say(STORY[2], "u2")
            await conversation.end()
        await late.end()

        assert not [why for why in [await c.over() for c in (*everybody, late)] if why]
        for conversation in speaking:
            assert conversation.spoken == {f"u{number}": text for number, text in enumerate(STORY)}
        for conversation in listening:
            assert conversation.words == list(SPOKEN)
        assert late.spoken == {"n": "I am new."}
        assert [c for c in everybody if "session_moved" in c.kinds] == [c for c in everybody if c in left]
        assert not [c for c in everybody if "session_resumed" in c.kinds]
        assert await drained.ended() == 0


async def test_a_gateway_that_nginx_was_told_of_is_left_alone() -> None:
    """`down` and a reload before the SIGTERM: what is new goes elsewhere at once, what is live goes on."""
    async with behind("nginx") as place, place.caller() as caller:
        assert place.balancer is not None
        speaking, _ = await converse(place, caller)
        for conversation in speaking:
            await conversation.say(STORY[0], "u0")
        await all_until(speaking, "audio")
        drained, other = place.gateways
        await balancers.take_out(place.balancer, [g.target for g in place.gateways], drained.target)
        live = await sessions_of(drained)
        for _ in range(10):
            async with place.client() as client, client.synthesize(voice_id="magnus") as session:
                assert session.session_id in await sessions_of(other)
        assert await sessions_of(drained) == live
        for conversation in speaking:
            await conversation.end()
        assert not [why for why in [await c.over() for c in speaking] if why]
        assert [c.spoken for c in speaking] == [{"u0": STORY[0]}] * len(speaking)


KILLED: Mapping[str, tuple[str, str, str]] = {
    # The call is taken up by another gateway, or none, which does not know the session.
    "envoy": ("CONNECTION_LOST", "UNAVAILABLE", "SESSION_NOT_FOUND"),
    "nginx": ("CONNECTION_LOST", "UNAVAILABLE", "SESSION_NOT_FOUND"),
    "round_robin": ("CONNECTION_LOST", "UNAVAILABLE", "SESSION_NOT_FOUND"),
    # Its own target is asked until the resume window is over.
    "targets": ("CONNECTION_LOST", "UNAVAILABLE", ""),
}
"""What the user of a session sees whose gateway is killed; docs/load-balancing.md has it as a table."""


async def open_after_a_kill(caller: Caller) -> Conversation:
    """Where a call was on its way to the gateway as it died, its opening fails, and may be tried again."""
    try:
        return await caller.speak(resume_window_s=WINDOW_S)
    except Failed as failed:
        if failed.problem.what != ("GATEWAY_UNAVAILABLE", "UNAVAILABLE", ""):
            raise
    return await caller.speak(resume_window_s=WINDOW_S)


@pytest.mark.parametrize(("way", "name"), BY)
async def test_a_gateway_is_killed_and_its_users_are_told_what_is_lost(way: str, name: str) -> None:
    """Those of the other gateway notice nothing, and the next session opens."""
    async with behind(way) as place, place.caller(name) as caller:
        speaking, listening = await converse(place, caller)
        for conversation in speaking:
            await conversation.say(STORY[0], "u0")
        for conversation in listening:
            await conversation.send_audio(waves_local.speak(SPOKEN[:3], RATE_HZ, tail_s=0.0))
        await all_until(speaking, "audio")
        killed, other = place.gateways
        lost = on(await sessions_of(killed), [*speaking, *listening])
        killed.signal(signal.SIGKILL)
        await killed.ended()

        for number in range(4):
            late = await open_after_a_kill(caller)
            assert late.session_id in await sessions_of(other)
            await late.say("I am new.", f"n{number}")
            await late.end()
            assert await late.over() is None
            assert late.spoken == {f"n{number}": "I am new."}
        problems = [await conversation.over() for conversation in lost]
        assert {problem and problem.what for problem in problems} == {KILLED[way]}
        for problem, conversation in zip(problems, lost, strict=True):
            assert problem is not None
            said = (
                "the rest of utterance u0" if conversation in speaking else "the transcript of the audio from"
            )
            assert f"lost: {said}" in problem.message or name != "python"
        for conversation in (c for c in (*speaking, *listening) if c not in lost):
            await conversation.end()
            assert await conversation.over() is None
            assert conversation.spoken == ({"u0": STORY[0]} if conversation in speaking else {})
            assert conversation.words == ([] if conversation in speaking else list(SPOKEN[:3]))


@pytest.mark.parametrize("way", [*PROXIES, "round_robin"])
async def test_what_the_wire_says_of_a_lost_call(way: str) -> None:
    """To whoever uses the bare stubs: INTERNAL, which is no bug then, where a proxy stands between."""
    async with (
        behind(way) as place,
        grpc.aio.insecure_channel(place.targets[0], options=ROUND_ROBIN) as channel,
    ):
        call = synthesis_service_pb2_grpc.SynthesisServiceStub(channel).SynthesizeStream()
        start = v1.StartSynthesis(settings=v1.SynthesisSettings(voice_id="magnus"))
        await call.write(v1.SynthesizeStreamRequest(start=start))
        assert (await call.read()).HasField("session_started")
        for gateway in place.gateways:
            gateway.signal(signal.SIGKILL)
        _, error = await how_it_failed(call)
        assert error.code() is (grpc.StatusCode.INTERNAL if way in PROXIES else grpc.StatusCode.UNAVAILABLE)
        assert ("RST_STREAM" in (error.details() or "")) == (way in PROXIES)


@asynccontextmanager
async def staying(gateway: Running) -> AsyncIterator[None]:
    """A caller of the gateway's own, for whom it waits while it drains."""
    async with Client(gateway.target) as client, client.synthesize(voice_id="magnus", move=False):
        yield


@pytest.mark.parametrize("way", PROXIES)
async def test_a_lost_call_is_resumed_at_its_own_gateway(way: str) -> None:
    """Whatever the balancer would choose: it told the client which way that is, and the client says so."""
    async with (
        behind(way) as place,
        cutting_proxy(place.balancer_port) as network,
        calling("python", [network.target]) as caller,
    ):
        speaking, listening = await converse(place, caller)
        everybody = [*speaking, *listening]
        for conversation in speaking:
            await conversation.say(STORY[0], "u0")
            await conversation.say(STORY[1], "u1")
        speech = waves_local.speak(SPOKEN, RATE_HZ, gap_s=0.1, tail_s=0.6)
        for conversation in listening:
            await conversation.send_audio(speech[: len(speech) // 2])
        await all_until(speaking, "audio")
        network.cut()
        await all_until(everybody, "session_resumed")
        # A gateway that drains is sent nothing new, but what is still live there is taken up there.
        drained, _ = place.gateways
        async with staying(drained):
            drained.signal(signal.SIGTERM)
            left = on(await sessions_of(drained), speaking)
            await all_until(left, "go_away")
            network.cut()
            for conversation in left:
                await conversation.until(lambda c=conversation: c.kinds.count("session_resumed") == 2)  # type: ignore[misc]
        for conversation in everybody:
            if conversation in listening:
                await conversation.send_audio(speech[len(speech) // 2 :])
            await conversation.end()
        assert not [why for why in [await c.over() for c in everybody] if why]
        assert [c.spoken for c in speaking] == [{"u0": STORY[0], "u1": STORY[1]}] * len(speaking)
        assert [c.words for c in listening] == [list(SPOKEN)] * len(listening)


async def test_without_a_balancer_that_tells_its_way_a_resume_may_miss() -> None:
    """`round_robin` asks whoever's turn it is: the user is told that the session is not known there."""
    async with behind("round_robin") as place, AsyncExitStack() as stack:
        networks = [await stack.enter_async_context(cutting_proxy(g.port)) for g in place.gateways]
        target = "ipv4:" + ",".join(network.target for network in networks)
        async with in_process(Client(target, options=ROUND_ROBIN)) as caller:
            found = []
            for _ in range(20):
                found += await open_on_both(place, caller.speak)
                for network in networks:
                    network.cut()
                endings = [c for c in found if c.is_over]
                for conversation in found:
                    with contextlib.suppress(AssertionError):
                        await conversation.until(
                            lambda c=conversation: "session_resumed" in c.kinds or c.is_over
                        )  # type: ignore[misc]
                if endings := [c for c in found if c.is_over]:
                    break
            assert {c.problem and c.problem.what for c in endings} == {KILLED["round_robin"]}


@pytest.mark.parametrize("way", PROXIES)
async def test_errors_keep_their_details(way: str) -> None:
    """Those of a stream, of a call of its own, and of one that is answered with nothing but trailers."""
    async with behind(way) as place, place.client() as client:
        with pytest.raises(InvalidRequestError) as caught:
            async with client.synthesize(voice_id="magnus", speed=99.0):
                pytest.fail("it cannot open")
        assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert [v.field for v in caught.value.field_violations] == ["start.settings.speed"]
        with pytest.raises(InvalidRequestError) as caught:
            await client.synthesize_once("Hello.", voice_id="magnus", speed=99.0)
        assert [v.field for v in caught.value.field_violations] == ["settings.speed"]
        with pytest.raises(SessionNotFoundError) as missing:
            await client.get_session("nobody")
        assert missing.value.reason == "SESSION_NOT_FOUND"
        # One that the caller's deadline ends: the gateway hears of it, too.
        async with client.synthesize(voice_id="magnus", max_audio_lead_s=0.5) as session:
            utterance = await session.say(STORY[0] * 20)
            await anext(utterance.audio())
            await session.discard()

        async def nobody_is_left() -> bool:
            return not any([await sessions_of(gateway) for gateway in place.gateways])

        await until(nobody_is_left)


@pytest.mark.parametrize("way", PROXIES)
async def test_where_there_is_no_gateway_that_is_said(way: str) -> None:
    async with behind(way) as place, place.client() as client:
        for gateway in place.gateways:
            gateway.signal(signal.SIGKILL)
            await gateway.ended()
        with pytest.raises(GatewayUnavailableError) as caught:
            async with client.synthesize(voice_id="magnus"):
                pytest.fail("there is nobody to open it")
        assert caught.value.code == "UNAVAILABLE"
        assert {"envoy": "upstream", "nginx": "no gateway takes the call"}[way] in str(caught.value)
        assert not isinstance(caught.value, ConnectionLostError)


# -- silence ----------------------------------------------------------------------------------------------------

SHORT = [
    ("envoy", {"stream_idle_timeout: 0s": "stream_idle_timeout: 1s"}),
    ("nginx", {"client_body_timeout 1h;": "client_body_timeout 1s;"}),
    ("nginx", {"grpc_read_timeout 60s;": "grpc_read_timeout 1s;"}),
]


@pytest.mark.parametrize(("way", "changes"), SHORT, ids=[" ".join(changes) for _, changes in SHORT])
async def test_a_silent_session_is_not_cut(way: str, changes: Mapping[str, str]) -> None:
    """Nobody says a word for as long as the same balancer with a timeout of a second needs to cut it three times.

    Even those cuts lose nothing: the client takes each up, and tells of it.
    """
    async with (
        behind(way) as place,
        PROXIES[way](place.targets_behind, changes) as hasty,
        place.caller() as caller,
        calling("python", [hasty.target]) as another,
    ):
        quiet = [await caller.speak(), await caller.listen()]
        cut = [await another.speak(), await another.listen()]
        for conversation in cut:
            await conversation.until(lambda c=conversation: c.kinds.count("session_resumed") >= 3)  # type: ignore[misc]
        for speaking in (quiet[0], cut[0]):
            await speaking.say("Still here.", "u")
        for listening in (quiet[1], cut[1]):
            await listening.send_audio(waves_local.speak(["still", "here"], RATE_HZ, tail_s=0.6))
        for conversation in (*quiet, *cut):
            await conversation.end()
            assert await conversation.over() is None
        for speaking, listening in (quiet, cut):
            assert speaking.spoken == {"u": "Still here."}
            assert listening.words == ["still", "here"]
        assert not [c for c in quiet if "session_resumed" in c.kinds]


def test_the_gateway_ends_what_is_forgotten_before_nginx_does() -> None:
    """Envoy's file has no timeout at all; nginx has no such word."""
    text = (balancers.DEPLOY / "nginx.conf").read_text()
    hours = re.findall(r"^ +(?:client_body|grpc_send|send)_timeout (\d+)h;", text, re.MULTILINE)
    assert len(hours) == 3
    assert min(map(int, hours)) * 3600 > Config().idle_timeout
    (read_s,) = re.findall(r"^ +grpc_read_timeout (\d+)s;", text, re.MULTILINE)
    assert int(read_s) >= 2 * (KEEPALIVE_TIME_MS + KEEPALIVE_TIMEOUT_MS) / 1000


async def test_a_gateways_pings_keep_nginx_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is a sixtieth of what it is. A gateway that pings seldom shows how long the silence was."""
    short = {"grpc_read_timeout 60s;": "grpc_read_timeout 1s;"}
    async with AsyncExitStack() as stack:

        async def session() -> Conversation:
            gateway = await stack.enter_async_context(running_gateway())
            nginx = await stack.enter_async_context(balancers.nginx([gateway.target, gateway.target], short))
            return await (await stack.enter_async_context(calling("python", [nginx.target]))).speak()

        with monkeypatch.context() as patched:
            patched.setattr("wavegate_server.rpc.server.KEEPALIVE_TIME_MS", KEEPALIVE_TIME_MS // 60)
            quiet = await session()
        cut = await session()
        await cut.until(lambda: cut.kinds.count("session_resumed") >= 4)
        assert "session_resumed" not in quiet.kinds


# -- how a balancer's connections end -----------------------------------------------------------------------------


@pytest.mark.parametrize("way", PROXIES)
async def test_a_connection_that_is_renewed_cuts_no_stream(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway asks for new connections after a while, here a second; streams end where they began."""
    monkeypatch.setattr("wavegate_server.rpc.server.MAX_CONNECTION_AGE_MS", 1_000)
    async with (
        running_gateway() as one,
        running_gateway() as two,
        PROXIES[way]([one.target, two.target], None) as balancer,
        calling("python", [balancer.target]) as caller,
    ):
        speaking = [await caller.speak(max_audio_lead_s=0.2) for _ in range(4)]
        quiet = await caller.listen()
        for conversation in speaking:
            await conversation.say(STORY[0], "u")
            await conversation.say(STORY[1], "v")
            await conversation.end()
        assert [await c.over() for c in speaking] == [None] * 4
        assert [c.spoken for c in speaking] == [{"u": STORY[0], "v": STORY[1]}] * 4
        await quiet.send_audio(waves_local.speak(SPOKEN[:2], RATE_HZ, tail_s=0.6))
        await quiet.end()
        assert await quiet.over() is None
        assert quiet.words == list(SPOKEN[:2])
        assert not [c for c in (*speaking, quiet) if "session_resumed" in c.kinds]


# -- barge-in ---------------------------------------------------------------------------------------------------

WINDOW_BYTES = 64 * 1024
ROOM_BYTES = 64 * 1024
"""What is in the hands of the gateway and of gRPC on either side: a few chunks."""


async def begin_a_story(place: Place, channel: grpc.aio.Channel, lead_s: float | None = None) -> Any:
    """A call that is spoken six minutes of text, as fast as it takes it."""
    call = synthesis_service_pb2_grpc.SynthesisServiceStub(channel).SynthesizeStream()
    start = v1.StartSynthesis(settings=v1.SynthesisSettings(voice_id="magnus"))
    if lead_s is not None:
        start.max_audio_lead.FromMilliseconds(round(lead_s * 1000))
    await call.write(v1.SynthesizeStreamRequest(start=start))
    words = v1.TextInput(text=STORY[0] * 120, utterance_id="u", end_utterance=True)
    await call.write(v1.SynthesizeStreamRequest(text=words))
    return call


async def interrupt(call: Any) -> int:
    """Cancel; how many bytes still came. What is said next is heard clean."""
    await call.write(v1.SynthesizeStreamRequest(cancel=v1.CancelUtterance(utterance_id="u")))
    late_bytes = 0
    while (response := await call.read()).WhichOneof("event") != "utterance_cancelled":
        late_bytes += len(response.audio.audio)
    answer = v1.TextInput(text="Yes?", utterance_id="v", end_utterance=True)
    await call.write(v1.SynthesizeStreamRequest(text=answer))
    heard = []
    while (response := await call.read()).WhichOneof("event") != "utterance_completed":
        heard.append(response)
    assert waves_local.spoken(audio_of(heard)) == "Yes?"
    return late_bytes


async def has_stopped_writing(gateways: Sequence[Running]) -> None:
    """Wait until nothing more has been handed over for a second."""
    same, last = 0, -1
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(gateway.target)) for gateway in gateways]
        while same < 20:
            await asyncio.sleep(0.05)
            now = sum([info.usage.audio_bytes for c in clients async for info in c.list_sessions()])
            same, last = (same + 1, last) if now == last and now else (0, now)


@pytest.mark.parametrize(
    ("way", "limit_bytes"),
    [
        ("round_robin", WINDOW_BYTES + ROOM_BYTES),
        # The windows on both sides of it, and a buffer on each.
        ("envoy", 2 * WINDOW_BYTES + 2 * 32 * 1024 + ROOM_BYTES),
    ],
)
async def test_a_barge_in_finds_little_audio_on_its_way(way: str, limit_bytes: int) -> None:
    """A caller stops reading while much is spoken, then cancels: what still comes is no more than the windows hold."""
    options = [*SMALL_WINDOWS, *ROUND_ROBIN]
    async with behind(way) as place, grpc.aio.insecure_channel(place.targets[0], options=options) as channel:
        call = await begin_a_story(place, channel)
        await has_stopped_writing(place.gateways)
        assert await interrupt(call) <= limit_bytes
        call.cancel()


async def test_behind_nginx_the_caller_says_how_much_is_on_its_way() -> None:
    """nginx takes what the system's socket buffers take, which is minutes of speech; `max_audio_lead` holds it back."""
    lead_s = 0.5
    async with (
        behind("nginx") as place,
        grpc.aio.insecure_channel(place.targets[0], options=SMALL_WINDOWS) as channel,
    ):
        without = await begin_a_story(place, channel)
        await has_stopped_writing(place.gateways)
        assert await interrupt(without) > 10 * WINDOW_BYTES
        call = await begin_a_story(place, channel, lead_s)
        read_bytes = 0
        while read_bytes < 2 * RATE_BYTES:
            read_bytes += len((await call.read()).audio.audio)
        assert await interrupt(call) <= lead_s * RATE_BYTES + ROOM_BYTES
        for each in (without, call):
            each.cancel()


# -- what is written ----------------------------------------------------------------------------------------------


def test_the_page_names_tests_that_there_are() -> None:
    page = (balancers.DEPLOY.parent / "docs" / "load-balancing.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    assert named
    assert not named - {name for name in globals() if name.startswith("test_")}


def test_compose_brings_the_envoy_that_is_tried() -> None:
    text = (balancers.DEPLOY / "compose.envoy.yaml").read_text()
    script = (balancers.DEPLOY.parent / "scripts" / "balancers.py").read_text()
    (version,) = re.findall(r'^ENVOY_WHEEL_VERSION: Final = "(.+)"$', script, re.MULTILINE)
    assert f"image: envoyproxy/envoy:v{version}\n" in text
    assert "- ./deploy/envoy.yaml:/etc/envoy/envoy.yaml:ro\n" in text
    assert "command: [-c, /etc/envoy/envoy.yaml," in text
    assert re.findall(r"^      - (\S+:\d+)$", text, re.MULTILINE) == ["127.0.0.1:50051:50051"]


async def test_envoy_takes_the_file_as_it_is() -> None:
    program = await asyncio.to_thread(tools.path_of, "balancers.py", "envoy", optional=True)
    options = ("--mode", "validate", "-c", str(balancers.DEPLOY / "envoy.yaml"))
    process = await asyncio.create_subprocess_exec(str(program), *options, stdout=PIPE, stderr=STDOUT)
    told, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, told.decode()
