"""The client for programs without an event loop: the same names, blocking.

    with Client() as client, client.synthesize(voice_id="magnus") as session:
        for audio in session.say("Hello there.").audio():
            play(audio)

All clients of a process share one background thread with one event loop, in which the asynchronous client runs; here
is only the way there and back. Objects may be used from several threads, for example one that sends and one that
reads. An interrupted call (Ctrl-C) is cancelled as its asynchronous counterpart says.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future, wait
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack

from wavegate import client as asynchronous
from wavegate._process import check_process, is_forked
from wavegate._session import RESUME_WINDOW_S, BaseSession
from wavegate.audio import RawFormat
from wavegate.client import OPEN_TIMEOUT_S, RECOGNIZE_TIMEOUT_S, UNARY_TIMEOUT_S
from wavegate.control import SessionChange, SynthesisControl, TranscriptionControl
from wavegate.control import SettingsStream as AsyncSettingsStream
from wavegate.events import (
    GoAway,
    SessionEnded,
    SessionInfo,
    SessionStarted,
    SettingsAck,
    SynthesisEvent,
    Transcript,
    TranscriptionEvent,
    UtteranceCancelled,
    UtteranceCompleted,
    UtteranceFailed,
    Voice,
)
from wavegate.once import Recognition, Speech
from wavegate.settings import (
    AudioFormat,
    SynthesisOptions,
    SynthesisSettings,
    TranscriptionOptions,
    TranscriptionSettings,
)
from wavegate.synthesis import SynthesisSession as AsyncSynthesisSession
from wavegate.synthesis import SynthesisUpdate
from wavegate.synthesis import Utterance as AsyncUtterance
from wavegate.traces import TraceSpan
from wavegate.transcription import TranscriptionSession as AsyncTranscriptionSession
from wavegate.transcription import TranscriptionUpdate

__all__ = ["Client", "SettingsStream", "SynthesisSession", "TranscriptionSession", "Utterance"]

ResultT = TypeVar("ResultT")
EventT = TypeVar("EventT")


class _Loop:
    """The background thread, started by whoever needs it first. A forked process has one of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._loop = None  # its thread stayed in the parent

    def run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Runs `work` there and waits for it. An interrupt here cancels it there, and waits until it has let go.

        Raises `RuntimeError` in a process that was forked after its parent had used a client.
        """
        try:
            loop = self._running()
        except RuntimeError:
            work.close()
            raise
        outcome: Future[ResultT] = Future()
        tasks: list[asyncio.Task[None]] = []

        async def report() -> None:
            try:
                outcome.set_result(await work)
            except BaseException as exc:
                outcome.set_exception(exc)

        def cancel() -> None:
            tasks[0].cancel()

        loop.call_soon_threadsafe(lambda: tasks.append(loop.create_task(report())))
        try:
            return outcome.result()
        except BaseException:
            if not outcome.done():
                loop.call_soon_threadsafe(cancel)
                wait([outcome])
            raise

    def call(self, make: Callable[[], ResultT]) -> ResultT:
        """Calls `make` there: for objects that belong to an event loop."""

        async def made() -> ResultT:
            return make()

        return self.run(made())

    def iterate(self, items: AsyncIterator[EventT]) -> Iterator[EventT]:
        """Walks through `items`, and closes them when it is left early."""

        async def following() -> tuple[EventT] | None:
            try:
                return (await anext(items),)
            except StopAsyncIteration:
                return None

        try:
            while (found := self.run(following())) is not None:
                yield found[0]
        finally:
            if isinstance(items, AsyncGenerator) and not is_forked():
                self.run(items.aclose())

    def _running(self) -> asyncio.AbstractEventLoop:
        check_process()
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # A daemon: a program that forgot to close its client ends all the same.
                threading.Thread(target=self._loop.run_forever, name="wavegate", daemon=True).start()
            return self._loop


_loop = _Loop()


class _Session(Generic[EventT]):
    """What both kinds of session share; see `wavegate.SynthesisSession` and `wavegate.TranscriptionSession`."""

    def __init__(self, session: BaseSession[Any, Any, EventT]) -> None:
        self._base = session

    def __repr__(self) -> str:
        return repr(self._base)

    def __enter__(self) -> Self:
        """Opens the session; returns once the upstream has accepted it."""
        _loop.run(self._base.__aenter__())
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Finishes what was sent, or after an exception ends the session at once."""
        if not is_forked():
            _loop.run(self._base.__aexit__(exc_type, exc, tb))

    def __iter__(self) -> Iterator[EventT]:
        """Every event in order, `SessionEnded` last; then the session's failure is raised if there is one."""
        return _loop.iterate(self._base.__aiter__())

    @property
    def started(self) -> SessionStarted:
        """The gateway's first answer."""
        return self._base.started

    @property
    def session_id(self) -> str:
        """The session's name."""
        return self._base.session_id

    @property
    def settings_revision(self) -> int:
        """Counts the changes of settings; 1 at the start."""
        return self._base.settings_revision

    @property
    def ended(self) -> SessionEnded | None:
        """How it ended; `None` until then."""
        return self._base.ended

    @property
    def go_away(self) -> GoAway | None:
        """The gateway's notice that it will shut down; `None` until then, and again once the session has moved."""
        return self._base.go_away

    def end(self) -> None:
        """Says that no input follows."""
        _loop.run(self._base.end())

    def discard(self) -> None:
        """Ends the session now."""
        _loop.run(self._base.discard())


class Utterance:
    """A piece of speech that is being made; see `wavegate.Utterance`."""

    def __init__(self, utterance: AsyncUtterance) -> None:
        self._utterance = utterance

    def __repr__(self) -> str:
        return repr(self._utterance)

    @property
    def utterance_id(self) -> str:
        """Its name within the session."""
        return self._utterance.utterance_id

    @property
    def cancelled(self) -> bool:
        """Whether this side has cancelled it."""
        return self._utterance.cancelled

    @property
    def outcome(self) -> UtteranceCompleted | UtteranceCancelled | UtteranceFailed | None:
        """How it ended; `None` while it is being made."""
        return self._utterance.outcome

    def audio(self) -> Iterator[bytes]:
        """The audio as it comes, to the end of the utterance; ends at once when it is cancelled."""
        return _loop.iterate(self._utterance.audio())

    def read(self) -> bytes:
        """All of its audio in one piece."""
        return _loop.run(self._utterance.read())

    def done(self) -> bool:
        """Whether the utterance has ended."""
        return bool(self._utterance.done())

    def wait(self) -> UtteranceCompleted | UtteranceCancelled:
        """Wait for the end of the utterance. Raises as `wavegate.Utterance.wait` does."""
        return _loop.run(self._utterance.wait())

    def cancel(self, playback_offset_s: float | None = None) -> None:
        """Barge-in, of this utterance alone."""
        _loop.run(self._utterance.cancel(playback_offset_s))


class SynthesisSession(_Session[SynthesisEvent]):
    """A session of speech synthesis; see `wavegate.SynthesisSession`."""

    def __init__(self, session: AsyncSynthesisSession) -> None:
        super().__init__(session)
        self._session = session

    def say(self, text: str | Iterable[str], *, utterance_id: str | None = None) -> Utterance:
        """Speaks one utterance; an iterator of pieces is asked in a thread of its own, and sent as they come."""
        return Utterance(_loop.run(self._session.say(text, utterance_id=utterance_id)))

    def stream_text(self, pieces: Iterable[str], *, utterance_id: str | None = None) -> Utterance:
        """Speaks one utterance whose text comes in pieces; returns when the last one is sent."""
        return Utterance(_loop.run(self._session.stream_text(pieces, utterance_id=utterance_id)))

    def send_text(
        self, text: str, *, utterance_id: str | None = None, end_utterance: bool = False
    ) -> Utterance:
        """Sends a piece of text."""
        return Utterance(
            _loop.run(self._session.send_text(text, utterance_id=utterance_id, end_utterance=end_utterance))
        )

    def flush(self, utterance_id: str | None = None) -> None:
        """Speaks now what is buffered of the utterance, and keeps it open."""
        _loop.run(self._session.flush(utterance_id))

    def end_utterance(self, utterance_id: str | None = None) -> None:
        """No more text for the utterance."""
        _loop.run(self._session.end_utterance(utterance_id))

    def cancel(self, utterance_id: str | None = None, playback_offset_s: float | None = None) -> None:
        """Barge-in: from here on no audio of the utterance, or of any, is delivered."""
        _loop.run(self._session.cancel(utterance_id, playback_offset_s))

    def report_playback(self, utterance_id: str, playback_offset_s: float) -> None:
        """Tells how much of an utterance has been played."""
        _loop.run(self._session.report_playback(utterance_id, playback_offset_s))

    @property
    def settings(self) -> SynthesisSettings:
        """The settings in force."""
        return self._session.settings

    def update_settings(self, **changes: Unpack[SynthesisUpdate]) -> SettingsAck:
        """Changes settings from here on in the text; returns once that is applied, superseded or validated."""
        return _loop.run(self._session.update_settings(**changes))

    def audio(self) -> Iterator[bytes]:
        """The audio of all utterances, to the end of the session."""
        return _loop.iterate(self._session.audio())


class TranscriptionSession(_Session[TranscriptionEvent]):
    """A session of transcription; see `wavegate.TranscriptionSession`."""

    def __init__(self, session: AsyncTranscriptionSession) -> None:
        super().__init__(session)
        self._session = session

    def send_audio(self, content: bytes, *, capture_time: datetime | None = None) -> None:
        """Sends audio in the session's format."""
        _loop.run(self._session.send_audio(content, capture_time=capture_time))

    def stream_audio(self, source: Iterable[bytes], *, paced: bool = False) -> None:
        """Sends audio as it comes; returns when the source has ended."""
        _loop.run(self._session.stream_audio(source, paced=paced))

    def send_file(
        self,
        path: str | Path,
        *,
        paced: bool = False,
        raw: RawFormat | None = None,
        channel: int | None = None,
    ) -> None:
        """Sends a recording of any common kind, converted as it goes."""
        _loop.run(self._session.send_file(path, paced=paced, raw=raw, channel=channel))

    def finalize(self, finalize_id: str | None = None) -> Transcript:
        """A turn ends here: waits for the final transcript of what was sent so far."""
        return _loop.run(self._session.finalize(finalize_id))

    @property
    def settings(self) -> TranscriptionSettings:
        """The settings in force."""
        return self._session.settings

    def update_settings(self, **changes: Unpack[TranscriptionUpdate]) -> SettingsAck:
        """Changes settings from here on in the audio; returns once that is applied, superseded or validated."""
        return _loop.run(self._session.update_settings(**changes))

    def transcripts(self) -> Iterator[Transcript]:
        """Partial and final transcripts, to the end of the session."""
        return _loop.iterate(self._session.transcripts())

    def finals(self) -> Iterator[Transcript]:
        """Final transcripts, to the end of the session."""
        return _loop.iterate(self._session.finals())


class SettingsStream:
    """A stream that changes the settings of live sessions; see `wavegate.SettingsStream`."""

    def __init__(self, stream: AsyncSettingsStream) -> None:
        self._stream = stream

    def __enter__(self) -> Self:
        """Opens the stream."""
        _loop.run(self._stream.__aenter__())
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Ends the stream; the sessions go on."""
        if not is_forked():
            _loop.run(self._stream.__aexit__(exc_type, exc, tb))

    def __iter__(self) -> Iterator[SessionChange]:
        """Every report in order."""
        return _loop.iterate(self._stream.__aiter__())

    def update_synthesis(self, session_id: str, **changes: Unpack[SynthesisControl]) -> SettingsAck:
        """Changes a synthesis session."""
        return _loop.run(self._stream.update_synthesis(session_id, **changes))

    def update_transcription(self, session_id: str, **changes: Unpack[TranscriptionControl]) -> SettingsAck:
        """Changes a transcription session."""
        return _loop.run(self._stream.update_transcription(session_id, **changes))


class Client:
    """A connection to the gateway; see `wavegate.Client`, whose arguments and errors these are."""

    def __init__(
        self,
        target: str | None = None,
        *,
        targets: Sequence[str] = (),
        tls: bool = False,
        root_certificates: bytes | None = None,
        client_certificate: tuple[bytes, bytes] | None = None,
        token: str | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        options: Sequence[tuple[str, str | int]] = (),
    ) -> None:
        """Connects with the first call."""
        self._client = asynchronous.Client(
            target,
            targets=targets,
            tls=tls,
            root_certificates=root_certificates,
            client_certificate=client_certificate,
            token=token,
            metadata=metadata,
            options=options,
        )

    def __repr__(self) -> str:
        return repr(self._client)

    @property
    def target(self) -> str:
        """Where the gateway is; of several, the one in use."""
        return self._client.target

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every call and the connection. In a forked process it does nothing: they are the parent's."""
        if not is_forked():
            _loop.run(self._client.close())

    def synthesize(
        self,
        *,
        audio_format: AudioFormat | None = None,
        client_session_id: str = "",
        labels: Mapping[str, str] | None = None,
        max_audio_lead_s: float | None = None,
        resume_window_s: float = RESUME_WINDOW_S,
        move: bool = True,
        open_timeout_s: float | None = OPEN_TIMEOUT_S,
        **settings: Unpack[SynthesisOptions],
    ) -> SynthesisSession:
        """A session of speech synthesis, to be opened by `with`."""
        return SynthesisSession(
            _loop.call(
                lambda: self._client.synthesize(
                    audio_format=audio_format,
                    client_session_id=client_session_id,
                    labels=labels,
                    max_audio_lead_s=max_audio_lead_s,
                    resume_window_s=resume_window_s,
                    move=move,
                    open_timeout_s=open_timeout_s,
                    **settings,
                )
            )
        )

    def transcribe(
        self,
        *,
        audio_format: AudioFormat | None = None,
        client_session_id: str = "",
        labels: Mapping[str, str] | None = None,
        keep_alive: bool | None = None,
        initial_audio_offset_s: float | None = None,
        resume_window_s: float = RESUME_WINDOW_S,
        move: bool = True,
        open_timeout_s: float | None = OPEN_TIMEOUT_S,
        **settings: Unpack[TranscriptionOptions],
    ) -> TranscriptionSession:
        """A session of transcription, to be opened by `with`."""
        return TranscriptionSession(
            _loop.call(
                lambda: self._client.transcribe(
                    audio_format=audio_format,
                    client_session_id=client_session_id,
                    labels=labels,
                    keep_alive=keep_alive,
                    initial_audio_offset_s=initial_audio_offset_s,
                    resume_window_s=resume_window_s,
                    move=move,
                    open_timeout_s=open_timeout_s,
                    **settings,
                )
            )
        )

    def synthesize_once(
        self,
        text: str,
        *,
        audio_format: AudioFormat | None = None,
        request_id: str = "",
        **settings: Unpack[SynthesisOptions],
    ) -> Speech:
        """Speaks one text; returns all of it."""

        async def speech() -> Speech:
            return await self._client.synthesize_once(
                text, audio_format=audio_format, request_id=request_id, **settings
            )

        return _loop.run(speech())

    def transcribe_once(
        self,
        recording: str | Path | bytes | None = None,
        *,
        uri: str | None = None,
        audio_format: AudioFormat | None = None,
        request_id: str = "",
        timeout_s: float | None = RECOGNIZE_TIMEOUT_S,
        **settings: Unpack[TranscriptionOptions],
    ) -> Recognition:
        """Transcribes a recording: a file, its content, or a `uri` that the upstream fetches."""
        return _loop.run(
            self._client.transcribe_once(
                recording,
                uri=uri,
                audio_format=audio_format,
                request_id=request_id,
                timeout_s=timeout_s,
                **settings,
            )
        )

    recognize = transcribe_once
    """The name that `transcribe_once` had first."""

    def list_voices(
        self, *, model: str = "", language_code: str = "", timeout_s: float | None = UNARY_TIMEOUT_S
    ) -> Iterator[Voice]:
        """The voices of the catalogue."""
        return _loop.iterate(
            self._client.list_voices(model=model, language_code=language_code, timeout_s=timeout_s)
        )

    def settings_stream(self) -> SettingsStream:
        """A stream for changing the settings of live sessions, to be opened by `with`."""
        return SettingsStream(_loop.call(self._client.settings_stream))

    def get_session(self, session_id: str, *, timeout_s: float | None = UNARY_TIMEOUT_S) -> SessionInfo:
        """One live session."""
        return _loop.run(self._client.get_session(session_id, timeout_s=timeout_s))

    def list_sessions(
        self, *, labels: Mapping[str, str] | None = None, timeout_s: float | None = UNARY_TIMEOUT_S
    ) -> Iterator[SessionInfo]:
        """The caller's live sessions that have all of these labels."""
        return _loop.iterate(self._client.list_sessions(labels=labels, timeout_s=timeout_s))

    def close_session(
        self, session_id: str, *, discard: bool = False, timeout_s: float | None = UNARY_TIMEOUT_S
    ) -> None:
        """Ends a live session."""
        _loop.run(self._client.close_session(session_id, discard=discard, timeout_s=timeout_s))

    def get_trace(
        self, *, trace_id: str = "", session_id: str = "", timeout_s: float | None = UNARY_TIMEOUT_S
    ) -> tuple[TraceSpan, ...]:
        """The spans of a trace, or of a session, that the gateway still holds."""
        return _loop.run(
            self._client.get_trace(trace_id=trace_id, session_id=session_id, timeout_s=timeout_s)
        )
