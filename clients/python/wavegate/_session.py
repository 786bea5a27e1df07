"""What a synthesis and a transcription session have in common: numbers, settings, beginning and end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypedDict, TypeVar

from google.protobuf.message import Message

from wavegate._channel import Channel, StreamCall
from wavegate._duplex import Duplex, EventT, RequestT
from wavegate._settings_wire import MessageT, apply_policy_number, reset_mask, settings_to_wire
from wavegate.errors import DeadlineError, SessionClosedError, WavegateError
from wavegate.events import GoAway, SessionEnded, SessionStarted, SettingsAck
from wavegate.settings import ApplyPolicy, SynthesisSettings, TranscriptionSettings
from wavegate.speech.v1 import types_pb2


class NumberedResponse(Protocol):
    """What the responses of both kinds of session carry."""

    sequence: int
    acknowledged_input_sequence: int


ResponseT = TypeVar("ResponseT", bound=NumberedResponse)
InputT = TypeVar("InputT")


class InputLog(Generic[InputT]):
    """Numbers a session's input, and keeps what the gateway has not acknowledged yet.

    Only a session that may be resumed needs the latter, and the gateway says in its first answer whether it may.
    """

    def __init__(self) -> None:
        self.last_sequence = 0
        self._kept: deque[tuple[int, InputT]] | None = deque()

    def add(self, make: Callable[[int], InputT]) -> InputT:
        """Makes the next input out of its number."""
        request = make(self.last_sequence + 1)
        self.last_sequence += 1
        if self._kept is not None:
            self._kept.append((self.last_sequence, request))
        return request

    def acknowledge(self, sequence: int) -> None:
        """The gateway has kept everything up to `sequence`."""
        while self._kept and self._kept[0][0] <= sequence:
            self._kept.popleft()

    def keep_nothing(self) -> None:
        """The session cannot be resumed."""
        self._kept = None

    def unacknowledged(self) -> list[InputT]:
        """What would have to be sent again, in order."""
        return [request for _, request in self._kept or ()]


class UpdateArguments(TypedDict, total=False):
    """Keyword arguments of every change of settings, beside the settings themselves."""

    update_id: str
    reset: Iterable[str]
    apply: ApplyPolicy
    expected_revision: int | None
    validate_only: bool


def split_update(
    message_type: type[MessageT], options: Mapping[str, Any], update_id: str
) -> tuple[MessageT, dict[str, Any]]:
    """The settings of an update, and its other fields, as on the wire. `update_id` holds where none is given."""
    settings = {k: v for k, v in options.items() if k not in UpdateArguments.__annotations__}
    return settings_to_wire(message_type, settings), {
        "update_id": options.get("update_id") or update_id,
        "reset_mask": reset_mask(message_type, options.get("reset", ())),
        "apply_policy": apply_policy_number(options.get("apply", "NEXT_BOUNDARY")),
        "expected_revision": options.get("expected_revision"),
        "validate_only": options.get("validate_only", False),
    }


def check_ack(ack: SettingsAck) -> SettingsAck:
    """The terminal ack of a change that was not refused; raises what the gateway says of one that was."""
    if ack.state == "REJECTED":
        raise ack.error or WavegateError("the settings were refused without a reason")
    if ack.state == "SESSION_ENDED":
        raise SessionClosedError("the session ended before the settings were applied")
    return ack


class BaseSession(Duplex[RequestT, ResponseT, EventT]):
    """A session, open between `__aenter__` and `__aexit__`.

    Leaving the block normally ends the input, waits until the gateway has finished everything that was sent, and
    raises the session's failure if nothing has raised it before. Leaving it by an exception, cancellation included,
    ends the session at once. Whoever wants out early without an exception calls `discard`.
    """

    def __init__(
        self,
        channel: Channel,
        request_type: Callable[..., RequestT],
        start: Message,
        *,
        open_timeout_s: float | None,
        buffer_limit_bytes: int | None,
    ) -> None:
        super().__init__(channel, buffer_limit_bytes=buffer_limit_bytes)
        self._make_request = request_type
        self._start_message = start
        self._open_timeout_s = open_timeout_s
        self._log: InputLog[RequestT] = InputLog()
        self._last_received_sequence = 0
        self._started: SessionStarted | None = None
        self._settings: SynthesisSettings | TranscriptionSettings | None = None
        self.settings_revision = 0
        """Counts the changes of settings, this session's own and others'; 1 at the start."""
        self._acks: dict[str, SettingsAck | None] = {}
        self._update_numbers = itertools.count(1)
        self.ended: SessionEnded | None = None
        """How it ended, with its totals; `None` until then."""
        self.go_away: GoAway | None = None
        """The gateway's notice that it will shut down; `None` until then."""

    def __repr__(self) -> str:
        if self._finished:
            state = "ENDED"
        elif self._half_close:
            state = "ENDING"
        elif self._started is not None:
            state = "OPEN"
        else:
            state = "NEW" if self._call is None else "OPENING"
        name = self._started.session_id if self._started else "-"
        return f"<{type(self).__name__} {state} {name} inputs={self._log.last_sequence}>"

    # --- beginning and end ----------------------------------------------------------------------

    @abstractmethod
    def _open_call(self) -> StreamCall[RequestT, ResponseT]:
        """Makes the call."""

    async def __aenter__(self) -> Self:
        """Opens the session; returns once the upstream has accepted it.

        Raises `GatewayUnavailableError` where there is no gateway, `DeadlineError` after `open_timeout_s`, and
        otherwise what the gateway or the upstream says against it.
        """
        if self._call is not None:
            raise RuntimeError("a session is opened once; make another one")
        self._start(self._open_call())
        try:
            async with asyncio.timeout(self._open_timeout_s):
                await self._send(start=self._start_message)
                await self._until(lambda: self._started)
        except TimeoutError as exc:
            await self._stop()
            raise DeadlineError(
                f"the gateway at {self._channel.target} did not open the session in {self._open_timeout_s} s",
                code="DEADLINE_EXCEEDED",
            ) from exc
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Finishes the session, or after an exception ends it at once. See the class."""
        try:
            if exc_type is None:
                if not self._finished and not self._half_close:
                    with contextlib.suppress(SessionClosedError):  # it has ended by itself meanwhile
                        await self.end()
                await self._drain()
        finally:
            await self._stop()

    async def end(self) -> None:
        """Says that no input follows. What was sent is finished; the events go on until `SessionEnded`."""
        await self._send(last=True, end_session=types_pb2.EndSession())

    async def discard(self) -> None:
        """Ends the session now: what is not finished is dropped. `SessionEnded` still follows."""
        await self._send(last=True, end_session=types_pb2.EndSession(discard=True))

    @property
    def started(self) -> SessionStarted:
        """The gateway's first answer: limits, audio format, trace id. Raises `RuntimeError` before the block."""
        if self._started is None:
            raise RuntimeError("it is not open yet: enter it by `async with`")
        return self._started

    @property
    def session_id(self) -> str:
        """What `UpdateSettings`, `GetSession` and the gateway's logs call this session."""
        return self.started.session_id

    # --- events ---------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[EventT]:
        """Every event in order, `SessionEnded` last; then the session's failure is raised if there is one.

        One consumer at a time: two share the events between them. Leaving the loop keeps the rest for the next.
        """
        return self

    async def __anext__(self) -> EventT:
        """The next event. Cancelling it loses nothing."""
        event = await self._next()
        if event is None:
            raise StopAsyncIteration
        return event

    def _receive(self, response: ResponseT) -> EventT | None:
        self._last_received_sequence = response.sequence
        self._log.acknowledge(response.acknowledged_input_sequence)
        event = self._convert(response)
        if isinstance(event, SessionStarted):
            self._started = event
            self._settings, self.settings_revision = event.settings, event.settings_revision
            if not event.limits.resume_window_s:
                self._log.keep_nothing()
        elif isinstance(event, SettingsAck):
            if event.state == "APPLIED" and event.settings is not None:
                self._settings, self.settings_revision = event.settings, event.settings_revision
            if event.update_id in self._acks and event.state != "QUEUED":
                self._acks[event.update_id] = event
        elif isinstance(event, GoAway):
            self.go_away = event
        elif isinstance(event, SessionEnded):
            self.ended = event
        return event if event is not None and self._note(event) else None

    @abstractmethod
    def _convert(self, response: ResponseT) -> EventT | None:
        """The event of a response, if this client knows its kind."""

    @abstractmethod
    def _note(self, event: EventT) -> bool:
        """Takes note of an event of this kind of session; false if the caller must not see it."""

    def _is_last(self, event: EventT) -> bool:
        return isinstance(event, SessionEnded)

    def _finish(self, failure: WavegateError | None) -> None:
        # What `session_ended` says counts: the call's own status is lost where the gateway ends it while we write.
        super()._finish(self.ended.error if self.ended else failure)

    def _ending(self) -> WavegateError | None:
        return None if self.ended else self._lost()

    # --- input ----------------------------------------------------------------------------------

    async def _send(self, *, last: bool = False, **arm: Message) -> int:
        """Sends one input; returns its number."""
        self._check_open()
        request = self._log.add(lambda n: self._make_request(input_sequence=n, **arm))
        sequence = self._log.last_sequence
        await self._put(request, last=last)
        return sequence

    async def _update(
        self, make: Callable[..., Message], message_type: type[MessageT], options: Mapping[str, Any]
    ) -> SettingsAck:
        settings, fields = split_update(message_type, options, f"update-{next(self._update_numbers)}")
        update_id: str = fields["update_id"]
        if update_id in self._acks:
            raise ValueError(f"update {update_id!r} of this session is still under way")
        self._acks[update_id] = None
        try:
            await self._send(update_settings=make(settings=settings, **fields))
            return check_ack(await self._until(lambda: self._acks[update_id]))
        finally:
            del self._acks[update_id]
