"""Speech synthesis: text in, audio out, in one session."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, Unpack

from wavegate._channel import Channel, Channels, Metadata, StreamCall
from wavegate._duplex import GOODBYE_S
from wavegate._events_wire import synthesis_event, utterance_cancelled
from wavegate._iteration import iterate
from wavegate._session import BaseSession, Unfinished, UpdateArguments
from wavegate._settings_wire import audio_format_to_wire, duration, settings_to_wire, text_to_wire
from wavegate.audio import bytes_per_second
from wavegate.errors import ConnectionLostError, WavegateError
from wavegate.events import (
    AudioChunk,
    GatewayWarning,
    SettingsAck,
    SynthesisEvent,
    UtteranceCancelled,
    UtteranceCompleted,
    UtteranceFailed,
    UtteranceStarted,
    WordTimings,
)
from wavegate.settings import AudioFormat, SynthesisOptions, SynthesisSettings
from wavegate.speech.v1 import synthesis_service_pb2, types_pb2

__all__ = ["SynthesisSession", "Utterance"]

_OUTCOMES = (UtteranceCompleted, UtteranceCancelled, UtteranceFailed)

_REMEMBERED_UTTERANCES = 256

BUFFER_LIMIT_BYTES = 64 * 1024
"""Audio that may lie unread in this process before reading stops: 1.4 s of the default format. What is not read
waits in the gateway, which can still drop it when the listener interrupts."""


class SynthesisUpdate(SynthesisOptions, UpdateArguments, total=False):
    """Keyword arguments of `SynthesisSession.update_settings`."""


class Utterance:
    """A piece of speech that is being made, as `SynthesisSession.say` returns it."""

    def __init__(self, session: SynthesisSession, utterance_id: str) -> None:
        self._session = session
        self.utterance_id = utterance_id
        self.cancelled = False
        """Whether this side has cancelled it. The gateway's word on it is `outcome`."""
        self.outcome: UtteranceCompleted | UtteranceCancelled | UtteranceFailed | None = None
        """How it ended; `None` while it is being made."""
        self._text_task: asyncio.Task[None] | None = None
        self._text_error: Exception | None = None
        self._consumed = False  # its last event has been taken out of the session's buffer
        self._started = False
        self._heard = False
        self._heard_s = 0.0  # playing time of its audio so far
        # Which of the gateway's sessions has its text; none while nothing is sent.
        self._session_number: int | None = None

    def __repr__(self) -> str:
        state = "open" if self.outcome is None else type(self.outcome).__name__.removeprefix("Utterance")
        return f"<Utterance {self.utterance_id} {state.lower()}>"

    @property
    def _is_over(self) -> bool:
        return self.cancelled or self.outcome is not None

    async def audio(self) -> AsyncIterator[bytes]:
        """The audio as it comes, to the end of the utterance; ends at once when it is cancelled.

        Events of other kinds, and audio of utterances before this one, are passed over: one consumer at a time.
        Raises the utterance's failure, the session's, or what the iterator of its text raised.
        """
        while not self._consumed:
            event = await self._session._next_for(self)
            if event is None:
                break
            if getattr(event, "utterance_id", None) != self.utterance_id:
                continue
            if isinstance(event, AudioChunk):
                yield event.audio
            elif isinstance(event, _OUTCOMES):
                break
        self._raise_if_failed()

    async def read(self) -> bytes:
        """All of its audio in one piece. Raises as `audio` does."""
        return b"".join([audio async for audio in self.audio()])

    def done(self) -> Done:
        """Whether the utterance has ended, as `asyncio.Future.done` asks. `wait` waits for it.

        `await utterance.done()`, which waited before there was `wait`, still does, with a `DeprecationWarning`.
        """
        return Done(self)

    async def wait(self) -> UtteranceCompleted | UtteranceCancelled:
        """Wait for the end of the utterance; its audio is kept meanwhile until it is read.

        Raises the utterance's failure, the session's, or what the iterator of its text raised.
        """
        await self._session._until(lambda: self.outcome is not None or None)
        self._raise_if_failed()
        assert self.outcome is not None
        assert not isinstance(self.outcome, UtteranceFailed)
        return self.outcome

    async def cancel(self, playback_offset_s: float | None = None) -> None:
        """Barge-in, of this utterance alone; see `SynthesisSession.cancel`."""
        await self._session.cancel(self.utterance_id, playback_offset_s)

    def _raise_if_failed(self) -> None:
        if self._text_error is not None:
            self._session._unseen_text_errors.pop(self.utterance_id, None)
            raise self._text_error
        if isinstance(self.outcome, UtteranceFailed):
            raise self.outcome.error


class Done(int):
    """The answer of `Utterance.done`: true or false. Awaiting it is deprecated."""

    _utterance: Utterance

    def __new__(cls, utterance: Utterance) -> Done:
        """Answer for the utterance as it is now."""
        answer = super().__new__(cls, utterance.outcome is not None)
        answer._utterance = utterance
        return answer

    def __repr__(self) -> str:
        return repr(bool(self))

    def __await__(self) -> Generator[Any, None, UtteranceCompleted | UtteranceCancelled]:
        """Wait for the end of the utterance, as `Utterance.wait` does."""
        warnings.warn(
            "utterance.done() asks whether the utterance has ended; wait for it with utterance.wait()",
            DeprecationWarning,
            stacklevel=2,
        )
        return self._utterance.wait().__await__()


_Request = synthesis_service_pb2.SynthesizeStreamRequest
_Response = synthesis_service_pb2.SynthesizeStreamResponse


class SynthesisSession(BaseSession[_Request, _Response, SynthesisEvent]):
    """A session of speech synthesis; `Client.synthesize` makes it.

    Sending and reading may run in different tasks of one loop. Every text carries its utterance's id, so that a
    late piece of a cancelled utterance is never spoken.

    A session whose gateway shuts down moves to another one between two utterances: the one that is being heard is
    finished where it is, those behind it are spoken by the other gateway. One that its gateway cannot finish in its
    time ends with `UtteranceFailed`.
    """

    def __init__(
        self,
        channels: Channels,
        settings: Mapping[str, object],
        *,
        audio_format: AudioFormat | None,
        client_session_id: str,
        labels: Mapping[str, str] | None,
        max_audio_lead_s: float | None,
        resume_window_s: float,
        move: bool,
        open_timeout_s: float | None,
    ) -> None:
        start = synthesis_service_pb2.StartSynthesis(
            settings=settings_to_wire(types_pb2.SynthesisSettings, settings),
            audio_format=audio_format_to_wire(audio_format) if audio_format else None,
            client_session_id=client_session_id,
            labels=labels,
            max_audio_lead=None if max_audio_lead_s is None else duration(max_audio_lead_s),
        )
        super().__init__(
            channels,
            _Request,
            start,
            resume_window_s=resume_window_s,
            move=move,
            open_timeout_s=open_timeout_s,
            buffer_limit_bytes=BUFFER_LIMIT_BYTES,
        )
        self._utterances: dict[str, Utterance] = {}
        self._open_id: str | None = None
        # Ids of our own never meet the caller's, nor those of a session that this one continues.
        prefix = secrets.token_hex(4)
        self._ids = (f"{prefix}-{n}" for n in itertools.count(1))
        self._text_lock = asyncio.Lock()  # one utterance's text at a time: the next one's would end it
        self._unseen_text_errors: dict[str, Exception] = {}

    def _open_call(self, channel: Channel, metadata: Metadata) -> StreamCall[_Request, _Response]:
        call: StreamCall[_Request, _Response] = channel.synthesis.SynthesizeStream(metadata=metadata)
        return call

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Finishes the session, or after an exception ends it at once. See the class."""
        await super().__aexit__(exc_type, exc, tb)
        if exc_type is None and self._unseen_text_errors:
            raise next(iter(self._unseen_text_errors.values()))

    async def end(self) -> None:
        """Says that no text follows, once every iterator handed to `say` has ended. All of it is still spoken."""
        while tasks := self._text_tasks():
            await asyncio.wait(tasks)
        await super().end()

    async def discard(self) -> None:
        """Ends the session now: what is not spoken yet is dropped. `SessionEnded` still follows."""
        self._stop_text()
        await super().discard()

    # --- text -----------------------------------------------------------------------------------

    async def say(
        self, text: str | AsyncIterable[str] | Iterable[str], *, utterance_id: str | None = None
    ) -> Utterance:
        """Speaks one utterance, after those before it.

        A string is sent whole. An iterator, such as a language model's tokens, is sent by a task of the session as
        its pieces come; the handle is there at once, and `Utterance.cancel` stops that task. What is said meanwhile
        waits until the iterator has ended. What the iterator raises cancels the utterance and comes out of the
        handle, or of the session's block if nobody asked. Raises `ValueError` for the id of an utterance that is over.
        """
        utterance = self._unspoken(utterance_id)
        if isinstance(text, str) and not self._text_lock.locked() and not self._text_tasks():
            await self._send_all(utterance, text)
        else:
            self._check_open()
            utterance._text_task = asyncio.create_task(self._send_later(utterance, text))
        return utterance

    async def _send_later(self, utterance: Utterance, text: str | AsyncIterable[str] | Iterable[str]) -> None:
        try:
            await self._send_all(utterance, text)
        except WavegateError:
            return  # the session's own failure: whoever waits for the session hears of it
        except Exception as exc:
            utterance._text_error = self._unseen_text_errors[utterance.utterance_id] = exc
            utterance._text_task = None  # which `cancel` would cancel
            with contextlib.suppress(WavegateError):
                await self.cancel(utterance.utterance_id)

    async def stream_text(
        self, pieces: AsyncIterable[str] | Iterable[str], *, utterance_id: str | None = None
    ) -> Utterance:
        """Speaks one utterance whose text comes in pieces; returns when the last one is sent.

        An ordinary iterator is asked in a worker thread, so that it may block. Ends early, without an error, once the
        utterance is over or cancelled. Cancelling this leaves the utterance open: `end_utterance` or `cancel` it.
        Raises `ValueError` for the id of an utterance that is over already.
        """
        utterance = self._unspoken(utterance_id)
        await self._send_all(utterance, pieces)
        return utterance

    async def _send_all(self, utterance: Utterance, text: str | AsyncIterable[str] | Iterable[str]) -> None:
        utterance_id = utterance.utterance_id
        async with self._text_lock:
            begun = False
            if not isinstance(text, str):
                async with contextlib.aclosing(iterate(text)) as pieces:
                    async for piece in pieces:
                        if utterance._is_over:
                            return
                        if piece:
                            begun = True
                            await self.send_text(piece, utterance_id=utterance_id)
                text = ""
            if utterance._is_over:
                return
            if begun:
                await self.end_utterance(utterance_id)
            else:  # a whole text in one message; none at all ends like any other
                await self.send_text(text, utterance_id=utterance_id, end_utterance=True)

    async def send_text(
        self, text: str, *, utterance_id: str | None = None, end_utterance: bool = False
    ) -> Utterance:
        """Sends a piece of text: of the named utterance, else of the open one, else of a new one.

        A new id ends the utterance before it. Pieces are joined as they are, without a blank between them. A lone
        surrogate, which UTF-8 cannot carry, is sent as U+FFFD.
        """
        self._check_open()
        utterance = self._utterance(utterance_id or self._open_id)
        if utterance._is_over and utterance._session_number != self._moves:
            # The gateway's session of now has never heard that it is over, and would speak it.
            message = "text for an utterance that is over was dropped"
            self._deliver(GatewayWarning("STALE_TEXT", message, {}, utterance.utterance_id))
            self._notify()
            return utterance
        if utterance._session_number is None:
            utterance._session_number = self._moves
        self._open_id = None if end_utterance else utterance.utterance_id
        pieces = _split(text_to_wire(text), self.started.limits.max_text_message_chars)
        for number, piece in enumerate(pieces, 1):
            await self._send(
                text=synthesis_service_pb2.TextInput(
                    text=piece,
                    utterance_id=utterance.utterance_id,
                    end_utterance=end_utterance and number == len(pieces),
                )
            )
        return utterance

    async def flush(self, utterance_id: str | None = None) -> None:
        """Speaks now what is buffered of the utterance (default: the open one), and keeps it open."""
        await self._send(flush=synthesis_service_pb2.Flush(utterance_id=utterance_id or self._open_id or ""))

    async def end_utterance(self, utterance_id: str | None = None) -> None:
        """No more text for the utterance (default: the open one)."""
        ended = utterance_id or self._open_id or ""
        if ended == self._open_id:
            self._open_id = None
        await self._send(end_utterance=synthesis_service_pb2.EndUtterance(utterance_id=ended))

    # --- barge-in -------------------------------------------------------------------------------

    async def cancel(self, utterance_id: str | None = None, playback_offset_s: float | None = None) -> None:
        """Barge-in: stops the utterance, or without an id every one that is not complete, and keeps the session.

        From the call on no audio of it is delivered: what is buffered here is dropped, and what arrives late too.
        Returns when the request is sent; `UtteranceCancelled`, or `Utterance.wait`, tells what was spoken.
        `playback_offset_s` is how much the listener has heard of the utterance.
        """
        self._check_open()
        meant = [
            utterance
            for utterance in self._utterances.values()
            if utterance.outcome is None and utterance_id in (None, utterance.utterance_id)
        ]
        for utterance in meant:
            utterance.cancelled = True
            if utterance._text_task is not None:
                utterance._text_task.cancel()
            if utterance._session_number is None:
                self._deliver_noted(_never_sent(utterance.utterance_id))
        if utterance_id is not None and meant and meant[0]._session_number is None:
            return
        if utterance_id in (None, self._open_id):
            self._open_id = None
        self._drop(
            lambda event: (
                isinstance(event, AudioChunk | WordTimings) and utterance_id in (None, event.utterance_id)
            )
        )
        self._notify()  # whoever waits for audio of it has waited long enough
        await self._send(
            cancel=synthesis_service_pb2.CancelUtterance(
                utterance_id=utterance_id or "",
                playback_offset=None if playback_offset_s is None else duration(playback_offset_s),
            )
        )

    async def report_playback(self, utterance_id: str, playback_offset_s: float) -> None:
        """Tells how much of an utterance has been played, for metrics and for exact cancels."""
        await self._send(
            playback=synthesis_service_pb2.PlaybackReport(
                utterance_id=utterance_id, playback_offset=duration(playback_offset_s)
            )
        )

    # --- settings -------------------------------------------------------------------------------

    @property
    def settings(self) -> SynthesisSettings:
        """The settings in force, as far as acks have told; changes from outside included."""
        return self._settings if isinstance(self._settings, SynthesisSettings) else SynthesisSettings()

    async def update_settings(self, **changes: Unpack[SynthesisUpdate]) -> SettingsAck:
        """Changes settings from here on in the text; returns once it is applied, superseded or validated.

        Settings not named stay; `reset` names those to put back to their defaults. Utterances that start later use
        them, with `apply="IMMEDIATE"` the rest of the open one too. Raises what the gateway says against it, and then
        nothing has changed. Cancelling the wait does not take the change back.
        """
        return await self._update(
            synthesis_service_pb2.UpdateSynthesisSettings, types_pb2.SynthesisSettings, changes
        )

    # --- audio ----------------------------------------------------------------------------------

    async def audio(self) -> AsyncIterator[bytes]:
        """The audio of all utterances, to the end of the session; other events are passed over.

        Raises an utterance's failure; another `audio()` goes on behind it. One consumer at a time.
        """
        async for event in self:
            if isinstance(event, AudioChunk):
                yield event.audio
            elif isinstance(event, UtteranceFailed):
                raise event.error

    # --- inside ---------------------------------------------------------------------------------

    def _utterance(self, utterance_id: str | None) -> Utterance:
        if utterance_id is None:
            utterance_id = next(self._ids)
        if utterance_id not in self._utterances:
            self._forget_old_utterances()
            self._utterances[utterance_id] = Utterance(self, utterance_id)
        return self._utterances[utterance_id]

    def _unspoken(self, utterance_id: str | None) -> Utterance:
        utterance = self._utterance(utterance_id)
        if utterance._is_over:
            raise ValueError(
                f"utterance {utterance_id!r} is over; what is new needs an id of its own, or none"
            )
        return utterance

    def _forget_old_utterances(self) -> None:
        # The ended ones are kept for a while: late text must find that its utterance is over.
        excess = len(self._utterances) - _REMEMBERED_UTTERANCES
        if excess > 0:
            ended = [u.utterance_id for u in self._utterances.values() if u.outcome is not None]
            for utterance_id in ended[:excess]:
                del self._utterances[utterance_id]

    def _text_tasks(self) -> list[asyncio.Task[None]]:
        tasks = (utterance._text_task for utterance in self._utterances.values())
        return [task for task in tasks if task is not None and not task.done()]

    def _stop_text(self) -> None:
        for task in self._text_tasks():
            task.cancel()

    def _finish(self, failure: WavegateError | None) -> None:
        super()._finish(failure)
        self._stop_text()

    async def _stop(self) -> None:
        self._stop_text()
        await super()._stop()
        if tasks := self._text_tasks():
            await asyncio.wait(tasks, timeout=GOODBYE_S)

    def _deliver_noted(self, event: SynthesisEvent) -> None:
        self._note(event)
        self._deliver(event)
        self._notify()

    async def _next_for(self, utterance: Utterance) -> SynthesisEvent | None:
        """The next event, or `None` when nothing more of the utterance can come."""
        while not self._buffer and not self._finished and not utterance.cancelled:
            await self._changed()
        return None if utterance.cancelled else self._take()

    def _take(self) -> SynthesisEvent | None:
        event = super()._take()
        if isinstance(event, _OUTCOMES) and event.utterance_id in self._utterances:
            self._utterances[event.utterance_id]._consumed = True
        return event

    def _note(self, event: SynthesisEvent) -> SynthesisEvent | None:
        utterance = self._utterances.get(getattr(event, "utterance_id", ""))
        if utterance is None:
            return event
        if isinstance(event, _OUTCOMES):
            unheard = not (utterance._heard or utterance.cancelled)
            if isinstance(event, UtteranceFailed) and event.error.reason == "GATEWAY_DRAINING" and unheard:
                return None  # it is spoken elsewhere
            self._settle(_key(event.utterance_id))
            utterance.outcome = event
            if utterance._text_task is not None:
                utterance._text_task.cancel()  # a failed utterance takes no more text
        elif isinstance(event, AudioChunk | WordTimings):
            utterance._heard = True
            if isinstance(event, AudioChunk):
                utterance._heard_s = event.start_offset_s + self._playing_s(event.audio)
            return None if utterance.cancelled else event
        elif isinstance(event, UtteranceStarted):
            again, utterance._started = utterance._started, True
            return None if again else event
        return event

    # --- moving ---------------------------------------------------------------------------------

    def _keep(self, kind: str, message: Any) -> None:
        utterance = self._utterances.get(getattr(message, "utterance_id", ""))
        if utterance is None or utterance.outcome is not None:
            return
        key = _key(utterance.utterance_id)
        begun = kind in ("flush", "end_utterance") and any(item.key == key for item in self._unfinished)
        if kind == "text" or begun:
            self._unfinished.append(Unfinished(key, kind, message))

    def _pending(self) -> list[Utterance]:
        """What was sent and has not ended, in order."""
        sent = dict.fromkeys(item.message.utterance_id for item in self._unfinished if item.kind == "text")
        return [self._utterances[utterance_id] for utterance_id in sent]

    def _is_idle(self) -> bool:
        return not any(utterance._heard or utterance.cancelled for utterance in self._pending())

    def _can_move(self) -> bool:
        return self._move_wanted

    def _start_elsewhere(self) -> synthesis_service_pb2.StartSynthesis:
        start = synthesis_service_pb2.StartSynthesis()
        start.CopyFrom(self._start_message)
        if self._settings_message is not None:
            start.settings.CopyFrom(self._settings_message.synthesis)
        return start

    def _carry_over(self) -> float:
        for utterance in self._pending():
            utterance._session_number = self._moves + 1
            if utterance._heard or utterance.cancelled:  # its gateway is gone: it would have ended there
                _, failure = self._last_words
                failure = failure or ConnectionLostError("the gateway has gone", code="UNAVAILABLE")
                failed = UtteranceFailed(utterance.utterance_id, failure, True, utterance._heard_s)
                self._deliver(self._note(failed))
        return 0.0

    def _what_is_lost(self) -> str:
        return ", ".join(
            f"the rest of utterance {u.utterance_id}" if u._heard else f"utterance {u.utterance_id}"
            for u in self._pending()
        )

    def _playing_s(self, content: bytes) -> float:
        audio_format = self.started.audio_format
        if audio_format.encoding in ("MP3", "WAV"):
            return 0.0
        return len(content) / bytes_per_second(audio_format)

    def _convert(self, response: _Response) -> SynthesisEvent | None:
        return synthesis_event(response)

    def _size_bytes(self, event: SynthesisEvent) -> int:
        return len(event.audio) if isinstance(event, AudioChunk) else 0


def _never_sent(utterance_id: str) -> UtteranceCancelled:
    """The end of an utterance of which the gateway has never heard."""
    wire = synthesis_service_pb2.UtteranceCancelled(
        utterance_id=utterance_id, method=synthesis_service_pb2.UtteranceCancelled.METHOD_NOT_SENT
    )
    return utterance_cancelled(wire)


def _key(utterance_id: str) -> tuple[str, str]:
    return "utterance", utterance_id


def _split(text: str, limit_chars: int) -> list[str]:
    """The text in pieces of at most `limit_chars` (0: no limit), cut behind a blank where there is one."""
    pieces = []
    while limit_chars and len(text) > limit_chars:
        cut = text.rfind(" ", 1, limit_chars) + 1 or limit_chars
        pieces.append(text[:cut])
        text = text[cut:]
    return [*pieces, text]
