"""Clients of all languages as one: sessions that are talked to and heard, by the Python client or a driver process.

What a driver speaks is in `clients/conformance/README.md`. A client takes part in a test by a row of `CALLERS`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
from abc import ABC, abstractmethod
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import wavegate
import waves_local
from wavegate import AudioFormat, Client

from tests.support import tools
from tests.support.process import PATIENCE_S

CALLERS: Mapping[str, Sequence[str]] = {
    "python": (),
}
"""Client → the command of its driver, run at the root; none for the Python client, which is called directly."""

RATE_HZ = 16000


@dataclass(frozen=True, slots=True)
class Problem:
    """What the user of a client sees of a failure."""

    kind: str
    """The error's common name, as the drivers have it."""
    code: str = ""
    reason: str = ""
    message: str = ""
    fields: tuple[str, ...] = ()

    @property
    def what(self) -> tuple[str, str, str]:
        return self.kind, self.code, self.reason


class Failed(Exception):
    """Raised for a call of the client that failed."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.what}: {problem.message}")
        self.problem = problem


@dataclass
class Conversation(ABC):
    """A live session, and all that was heard of it."""

    session_id: str = ""
    """Its first one."""
    kinds: list[str] = field(default_factory=list)
    """The names of its events, audio once however many chunks it came in."""
    audio: dict[str, bytes] = field(default_factory=dict)
    failures: dict[str, Problem] = field(default_factory=dict)
    """Utterances that failed."""
    finals: list[str] = field(default_factory=list)
    is_over: bool = False
    problem: Problem | None = None
    """Why it is over, unless it ended in good order."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @abstractmethod
    async def say(self, text: str, utterance_id: str) -> None: ...

    @abstractmethod
    async def cancel(self, utterance_id: str) -> None: ...

    @abstractmethod
    async def send_audio(self, content: bytes) -> None: ...

    @abstractmethod
    async def end(self) -> None: ...

    @property
    def spoken(self) -> dict[str, str]:
        """What each utterance said."""
        return {name: waves_local.spoken(pcm) for name, pcm in self.audio.items()}

    @property
    def words(self) -> list[str]:
        return [word for text in self.finals for word in re.findall(r"\w+", text.lower())]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until what was heard is so."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                assert not self.is_over, f"it is over: {self.problem}"
                self._news.clear()
                await self._news.wait()

    async def over(self) -> Problem | None:
        """Wait for its end; why."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.is_over:
                self._news.clear()
                await self._news.wait()
        return self.problem

    def _note(self, kind: str) -> None:
        if not (kind == "audio" and self.kinds and self.kinds[-1] == "audio"):
            self.kinds.append(kind)
        self._news.set()

    def _finish(self, problem: Problem | None) -> None:
        self.is_over, self.problem = True, problem
        self._news.set()


class Caller(ABC):
    """A client of one process, connected to some targets."""

    @abstractmethod
    async def speak(
        self, *, max_audio_lead_s: float | None = None, resume_window_s: float = 30.0
    ) -> Conversation:
        """Open a synthesis session. Raises `Failed`."""

    @abstractmethod
    async def listen(self, *, resume_window_s: float = 30.0) -> Conversation:
        """Open a transcription session of LINEAR16 at `RATE_HZ`. Raises `Failed`."""


@asynccontextmanager
async def calling(name: str, targets: Sequence[str]) -> AsyncIterator[Caller]:
    """The client of that name in `CALLERS`. What is still open at the end is left without a word."""
    command = CALLERS[name]
    async with _driven(command, targets) if command else _in_process(Client(targets=targets)) as caller:
        yield caller


# -- the Python client ------------------------------------------------------------------------------------------


def problem_of(error: BaseException) -> Problem:
    """An error of the Python client as any client's."""
    if not isinstance(error, wavegate.WavegateError):
        raise error
    name = re.sub(r"(?<=.)(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).upper()
    fields = tuple(v.field for v in error.field_violations)
    return Problem("OTHER" if name == "WAVEGATE" else name, error.code, error.reason, str(error), fields)


@dataclass
class _PythonConversation(Conversation):
    session: Any = None
    reading: asyncio.Task[None] | None = None

    async def say(self, text: str, utterance_id: str) -> None:
        await self._do(self.session.say(text, utterance_id=utterance_id))

    async def cancel(self, utterance_id: str) -> None:
        await self._do(self.session.cancel(utterance_id))

    async def send_audio(self, content: bytes) -> None:
        await self._do(self.session.send_audio(content))

    async def end(self) -> None:
        await self._do(self.session.end())

    async def _do(self, call: Any) -> None:
        try:
            await call
        except wavegate.WavegateError as error:
            raise Failed(problem_of(error)) from error

    async def read(self) -> None:
        try:
            async for event in self.session:
                match event:
                    case wavegate.AudioChunk():
                        self.audio[event.utterance_id] = self.audio.get(event.utterance_id, b"") + event.audio
                        self._note("audio")
                        continue
                    case wavegate.Transcript(is_final=True, text=text) if text:
                        self.finals.append(text)
                    case wavegate.UtteranceFailed():
                        self.failures[event.utterance_id] = problem_of(event.error)
                self._note(re.sub(r"(?<=.)(?=[A-Z])", "_", type(event).__name__).lower())
        except wavegate.WavegateError as error:
            self._finish(problem_of(error))
        else:
            self._finish(None)


class _Python(Caller):
    def __init__(self, client: Client, stack: AsyncExitStack) -> None:
        self._client = client
        self._stack = stack

    async def speak(
        self, *, max_audio_lead_s: float | None = None, resume_window_s: float = 30.0
    ) -> Conversation:
        session = self._client.synthesize(
            voice_id="magnus", max_audio_lead_s=max_audio_lead_s, resume_window_s=resume_window_s
        )
        return await self._open(session)

    async def listen(self, *, resume_window_s: float = 30.0) -> Conversation:
        session = self._client.transcribe(
            audio_format=AudioFormat("LINEAR16", RATE_HZ), language_code="en", resume_window_s=resume_window_s
        )
        return await self._open(session)

    async def _open(self, session: Any) -> Conversation:
        try:
            await session.__aenter__()
        except wavegate.WavegateError as error:
            raise Failed(problem_of(error)) from error
        conversation = _PythonConversation(session_id=session.session_id, session=session)
        reading = asyncio.create_task(conversation.read())

        async def leave() -> None:
            with contextlib.suppress(wavegate.WavegateError):
                await session.__aexit__(KeyboardInterrupt, KeyboardInterrupt(), None)
            await reading

        self._stack.push_async_callback(leave)
        return conversation


@asynccontextmanager
async def _in_process(client: Client) -> AsyncIterator[Caller]:
    async with client, AsyncExitStack() as stack:
        yield _Python(client, stack)


in_process = _in_process
"""The Python client with options of its own."""


# -- a driver ---------------------------------------------------------------------------------------------------


@dataclass
class _DrivenConversation(Conversation):
    driver: _Driver | None = None
    name: str = ""

    async def say(self, text: str, utterance_id: str) -> None:
        await self._do("say", text=text, utterance_id=utterance_id)

    async def cancel(self, utterance_id: str) -> None:
        await self._do("cancel", utterance_id=utterance_id)

    async def send_audio(self, content: bytes) -> None:
        await self._do("send_audio", content=base64.b64encode(content).decode())

    async def end(self) -> None:
        await self._do("end")

    async def _do(self, do: str, **arguments: Any) -> None:
        assert self.driver is not None
        await self.driver.call(do, session=self.name, **arguments)

    def take(self, line: Mapping[str, Any]) -> None:
        if "event" not in line:
            self._finish(_problem_from_json(line["over"]) if line["over"] else None)
            return
        # The names of ProtoJSON may come in either case.
        event = {_snake(name): value for name, value in line["event"].items()}
        (kind,) = event.keys() - {"sequence", "acknowledged_input_sequence", "emit_time"}
        value = {_snake(name): inner for name, inner in event[kind].items()}
        if kind == "audio":
            utterance_id = value.get("utterance_id", "")
            chunk = base64.b64decode(value.get("audio", ""))
            self.audio[utterance_id] = self.audio.get(utterance_id, b"") + chunk
        elif kind == "transcript" and value.get("is_final") and value.get("text"):
            self.finals.append(value["text"])
        elif kind == "utterance_failed":
            self.failures[value.get("utterance_id", "")] = _problem_from_json(value.get("status") or {})
        self._note(kind)


def _snake(name: str) -> str:
    return re.sub(r"(?<=.)(?=[A-Z])", "_", name).lower()


def _problem_from_json(error: Mapping[str, Any]) -> Problem:
    fields = tuple(v["field"] for v in error.get("field_violations") or ())
    return Problem(
        error.get("kind", ""),
        error.get("code", ""),
        error.get("reason", ""),
        error.get("message", ""),
        fields,
    )


class _Driver:
    """A driver's process: commands in, answers and events out."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self.conversations: dict[str, _DrivenConversation] = {}

    async def call(self, do: str, **arguments: Any) -> Any:
        """Raises `Failed`."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        command = {"id": number, "do": do, **{k: v for k, v in arguments.items() if v is not None}}
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps(command) + "\n").encode())
        line = await asyncio.wait_for(answer, PATIENCE_S)
        if "error" in line:
            raise Failed(_problem_from_json(line["error"]))
        return line["ok"]

    async def read(self) -> None:
        assert self._process.stdout is not None
        async for text in self._process.stdout:
            line = json.loads(text)
            if "id" in line:
                self._asked.pop(line["id"]).set_result(line)
            elif "session" in line:
                self.conversations[line["session"]].take(line)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(AssertionError("the driver has ended"))


class _Driven(Caller):
    def __init__(self, driver: _Driver) -> None:
        self._driver = driver
        self._names = (f"s{number}" for number in itertools.count(1))

    async def speak(
        self, *, max_audio_lead_s: float | None = None, resume_window_s: float = 30.0
    ) -> Conversation:
        return await self._open(
            "open_synthesis",
            settings={"voice_id": "magnus"},
            max_audio_lead=max_audio_lead_s,
            resume_window=resume_window_s,
        )

    async def listen(self, *, resume_window_s: float = 30.0) -> Conversation:
        return await self._open(
            "open_transcription",
            settings={"language_code": "en"},
            audio_format={"encoding": "AUDIO_ENCODING_LINEAR16", "sample_rate_hertz": RATE_HZ},
            resume_window=resume_window_s,
        )

    async def _open(self, do: str, **arguments: Any) -> Conversation:
        name = next(self._names)
        conversation = self._driver.conversations[name] = _DrivenConversation(driver=self._driver, name=name)
        ok = await self._driver.call(do, client="c", session=name, **arguments)
        (started,) = ok.values()
        conversation.session_id = {_snake(k): v for k, v in started.items()}["session_id"]
        return conversation


@asynccontextmanager
async def _driven(command: Sequence[str], targets: Sequence[str]) -> AsyncIterator[Caller]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tools.ROOT, env={**os.environ}, stdin=PIPE, stdout=PIPE, limit=2**28
    )
    driver = _Driver(process)
    reading = asyncio.create_task(driver.read())
    try:
        await driver.call("hello")
        await driver.call("connect", client="c", targets=list(targets))
        yield _Driven(driver)
        await driver.call("close_client", client="c")
        await driver.call("quit")
        await asyncio.wait_for(process.wait(), PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await reading
