"""Settings of sessions that run elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, Unpack

from wavegate._channel import Channel, StreamCall
from wavegate._duplex import GOODBYE_S, Duplex, Line
from wavegate._events_wire import control_event
from wavegate._session import UpdateArguments, check_ack, split_update
from wavegate._settings_wire import MessageT
from wavegate.events import ConnectionEvent, SessionEnded, SettingsAck
from wavegate.settings import SynthesisOptions, TranscriptionOptions
from wavegate.speech.v1 import session_service_pb2, types_pb2

__all__ = ["SessionChange", "SettingsStream"]

_Request = session_service_pb2.UpdateSettingsRequest
_Response = session_service_pb2.UpdateSettingsResponse


class ControlArguments(UpdateArguments, total=False):
    """Keyword arguments of a change from outside, beside the settings themselves."""

    after_input_sequence: int | None
    watch: bool


class SynthesisControl(SynthesisOptions, ControlArguments, total=False):
    """Keyword arguments of `SettingsStream.update_synthesis`."""


class TranscriptionControl(TranscriptionOptions, ControlArguments, total=False):
    """Keyword arguments of `SettingsStream.update_transcription`."""


@dataclass(frozen=True, slots=True)
class SessionChange:
    """Something that happened to a session: an ack, or with `watch` anything that it reports."""

    session_id: str
    event: SettingsAck | ConnectionEvent | SessionEnded


class SettingsStream(Duplex[_Request, _Response, SessionChange]):
    """One stream that changes the settings of any of the caller's sessions; `Client.settings_stream` makes it.

    Iterate over it for every ack as it comes and, with `watch=True` in an update, for whatever else happens to that
    session from then on. Leaving the block ends the stream; the sessions go on.
    """

    def __init__(self, channel: Channel) -> None:
        super().__init__(buffer_limit_bytes=None)
        self._channel = channel
        self._acks: dict[str, SettingsAck | None] = {}
        # Ids must not meet those of the session's own updates, nor of other callers' streams.
        prefix = secrets.token_hex(4)
        self._update_ids = (f"{prefix}-{n}" for n in itertools.count(1))

    async def __aenter__(self) -> Self:
        """Opens the stream; that there is no gateway shows with the first update."""
        call: StreamCall[_Request, _Response] = self._channel.sessions.UpdateSettings(
            metadata=self._channel.metadata()
        )
        self._line = Line(self, self._channel, call)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Ends the stream; after an exception without waiting for acks."""
        try:
            if exc_type is None and not self._finished:
                assert self._line is not None
                self._input_ended = True
                self._line.end()
                with contextlib.suppress(TimeoutError):  # a watched session may outlive our interest
                    async with asyncio.timeout(GOODBYE_S):
                        await self._drain()
        finally:
            await self._stop()

    async def update_synthesis(self, session_id: str, **changes: Unpack[SynthesisControl]) -> SettingsAck:
        """Changes a synthesis session; returns once that is applied, superseded or validated.

        Raises `SessionNotFoundError`, or whatever else the gateway says against it; the stream goes on.
        `after_input_sequence` waits for that input of the session. Cancelling the wait does not take it back.
        """
        settings, fields = self._split(types_pb2.SynthesisSettings, changes)
        return await self._update(_Request(session_id=session_id, synthesis=settings, **fields))

    async def update_transcription(
        self, session_id: str, **changes: Unpack[TranscriptionControl]
    ) -> SettingsAck:
        """Changes a transcription session; see `update_synthesis`."""
        settings, fields = self._split(types_pb2.TranscriptionSettings, changes)
        return await self._update(_Request(session_id=session_id, transcription=settings, **fields))

    def _split(
        self, message_type: type[MessageT], changes: Mapping[str, Any]
    ) -> tuple[MessageT, dict[str, Any]]:
        own = {
            "after_input_sequence": changes.get("after_input_sequence"),
            "watch": changes.get("watch", False),
        }
        rest = {k: v for k, v in changes.items() if k not in own}
        settings, fields = split_update(message_type, rest, next(self._update_ids))
        return settings, {**fields, **own}

    async def _update(self, request: _Request) -> SettingsAck:
        update_id = request.update_id
        if update_id in self._acks:
            raise ValueError(f"update {update_id!r} of this stream is still under way")
        self._acks[update_id] = None
        try:
            await self._put(request)
            return check_ack(await self._until(lambda: self._acks[update_id]))
        finally:
            del self._acks[update_id]

    def __aiter__(self) -> AsyncIterator[SessionChange]:
        """Every report in order; one consumer at a time."""
        return self

    async def __anext__(self) -> SessionChange:
        """The next report. Cancelling it loses nothing."""
        change = await self._next()
        if change is None:
            raise StopAsyncIteration
        return change

    def _receive(self, response: _Response) -> SessionChange | None:
        event = control_event(response)
        if isinstance(event, SettingsAck) and event.update_id in self._acks and event.state != "QUEUED":
            self._acks[event.update_id] = event
        return SessionChange(response.session_id, event) if event is not None else None
