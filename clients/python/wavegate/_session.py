"""What a synthesis and a transcription session have in common: numbers, settings, beginning and end, and survival.

A session that lost its call is *resumed*: the same session of the same gateway, over another call. Input is numbered
and kept until it is acknowledged, and what came is numbered too, so nothing is lost and nothing comes twice.

A session whose gateway shuts down is *moved*: another session, of another gateway, goes on where the first one stood.
What its gateway has not brought to an end is said again there, so it is kept until then; the kinds of session say what
that is, and at what point one session may follow the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypedDict, TypeVar

from google.protobuf.message import Message

from wavegate._channel import Channel, Channels, Metadata, StreamCall
from wavegate._duplex import Duplex, EventT, Line
from wavegate._settings_wire import MessageT, apply_policy_number, duration, reset_mask, settings_to_wire
from wavegate.errors import (
    ConnectionLostError,
    DeadlineError,
    GatewayUnavailableError,
    SessionClosedError,
    WavegateError,
)
from wavegate.events import (
    GoAway,
    SessionEnded,
    SessionMoved,
    SessionResumed,
    SessionStarted,
    SettingsAck,
)
from wavegate.settings import ApplyPolicy, SynthesisSettings, TranscriptionSettings
from wavegate.speech.v1 import session_service_pb2, types_pb2

RESUME_WINDOW_S = 30.0
"""How long a session outlives the loss of its call, unless the caller says otherwise or the gateway grants less."""
KEPT_BYTES = 1024 * 1024
"""Input that is taken while there is no call: half a minute of 16-bit samples at 16000 Hz. Then senders wait."""
MOVE_PATIENCE_S = 30.0
"""How long a session that was told to go away looks for another gateway, beyond the time that it was given."""
DRAINING_DELAYS_S = (0.1, 0.3, 1.0)
"""How long to wait before asking again where every gateway that answered shuts down."""
OPEN_ELSEWHERE_S = 5.0
"""How long one try for that may take."""
MOVING_RESUME_S = 2.0
"""How long a lost call is tried again where another session is about to take over anyway."""
RESUME_TRY_S = 5.0
"""How long one try to resume may take."""
CLOSE_TIMEOUT_S = 1.0
"""For ending a session from outside, where its own call does not let us."""


class NumberedResponse(Protocol):
    """What the responses of both kinds of session carry."""

    sequence: int
    acknowledged_input_sequence: int

    @property
    def session_started(self) -> types_pb2.SessionStarted:
        """The arm of that name."""

    @property
    def settings_ack(self) -> types_pb2.SettingsAck:
        """The arm of that name."""


ResponseT = TypeVar("ResponseT", bound=NumberedResponse)
InputT = TypeVar("InputT", bound=Message)


class InputLog(Generic[InputT]):
    """Numbers a session's input, and keeps what the gateway has not acknowledged yet.

    Only a session that may be resumed needs the latter, and the gateway says in its first answer whether it may.
    """

    def __init__(self) -> None:
        self.last_sequence = 0
        self.kept_bytes = 0
        self._kept: deque[tuple[int, InputT, int]] | None = deque()

    def add(self, make: Callable[..., InputT], **arm: Message) -> InputT:
        """Makes the next input."""
        request = make(input_sequence=self.last_sequence + 1, **arm)
        self.last_sequence += 1
        if self._kept is not None:
            size = request.ByteSize()
            self.kept_bytes += size
            self._kept.append((self.last_sequence, request, size))
        return request

    def acknowledge(self, sequence: int) -> None:
        """The gateway has kept everything up to `sequence`."""
        while self._kept and self._kept[0][0] <= sequence:
            self.kept_bytes -= self._kept.popleft()[2]

    def keep_nothing(self) -> None:
        """The session cannot be resumed."""
        self._kept = None
        self.kept_bytes = 0

    @property
    def is_kept(self) -> bool:
        """Whether the session can be resumed."""
        return self._kept is not None

    def unacknowledged(self) -> list[InputT]:
        """What has to be sent again after a loss, in order."""
        return [request for _, request, _ in self._kept or ()]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An input that another session would need, until it has come to its end."""

    key: Hashable
    """What it belongs to, such as an utterance."""
    kind: str
    """Its name in the request."""
    message: Any
    start: int = 0
    """Where in the audio it begins."""
    end: int = 0


def _delays_s() -> Iterator[float]:
    """How long to wait before each try."""
    for delay_s in itertools.chain((0.0, 0.1, 0.3, 1.0), itertools.repeat(2.0)):
        yield delay_s * random.uniform(0.8, 1.2)  # noqa: S311 - so that clients do not come all at once


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


class BaseSession(Duplex[InputT, ResponseT, EventT]):
    """A session, open between `__aenter__` and `__aexit__`.

    Leaving the block normally ends the input, waits until the gateway has finished everything that was sent, and
    raises the session's failure if nothing has raised it before. Leaving it by an exception, cancellation included,
    ends the session at once, at the gateway too. Whoever wants out early without an exception calls `discard`.

    A lost connection is made again within the granted `resume_window_s`: what was sent arrives once, what was said is
    delivered once, in order, with a `SessionResumed` in between. Meanwhile up to 1 MiB of input is taken. When it
    cannot be resumed, `ConnectionLostError` says what was lost. A gateway that shuts down is left for another one, at a
    point where nothing is lost or repeated, with a `SessionMoved`; sessions have another `session_id` from there on.
    """

    def __init__(
        self,
        channels: Channels,
        request_type: Callable[..., InputT],
        start: Any,
        *,
        resume_window_s: float,
        move: bool,
        open_timeout_s: float | None,
        buffer_limit_bytes: int | None,
    ) -> None:
        super().__init__(buffer_limit_bytes=buffer_limit_bytes)
        self._channels = channels
        self._make_request = request_type
        self._start_message = start
        if resume_window_s:
            start.resume_window.CopyFrom(duration(resume_window_s))
        self._resume_window_s = resume_window_s  # asked for; then, what was granted
        self._move_wanted = move
        self._open_timeout_s = open_timeout_s
        self._entered = False
        self._openings: dict[Line[InputT, ResponseT], asyncio.Future[ResponseT]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log: InputLog[InputT] = InputLog()
        self._unfinished: deque[Unfinished] = deque()
        self._last_received_sequence = 0
        self._started: SessionStarted | None = None
        self._settings: SynthesisSettings | TranscriptionSettings | None = None
        self._settings_message: types_pb2.EffectiveSettings | None = None  # the same, for a session elsewhere
        self.settings_revision = 0
        """Counts the changes of settings, this session's own and others'; 1 at the start, and again after a move."""
        self._acks: dict[str, SettingsAck | None] = {}
        self._update_numbers = itertools.count(1)
        # Survival.
        self._resuming: asyncio.Task[None] | None = None
        self._outage: tuple[float, Iterator[float]] | None = None
        """Since when nothing has come, over any number of calls, and when to try again."""
        self._moving: asyncio.Task[None] | None = None
        self._successor: tuple[Line[InputT, ResponseT], ResponseT, Any] | None = None
        """A session that is open elsewhere, and the start that it was opened with."""
        self._given_up = False
        """Whether the session at the gateway is over before its work is done; its last words wait then:"""
        self._last_words: tuple[SessionEnded | None, WavegateError | None] = (None, None)
        self._moves = 0
        self.ended: SessionEnded | None = None
        """How it ended, with its totals (since the last move); `None` until then."""
        self.go_away: GoAway | None = None
        """The gateway's notice that it will shut down; `None` until then, and again once the session has moved."""

    def __repr__(self) -> str:
        if self._finished:
            state = "ENDED"
        elif self._input_ended:
            state = "ENDING"
        elif self._started is not None:
            state = "OPEN"
        else:
            state = "OPENING" if self._entered else "NEW"
        name = self._started.session_id if self._started else "-"
        return f"<{type(self).__name__} {state} {name} inputs={self._log.last_sequence}>"

    # --- what a kind of session says ------------------------------------------------------------

    @abstractmethod
    def _open_call(self, channel: Channel, metadata: Metadata) -> StreamCall[InputT, ResponseT]:
        """Makes the call."""

    @abstractmethod
    def _convert(self, response: ResponseT) -> EventT | None:
        """The event of a response, if this client knows its kind."""

    @abstractmethod
    def _note(self, event: Any) -> EventT | None:
        """Takes note of an event of this kind of session; gives what the caller shall see of it."""

    @abstractmethod
    def _keep(self, kind: str, message: Any) -> None:
        """Puts an input among the unfinished, if another session would need it."""

    @abstractmethod
    def _is_idle(self) -> bool:
        """Whether another session can go on from here."""

    @abstractmethod
    def _can_move(self) -> bool:
        """Whether it can at all."""

    @abstractmethod
    def _start_elsewhere(self) -> Any:
        """The start of a session that goes on where this one stands."""

    @abstractmethod
    def _carry_over(self) -> float:
        """Prepares the unfinished input for another session; the playing time of the audio that is lost."""

    @abstractmethod
    def _what_is_lost(self) -> str:
        """What will not come where this session is lost; empty for nothing."""

    # --- beginning and end ----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Opens the session; returns once the upstream has accepted it.

        Raises `GatewayUnavailableError` where there is no gateway, `DeadlineError` after `open_timeout_s`, and
        otherwise what the gateway or the upstream says against it.
        """
        if self._entered:
            raise RuntimeError("a session is opened once; make another one")
        self._entered = True
        try:
            async with asyncio.timeout(self._open_timeout_s):
                line, response = await self._open_somewhere(self._start_message)
        except TimeoutError as exc:
            await self._stop()
            raise DeadlineError(
                f"the gateway at {self._channels.current.target} did not open the session "
                f"in {self._open_timeout_s} s",
                code="DEADLINE_EXCEEDED",
            ) from exc
        except BaseException:
            await self._stop()
            raise
        self._log.add(self._make_request, start=self._start_message)
        if (event := self._receive(response)) is not None:
            self._deliver(event)
        self._attach(line)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Finishes the session, or after an exception ends it at once. See the class."""
        try:
            if exc_type is None:
                if not self._finished and not self._input_ended:
                    with contextlib.suppress(SessionClosedError):  # it has ended by itself meanwhile
                        await self.end()
                await self._drain()
        finally:
            await self._stop()

    async def end(self) -> None:
        """Says that no input follows. What was sent is finished; the events go on until `SessionEnded`."""
        await self._send(end_session=types_pb2.EndSession())

    async def discard(self) -> None:
        """Ends the session now: what is not finished is dropped. `SessionEnded` still follows."""
        await self._send(end_session=types_pb2.EndSession(discard=True))

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

    def _on_response(self, line: Line[InputT, ResponseT], response: ResponseT) -> bool:
        if line in self._openings:
            return self._on_opening(line, response)
        if line is not self._line or response.sequence <= self._last_received_sequence:
            return False
        event = self._receive(response)
        if event is not None:
            self._deliver(event)
        self._notify()
        if self._successor is not None and self._is_idle():
            self._move_over()
        return self.ended is not None or self._last_words[0] is not None

    def _receive(self, response: ResponseT) -> EventT | None:
        self._last_received_sequence = response.sequence
        self._outage = None
        self._log.acknowledge(response.acknowledged_input_sequence)
        event = self._convert(response)
        if isinstance(event, SessionStarted):
            self._started = event
            self._adopt(event, response.session_started)
            self._resume_window_s = event.limits.resume_window_s
            if not self._resume_window_s:
                self._log.keep_nothing()
        elif isinstance(event, SettingsAck):
            if event.state == "APPLIED" and event.settings is not None:
                self._adopt(event, response.settings_ack)
            if event.state != "QUEUED":
                self._settle(("update", event.update_id))
                if event.update_id in self._acks:
                    self._acks[event.update_id] = event
        elif isinstance(event, GoAway):
            self.go_away = event
            if not event.resumable:
                self._begin_moving(event.time_left_s)
        elif isinstance(event, SessionEnded):
            if event.reason == "DRAIN" and self._can_move():
                # Its time is up. What it has not brought to an end goes on elsewhere.
                self._last_words = (event, event.error)
                self._begin_moving(0.0)
                return None
            self.ended = event
        return None if event is None else self._note(event)

    def _adopt(
        self, event: SessionStarted | SettingsAck, message: types_pb2.SessionStarted | types_pb2.SettingsAck
    ) -> None:
        """Takes note of the settings in force."""
        self._settings, self.settings_revision = event.settings, event.settings_revision
        self._settings_message = message.settings

    def _finish(self, failure: WavegateError | None) -> None:
        for task in (self._resuming, self._moving):
            if task is not None:
                task.cancel()
        if self._successor is not None:
            self._spawn(self._retire(self._successor[0]))
            self._successor = None
        # What `session_ended` says counts: the call's own status is lost where the gateway ends it while we write.
        super()._finish(self.ended.error if self.ended else failure)

    # --- input ----------------------------------------------------------------------------------

    async def _send(self, **arm: Any) -> int:
        """Sends one input; returns its number, once it has gone or, while there is no call, is kept."""
        self._check_open()
        assert self._line is not None
        request = self._log.add(self._make_request, **arm)
        sequence = self._log.last_sequence
        ((kind, message),) = arm.items()
        if kind == "end_session":
            self._input_ended = True
            self._unfinished.append(Unfinished("end", kind, message))
        elif kind == "update_settings":
            self._unfinished.append(Unfinished(("update", message.update_id), kind, message))
        else:
            self._keep(kind, message)
        await self._taken(self._line, self._line.put(request))
        return sequence

    def _is_taken(self, line: Line[InputT, ResponseT], number: int) -> bool:
        # What another call has to send again is in good hands as soon as there is one.
        is_kept = line.over and self._log.kept_bytes < KEPT_BYTES
        return line.written >= number or line is not self._line or is_kept

    def _settle(self, key: Hashable) -> None:
        """What belongs to `key` has come to its end."""
        self._unfinished = deque(item for item in self._unfinished if item.key != key)

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

    # --- opening --------------------------------------------------------------------------------

    async def _open_somewhere(self, start: Any) -> tuple[Line[InputT, ResponseT], ResponseT]:
        """Opens a session on the first target that takes it; raises what the last one says against it.

        Where that is a gateway that shuts down, all are asked again a few times: a balancer may need a second until it
        leads elsewhere.
        """
        for delay_s in DRAINING_DELAYS_S:
            try:
                return await self._open_once(start)
            except GatewayUnavailableError as exc:
                if exc.reason != "GATEWAY_DRAINING":
                    raise
            await asyncio.sleep(delay_s * random.uniform(0.8, 1.2))  # noqa: S311 - not all at once
        return await self._open_once(start)

    async def _open_once(self, start: Any) -> tuple[Line[InputT, ResponseT], ResponseT]:
        """Opens a session on the first target that takes it; raises what the last one says against it."""
        channels = self._channels.candidates()
        fresh_ones = 0
        while True:
            channel = channels.pop(0)
            try:
                opened = await self._open(channel, start)
            except GatewayUnavailableError as exc:
                if exc.reason == "GATEWAY_DRAINING" and (fresh := await self._channels.leave(channel)):
                    # Behind the same address there may be another process; one look is enough.
                    fresh_ones += 1
                    if fresh_ones <= len(self._channels.candidates()):
                        channels.append(fresh)
                if not channels:
                    raise
            else:
                self._channels.prefer(channel)
                return opened

    async def _open(self, channel: Channel, start: Any) -> tuple[Line[InputT, ResponseT], ResponseT]:
        """Opens a session. One whose call is lost before the upstream has accepted it is resumed."""
        line = self._begin(channel, start)
        try:
            return line, await self._opened(line)
        except ConnectionLostError:
            if not (line.session_id and self._resume_window_s):
                raise
            line, response, _ = await self._take_up(
                line, line.session_id, 0, self._resume_window_s, _delays_s()
            )
            return line, response

    async def _take_up(
        self,
        lost: Line[InputT, ResponseT],
        session_id: str,
        last_received_sequence: int,
        window_s: float,
        delays_s: Iterator[float],
    ) -> tuple[Line[InputT, ResponseT], ResponseT, int]:
        """Resumes the session of a lost call; gives also how many tries it took. Raises what made the last one fail."""
        start = type(self._start_message)(
            resume_session_id=session_id, last_received_sequence=last_received_sequence
        )
        failure = GatewayUnavailableError(f"the gateway at {lost.channel.target} does not answer")
        try:
            async with asyncio.timeout(window_s):
                for attempt, delay_s in enumerate(delays_s, 1):
                    await asyncio.sleep(delay_s)
                    line = self._begin(lost.channel, start, lost.route)
                    try:
                        return line, await self._opened(line, RESUME_TRY_S), attempt
                    except GatewayUnavailableError as exc:
                        failure = exc
                    except DeadlineError:
                        continue
        except TimeoutError:
            pass
        raise failure

    def _begin(self, channel: Channel, start: Any, route: str = "") -> Line[InputT, ResponseT]:
        line = Line(self, channel, self._open_call(channel, channel.metadata(route)), route)
        self._openings[line] = asyncio.get_running_loop().create_future()
        line.put(self._make_request(input_sequence=1, start=start))
        return line

    async def _opened(self, line: Line[InputT, ResponseT], patience_s: float | None = None) -> ResponseT:
        """Waits for the first answer; nothing more is read until the line is attached.

        Raises `DeadlineError` where none comes in time, and leaves the session to another call then.
        """
        try:
            await asyncio.wait([self._openings[line]], timeout=patience_s)
            if not self._openings[line].done():
                raise DeadlineError(f"the gateway at {line.channel.target} does not answer")
            return self._openings[line].result()
        except WavegateError:
            self._spawn(line.stop())
            raise
        except BaseException:
            self._spawn(self._retire(line))
            raise
        finally:
            del self._openings[line]

    def _on_opening(self, line: Line[InputT, ResponseT], response: ResponseT) -> bool:
        event = self._convert(response)
        opening = self._openings[line]
        if opening.done():
            return False
        if isinstance(event, SessionEnded):
            opening.set_exception(event.error or SessionClosedError("the session ended before it was open"))
            return True
        # Of a session that is resumed before it was open the first answer, number 0, says little.
        if isinstance(event, SessionStarted) and response.sequence:
            line.session_id = event.session_id
            line.flow.clear()
            opening.set_result(response)
        return False

    def _attach(self, line: Line[InputT, ResponseT]) -> None:
        self._line = line
        self._update_flow()
        self._notify()
        if line.over:
            self._on_over(line, line.failure)

    # --- surviving ------------------------------------------------------------------------------

    def _on_over(self, line: Line[InputT, ResponseT], failure: WavegateError | None) -> None:
        if failure is None and not line.cancelled:
            failure = ConnectionLostError(
                f"the gateway at {line.channel.target} ended the call without a last word; open a new session",
                code="UNAVAILABLE",
            )
        if line in self._openings:
            if not self._openings[line].done():
                self._openings[line].set_exception(failure or SessionClosedError("the client was closed"))
        elif line is not self._line or self._finished:
            return
        elif self.ended is not None or line.cancelled:
            self._finish(failure)
        elif self._last_words[0] is not None:
            self._give_up(*self._last_words)
        elif not isinstance(failure, ConnectionLostError):
            self._finish(failure)
        elif self._log.is_kept and not (self._moving is not None and self._is_idle()):
            self._resuming = self._spawn(self._resume(line, failure))
            self._notify()  # whose input was not written yet need not wait: the next call sends it again
        else:
            self._give_up(None, self._told_what_is_lost(failure, None))

    async def _resume(self, lost: Line[InputT, ResponseT], failure: WavegateError) -> None:
        now_s = began_s = asyncio.get_running_loop().time()
        if self._outage is None:
            self._outage = now_s, _delays_s()
        since_s, delays_s = self._outage
        window_s = self._resume_window_s if self._moving is None else MOVING_RESUME_S
        try:
            line, response, attempts = await self._take_up(
                lost,
                self.session_id,
                self._last_received_sequence,
                since_s + window_s - now_s,
                delays_s,
            )
        except Exception as exc:  # whoever waits must hear of it, whatever it is
            self._resuming = None
            why = exc if isinstance(exc, WavegateError) else WavegateError(str(exc), code="INTERNAL")
            self._give_up(None, self._told_what_is_lost(failure, why))
            return
        self._resuming = None
        self._spawn(lost.stop())
        self._log.acknowledge(response.session_started.input_sequence_acknowledged)
        for request in self._log.unacknowledged():
            line.put(request)
        outage_s = asyncio.get_running_loop().time() - began_s
        self._deliver(SessionResumed(self.session_id, outage_s, attempts, failure))
        self._attach(line)

    def _give_up(self, event: SessionEnded | None, failure: WavegateError | None) -> None:
        """The session at the gateway is over. If another one can be had, that goes on; else this is the end."""
        self._given_up = True
        self._last_words = (event, failure)
        if self._moving is None:
            self._say_last_words()
        elif self._successor is not None:
            self._move_over()
        self._notify()

    def _say_last_words(self) -> None:
        event, failure = self._last_words
        if event is not None:
            self.ended = event
            if (seen := self._note(event)) is not None:
                self._deliver(seen)
        self._finish(failure)

    def _told_what_is_lost(self, failure: WavegateError, why: WavegateError | None) -> ConnectionLostError:
        message = failure.message
        if why is not None:
            message += f"\n  it could not be resumed: {why.message}"
        if what := self._what_is_lost():
            message += f"\n  lost: {what}"
        error = ConnectionLostError(message, code="UNAVAILABLE", reason=why.reason if why else "")
        error.__cause__ = why or failure
        return error

    def _begin_moving(self, time_left_s: float) -> None:
        if self._moving is None and self._can_move():
            self._moving = self._spawn(self._move(time_left_s))

    async def _move(self, time_left_s: float) -> None:
        """Opens a session elsewhere, and waits until it may follow this one."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + time_left_s + MOVE_PATIENCE_S
        assert self._line is not None
        await self._channels.leave(self._line.channel)
        for delay_s in _delays_s():
            await asyncio.sleep(delay_s)
            if loop.time() >= deadline_s:
                break
            # Where it can follow at once, what it starts from must not change until it does.
            self._pause(self._is_between())
            start = self._start_elsewhere()
            try:
                async with asyncio.timeout(OPEN_ELSEWHERE_S):
                    self._successor = (*await self._open_somewhere(start), start)
            except Exception:  # the next try may do better, and the session lives on meanwhile
                self._pause(False)
                continue
            if self._is_between():
                self._move_over()
            while self._successor is not None:
                await self._changed()
            if self._moving is None:
                return
        self._moving = None
        self._pause(False)
        if self._given_up:
            self._say_last_words()

    def _is_between(self) -> bool:
        return self._given_up or self._is_idle()

    def _pause(self, paused: bool) -> None:
        self._paused = paused
        self._update_flow()

    def _move_over(self) -> None:
        """Lets the session that was opened elsewhere follow this one."""
        assert self._successor is not None
        line, response, start = self._successor
        self._successor = None
        if line.over or start != self._start_elsewhere():
            # It was lost, or the settings have changed since: `_move` opens another one.
            self._pause(True)
            self._spawn(self._retire(line))
            self._notify()
            return
        left, was = self._line, self.started
        assert left is not None
        lost_audio_s = self._carry_over()
        self._log = InputLog()
        self._log.add(self._make_request, start=start)
        self._receive(response)
        for item in self._unfinished:
            line.put(self._log.add(self._make_request, **{item.kind: item.message}))
        self._spawn(left.stop() if self._given_up else self._retire(left))
        if self._resuming is not None:
            self._resuming.cancel()
        self._resuming = self._moving = self.go_away = None
        self._given_up, self._last_words = False, (None, None)
        self._moves += 1
        self._paused = False
        self._deliver(SessionMoved(self.started, was.session_id, line.channel.target, lost_audio_s))
        self._attach(line)

    # --- leaving --------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _retire(self, line: Line[InputT, ResponseT]) -> None:
        """Ends a session that is not wanted any more, at the gateway too, which would keep it for its window."""
        try:
            last = self._make_request(end_session=types_pb2.EndSession(discard=True))
            if self._resume_window_s and not await line.discard(last) and line.session_id:
                # It takes no more input, or has no call: it is ended from outside.
                request = session_service_pb2.CloseSessionRequest(session_id=line.session_id, discard=True)
                with contextlib.suppress(WavegateError):
                    await line.channel.unary(
                        line.channel.sessions.CloseSession, request, CLOSE_TIMEOUT_S, route=line.route
                    )
        finally:
            await line.stop()

    async def _stop(self) -> None:
        """Ends what is not over yet, and all tasks, within a few seconds."""
        line = self._line
        if line is not None:
            if self._finished:
                await line.stop()
            else:
                self._finish(None)
                await self._retire(line)
        for task in (self._resuming, self._moving):
            if task is not None:
                task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
