"""A transcription session as a caller has it, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.session.base import Session
from wavegate_server.session.context import Bounds, SessionContext, UpstreamTarget
from wavegate_server.session.events import (
    ApplyPolicy,
    ConnectionChanged,
    EndSession,
    SessionEnded,
    SettingsAcknowledged,
    UpdateSettings,
)
from wavegate_server.session.log import Entry
from wavegate_server.session.pool import Upstreams
from wavegate_server.session.retry import RetryBudget
from wavegate_server.session.transcription import TranscriptionSession
from wavegate_server.session.transcription_events import AcceptAudio, FinalizeTurn, Transcribed

from tests.support.transport import FakeDialer

E = TypeVar("E")

FORMAT = AudioFormat(Encoding.LINEAR16, 8000)


def context(dialer: FakeDialer, **options: Any) -> SessionContext:
    """What a session is given; `options` replace fields of the context, of its bounds or of its target."""
    bounds = {k: options.pop(k) for k in list(options) if k in Bounds.__dataclass_fields__}
    target = {k: options.pop(k) for k in list(options) if k in UpstreamTarget.__dataclass_fields__}
    options.setdefault("upstreams", Upstreams(UpstreamTarget("ws://upstream", "a-key", **target)))
    return SessionContext(
        session_id="s-1",
        caller="someone",
        dialer=dialer,
        bounds=Bounds(**bounds),
        **options,
    )


class Caller:
    """Speaks to one session and keeps what it says."""

    def __init__(
        self,
        dialer: FakeDialer,
        settings: dict[str, Any] | None = None,
        audio_format: AudioFormat = FORMAT,
        *,
        session_context: SessionContext | None = None,
        **options: Any,
    ) -> None:
        options.setdefault("retry", RetryBudget(rng=lambda: 0.5))
        self.session = TranscriptionSession(
            session_context or context(dialer), audio_format, settings or {}, **options
        )
        self.session.input_sequence = 1
        self.events: list[Any] = []
        self.times: list[float] = []
        self.sequence = 1
        self._news = asyncio.Event()
        self._reads = asyncio.Event()
        self._reads.set()
        self._tasks = [asyncio.create_task(self.session.run()), asyncio.create_task(self._read())]

    def stop_reading(self) -> None:
        """Take no further event; one may be on its way."""
        self._reads.clear()

    async def _read(self) -> None:
        while (entry := await self._next()) is not None:
            self.events.append(entry.event)
            self.times.append(asyncio.get_running_loop().time())
            self.session.delivered(entry.event)
            self._news.set()
            self._news = asyncio.Event()
        self._news.set()

    async def _next(self) -> Entry | None:
        await self._reads.wait()
        return await self.session.log.next()

    # -- saying -----------------------------------------------------------------------------------------------

    def submit(self, command: Any) -> None:
        self.sequence += 1
        self.session.submit(command, self.sequence)

    async def send(self, audio: bytes, size: int | None = None, *, paced_hz: int = 0) -> None:
        """Audio in messages of `size` bytes; `paced_hz`: 16-bit samples a second, 0 is as fast as it is taken."""
        size = size or max(1, len(audio))
        for at in range(0, len(audio), size):
            piece = audio[at : at + size]
            if paced_hz:
                await asyncio.sleep(len(piece) / 2 / paced_hz)
            await self.session.ready()
            self.submit(AcceptAudio(piece))
            await asyncio.sleep(0)

    def finalize(self, finalize_id: str = "") -> None:
        self.submit(FinalizeTurn(finalize_id))

    def update(self, update_id: str, policy: ApplyPolicy = ApplyPolicy.NEXT_BOUNDARY, **delta: Any) -> None:
        self.submit(UpdateSettings(update_id, delta, policy=policy))

    async def end(self, *, discard: bool = False) -> SessionEnded:
        """End the session and wait until all is said."""
        await self.session.ready()
        self.submit(EndSession(discard=discard))
        return await self.over()

    async def over(self) -> SessionEnded:
        await asyncio.gather(*self._tasks)
        assert isinstance(self.events[-1], SessionEnded)
        return self.events[-1]

    async def vanish(self) -> None:
        """The caller's connection is gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- hearing ----------------------------------------------------------------------------------------------

    def all(self, kind: type[E]) -> list[E]:
        return [e for e in self.events if isinstance(e, kind)]

    async def until(self, kind: type[E], matches: Callable[[E], bool] = lambda e: True, count: int = 1) -> E:
        """Wait for the `count`th event of a kind that matches."""
        while True:
            found = [e for e in self.events if isinstance(e, kind) and matches(e)]
            if len(found) >= count:
                return found[count - 1]
            if isinstance(self.events[-1] if self.events else None, SessionEnded):
                raise AssertionError(f"the session ended first: {self.events}")
            await self._news.wait()

    @property
    def finals(self) -> list[Transcribed]:
        return [e for e in self.all(Transcribed) if e.is_final]

    @property
    def partials(self) -> list[Transcribed]:
        return [e for e in self.all(Transcribed) if not e.is_final]

    @property
    def text(self) -> str:
        """All finals, joined."""
        return " ".join(t.text for t in self.finals if t.text)

    @property
    def connections(self) -> list[tuple[str, str]]:
        return [(e.state.value, e.reason.value) for e in self.all(ConnectionChanged)]

    def acks(self, update_id: str) -> list[SettingsAcknowledged]:
        return [a for a in self.all(SettingsAcknowledged) if a.update_id == update_id]

    def live(self) -> Session:
        return self.session
