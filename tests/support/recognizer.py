"""An upstream that proves which samples it heard: words are coded stretches of audio, on virtual time.

A word is `word_samples` samples of one level that no other word has; between words lies silence. The
recogniser understands a stretch of exactly that length, and reports any other as broken, so a lost, repeated or
cut sample shows in the transcript.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tests.support.transport import FakeTransport, stt_speech_ended, stt_speech_started, stt_transcript

RATE_HZ = 8000
WORD_SAMPLES = 1600
GAP_SAMPLES = 400


def word(number: int) -> str:
    """The text of a word."""
    return f"w{number}"


def level(number: int) -> int:
    return 1000 + number


def speech(numbers: Sequence[int], *, gap: int = GAP_SAMPLES) -> bytes:
    """The audio of words, each followed by a gap."""
    pieces = []
    for number in numbers:
        pieces.append(np.full(WORD_SAMPLES, level(number), dtype="<i2"))
        pieces.append(np.zeros(gap, dtype="<i2"))
    return np.concatenate(pieces).tobytes() if pieces else b""


def silence(seconds: float) -> bytes:
    return bytes(2 * round(seconds * RATE_HZ))


@dataclass
class Habits:
    """How the recogniser behaves. Times are seconds, of audio but for `latency_s`."""

    latency_s: float = 0.1
    endpoint_s: float | None = 0.4
    """Silence that makes a final; None: none does."""
    vad_s: float = 0.2
    max_words: int = 8
    answers_empty_finalize: bool = True
    word_times: bool = True
    vad_events: bool = True
    last_apart: bool = False
    silent: bool = False
    """It hears, and says nothing."""
    speed: float = 0.0
    """Seconds of audio that it hears in one second; 0: any number."""
    pongs: Literal["behind", "at_once", "never"] = "behind"
    """When it answers a ping: once it has heard what was sent before, as a proxy that buffers does, or not at all."""


@dataclass
class Recognizer:
    """The other end of one connection."""

    transport: FakeTransport
    habits: Habits = field(default_factory=Habits)
    heard: list[tuple[str, int, int]] = field(default_factory=list)
    """Words since the last final: text, first sample, sample after the last."""
    samples: int = 0
    on_audio: Callable[[Recognizer], None] | None = None
    finalizes: int = 0
    closed: bool = False
    pcm: bytearray = field(default_factory=bytearray)
    _run: tuple[int, int, int] = (0, 0, 0)
    """Level, start and length of the stretch that goes on."""
    _speaking: bool = False
    _ended: bool = True
    _last_end: int = 0
    _actions: deque[Callable[[], None]] = field(default_factory=deque)

    _waiting: deque[str | bytes | Callable[[], None]] = field(default_factory=deque)
    """What a slow one has not come to."""
    _listening: asyncio.Task[None] | None = None

    def received(self, message: str | bytes) -> None:
        if self.habits.speed:
            self._wait(message)
        else:
            self._take(message)

    def pinged(self, on_pong: Callable[[], None]) -> None:
        """The session sent a ping."""
        if self.habits.pongs == "behind" and self.habits.speed:
            self._wait(on_pong)
        elif self.habits.pongs != "never":
            asyncio.get_running_loop().call_soon(on_pong)

    @property
    def waiting_s(self) -> float:
        """Playing time of the audio that a slow one has not come to."""
        return sum(len(m) for m in self._waiting if isinstance(m, bytes)) / 2 / RATE_HZ

    def _wait(self, what: str | bytes | Callable[[], None]) -> None:
        self._waiting.append(what)
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(self._listen(), name="recognizer")

    async def _listen(self) -> None:
        while self._waiting and not self.transport.gone:
            first = self._waiting[0]
            if isinstance(first, bytes):
                await asyncio.sleep(len(first) / 2 / RATE_HZ / self.habits.speed)
            self._waiting.popleft()
            if callable(first):
                first()
            else:
                self._take(first)

    def _take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            assert len(message) % 2 == 0, "a partial sample"
            assert len(message) <= 4096
            self.pcm += message
            self._hear(np.frombuffer(message, dtype="<i2"))
            if self.on_audio is not None:
                self.on_audio(self)
            return
        match json.loads(message)["type"]:
            case "finalize":
                self.finalizes += 1
                self._end_run()
                if self.heard or self.habits.answers_empty_finalize:
                    self._final(from_finalize=True)
            case "close_stream":
                self._end_run()
                if self.heard and self.habits.last_apart:
                    self._final()
                self._final(last=True)
                self.closed = True
                self._later(lambda: self.transport.finish(1000))
            case "keepalive":
                self._say({"type": "pong"})

    # -- hearing ----------------------------------------------------------------------------------------------

    def _hear(self, samples: npt.NDArray[np.int16]) -> None:
        changes = np.flatnonzero(np.diff(samples)) + 1
        for part in np.split(samples, changes):
            if len(part):
                self._part(int(part[0]), len(part))
        self._look_at_silence()

    def _part(self, value: int, length: int) -> None:
        current, start, so_far = self._run
        if value != current:
            self._end_run()
            current, start, so_far = value, self.samples, 0
            if value:
                if not self._speaking:
                    self._speaking = True
                    self._vad(stt_speech_started(start / RATE_HZ))
                self._ended = False
        self.samples += length
        self._run = (current, start, so_far + length)
        if current and so_far + length == WORD_SAMPLES:
            self._add(word(current - 1000), start)
        elif not current:
            self._look_at_silence()

    def _end_run(self) -> None:
        value, start, length = self._run
        if value and length != WORD_SAMPLES:
            if length > WORD_SAMPLES:
                self.heard.pop()
            self._add(f"broken-{word(value - 1000)}-{length}", start)
        self._run = (0, self.samples, 0)

    def _add(self, text: str, start: int) -> None:
        self.heard.append((text, start, self.samples))
        self._last_end = self.samples
        if len(self.heard) >= self.habits.max_words:
            self._final()
        else:
            self._say(self._frame(final=False))

    def _look_at_silence(self) -> None:
        value, start, length = self._run
        if value or self._ended:
            return
        quiet_s = length / RATE_HZ
        if self._speaking and quiet_s >= self.habits.vad_s:
            self._speaking = False
            self._vad(stt_speech_ended(start / RATE_HZ))
        if self.habits.endpoint_s is not None and quiet_s >= self.habits.endpoint_s:
            self._ended = True
            if self.heard:
                self._final()

    # -- saying -----------------------------------------------------------------------------------------------

    def _frame(self, **how: Any) -> dict[str, Any]:
        words = [(text, start / RATE_HZ, end / RATE_HZ) for text, start, end in self.heard]
        text = " ".join(w for w, _, _ in words)
        return stt_transcript(text, words=words if self.habits.word_times else None, **how)

    def _final(self, *, last: bool = False, from_finalize: bool = False) -> None:
        self._say(self._frame(final=True, last=last, from_finalize=from_finalize))
        self.heard = []

    def _vad(self, frame: dict[str, Any]) -> None:
        if self.habits.vad_events:
            self._say(frame)

    def _say(self, frame: dict[str, Any]) -> None:
        if not self.habits.silent:
            self._later(lambda: None if self.transport.gone else self.transport.say(frame))

    def _later(self, action: Callable[[], None]) -> None:
        # Timers of the same moment ring in any order; what is said has an order.
        self._actions.append(action)
        asyncio.get_running_loop().call_later(self.habits.latency_s, self._act)

    def _act(self) -> None:
        self._actions.popleft()()
