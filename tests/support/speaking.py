"""A synthesis session as a caller has it, on virtual time, and a voice to put at its other end.

What the voice says can be read back: each character is `CHAR_SAMPLES` samples of its own code point.
"""

from __future__ import annotations

import asyncio
import base64
import json
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from wavegate_server.audio import DEFAULT_SYNTHESIS_FORMAT, AudioFormat
from wavegate_server.session.context import Bounds, SessionContext, UpstreamTarget
from wavegate_server.session.events import (
    ApplyPolicy,
    ConnectionChanged,
    EndSession,
    SessionEnded,
    SettingsAcknowledged,
    UpdateSettings,
    WarningRaised,
)
from wavegate_server.session.pool import Upstreams
from wavegate_server.session.retry import RetryBudget
from wavegate_server.session.synthesis import SynthesisSession
from wavegate_server.session.synthesis_events import (
    AudioProduced,
    CancelUtterance,
    EndUtterance,
    FlushText,
    SpeakText,
    UtteranceCancelled,
    UtteranceCompleted,
    UtteranceFailed,
    UtteranceStarted,
)
from wavegate_server.waves import tts
from wavegate_server.waves.ending import PACE_REQUESTS, Habits, Pace
from wavegate_server.waves.tts import Mode

from tests.support.transport import FakeDialer, FakeTransport, Message

E = TypeVar("E")
Ending = UtteranceCompleted | UtteranceCancelled | UtteranceFailed

RATE_HZ = DEFAULT_SYNTHESIS_FORMAT.sample_rate_hz
CHAR_SAMPLES = 240
CHAR_S = CHAR_SAMPLES / RATE_HZ
VOICE = {"voice_id": "magnus", "model": "lightning_v3.1"}


def used_to_it(**known: Any) -> Habits:
    """Habits of a gateway that knows the pace of a `Voice`, and what else is `known`: no real one speaks as fast."""
    pace = Pace(requests=PACE_REQUESTS, mean=CHAR_S, fastest=CHAR_S)
    return Habits(paces=OrderedDict({f"{VOICE['model']}/{VOICE['voice_id']}/1": pace}), **known)


def spoken_pcm(text: str) -> bytes:
    """The audio of a text, 10 ms a character."""
    samples = array("H", (ord(c) for c in text for _ in range(CHAR_SAMPLES)))
    return samples.tobytes()


def spoken_text(pcm: bytes) -> str:
    """The text of such audio; a character that is cut off, or doubled, is a mistake."""
    samples = array("H", pcm)
    assert len(samples) % CHAR_SAMPLES == 0, "a character was cut"
    text = []
    for at in range(0, len(samples), CHAR_SAMPLES):
        assert len(set(samples[at : at + CHAR_SAMPLES])) == 1, "characters are out of step"
        text.append(chr(samples[at]))
    return "".join(text)


class Voice:
    """An upstream that speaks each request when it is closed, in chunks of 100 ms."""

    def __init__(
        self,
        upstream: FakeTransport,
        *,
        delay_s: float = 0.1,
        chunk_interval_s: float = 0.0,
        echoes: bool = True,
        obeys: bool = True,
        completes: bool = True,
        closes: bool = False,
        words: bool = False,
    ) -> None:
        self.upstream = upstream
        self.delay_s = delay_s
        self.chunk_interval_s = chunk_interval_s
        self.echoes = echoes
        self.obeys = obeys
        self.completes = completes
        self.closes = closes
        self.words = words
        self._buffers: dict[str, str] = {}
        self._speakers: dict[str, asyncio.Task[None]] = {}

    def received(self, message: Message) -> None:
        body = json.loads(message)
        name = body["request_id"]
        if body.get("cancel_request"):
            self._buffers.pop(name, None)
            if self.obeys and name in self._speakers:
                self._speakers.pop(name).cancel()
            return
        if "continue" not in body:
            return  # a keepalive
        self._buffers[name] = self._buffers.get(name, "") + body["text"]
        if not body["continue"]:
            text = self._buffers.pop(name)
            self._speakers[name] = asyncio.create_task(self._speak(name, text), name=f"voice of {name}")

    async def _speak(self, name: str, text: str) -> None:
        frame = {"session_id": "up-session", "request_id": f"up-{name}"}
        if self.echoes:
            frame["external_request_id"] = name
        await asyncio.sleep(self.delay_s)
        for at in range(0, len(text), 10):
            piece = text[at : at + 10]
            if self.words:
                for index, word in enumerate(piece.split()):
                    times = {"word": word, "start": (at + index) * CHAR_S, "end": (at + index + 1) * CHAR_S}
                    self.upstream.say({**frame, "status": "word_timestamp", "data": {"id": 0, **times}})
            audio = base64.b64encode(spoken_pcm(piece)).decode()
            self.upstream.say({**frame, "status": "chunk", "data": {"audio": audio}})
            if self.chunk_interval_s:
                await asyncio.sleep(self.chunk_interval_s)
        if self.completes:
            self.upstream.say({**frame, "status": "complete"})
        if self.closes:
            self.upstream.finish(1000)


def context(dialer: FakeDialer, **options: Any) -> SessionContext:
    """What a session is given; `options` replace fields of the context, of its bounds or of its target."""
    bounds = {k: options.pop(k) for k in list(options) if k in Bounds.__dataclass_fields__}
    target = {k: options.pop(k) for k in list(options) if k in UpstreamTarget.__dataclass_fields__}
    target.setdefault("base_url", "ws://upstream")
    target.setdefault("key", "a-key")
    options.setdefault("session_id", "s-1")
    options.setdefault("caller", "someone")
    options.setdefault("upstreams", Upstreams(UpstreamTarget(**target)))
    return SessionContext(dialer=dialer, bounds=Bounds(**bounds), **options)


class Caller:
    """Speaks through one session, and keeps what it hears. Use it as an async context manager."""

    def __init__(
        self,
        dialer: FakeDialer | None = None,
        settings: dict[str, Any] | None = None,
        audio_format: AudioFormat = DEFAULT_SYNTHESIS_FORMAT,
        *,
        max_audio_lead_s: float | None = None,
        reads: bool = True,
        **options: Any,
    ) -> None:
        """`settings` are added to a voice and a model; `options` are those of `context`."""
        self.dialer = dialer if dialer is not None else FakeDialer(Voice)
        mode = options.get("tts_mode", Mode.CONTINUATIONS)
        defaults = {**tts.defaults(mode), **VOICE, **options.pop("defaults", {})}
        self.session = SynthesisSession(
            context(self.dialer, defaults=defaults, **options),
            audio_format,
            {**defaults, **(settings or {})},
            max_audio_lead_s=max_audio_lead_s,
            retry=RetryBudget(rng=lambda: 0.5),
        )
        self.session.input_sequence = 1
        self.heard: list[Any] = []
        """Every event so far."""
        self.heard_at: list[float] = []
        self._reads = asyncio.Event()
        if reads:
            self._reads.set()
        self._news = asyncio.Event()
        self._stack = AsyncExitStack()
        self.running: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self.running = asyncio.create_task(self.session.run(), name="session")
        reader = asyncio.create_task(self._read(), name="reader")
        self._stack.callback(reader.cancel)
        self._stack.callback(self.running.cancel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _read(self) -> None:
        log = self.session.log
        while True:
            await self._reads.wait()
            entry = await log.next()
            if entry is None:
                return
            self.session.handing_over(entry.event)
            self.heard.append(entry.event)
            self.heard_at.append(asyncio.get_running_loop().time())
            self.session.delivered(entry.event)
            self._news.set()
            self._news = asyncio.Event()

    def stop_reading(self) -> None:
        self._reads.clear()

    def read_on(self) -> None:
        self._reads.set()

    # -- saying -------------------------------------------------------------------------------------------------

    def submit(self, command: Any) -> int:
        """Send a message; its number."""
        number = self.session.input_sequence + 1
        self.session.submit(command, number)
        return number

    def say(self, text: str, utterance_id: str = "", *, end: bool = False) -> int:
        return self.submit(SpeakText(text, utterance_id, end))

    def flush(self, utterance_id: str = "") -> int:
        return self.submit(FlushText(utterance_id))

    def end(self, utterance_id: str = "") -> int:
        return self.submit(EndUtterance(utterance_id))

    def cancel(self, utterance_id: str = "", heard_s: float | None = None) -> int:
        return self.submit(CancelUtterance(utterance_id, heard_s))

    def update(self, update_id: str = "", /, *, at_once: bool = False, **fields: Any) -> int:
        """Send a delta; names of `UpdateSettings` are options, all others are settings."""
        return self.submit(delta(update_id, at_once=at_once, **fields))

    def end_session(self, *, discard: bool = False, by_half_close: bool = False) -> int:
        return self.submit(EndSession(discard, by_half_close))

    # -- hearing ------------------------------------------------------------------------------------------------

    def of(self, kind: type[E], utterance_id: str | None = None) -> list[E]:
        """The events of one kind, of all utterances or of one."""
        found = [e for e in self.heard if isinstance(e, kind)]
        if utterance_id is None:
            return found
        return [e for e in found if id_of(e) == utterance_id]

    async def until(self, kind: type[E], count: int = 1, matches: Callable[[E], bool] = lambda e: True) -> E:
        """Wait for the `count`th event of a kind that matches; that event."""
        while len(found := [e for e in self.of(kind) if matches(e)]) < count:
            assert SessionEnded not in {type(e) for e in self.heard}, f"the session has ended: {self.story()}"
            await self._news.wait()
        return found[count - 1]

    async def ended(self) -> SessionEnded:
        """Wait until the session has ended."""
        while not self.of(SessionEnded):
            await self._news.wait()
        await self.running
        assert isinstance(self.heard[-1], SessionEnded), "it is the last event"
        return self.of(SessionEnded)[0]

    def text(self, utterance_id: str | None = None) -> str:
        """What was heard of an utterance, or of all, from a `Voice`."""
        return spoken_text(b"".join(e.audio for e in self.of(AudioProduced, utterance_id)))

    def endings(self, utterance_id: str | None = None) -> list[str]:
        """How utterances ended, in order: `completed u1`."""
        return [
            f"{type(e).__name__.removeprefix('Utterance').lower()} {id_of(e)}"
            for e in self.heard
            if isinstance(e, Ending) and utterance_id in (None, id_of(e))
        ]

    def story(self, *, connections: bool = True) -> list[str]:
        """The events in short, audio in one word however many chunks it came in."""
        lines: list[str] = []
        for event in self.heard:
            if isinstance(event, ConnectionChanged) and not connections:
                continue
            line = short(event)
            if not (line.startswith("audio") and lines and lines[-1] == line):
                lines.append(line)
        return lines

    def acks(self, update_id: str | None = None) -> list[SettingsAcknowledged]:
        return [a for a in self.of(SettingsAcknowledged) if update_id in (None, a.update_id)]

    def ack_states(self, update_id: str | None = None) -> list[str]:
        return [a.state.value for a in self.acks(update_id)]

    def warnings(self) -> list[str]:
        return [w.reason for w in self.of(WarningRaised)]


def delta(update_id: str = "", /, *, at_once: bool = False, **fields: Any) -> UpdateSettings:
    """A delta; names of `UpdateSettings` are options, all others are settings."""
    options = {k: fields.pop(k) for k in list(fields) if k in UpdateSettings.__dataclass_fields__}
    if at_once:
        options["policy"] = ApplyPolicy.IMMEDIATE
    return UpdateSettings(update_id, fields, **options)


def id_of(event: Any) -> str:
    """The utterance that an event is about."""
    found = getattr(event, "utterance_id", None)
    return found if isinstance(found, str) else str(event.utterance.utterance_id)


def short(event: Any) -> str:
    """An event in a few words."""
    match event:
        case AudioProduced():
            return f"audio {id_of(event)}"
        case UtteranceStarted() | UtteranceCompleted() | UtteranceCancelled() | UtteranceFailed():
            return f"{type(event).__name__.removeprefix('Utterance').lower()} {id_of(event)}"
        case ConnectionChanged():
            return f"{event.state.value} {event.reason.value}"
        case SettingsAcknowledged():
            return f"{event.state.value} {event.update_id}"
        case WarningRaised():
            return event.reason
        case _:
            return type(event).__name__


def texts(messages: Iterable[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    """Speech messages as (request id, text, whether it closes the request); keepalives and cancels left out."""
    return [(m["request_id"], m["text"], not m["continue"]) for m in messages if "continue" in m]


def cancels(messages: Iterable[dict[str, Any]]) -> list[str]:
    """The ids of the requests that were cancelled."""
    return [m["context_id"] for m in messages if m.get("cancel_request")]
