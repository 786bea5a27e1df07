"""An upstream of any kind that the documents and the clients of the real one describe, at the transport port.

`Dialect` says which kind: what it sends `complete` for and when, whether it echoes ids and times words, how fast it
speaks. `Trouble` says what happens on the way: pauses, sockets that are cut or half open, at any frame. What it speaks
can be read back, to the sample: each character has a length of its own kind and a ramp in it, so that a hole, a
repetition or a foreign character shows (`read_back`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import re
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.transport import FakeTransport, Message

RATE_HZ = 8000
SPEEDS = (1.0, 1.5, 0.75)
"""Speeds at which this voice can be read back."""
CHUNK_S = 0.2
ROUNDED_BYTES = 2 * RATE_HZ // 1000
PING_S = 10.0
"""When a half-open socket is found out by pings at the latest: sent every 5 s, answered within 5 s."""
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|\Z)")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How this upstream does what its sources disagree on. Times are in seconds."""

    completes: Literal["turn", "release", "request", "none"] = "turn"
    """One `complete` for a context, for each piece spoken in one go, for each message with text, or none."""
    complete_late_s: float = 0.0
    """How much later than asked for by `complete_backoff_ms` it comes."""
    complete_twice: bool = False
    closes: bool = False
    """Whether the socket is closed after the `complete` of a turn."""
    echoes: bool = True
    words: Literal["none", "restart", "run on"] = "none"
    """No word times; or from 0 for each piece spoken in one go; or on from piece to piece."""
    bare_words: bool = False
    """Whether the words that are timed come without marks and in capitals."""
    obeys: bool = True
    """Whether `cancel_request` stops the speech."""
    speaks_marks: bool = True
    """Whether text without letters and digits is heard."""
    char_s: float = 0.06
    """Playing time of a character at speed 1."""
    generation: float = 3.0
    """Seconds of audio made in a second."""
    first_audio_s: float = 0.1


@dataclass(frozen=True, slots=True)
class Misfortune:
    """What happens before a frame is sent."""

    at_frame: int
    """Counted over all connections, from 0."""
    what: Literal["pause", "half open", "cut", "close", "array", "binary", "no base64"]
    """The last three: the next frame of audio comes as something else."""
    seconds: float = 0.0
    """Of a pause."""


@dataclass(slots=True)
class Trouble:
    """The misfortunes still to come and those that struck; shared by all connections."""

    coming: deque[Misfortune] = field(default_factory=deque)
    struck: list[tuple[float, Misfortune]] = field(default_factory=list)
    """When each struck, and what it was."""
    frames: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, repr=False)

    def keep(self, task: asyncio.Task[None]) -> None:
        """Keep a connection's task from being collected before the loop ends it."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def over(self) -> None:
        """End what the connections still do."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @classmethod
    def of(cls, misfortunes: Sequence[Misfortune]) -> Trouble:
        return cls(deque(sorted(misfortunes, key=lambda m: m.at_frame)))

    def next(self) -> Misfortune | None:
        if self.coming and self.coming[0].at_frame <= self.frames:
            misfortune = self.coming.popleft()
            self.struck.append((asyncio.get_running_loop().time(), misfortune))
            return misfortune
        return None


@functools.cache
def _pcm_of(char: str, kind: int, samples: int) -> bytes:
    """One character: its code point, the kind of its length, and a ramp."""
    return array("H", ((ord(char) << 9) | (kind << 7) | (k >> 3) for k in range(samples))).tobytes()


def samples_of(char_s: float, kind: int) -> int:
    return round(RATE_HZ * char_s / SPEEDS[kind])


def pcm_of(text: str, char_s: float, kind: int) -> bytes:
    """The audio of a text, spoken at `SPEEDS[kind]`."""
    size = samples_of(char_s, kind)
    return b"".join(_pcm_of(c, kind, size) for c in text)


def read_back(pcm: bytes, char_s: float) -> tuple[str, str]:
    """The characters of such audio, and the one behind them that is cut off; "" for none.

    Raises AssertionError where it is not one character after the other.
    """
    text: list[str] = []
    at = 0
    while at < len(pcm):
        value = int.from_bytes(pcm[at : at + 2], "little")
        char, kind = chr(value >> 9), (value >> 7) & 3
        assert value & 127 == 0, f"after {''.join(text)[-20:]!r} the audio begins within {char!r}"
        whole = _pcm_of(char, kind, samples_of(char_s, kind))
        # Times of words are rounded to a millisecond: what is cut less than that before its end was heard.
        if pcm.startswith(whole, at) or (
            whole.startswith(pcm[at:]) and len(whole) - len(pcm) + at <= ROUNDED_BYTES
        ):
            text.append(char)
            at += len(whole)
            continue
        assert whole.startswith(pcm[at:]), f"after {''.join(text)[-20:]!r} a hole within {char!r}"
        return "".join(text), char
    return "".join(text), ""


def garbled(frame: dict[str, Any], how: str) -> Message | dict[str, Any]:
    """A frame of audio as it must not come."""
    match how:
        case "array":
            return json.dumps([frame])
        case "binary":
            return json.dumps(frame).encode()
        case _:
            return {**frame, "data": {"audio": "not base64"}}


class _Over(Exception):
    """Raised in a speaker whose connection says nothing more."""


@dataclass(eq=False)
class _Turn:
    """The text of one context or flush series, and how far it has come."""

    name: str
    buffer: str = ""
    messages: int = 0
    """Messages with text that no `complete` was sent for."""
    closed: bool = False
    dropped: bool = False
    timer: asyncio.TimerHandle | None = None
    releases: int = 0
    spoken_s: float = 0.0
    own_id: str = ""
    heard: bool = False
    body: dict[str, Any] = field(default_factory=dict)


class AnyUpstream:
    """The upstream's end of one connection. Turns are spoken in the order in which their text is released."""

    def __init__(self, transport: FakeTransport, dialect: Dialect, trouble: Trouble) -> None:
        self.transport = transport
        self.dialect = dialect
        self.trouble = trouble
        self.half_open = False
        self._garble: str = ""
        self._turns: dict[str, _Turn] = {}
        self._queue: asyncio.Queue[tuple[_Turn, str | None, int]] = asyncio.Queue()
        self._wire = asyncio.Lock()
        trouble.keep(asyncio.create_task(self._speak_all(), name=f"upstream {transport.index}"))

    # -- text in ------------------------------------------------------------------------------------------------

    def received(self, message: Message) -> None:
        if self.half_open:
            return
        body = json.loads(message)
        if body.get("cancel_request"):
            turn = self._turns.pop(body["context_id"], None)
            if turn is not None and self.dialect.obeys:
                turn.dropped = True
                self._stop_timer(turn)
            return
        if "continue" not in body:
            return  # a keepalive
        name = body.get("context_id") or body["request_id"]
        turn = self._turns.setdefault(name, _Turn(body["request_id"]))
        assert not turn.closed, f"text after the closing fragment of {name}"
        turn.body = body
        turn.buffer += body["text"]
        turn.messages += bool(body["text"].strip())
        if not body["continue"]:
            turn.closed = True
            self._release(turn, len(turn.buffer))
            self._queue.put_nowait((turn, None, 0))
        elif "context_id" in body:
            ends = [m.end() for m in _SENTENCE_END.finditer(turn.buffer)]
            self._release(turn, ends[-1] if ends else 0)
            self._release_later(turn, body["max_buffer_delay_ms"] / 1000)
        elif body.get("max_buffer_flush_ms"):
            self._release_later(turn, body["max_buffer_flush_ms"] / 1000)

    def pinged(self, on_pong: Callable[[], None]) -> None:
        """Answer a ping, unless nobody is there any more."""
        if not self.half_open:
            asyncio.get_running_loop().call_soon(on_pong)

    def _release(self, turn: _Turn, length: int) -> None:
        text = turn.buffer[:length]
        if not text.strip():
            return
        self._stop_timer(turn)
        turn.buffer = turn.buffer[length:]
        messages = 0
        if not turn.buffer.strip():
            messages, turn.messages = turn.messages, 0
        self._queue.put_nowait((turn, text, messages))

    def _release_later(self, turn: _Turn, delay_s: float) -> None:
        if turn.timer is None and turn.buffer.strip():

            def ring() -> None:
                turn.timer = None
                if not turn.dropped:
                    self._release(turn, len(turn.buffer))

            turn.timer = asyncio.get_running_loop().call_later(delay_s, ring)

    @staticmethod
    def _stop_timer(turn: _Turn) -> None:
        if turn.timer is not None:
            turn.timer.cancel()
            turn.timer = None

    # -- speech out ---------------------------------------------------------------------------------------------

    async def _speak_all(self) -> None:
        with contextlib.suppress(_Over):
            while True:
                turn, text, messages = await self._queue.get()
                if turn.dropped:
                    continue
                if text is None:
                    if self.dialect.completes == "turn" and turn.heard:
                        self._complete_later(turn, closes=self.dialect.closes)
                    continue
                await self._speak(turn, text)
                if turn.dropped:
                    continue
                if self.dialect.completes == "release" and turn.heard:
                    self._complete_later(turn)
                elif self.dialect.completes == "request" and turn.heard:
                    for _ in range(messages):
                        self._complete_later(turn)

    async def _speak(self, turn: _Turn, text: str) -> None:
        dialect = self.dialect
        if not (dialect.speaks_marks or any(c.isalnum() for c in text)):
            return
        turn.releases += 1
        turn.own_id = f"up-{self.transport.index}-{turn.name}-{turn.releases}"
        turn.heard = True
        kind = SPEEDS.index(turn.body.get("speed", 1.0))
        char_s = samples_of(dialect.char_s, kind) / RATE_HZ
        pcm = pcm_of(text, dialect.char_s, kind)
        words = [(m.group(), m.start() * char_s, m.end() * char_s) for m in re.finditer(r"\S+", text)]
        base_s = turn.spoken_s if dialect.words == "run on" else 0.0
        await asyncio.sleep(dialect.first_audio_s)
        step = round(RATE_HZ * CHUNK_S) * 2
        for at in range(0, len(pcm), step):
            piece = pcm[at : at + step]
            until_s = (at + len(piece)) / 2 / RATE_HZ
            while words and words[0][1] < until_s and self._times_words(turn):
                word, start_s, end_s = words.pop(0)
                if dialect.bare_words:
                    word = "".join(c for c in word if c.isalnum()).upper()
                times = {"id": 0, "word": word, "start": base_s + start_s, "end": base_s + end_s}
                await self._say(turn, "word_timestamp", data=times)
            await self._say(turn, "chunk", data={"audio": base64.b64encode(piece).decode()})
            if turn.dropped:
                return
            await asyncio.sleep(len(piece) / 2 / RATE_HZ / dialect.generation)
        turn.spoken_s += len(pcm) / 2 / RATE_HZ

    def _times_words(self, turn: _Turn) -> bool:
        return self.dialect.words != "none" and bool(turn.body.get("word_timestamps"))

    def _complete_later(self, turn: _Turn, *, closes: bool = False) -> None:
        own_id = turn.own_id
        delay_s = turn.body["complete_backoff_ms"] / 1000 + self.dialect.complete_late_s

        async def complete() -> None:
            await asyncio.sleep(delay_s)
            for _ in range(1 + self.dialect.complete_twice):
                if turn.dropped:
                    return
                with contextlib.suppress(_Over):
                    await self._say(turn, "complete", own_id=own_id)
                await asyncio.sleep(0.3)
            if closes and not self.half_open:
                self.transport.finish(1000)

        self.trouble.keep(asyncio.create_task(complete(), name=f"complete {own_id}"))

    async def _say(self, turn: _Turn, status: str, *, own_id: str = "", **rest: Any) -> None:
        """Send a frame, after what happens before it. Raises `_Over` where nothing is sent any more."""
        async with self._wire:
            while (misfortune := self.trouble.next()) is not None:
                await self._strike(misfortune)
            if self.half_open or self.transport.gone:
                raise _Over
            if turn.dropped:
                return
            self.trouble.frames += 1
            frame = {
                "session_id": "up-session",
                "request_id": own_id or turn.own_id,
                "status": status,
                **rest,
            }
            if self.dialect.echoes:
                frame |= {"external_request_id": turn.name, "external_session_id": turn.body["session_id"]}
            garble = self._garble if status == "chunk" else ""
            self._garble = "" if garble else self._garble
            self.transport.say(garbled(frame, garble) if garble else frame)

    async def _strike(self, misfortune: Misfortune) -> None:
        match misfortune.what:
            case "pause":
                await asyncio.sleep(misfortune.seconds)
            case "cut":
                self.transport.drop(None)
            case "close":
                self.transport.finish(1011)
                self.half_open = True
            case "array" | "binary" | "no base64":
                self._garble = misfortune.what
            case "half open":
                self.half_open = True
                asyncio.get_running_loop().call_later(PING_S, self._found_out)

    def _found_out(self) -> None:
        if not self.transport.gone:
            self.transport.drop(None)
