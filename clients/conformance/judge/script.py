"""What scenarios are written with: the driver's objects, and checks of what came of them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import waves_local
from wavegate.speech import v1

from clients.conformance.judge.messages import (
    Event,
    Failed,
    Moved,
    Problem,
    Resumed,
    Wrong,
    event_of,
    message_of,
    problem_of,
)
from clients.conformance.judge.process import Driver
from clients.conformance.judge.scripted import Script, Scripted, scripted
from clients.conformance.judge.world import Gateway, World, faked, proxy
from tests.clients.python.cutting_proxy import CuttingProxy
from tests.clients.python.fake_gateway import FakeGateway

PATIENCE_S = 40.0
"""How long anything may take that is waited for, on a machine under load."""
SCENARIO_S = 90.0
OUTCOMES = ("utterance_completed", "utterance_cancelled", "utterance_failed")


@dataclass(frozen=True)
class Scenario:
    """One row of the matrix."""

    name: str
    run: Callable[[Case], Coroutine[Any, Any, None]]
    what: str
    """What is so where it passes, in a sentence or two."""
    within_s: float
    is_long: bool


ALL: dict[str, Scenario] = {}


def scenario(
    name: str, *, within_s: float = SCENARIO_S, is_long: bool = False
) -> Callable[[Callable[[Case], Coroutine[Any, Any, None]]], Callable[[Case], Coroutine[Any, Any, None]]]:
    """Make a function a scenario; its docstring says what has to be so. Those that are long begin first."""

    def add(
        run: Callable[[Case], Coroutine[Any, Any, None]],
    ) -> Callable[[Case], Coroutine[Any, Any, None]]:
        assert name not in ALL, name
        ALL[name] = Scenario(name, run, " ".join((run.__doc__ or "").split()), within_s, is_long)
        return run

    return add


class NotApplicable(Exception):
    """Raised where the machine has not what a scenario needs; says what."""


# -- checks -----------------------------------------------------------------------------------------------------


def check(condition: object, what: str) -> None:
    """Raise `Wrong` with `what` unless it holds."""
    if not condition:
        raise Wrong(what)


def same(what: str, got: object, wanted: object) -> None:
    """Raise `Wrong` with both unless they are equal."""
    if got != wanted:
        raise Wrong(f"{what}: {_short(got)}\n  wanted: {_short(wanted)}")


def near(what: str, got: float, wanted: float, by: float) -> None:
    """Raise `Wrong` unless they differ by `by` at most."""
    if abs(got - wanted) > by:
        raise Wrong(f"{what}: {got}\n  wanted: {wanted} ± {by}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 600 else f"{text[:400]} … {text[-150:]}"


async def refused(
    work: Awaitable[Any], kind: str | Sequence[str], code: str | None = None, reason: str | None = None
) -> Problem:
    """The error that `work` ends with, which has to be of this kind. Raises `Wrong` otherwise."""
    try:
        await work
    except Failed as failed:
        expect(failed.problem, kind, code, reason)
        return failed.problem
    raise Wrong(f"it was done, and {kind} {reason or ''} was wanted")


def expect(
    problem: Problem | None,
    kind: str | Sequence[str],
    code: str | None = None,
    reason: str | None = None,
) -> Problem:
    """Raise `Wrong` unless that is what went wrong; an error always has something to say."""
    kinds = (kind,) if isinstance(kind, str) else tuple(kind)
    if problem is None:
        raise Wrong(f"nothing went wrong, and {' or '.join(kinds)} {reason or ''} was wanted")
    wrong = (
        problem.kind not in kinds
        or (code is not None and problem.code != code)
        or (reason is not None and problem.reason != reason)
    )
    if wrong:
        raise Wrong(f"{problem}\n  wanted: {' or '.join(kinds)} {code or ''} {reason or ''}")
    check(problem.message.strip(), f"an error of kind {problem.kind} has no message")
    return problem


# -- the driver's objects ---------------------------------------------------------------------------------------


class Inbox:
    """What came of a session or a control so far."""

    def __init__(self, driver: Driver, kind: str, name: str) -> None:
        self._driver = driver
        self.name = name
        self._is_control = kind == "control"
        self._lines = driver.inboxes.setdefault((kind, name), [])
        self._seen = 0
        self._events: list[Event] = []
        self._over: list[Problem | None] = []

    def _look(self) -> None:
        for line in self._lines[self._seen :]:
            self._seen += 1
            if self._over:
                raise Wrong(f"{self.name} says something after its end: {str(line)[:200]}")
            if "event" in line:
                event = event_of(line["event"])
                if self._is_control and event.kind == "settings_ack":
                    event = Event("ack", event.message)  # the name that it has in a session
                self._events.append(event)
            elif "over" in line:
                self._over.append(None if line["over"] is None else problem_of(line["over"]))
            else:
                raise Wrong(f"this is neither an event nor an end: {str(line)[:200]}")

    @property
    def events(self) -> list[Event]:
        self._look()
        return self._events

    @property
    def is_over(self) -> bool:
        self._look()
        return bool(self._over)

    def of(self, kind: str) -> list[Any]:
        """The messages of one kind of event."""
        return [event.message for event in self.events if event.kind == kind]

    async def until(self, true: Callable[[], Any], what: str, within_s: float | None = None) -> Any:
        """Wait until something that comes makes it true; what it gives."""
        within_s = PATIENCE_S if within_s is None else within_s
        try:
            async with asyncio.timeout(within_s):
                while not (found := true()):
                    if self._driver.fault is not None:
                        raise Wrong(f"while waiting for {what}: {self._driver.fault}")
                    self._driver.news.clear()
                    await self._driver.news.wait()
        except TimeoutError:
            kinds = [event.kind for event in self.events if event.kind != "audio"]
            raise Wrong(f"{what} did not come within {within_s:g} s; {self.name} had {kinds[-12:]}") from None
        return found

    async def event(
        self, kind: str, where: Callable[[Any], object] = lambda _: True, within_s: float | None = None
    ) -> Any:
        """The first event of that kind of which `where` holds; waits for it."""

        def found() -> Any:
            matching = [message for message in self.of(kind) if where(message)]
            check(
                matching or not self.is_over,
                f"{self.name} is over ({self._over}) and had no such {kind}; it had {self.kinds()}",
            )
            return matching

        return (await self.until(found, f"{kind} of {self.name}", within_s))[0]

    def kinds(self) -> list[str]:
        """The kinds of events, without audio, in order."""
        return [event.kind for event in self.events if event.kind not in ("audio", "progress")][-20:]

    async def over(self, within_s: float | None = None) -> Problem | None:
        """How the reading of it ended; waits for that."""
        await self.until(lambda: self.is_over, f"the end of {self.name}", within_s)
        return self._over[0]


class Session(Inbox):
    """A session of the driver's."""

    def __init__(self, driver: Driver, name: str, started: v1.SessionStarted) -> None:
        super().__init__(driver, "session", name)
        self.started = started

    @property
    def id(self) -> str:
        """What the gateway calls it now."""
        moved = self.of("session_moved")
        return moved[-1].session_started.session_id if moved else self.started.session_id

    async def do(self, command: str, **arguments: Any) -> Any:
        """A command to this session, and its answer."""
        return await self._driver.call(command, session=self.name, **arguments)

    def ask(self, command: str, **arguments: Any) -> asyncio.Future[Any]:
        """A command to this session; nobody waits for it here."""
        return self._driver.ask(command, session=self.name, **arguments)

    async def answer(self, asked: asyncio.Future[Any], what: str = "the command") -> Any:
        return await self._driver.answer(what, asked)

    async def wait(self, utterance_id: str) -> Event:
        """How an utterance ended; raises `Failed` where it failed."""
        return event_of(await self.do("wait", utterance_id=utterance_id))

    async def completed(self, utterance_id: str) -> v1.UtteranceCompleted:
        """The same where it has to be completed."""
        event = await self.wait(utterance_id)
        same(f"the end of {utterance_id}", event.kind, "utterance_completed")
        completed: v1.UtteranceCompleted = event.message
        return completed

    async def cancelled(self, utterance_id: str) -> v1.UtteranceCancelled:
        """The same where it has to be cancelled."""
        event = await self.wait(utterance_id)
        same(f"the end of {utterance_id}", event.kind, "utterance_cancelled")
        cancelled: v1.UtteranceCancelled = event.message
        return cancelled

    async def update(self, **arguments: Any) -> v1.SettingsAck:
        """The last ack of a change of settings."""
        answer = await self.do("update_settings", **arguments)
        return message_of(answer["settings_ack"], v1.SettingsAck)

    async def finish(self) -> list[Event]:
        """End the input and wait for the end of the session, which has to be a good one; all of its events."""
        await self.do("end")
        over = await self.over()
        check(over is None, f"{self.name} ended with {over}")
        return self.events

    # -- what was heard -----------------------------------------------------------------------------------------

    def audio(self, utterance_id: str | None = None) -> bytes:
        """The audio of one utterance, or of all."""
        return b"".join(c.audio for c in self.of("audio") if utterance_id in (None, c.utterance_id))

    def spoken(self, utterance_id: str | None = None) -> str:
        """The characters in that audio, where it is 16-bit samples."""
        return waves_local.spoken(self.audio(utterance_id))

    async def heard(self, seconds: float = 0.0, utterance_id: str | None = None) -> None:
        """Wait until more than so much audio has come (16-bit samples at 24000 Hz)."""

        def enough() -> bool:
            return len(self.audio(utterance_id)) > seconds * 48_000

        await self.until(enough, f"more than {seconds} s of audio of {utterance_id or self.name}")

    def finals(self) -> list[v1.Transcript]:
        return [t for t in self.of("transcript") if t.is_final]

    def words(self) -> list[str]:
        """The words of all finals."""
        return " ".join(t.text for t in self.finals()).lower().replace(".", "").replace(",", "").split()

    def check_order(self) -> None:
        """Raise `Wrong` where the events of the session cannot be in this order, whatever the scenario is."""
        ended: set[str] = set()
        next_chunk: dict[str, int] = {}
        revisions: dict[str, int] = {}
        final: set[str] = set()
        for number, event in enumerate(self.events):
            message = event.message
            same_utterance = getattr(message, "utterance_id", "")
            if event.kind == "audio":
                check(same_utterance not in ended, f"audio of {same_utterance} after its end")
                at = next_chunk.get(same_utterance, 0)
                same(f"chunk_index of {same_utterance}", message.chunk_index, at)
                next_chunk[same_utterance] = at + 1
            elif event.kind in OUTCOMES:
                check(same_utterance not in ended, f"{same_utterance} ended twice")
                ended.add(same_utterance)
            elif event.kind == "transcript":
                check(message.segment_id not in final, f"segment {message.segment_id} after it was final")
                check(
                    message.segment_revision > revisions.get(message.segment_id, 0),
                    f"segment {message.segment_id} has revision {message.segment_revision} twice",
                )
                revisions[message.segment_id] = message.segment_revision
                if message.is_final:
                    final.add(message.segment_id)
            elif event.kind == "session_ended":
                same("events after session_ended", self.kinds()[number + 1 :], [])


class Control(Inbox):
    """A settings stream of the driver's."""

    def __init__(self, driver: Driver, name: str) -> None:
        super().__init__(driver, "control", name)

    async def update(self, session_id: str, **arguments: Any) -> v1.SettingsAck:
        """The last ack of a change from outside."""
        answer = await self._driver.call(
            "control_update", control=self.name, session_id=session_id, **arguments
        )
        return message_of(answer["ack"], v1.SettingsAck)

    def ask(self, session_id: str, **arguments: Any) -> asyncio.Future[Any]:
        return self._driver.ask("control_update", control=self.name, session_id=session_id, **arguments)

    async def close(self) -> None:
        await self._driver.call("close_control", control=self.name)


class Client:
    """A client of the driver's."""

    def __init__(self, driver: Driver, name: str, sessions: list[Session]) -> None:
        self._driver = driver
        self.name = name
        self.is_closed = False
        self._sessions = sessions

    async def do(self, command: str, **arguments: Any) -> Any:
        """A command to this client, and its answer."""
        return await self._driver.call(command, client=self.name, **arguments)

    async def synthesis(self, **arguments: Any) -> Session:
        """A session of synthesis; arguments are those of `open_synthesis`."""
        return await self._open("open_synthesis", arguments)

    async def transcription(self, **arguments: Any) -> Session:
        """A session of transcription; arguments are those of `open_transcription`."""
        return await self._open("open_transcription", arguments)

    async def _open(self, command: str, arguments: Mapping[str, Any]) -> Session:
        name = self._driver.name("s")
        answer = await self.do(command, session=name, **arguments)
        started = message_of(answer["session_started"], v1.SessionStarted)
        check(started.session_id, "session_started names no session")
        session = Session(self._driver, name, started)
        self._sessions.append(session)
        return session

    async def control(self) -> Control:
        """A settings stream."""
        name = self._driver.name("k")
        await self.do("open_control", control=name)
        return Control(self._driver, name)

    async def session_info(self, session_id: str) -> v1.Session:
        answer = await self.do("get_session", session_id=session_id)
        return message_of(answer["session"], v1.Session)

    async def close(self) -> None:
        self.is_closed = True
        await self.do("close_client")


class Case:
    """A scenario that is being run: what it has of the world and of the driver, until it is over."""

    def __init__(self, driver: Driver, world: World) -> None:
        self.driver = driver
        self.world = world
        self._stack = AsyncExitStack()
        self._clients: list[Client] = []
        self._sessions: list[Session] = []
        self._scripted: list[Scripted] = []
        self._ordinary: Gateway | None = None

    async def gateway(
        self,
        kind: str = "plain",
        *,
        faults: Sequence[str] = (),
        options: waves_local.Options | None = None,
    ) -> Gateway:
        """A gateway for this scenario alone, with an upstream of its own."""
        gateway = await self._stack.enter_async_context(self.world.gateway(kind))
        if options is not None:
            gateway.upstream.options = options
        for fault in faults:
            gateway.upstream.faults.add(fault)
        return gateway

    async def proxy(self, gateway: Gateway) -> CuttingProxy:
        """A TCP proxy in front of a gateway."""
        return await self._stack.enter_async_context(proxy(gateway.port))

    async def faked(self) -> FakeGateway:
        """A made-up gateway in this process, whose audio is its text."""
        return await self._stack.enter_async_context(faked())

    async def scripted(self, *scripts: Script) -> Scripted:
        """A gateway whose calls follow these scripts, one after the other."""
        gateway = await self._stack.enter_async_context(scripted(*scripts))
        self._scripted.append(gateway)
        return gateway

    async def connect(self, *targets: str, **arguments: Any) -> Client:
        """A client; without targets of an ordinary gateway. Arguments are those of `connect`."""
        if not targets and self._ordinary is None:
            self._ordinary = await self.gateway()
        where = [*targets] if self._ordinary is None or targets else [self._ordinary.target]
        name = self.driver.name("c")
        await self.driver.call("connect", client=name, targets=where, **arguments)
        client = Client(self.driver, name, self._sessions)
        self._clients.append(client)
        return client

    async def end(self) -> None:
        """Close what the driver still has; raises `Wrong` for what it leaves behind, and for impossible events."""
        for client in self._clients:
            if not client.is_closed:
                await client.close()
        for session in self._sessions:
            session.check_order()
        for gateway in self._scripted:
            check(not gateway.wrong, "; ".join(gateway.wrong))
        answer = await self.driver.call("leaks")
        leaked = answer.get("leaked") or []
        check(not leaked, "left behind: " + "\n  ".join(map(str, leaked[:20])))

    async def clear(self) -> None:
        """Give gateways and proxies back."""
        await self._stack.aclose()


async def eventually(
    true: Callable[[], Awaitable[Any]], what: str, within_s: float | None = None, every_s: float = 0.05
) -> Any:
    """Ask another process until the answer is a yes; that answer."""
    within_s = PATIENCE_S if within_s is None else within_s
    try:
        async with asyncio.timeout(within_s):
            while not (found := await true()):  # noqa: ASYNC110 - another process has no Event
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise Wrong(f"{what}: not within {within_s:g} s") from None
    return found


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


__all__ = [
    "ALL",
    "PATIENCE_S",
    "Case",
    "Client",
    "Control",
    "Event",
    "Failed",
    "Moved",
    "NotApplicable",
    "Problem",
    "Resumed",
    "Scenario",
    "Session",
    "Wrong",
    "b64",
    "check",
    "eventually",
    "expect",
    "near",
    "refused",
    "same",
    "scenario",
]
