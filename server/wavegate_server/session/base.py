"""What both kinds of session share: identity, settings, the event log, timers, watchers, the end.

A session is driven by one task, `run`, which ends when the session has. Everything else — commands from the
caller's stream, deltas from the control plane, frames from upstream — changes its state in plain synchronous
calls on the same loop and wakes that task. So no lock is needed, and no order can be observed half done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Any, ClassVar

from wavegate_server import errors
from wavegate_server.audio import AudioFormat
from wavegate_server.errors import WavegateError
from wavegate_server.session.clock import session_clock, timer_slack_s
from wavegate_server.session.context import SessionContext, endpoint_of
from wavegate_server.session.events import (
    AckState,
    ApplyPolicy,
    ConnectionChanged,
    EndReason,
    EndSession,
    GoingAway,
    SessionEnded,
    SessionLimits,
    SessionStarted,
    SettingsAcknowledged,
    UpdateSettings,
    Upstream,
    Usage,
    WarningRaised,
)
from wavegate_server.session.ledger import SettingsLedger
from wavegate_server.session.log import Entry, EventLog
from wavegate_server.session.tracing import SessionTrace
from wavegate_server.session.transport import Timings, Transport
from wavegate_server.telemetry import Attribute, Span, milliseconds, names
from wavegate_server.waves.settings import Settings

logger = logging.getLogger(__name__)

APPLY_WITHIN_S = 5.0
"""A delta that waits for a boundary is applied after this time at the latest (contract, `ApplyPolicy`)."""
MAX_HELD_UPDATES = 256
"""Deltas of one session that wait for an input sequence; more are refused."""

Listener = Callable[[Any], None]
"""Called with SettingsAcknowledged, ConnectionChanged and SessionEnded; must not raise or block."""


class State(Enum):
    """The contract's `Session.State`."""

    CONNECTING = "CONNECTING"
    ACTIVE = "ACTIVE"
    RECONNECTING = "RECONNECTING"
    DRAINING = "DRAINING"
    DETACHED = "DETACHED"


class Alarm:
    """One timer that is moved often: it is re-armed only when it must ring earlier, else when it rings."""

    def __init__(self, ring: Callable[[float], None]) -> None:
        """`ring` is called with the time on the session's clock."""
        self._ring = ring
        self._now = session_clock()
        self._slack_s = timer_slack_s()
        self._due: float | None = None
        self._armed_for = 0.0
        """When the handle rings. Handles of other loops cannot be asked."""
        self._handle: asyncio.TimerHandle | None = None

    def set(self, due: float | None) -> None:
        """Ring at `due` on the session's clock; None for not at all."""
        self._due = due
        if due is None:
            return
        if self._handle is None or due < self._armed_for:
            if self._handle is not None:
                self._handle.cancel()
            self._armed_for = due
            self._handle = asyncio.get_running_loop().call_at(due + self._slack_s, self._rang)

    def look_by(self, due: float) -> None:
        """Ring at `due` at the latest."""
        if self._due is None or due < self._due:
            self.set(due)

    def cancel(self) -> None:
        self._due = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _rang(self) -> None:
        self._handle = None
        now = self._now()
        if self._due is None:
            return
        if now < self._due:
            self.set(self._due)
            return
        self._due = None
        self._ring(now)


def _parts(timings: Timings | None) -> dict[str, Attribute]:
    """What opening a connection took, in milliseconds."""
    if timings is None:
        return {}
    parts: dict[str, Attribute] = {
        names.UPSTREAM_DNS_MS: milliseconds(timings.dns_s),
        names.UPSTREAM_TCP_MS: milliseconds(timings.tcp_s),
        names.UPSTREAM_UPGRADE_MS: milliseconds(timings.upgrade_s),
    }
    if timings.tls_s is not None:
        parts[names.UPSTREAM_TLS_MS] = milliseconds(timings.tls_s)
    return parts


class Link:
    """One upstream connection of a session and what is known of it."""

    def __init__(
        self, transport: Transport, url: str, index: int, span: Span, opened_at: float, handshake_s: float
    ) -> None:
        self.transport = transport
        self.url = url
        self.endpoint = endpoint_of(url)
        self.index = index
        self.span = span
        self.opened_at = opened_at
        self.handshake_s = handshake_s
        self.delivered = False
        """Whether anything useful ever came over it."""
        self.progressed = False
        """Whether it delivered something new: audio, words or a transcript that no connection before it had."""
        self.receiver: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} #{self.index} {self.endpoint}>"

    def release(self, error: WavegateError | None = None, *, in_order: bool = False) -> None:
        """Cut the connection, or take leave of it, and end its span. Waits for nothing."""
        if in_order:
            self.transport.leave()
        else:
            self.transport.abort()
        if error is not None:
            self.span.fail(error.reason)
        self.span.end()
        if self.receiver is not None and self.receiver is not asyncio.current_task():
            self.receiver.cancel()


class Session(ABC):
    """One live session. Made by a servicer, kept in the registry until it has ended."""

    kind: ClassVar[str]
    """`tts` or `stt`, for spans and metrics."""

    def __init__(
        self,
        context: SessionContext,
        audio_format: AudioFormat,
        ledger: SettingsLedger,
        log: EventLog,
        trace: SessionTrace,
    ) -> None:
        self.context = context
        try:
            self.target = context.upstreams.choose(self.kind, ledger.settings.get("language_code", ""))
        except WavegateError as exc:
            trace.refused(exc)
            raise
        """The account that it uses, and where that is spoken to."""
        self.audio_format = audio_format
        self.ledger = ledger
        self.log = log
        self.trace = trace
        self.state = State.CONNECTING
        self.created_at = time.time()
        self.last_activity_at = self.created_at
        self.ended_at: float | None = None
        self.input_sequence = 0
        """Number of the newest message of the caller that was processed."""
        self.reconnect_count = 0
        self.connection_index = -1
        self.ended: SessionEnded | None = None
        self._ending: EndSession | None = None
        self._end_reason: EndReason | None = None
        self._failure: WavegateError | None = None
        self._wake = asyncio.Event()
        # Bound once: on Python 3.11 each `get_running_loop` is a system call (getpid).
        self._now = session_clock()
        self._heard_at = self._now()
        self._arrived_at = self._heard_at
        """When the message that is being processed was read, on the session's clock; traces have the same moment."""
        self._alarm = Alarm(self._on_alarm)
        self._listeners: dict[str, list[Listener]] = {}
        self._watchers: list[Listener] = []
        self._held: list[UpdateSettings] = []
        self._queued_sent: set[str] = set()
        self.resume_window_s = 0.0
        """How long a lost call leaves the session detached; 0: its end is the session's."""
        self._handed_over = 0
        """Number of the newest event that the caller's transport has."""
        self._driver: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.detached = False
        """Whether no call is attached, and one may still come."""
        self._early: list[Any] | None = []
        """What there is to say before `SessionStarted`, which comes first; None once that is said."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.context.session_id} {self.state.name} {self.log!r}>"

    @property
    def session_id(self) -> str:
        return self.context.session_id

    # -- for servicers ----------------------------------------------------------------------------------------

    def grant_resume(self, wanted_s: float) -> None:
        """Let the session outlive a lost call, for as long as was asked and is allowed. Before `start`."""
        self.resume_window_s = min(max(0.0, wanted_s), self.context.bounds.max_resume_window_s)
        if self.resume_window_s:
            self.log.keep()

    @property
    def driver(self) -> asyncio.Task[None] | None:
        """The task that drives the session; None before `start`."""
        return self._driver

    @property
    def discarding(self) -> bool:
        """Whether the caller gave up what is pending: such a session is never resumed."""
        return self._ending is not None and self._ending.discard

    def start(self) -> asyncio.Task[None]:
        """Begin to drive the session, in a task of its own: the session may outlive the call that opened it."""
        self._driver = asyncio.create_task(self.run(), name=f"drive {self.session_id}")
        return self._driver

    async def cut(self) -> None:
        """End at once, without a word to the caller: it has gone. The upstream is cut."""
        if self._driver is not None:
            self._driver.cancel()
            await asyncio.wait({self._driver})
        self.trace.close()

    def detach(self, expired: Callable[[], None]) -> None:
        """The caller's call was lost. `expired` is called if nobody resumes the session in its window."""
        self.detached = True
        self._expiry = asyncio.get_running_loop().call_later(self.resume_window_s, expired)

    def reattach(self, last_received_sequence: int) -> None:
        """A caller takes the session up again, after event number `last_received_sequence`.

        Raises `errors.ResumeGap` where it missed more than is still held.
        """
        self.log.rewind(last_received_sequence)
        self.forget_caller()
        self.detached = False
        self._heard_at = self._now()

    def forget_caller(self) -> None:
        """Wait no longer for the caller that was lost."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def resumed_event(self, trace_id: str) -> SessionStarted:
        """The first event of a call that resumes the session."""
        return replace(
            self._started(),
            resumed=True,
            trace_id=trace_id,
            input_sequence_acknowledged=self.input_sequence,
        )

    async def run(self) -> None:
        """Drive the session to its end. Returns normally, also when the session failed.

        Cancelling it is the caller's vanishing: the upstream is cut at once, nothing more is said.
        """
        self.target.account.sessions[self.kind] += 1
        try:
            await self._drive()
        except WavegateError as exc:
            self._break_off(exc)
        except asyncio.CancelledError:
            # Nobody reads this session's stream any more, but those who watch it are still to be told.
            self._finish(EndReason.FAILURE, errors.SessionClosed("the client ended its call, or was lost"))
            raise
        except Exception:
            logger.exception("session failed unexpectedly")
            self._break_off(
                errors.GatewayBug("the gateway failed; its log has the details under this session's trace id")
            )
        finally:
            self._alarm.cancel()
            self._release()
            self.target.account.sessions[self.kind] -= 1

    def submit(self, command: Any, input_sequence: int, received_ns: int | None = None) -> None:
        """Process the caller's message number `input_sequence`, which came at `received_ns` (nanoseconds since the
        Unix epoch; None: now).

        Raises `errors.InvalidInput` or `errors.MessageOrder` where the message ends the call.
        """
        if self.ended is not None or (self._ending is not None and not isinstance(command, EndSession)):
            return
        now = self._now()
        self._heard_at = self._arrived_at = now
        self.last_activity_at = time.time()
        self.input_sequence = input_sequence
        now_ns = time.time_ns()
        if received_ns is not None:
            self._arrived_at -= max(0, now_ns - received_ns) * 1e-9
        self.log.at_ns = received_ns if received_ns is not None else now_ns
        match command:
            case EndSession():
                self.end(command)
            case UpdateSettings():
                self.update_settings(command)
            case _:
                self._handle(command, now)
        self._release_held()
        self._wake.set()  # the driver sets the alarm anew

    async def ready(self) -> None:
        """Wait until another message of the caller may be processed: the bound on what waits."""
        return

    def end(self, command: EndSession) -> None:
        """No more input. The first reason given wins; a later `discard` still cuts the rest short."""
        if self._ending is None:
            reason = EndReason.CLIENT_HALF_CLOSE if command.by_half_close else EndReason.CLIENT_END
            self._end_reason = self._end_reason or reason
            self._ending = command
        elif command.discard:
            self._ending = command
        self._wake.set()

    def close_by_operator(self, discard: bool) -> None:
        """End from outside, as `CloseSession` does. With `discard` the session's own call is ABORTED."""
        if self.ended is not None:
            return
        self._end_reason = EndReason.CLOSED_BY_OPERATOR
        if discard:
            self._failure = errors.SessionClosed("the session was closed from outside (CloseSession)")
        self.end(EndSession(discard=discard))

    def go_away(self, time_left_s: float) -> None:
        """Tell the caller that the gateway stops in `time_left_s` seconds. A session does not move to another
        process, so it cannot be resumed elsewhere."""
        if self.ended is None:
            self._emit(GoingAway(time_left_s, errors.GatewayDraining.reason))

    def fail(self, error: WavegateError, reason: EndReason = EndReason.FAILURE) -> None:
        """End the session because of `error`: the caller broke the contract, or the gateway stops."""
        if self.ended is None:
            self._failure = self._failure or error
            self._end_reason = reason
            self.end(EndSession(discard=True))

    def update_settings(
        self, update: UpdateSettings, listener: Listener | None = None, span: Span | None = None
    ) -> None:
        """Take a delta. `listener` gets its acks, beside the session's own stream; `span` is the call that it came
        by, where that is another one."""
        now = self._now()
        if self.ended is not None or self._ending is not None:
            ack = self._step(update, AckState.SESSION_ENDED)
            if listener is not None:
                listener(ack)
            else:
                self._emit(ack)
            return
        if self.ledger.seen(update.update_id):
            self._repeated(update, listener)
            return
        self.ledger.remember(update.update_id)
        self.trace.update(update, span)
        if listener is not None:
            self._listeners.setdefault(update.update_id, []).append(listener)
        waits = update.after_input_sequence is not None and update.after_input_sequence > self.input_sequence
        if not waits and update.policy is ApplyPolicy.IMMEDIATE:
            while self._held:
                self._take_update(self._held.pop(0), now)  # it pulls along what waits
        if waits or self._held:
            # Deltas apply in the order in which they came, so one that waits holds those behind it.
            if len(self._held) >= MAX_HELD_UPDATES:
                error = errors.InvalidInput(f"more than {MAX_HELD_UPDATES} deltas are waiting")
                self._acknowledge(self._step(update, AckState.REJECTED, error))
                return
            self._held.append(update)
            self._acknowledge(self._step(update, AckState.QUEUED))
            return
        self._take_update(update, now)
        self._rearm()
        self._wake.set()

    def watch(self, watcher: Listener) -> None:
        """Report acks, connection changes and the end to `watcher` from now on."""
        if watcher not in self._watchers:
            self._watchers.append(watcher)

    def unwatch(self, watcher: Listener) -> None:
        """Stop reporting to `watcher`, as a watcher and as a listener."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)
        for listeners in self._listeners.values():
            while watcher in listeners:
                listeners.remove(watcher)

    @abstractmethod
    def usage(self) -> Usage:
        """Totals so far."""

    @abstractmethod
    def upstream(self) -> Upstream:
        """The upstream's identifiers as known now."""

    def handing_over(self, event: Any) -> None:
        """`event` is about to be handed to the caller's transport."""
        return

    def handed_over(self, entry: Entry, sequence: int, handed_ns: int, end_ns: int) -> None:
        """The caller's transport has event number `sequence`, which it was handed at `handed_ns` and had taken at
        `end_ns` (nanoseconds since the Unix epoch)."""
        self.delivered(entry.event)
        if sequence > self._handed_over:  # else it had that before, and lost it
            self._handed_over = sequence
            self.trace.handed_over(entry, sequence, handed_ns, end_ns)

    def delivered(self, event: Any) -> None:
        """`event` was handed to the caller's connection."""
        return

    # -- for subclasses ---------------------------------------------------------------------------------------

    @abstractmethod
    async def _drive(self) -> None:
        """Run until `_finish` was called."""

    def _break_off(self, error: WavegateError) -> None:
        """Say the last words after `error` ended the driving task."""
        self._finish(EndReason.FAILURE, error)

    @abstractmethod
    def _handle(self, command: Any, now: float) -> None:
        """Process a command of this kind of session."""

    @abstractmethod
    def _take_update(self, update: UpdateSettings, now: float) -> None:
        """Assess a delta and apply or queue it."""

    @abstractmethod
    def _due(self) -> float | None:
        """When `_on_due` wants to be called next."""

    @abstractmethod
    def _on_due(self, now: float) -> None:
        """Something may be due."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of the upstream, at once. Called exactly once, whatever happened."""

    @abstractmethod
    def _busy(self) -> bool:
        """Whether the session works on something, so that a silent caller is no idle one."""

    def _emit(self, event: Any, audio_s: float = 0.0) -> None:
        """Put an event on the session's stream, and tell those who watch.

        What is said before the session has started waits until it has; where it never starts, it is dropped.
        """
        self.trace.said(event)
        if isinstance(event, SessionStarted):
            self.log.append(event, self.input_sequence)
            early, self._early = self._early or [], None
            for said in early:
                self.log.append(said, self.input_sequence)
        elif self._early is None or isinstance(event, SessionEnded):
            self.log.append(event, self.input_sequence, audio_s)
        else:
            self._early.append(event)
        if self._watchers and isinstance(event, ConnectionChanged | SessionEnded):
            for watcher in list(self._watchers):
                watcher(event)

    def _step(
        self, update: UpdateSettings, state: AckState, error: WavegateError | None = None
    ) -> SettingsAcknowledged:
        """A step of a delta that the ledger was not given, with the settings in force."""
        ledger = self.ledger
        return SettingsAcknowledged(
            update.update_id,
            state,
            settings_revision=ledger.revision,
            settings=ledger.settings,
            error=error,
        )

    def _acknowledge(self, ack: SettingsAcknowledged) -> None:
        """Send an ack everywhere it belongs, QUEUED at most once."""
        if ack.state is AckState.QUEUED:
            if ack.update_id in self._queued_sent:
                return
            self._queued_sent.add(ack.update_id)
        else:
            self._queued_sent.discard(ack.update_id)
            self.ledger.finish(ack)
        self._emit(ack)
        told = list(self._listeners.get(ack.update_id, ()))
        if ack.state.terminal:
            self._listeners.pop(ack.update_id, None)
        for listener in [*told, *(w for w in self._watchers if w not in told)]:
            listener(ack)

    def _warn(self, reason: str, message: str, utterance_id: str = "", **metadata: str) -> None:
        self._emit(WarningRaised(reason, message, metadata, utterance_id))

    def _started(self) -> SessionStarted:
        bounds = self.context.bounds
        speaks = self.kind == "tts"
        return SessionStarted(
            session_id=self.session_id,
            audio_format=self.audio_format,
            settings=self.ledger.settings,
            settings_revision=self.ledger.revision,
            limits=SessionLimits(
                client_idle_timeout_s=bounds.idle_timeout_s,
                resume_window_s=self.resume_window_s,
                max_text_message_chars=bounds.max_text_message_chars if speaks else 0,
                max_buffered_chars=bounds.max_buffered_chars if speaks else 0,
                max_audio_message_bytes=0 if speaks else bounds.max_audio_message_bytes,
                max_concurrent_sessions=self.context.max_concurrent_sessions,
                active_sessions=self.context.active_sessions,
            ),
            trace_id=self.context.span.trace_id,
        )

    def _finish(self, reason: EndReason, error: WavegateError | None) -> None:
        """Say the last word and close the log. Only the first call counts."""
        if self.ended is not None:
            return
        for update in self._held:
            self._acknowledge(self._step(update, AckState.SESSION_ENDED))
        self._held = []
        for ack in self.ledger.session_ended():
            self._acknowledge(ack)
        self.ended_at = time.time()
        self.ended = SessionEnded(reason, error, self.usage())
        self._emit(self.ended)
        self.log.close()
        self._wake.set()

    def _adopt(self, url: str, transport: Transport) -> Link:
        """A connection that was opened ahead, as the session's next one."""
        context = self.context
        span = context.telemetry.connection_span(context.span, self.kind, endpoint_of(url), 1)
        self.connection_index += 1
        span.set({names.UPSTREAM_REUSED: True, names.UPSTREAM_INDEX: self.connection_index})
        return Link(transport, url, self.connection_index, span, self._now(), 0.0)

    def _choose_target(self, settings: Settings) -> None:
        """Choose where the next connection goes: another account only where the key of the one in use is gone."""
        before = self.target.account
        self.target = self.context.upstreams.choose(self.kind, settings.get("language_code", ""), self.target)
        before.sessions[self.kind] -= 1
        self.target.account.sessions[self.kind] += 1

    async def _dial(self, url: str, attempt: int) -> Link:
        """Open the next upstream connection. Raises an error of `wavegate_server.errors`."""
        context = self.context
        span = context.telemetry.connection_span(context.span, self.kind, endpoint_of(url), attempt)
        opening = context.telemetry.span(
            span, names.UPSTREAM_CONNECT, {names.UPSTREAM_ATTEMPT: attempt}, client=True
        )
        before = self._now()
        try:
            transport = await context.dialer.dial(url, self.target.headers())
        except WavegateError as exc:
            if isinstance(exc, errors.UpstreamCredential):
                context.upstreams.refused(self.target)
            for failed in (opening, span):
                failed.fail(exc.reason)
                failed.end()
            raise
        except BaseException:
            opening.end()
            span.end()
            raise
        now = self._now()
        self.connection_index += 1
        span.set({names.UPSTREAM_REUSED: False, names.UPSTREAM_INDEX: self.connection_index})
        opening.set(_parts(transport.timings))
        opening.end()
        return Link(transport, url, self.connection_index, span, now, now - before)

    def _rearm(self) -> None:
        """Set the alarm for whatever is due first."""
        if self.ended is not None:
            self._alarm.cancel()
            return
        idle = self._heard_at + self.context.bounds.idle_timeout_s
        due = self._due()
        self._alarm.set(idle if due is None else min(idle, due))

    # -- inside -----------------------------------------------------------------------------------------------

    def _on_alarm(self, now: float) -> None:
        self.log.at_ns = time.time_ns()
        idle = self.context.bounds.idle_timeout_s
        if now >= self._heard_at + idle:
            if self._busy():
                self._heard_at = now
            else:
                self.fail(
                    errors.SessionIdle(f"nothing came from the client for {idle:g} s"), EndReason.CLIENT_IDLE
                )
        self._on_due(now)
        self._rearm()

    def _repeated(self, update: UpdateSettings, listener: Listener | None) -> None:
        """A known `update_id`: not applied again. A control stream is told how the first one went."""
        earlier = self.ledger.terminal_ack(update.update_id)
        if listener is None:
            self._warn(
                "DUPLICATE_UPDATE",
                f"update_id {update.update_id!r} was used before; a delta is applied once",
                update_id=update.update_id,
            )
        elif earlier is not None:
            listener(earlier)
        elif listener not in self._listeners.setdefault(update.update_id, []):
            self._listeners[update.update_id].append(listener)

    def _release_held(self) -> None:
        """Take the deltas whose input sequence has come."""
        while self._held:
            after = self._held[0].after_input_sequence
            if after is not None and after > self.input_sequence:
                return
            self._take_update(self._held.pop(0), self._now())
