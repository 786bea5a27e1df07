"""Transcription: audio in, transcripts out, in one session."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Unpack

from google.protobuf.timestamp_pb2 import Timestamp

from wavegate import audio
from wavegate._channel import Channel, StreamCall
from wavegate._events_wire import transcription_event
from wavegate._iteration import iterate
from wavegate._session import BaseSession, UpdateArguments
from wavegate._settings_wire import audio_format_to_wire, duration, settings_to_wire
from wavegate.events import SettingsAck, Transcript, TranscriptionEvent
from wavegate.settings import AudioFormat, TranscriptionOptions, TranscriptionSettings
from wavegate.speech.v1 import transcription_service_pb2, types_pb2

__all__ = ["TranscriptionSession"]

_MESSAGE_BYTES = 64 * 1024
"""Largest audio message where the gateway names no limit."""

_PACED_PIECE_S = 0.1
"""Paced audio goes out in pieces of at most this playing time."""


class TranscriptionUpdate(TranscriptionOptions, UpdateArguments, total=False):
    """Keyword arguments of `TranscriptionSession.update_settings`."""


_Request = transcription_service_pb2.TranscribeStreamRequest
_Response = transcription_service_pb2.TranscribeStreamResponse


class TranscriptionSession(BaseSession[_Request, _Response, TranscriptionEvent]):
    """A session of transcription; `Client.transcribe` makes it.

    Sending and reading may run in different tasks of one loop. Transcripts that nobody reads yet are kept.
    """

    def __init__(
        self,
        channel: Channel,
        settings: Mapping[str, object],
        *,
        audio_format: AudioFormat,
        client_session_id: str,
        labels: Mapping[str, str] | None,
        keep_alive: bool | None,
        initial_audio_offset_s: float | None,
        resume_window_s: float | None,
        open_timeout_s: float | None,
    ) -> None:
        start = transcription_service_pb2.StartTranscription(
            audio_format=audio_format_to_wire(audio_format),
            settings=settings_to_wire(types_pb2.TranscriptionSettings, settings),
            client_session_id=client_session_id,
            labels=labels,
            keep_alive=keep_alive,
            initial_audio_offset=None if initial_audio_offset_s is None else duration(initial_audio_offset_s),
            resume_window=None if resume_window_s is None else duration(resume_window_s),
        )
        # No limit on what waits to be read: a transcript is small, and the gateway must not stop taking audio
        # because its caller sends a whole file before reading the first word.
        super().__init__(channel, _Request, start, open_timeout_s=open_timeout_s, buffer_limit_bytes=None)
        prefix = secrets.token_hex(4)
        self._finalize_ids = (f"{prefix}-{n}" for n in itertools.count(1))
        self._finals: dict[str, Transcript | None] = {}

    def _open_call(self) -> StreamCall[_Request, _Response]:
        call: StreamCall[_Request, _Response] = self._channel.transcription.TranscribeStream(
            metadata=self._channel.metadata()
        )
        return call

    # --- audio ----------------------------------------------------------------------------------

    async def send_audio(self, content: bytes, *, capture_time: datetime | None = None) -> None:
        """Sends audio in the session's format, of any length; one packet where that is raw Opus.

        `capture_time` is when the first sample was recorded; with it the gateway measures `capture_latency_s`.
        """
        for offset, piece in audio.pieces(content, self._format, self._message_bytes):
            timestamp = None
            if capture_time is not None and offset == 0:
                timestamp = Timestamp()
                timestamp.FromDatetime(capture_time)
            await self._send(
                audio=transcription_service_pb2.AudioInput(content=piece, capture_time=timestamp)
            )

    async def stream_audio(
        self, source: AsyncIterable[bytes] | Iterable[bytes], *, paced: bool = False
    ) -> None:
        """Sends audio as it comes from a microphone, a call or another stream; returns when the source has ended.

        An ordinary iterator is asked in a worker thread, so that it may block. `paced` holds audio that is there at
        once back to the speed at which it was spoken; it needs a format with a fixed rate (`ValueError` otherwise).
        """
        pacer = audio.Pacer(self._format) if paced else None
        loop = asyncio.get_running_loop()
        async with contextlib.aclosing(iterate(source)) as contents:
            async for content in contents:
                if pacer is None:
                    await self.send_audio(content)
                    continue
                for _, piece in audio.pieces(content, self._format, pacer.bytes_in(_PACED_PIECE_S)):
                    await asyncio.sleep(pacer.delay_s(len(piece), loop.time()))
                    await self.send_audio(piece)

    async def send_file(self, path: str | Path, *, paced: bool = False) -> None:
        """Sends a recording: WAV, FLAC, OGG or MP3 of any rate and number of channels, converted as it goes.

        Raises `AudioFileError` for what is no audio, `OSError` for what cannot be read.
        """
        from wavegate.recordings import open_audio  # noqa: PLC0415 - codecs only for who has files

        with open_audio(path, self._format) as source:
            await self.stream_audio(source, paced=paced)

    async def finalize(self, finalize_id: str | None = None) -> Transcript:
        """A turn ends here: waits for the final transcript of what was sent so far; empty if nothing was said.

        The transcript is also among the events. Cancelling the wait does not take the request back.
        """
        finalize_id = finalize_id or next(self._finalize_ids)
        if finalize_id in self._finals:
            raise ValueError(f"finalize {finalize_id!r} of this session is still under way")
        self._finals[finalize_id] = None
        try:
            await self._send(finalize=transcription_service_pb2.Finalize(finalize_id=finalize_id))
            return await self._until(lambda: self._finals[finalize_id])
        finally:
            del self._finals[finalize_id]

    # --- settings -------------------------------------------------------------------------------

    @property
    def settings(self) -> TranscriptionSettings:
        """The settings in force, as far as acks have told; changes from outside included."""
        return (
            self._settings if isinstance(self._settings, TranscriptionSettings) else TranscriptionSettings()
        )

    async def update_settings(self, **changes: Unpack[TranscriptionUpdate]) -> SettingsAck:
        """Changes settings from here on in the audio; returns once it is applied, superseded or validated.

        Settings not named stay; `reset` names those to put back to their defaults. Most need a new connection to the
        upstream, made at the end of speech unless `apply` says otherwise; no audio is lost in it. Raises what the
        gateway says against it, and then nothing has changed. Cancelling the wait does not take the change back.
        """
        return await self._update(
            transcription_service_pb2.UpdateTranscriptionSettings, types_pb2.TranscriptionSettings, changes
        )

    # --- transcripts ----------------------------------------------------------------------------

    async def transcripts(self) -> AsyncIterator[Transcript]:
        """Partial and final transcripts, to the end of the session; other events are passed over."""
        async for event in self:
            if isinstance(event, Transcript):
                yield event

    async def finals(self) -> AsyncIterator[Transcript]:
        """Final transcripts, to the end of the session; other events are passed over."""
        async for transcript in self.transcripts():
            if transcript.is_final:
                yield transcript

    # --- inside ---------------------------------------------------------------------------------

    @property
    def _format(self) -> AudioFormat:
        return self.started.audio_format

    @property
    def _message_bytes(self) -> int:
        return self.started.limits.max_audio_message_bytes or _MESSAGE_BYTES

    def _convert(self, response: _Response) -> TranscriptionEvent | None:
        return transcription_event(response)

    def _note(self, event: TranscriptionEvent) -> bool:
        if isinstance(event, Transcript) and event.finalize_id in self._finals:
            self._finals[event.finalize_id] = event
        return True
