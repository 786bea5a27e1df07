"""The client: one connection to a gateway, and everything that can be asked of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from grpc import aio

from wavegate._channel import Channel, Channels
from wavegate._events_wire import sentence, session_info, upstream_info, voice, word
from wavegate._session import RESUME_WINDOW_S
from wavegate._settings_wire import audio_format_to_wire, seconds, settings_to_wire
from wavegate._target import DEFAULT_TARGET
from wavegate.control import SettingsStream
from wavegate.errors import request_too_large
from wavegate.events import SessionInfo, Voice
from wavegate.once import Recognition, SpeechRequest
from wavegate.settings import AudioFormat, SynthesisOptions, TranscriptionOptions
from wavegate.speech.v1 import (
    session_service_pb2,
    synthesis_service_pb2,
    transcription_service_pb2,
    types_pb2,
)
from wavegate.synthesis import SynthesisSession
from wavegate.traces import TraceSpan, trace_span
from wavegate.transcription import TranscriptionSession

__all__ = ["AsyncClient", "Client", "default_target"]

OPEN_TIMEOUT_S = 30.0
UNARY_TIMEOUT_S = 30.0
RECOGNIZE_TIMEOUT_S = 300.0


def default_target() -> str:
    """Where the gateway is unless the caller says otherwise: `WAVEGATE_TARGET`, else 127.0.0.1:50051."""
    return os.environ.get("WAVEGATE_TARGET") or DEFAULT_TARGET


def _read_recording(path: Path, limit_bytes: int | None) -> bytes:
    """Return what a file holds. Raises `InvalidRequestError`, before it is read, where that is too much."""
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size  # 0 for a pipe
        if limit_bytes is not None and size_bytes > limit_bytes:
            raise request_too_large(size_bytes, limit_bytes, "content")
        return file.read() if limit_bytes is None else file.read(limit_bytes + 1)


class Client:
    """A connection to the gateway at `target` (`HOST:PORT`, or any gRPC name such as `unix:/run/wavegate.sock`).

    It connects with the first call, and again by itself after a loss. Any number of calls and sessions may run at
    once, in the event loop of that first call. Use it as `async with Client() as client`, or `close` it.

    `targets` instead are several addresses of gateways: a session opens on the first that takes it, and moves to
    another one when its own shuts down. Calls that are no session go to the one in use.

    `tls` (implied by certificates, PEM) encrypts; `token` goes with every call as `authorization: Bearer`; `options`
    are gRPC channel arguments on top of this client's own.
    """

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
        """`client_certificate` is the private key and the chain.

        Raises `ValueError` for a target that is written wrong, and for a token that holds a line break or anything
        else but printable ASCII.
        """
        if target is not None and targets:
            raise TypeError("give either a target or targets")
        self._channels = Channels(
            [
                Channel(
                    address,
                    tls=tls,
                    root_certificates=root_certificates,
                    client_certificate=client_certificate,
                    token=token or os.environ.get("WAVEGATE_TOKEN"),
                    metadata=metadata,
                    options=options,
                )
                for address in dict.fromkeys(targets or [target or default_target()])
            ]
        )

    def __repr__(self) -> str:
        return f"<Client {self.target}>"

    @property
    def target(self) -> str:
        """Where the gateway is; of several, the one in use."""
        return self._channel.target

    @property
    def _channel(self) -> Channel:
        return self._channels.current

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends every call and the connection."""
        await self._channels.close()

    # --- sessions of this caller ----------------------------------------------------------------

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
        """A session of speech synthesis, to be opened by `async with`. It has no deadline but for its opening.

        `max_audio_lead_s` lets the gateway send at most so much audio ahead of real time; without it audio comes as
        fast as it is read. `labels` show in `list_sessions`. `client_session_id` goes upstream for correlation.
        `resume_window_s` is how long the session outlives the loss of its connection, as far as the gateway grants it;
        with 0 it ends with it. With `move=False` it stays with a gateway that shuts down, and ends with it.
        Raises `TypeError` or `ValueError` for settings that do not exist or are of a wrong type.
        """
        return SynthesisSession(
            self._channels,
            settings,
            audio_format=audio_format,
            client_session_id=client_session_id,
            labels=labels,
            max_audio_lead_s=max_audio_lead_s,
            resume_window_s=resume_window_s,
            move=move,
            open_timeout_s=open_timeout_s,
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
        """A session of transcription, to be opened by `async with`. It has no deadline but for its opening.

        `audio_format` is what will be sent, by default LINEAR16 at 16000 Hz. `keep_alive=False` lets a silent
        session lose its upstream. `initial_audio_offset_s` is the time of the first sample where this session
        continues another. `resume_window_s` is how long the session outlives the loss of its connection, as far as
        the gateway grants it; with 0 it ends with it. With `move=False` it stays with a gateway that shuts down, and
        ends with it. Raises `TypeError` or `ValueError` for settings that do not exist or are of a wrong type.
        """
        return TranscriptionSession(
            self._channels,
            settings,
            audio_format=audio_format or AudioFormat("LINEAR16", 16000),
            client_session_id=client_session_id,
            labels=labels,
            keep_alive=keep_alive,
            initial_audio_offset_s=initial_audio_offset_s,
            resume_window_s=resume_window_s,
            move=move,
            open_timeout_s=open_timeout_s,
        )

    # --- whole texts and recordings -------------------------------------------------------------

    def synthesize_once(
        self,
        text: str,
        *,
        audio_format: AudioFormat | None = None,
        request_id: str = "",
        **settings: Unpack[SynthesisOptions],
    ) -> SpeechRequest:
        """Speaks one text: `speech = await client.synthesize_once("Hello", voice_id="magnus")`.

        Or iterate over it, and have the events as they come.
        """
        return SpeechRequest(self._channel, text, settings, audio_format, request_id)

    async def transcribe_once(
        self,
        recording: str | Path | bytes | None = None,
        *,
        uri: str | None = None,
        audio_format: AudioFormat | None = None,
        request_id: str = "",
        timeout_s: float | None = RECOGNIZE_TIMEOUT_S,
        **settings: Unpack[TranscriptionOptions],
    ) -> Recognition:
        """Transcribes a recording of up to 32 MiB: a file, its content, or a `uri` that the upstream fetches.

        `audio_format` is for raw samples; a container says itself what it holds. Raises `OSError` for a file that
        cannot be read, `InvalidRequestError` for a recording that is too large, and what the gateway says against it.
        What is larger can be streamed: `transcribe` and `send_file`.
        """
        if (recording is None) == (uri is None):
            raise TypeError("give either a recording or its uri")
        limit_bytes = self._channel.max_send_bytes
        if isinstance(recording, bytes | None):
            content = recording
        else:
            content = await asyncio.to_thread(_read_recording, Path(recording), limit_bytes)
        request = transcription_service_pb2.RecognizeRequest(
            content=content,
            uri=uri,
            audio_format=audio_format_to_wire(audio_format) if audio_format else None,
            settings=settings_to_wire(types_pb2.TranscriptionSettings, settings),
            request_id=request_id,
        )
        if limit_bytes is not None and request.ByteSize() > limit_bytes:
            raise request_too_large(request.ByteSize(), limit_bytes, "content")
        response: transcription_service_pb2.RecognizeResponse = await self._channel.unary(
            self._channel.transcription.Recognize, request, timeout_s
        )
        return Recognition(
            text=response.text,
            words=tuple(word(w) for w in response.words),
            sentences=tuple(sentence(s) for s in response.sentences),
            language_codes=tuple(response.language_codes),
            audio_duration_s=seconds(response.audio_duration),
            upstream=upstream_info(response.upstream) if response.HasField("upstream") else None,
        )

    recognize = transcribe_once
    """The name that `transcribe_once` had first."""

    async def list_voices(
        self, *, model: str = "", language_code: str = "", timeout_s: float | None = UNARY_TIMEOUT_S
    ) -> AsyncIterator[Voice]:
        """The voices of the catalogue, page by page; `timeout_s` is for each page."""
        request = synthesis_service_pb2.ListVoicesRequest(model=model, language_code=language_code)
        while True:
            response: synthesis_service_pb2.ListVoicesResponse = await self._channel.unary(
                self._channel.synthesis.ListVoices, request, timeout_s
            )
            for item in response.voices:
                yield voice(item)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    # --- control over live sessions -------------------------------------------------------------

    def settings_stream(self) -> SettingsStream:
        """A stream for changing the settings of live sessions, to be opened by `async with`."""
        return SettingsStream(self._channel)

    async def get_session(self, session_id: str, *, timeout_s: float | None = UNARY_TIMEOUT_S) -> SessionInfo:
        """One live session. Raises `SessionNotFoundError`."""
        response: session_service_pb2.GetSessionResponse = await self._channel.unary(
            self._channel.sessions.GetSession,
            session_service_pb2.GetSessionRequest(session_id=session_id),
            timeout_s,
        )
        return session_info(response.session)

    async def list_sessions(
        self, *, labels: Mapping[str, str] | None = None, timeout_s: float | None = UNARY_TIMEOUT_S
    ) -> AsyncIterator[SessionInfo]:
        """The caller's live sessions that have all of these labels; `timeout_s` is for each page."""
        request = session_service_pb2.ListSessionsRequest(labels=labels)
        while True:
            response: session_service_pb2.ListSessionsResponse = await self._channel.unary(
                self._channel.sessions.ListSessions, request, timeout_s
            )
            for item in response.sessions:
                yield session_info(item)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def close_session(
        self, session_id: str, *, discard: bool = False, timeout_s: float | None = UNARY_TIMEOUT_S
    ) -> None:
        """Ends a live session as its own `end` would, with `discard` at once. Raises `SessionNotFoundError`."""
        await self._channel.unary(
            self._channel.sessions.CloseSession,
            session_service_pb2.CloseSessionRequest(session_id=session_id, discard=discard),
            timeout_s,
        )

    # --- traces ---------------------------------------------------------------------------------

    async def get_trace(
        self, *, trace_id: str = "", session_id: str = "", timeout_s: float | None = UNARY_TIMEOUT_S
    ) -> tuple[TraceSpan, ...]:
        """The spans of a trace, or of a session, that the gateway still holds: the newest of this caller's calls.

        One that has not ended is not among them. Raises `SessionNotFoundError` where none is held.
        """
        if bool(trace_id) == bool(session_id):
            raise TypeError("give either a trace_id or a session_id")
        request = session_service_pb2.GetTraceRequest(
            **({"trace_id": trace_id} if trace_id else {"session_id": session_id})
        )
        spans: list[TraceSpan] = []
        channel = self._channel
        try:
            with channel.in_use():
                async for response in channel.sessions.GetTrace(
                    request, timeout=timeout_s, metadata=channel.metadata()
                ):
                    spans += map(trace_span, response.spans)
        except aio.AioRpcError as exc:
            raise channel.error(exc, answered=bool(spans)) from exc
        return tuple(spans)


AsyncClient = Client
"""`Client`, beside `wavegate.SyncClient`."""
