"""Transcription: audio in, transcripts out, in one session."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import warnings
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

from google.protobuf.timestamp_pb2 import Timestamp

from wavegate import audio
from wavegate._channel import Channel, Channels, Metadata, StreamCall
from wavegate._events_wire import transcription_event
from wavegate._iteration import iterate
from wavegate._session import BaseSession, Unfinished, UpdateArguments
from wavegate._settings_wire import audio_format_to_wire, duration, settings_to_wire
from wavegate.errors import AudioFileWarning
from wavegate.events import SettingsAck, SpeechEnded, SpeechStarted, Transcript, TranscriptionEvent
from wavegate.settings import AudioFormat, TranscriptionOptions, TranscriptionSettings
from wavegate.speech.v1 import transcription_service_pb2, types_pb2

__all__ = ["TranscriptionSession"]

_MESSAGE_BYTES = 64 * 1024
"""Largest audio message where the gateway names no limit."""

KEPT_AUDIO_S = 30.0
"""Audio behind the last final transcript that is kept for another gateway."""

_PACED_PIECE_S = 0.1
"""Paced audio goes out in pieces of at most this playing time."""


class TranscriptionUpdate(TranscriptionOptions, UpdateArguments, total=False):
    """Keyword arguments of `TranscriptionSession.update_settings`."""


_Request = transcription_service_pb2.TranscribeStreamRequest
_Response = transcription_service_pb2.TranscribeStreamResponse


class TranscriptionSession(BaseSession[_Request, _Response, TranscriptionEvent]):
    """A session of transcription; `Client.transcribe` makes it.

    Sending and reading may run in different tasks of one loop. Transcripts that nobody reads yet are kept.

    A session whose gateway shuts down moves to another one: the audio behind the last final transcript, which is kept
    here for that (30 s of it at most), is transcribed there, so that all offsets stay on one timeline and no word is
    lost or comes twice. What falls out of those 30 s in mid-segment is counted in `SessionMoved.lost_audio_s`. A
    session that sends OGG_OPUS stays where it is, and so does one whose input has ended.
    """

    def __init__(
        self,
        channels: Channels,
        settings: Mapping[str, object],
        *,
        audio_format: AudioFormat,
        client_session_id: str,
        labels: Mapping[str, str] | None,
        keep_alive: bool | None,
        initial_audio_offset_s: float | None,
        resume_window_s: float,
        move: bool,
        open_timeout_s: float | None,
    ) -> None:
        start = transcription_service_pb2.StartTranscription(
            audio_format=audio_format_to_wire(audio_format),
            settings=settings_to_wire(types_pb2.TranscriptionSettings, settings),
            client_session_id=client_session_id,
            labels=labels,
            keep_alive=keep_alive,
            initial_audio_offset=None if initial_audio_offset_s is None else duration(initial_audio_offset_s),
        )
        # No limit on what waits to be read: a transcript is small, and the gateway must not stop taking audio
        # because its caller sends a whole file before reading the first word.
        super().__init__(
            channels,
            _Request,
            start,
            resume_window_s=resume_window_s,
            move=move,
            open_timeout_s=open_timeout_s,
            buffer_limit_bytes=None,
        )
        prefix = secrets.token_hex(4)
        self._finalize_ids = (f"{prefix}-{n}" for n in itertools.count(1))
        self._finals: dict[str, Transcript | None] = {}
        # Where audio lies is counted in bytes of a raw format, in samples at 48 kHz of Opus packets.
        self._zero_s = initial_audio_offset_s or 0.0
        self._position = 0
        self._covered = 0  # up to here there are final transcripts
        self._kept_from = 0
        self._fallen_out = 0  # how much was kept no longer before a final covered it
        self._hanging: tuple[str, int] | None = None  # the open segment, and its revision
        self._names: dict[str, tuple[str, int]] = {}  # what segments of this session are called since a move
        self._full_text = self._full_text_before = ""
        self._voice_on = False
        self._voice_at_s = -1.0

    def _open_call(self, channel: Channel, metadata: Metadata) -> StreamCall[_Request, _Response]:
        call: StreamCall[_Request, _Response] = channel.transcription.TranscribeStream(metadata=metadata)
        return call

    # --- audio ----------------------------------------------------------------------------------

    async def send_audio(self, content: bytes, *, capture_time: datetime | None = None) -> None:
        """Sends audio in the session's format, of any length; one packet where that is raw Opus.

        `capture_time` is when the first sample was recorded; with it the gateway measures `capture_latency_s`. One
        without a time zone is in local time, as everywhere in `datetime`.
        """
        for offset, piece in audio.pieces(content, self._format, self._message_bytes):
            timestamp = None
            if capture_time is not None and offset == 0:
                timestamp = Timestamp()
                timestamp.FromDatetime(capture_time.astimezone(UTC))
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

    async def send_file(
        self,
        path: str | Path,
        *,
        paced: bool = False,
        raw: audio.RawFormat | None = None,
        channel: int | None = None,
    ) -> None:
        """Sends a recording of any rate and number of channels, a pipe or a FIFO as well, converted as it goes.

        WAV, FLAC, Ogg, MP3 and the others that `wavegate.recordings.open_audio` names are known by their content;
        `raw` says what samples without a header are. Channels are mixed, or `channel` (from 1) is taken alone.
        Raises `AudioFileError` for what is no audio, `OSError` for what cannot be read. What could not be decoded of a
        recording that is damaged or cut off is told as an `AudioFileWarning` once the rest is sent.
        """
        from wavegate.recordings import open_audio  # noqa: PLC0415 - codecs only for who has files

        with await asyncio.to_thread(open_audio, path, self._format, raw=raw, channel=channel) as source:
            await self.stream_audio(source, paced=paced)
            for warning in source.warnings:
                warnings.warn(warning, AudioFileWarning, stacklevel=2)

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

    def _note(self, event: TranscriptionEvent) -> TranscriptionEvent | None:
        if isinstance(event, Transcript):
            return self._note_transcript(event)
        if isinstance(event, SettingsAck) and event.state == "APPLIED" and event.mechanism == "RECONNECT":
            # All before it is final with the old settings; a session elsewhere would hear it with the new ones.
            self._cover(self._position_at(event.audio_offset_s or 0.0))
        if isinstance(event, SpeechStarted | SpeechEnded):
            begins = isinstance(event, SpeechStarted)
            repeated = begins == self._voice_on or event.audio_offset_s <= self._voice_at_s
            if self._moves and repeated:
                return None  # heard again, where audio was sent again
            self._voice_on, self._voice_at_s = begins, event.audio_offset_s
        return event

    def _note_transcript(self, transcript: Transcript) -> Transcript | None:
        end = self._position_at(transcript.end_offset_s)
        if self._moves:
            if transcript.text and not transcript.finalize_id and end <= self._covered:
                return None  # a final of the session before has said it
            transcript = self._renamed(transcript)
        if not transcript.is_final:
            if transcript.text:
                self._hanging = (transcript.segment_id, transcript.segment_revision)
        else:
            if self._hanging and self._hanging[0] == transcript.segment_id:
                self._hanging = None
            if transcript.text:
                asked = [u.end for u in self._unfinished if u.key == ("finalize", transcript.finalize_id)]
                self._cover(max([end, *asked]))
            self._full_text = transcript.full_text or self._full_text
            self._settle(("finalize", transcript.finalize_id))
        if transcript.finalize_id in self._finals:
            self._finals[transcript.finalize_id] = transcript
        return transcript

    # --- moving ---------------------------------------------------------------------------------

    def _renamed(self, transcript: Transcript) -> Transcript:
        """A transcript of a later session: the open segment is said again there, and goes on under its name."""
        segment_id = transcript.segment_id
        if segment_id not in self._names:
            self._names[segment_id] = f"{segment_id}.{self._moves}", 0
            if transcript.text and self._hanging and self._hanging[0] not in dict(self._names.values()):
                self._names[segment_id] = self._hanging
        name, revision = self._names[segment_id]
        if transcript.is_final:
            del self._names[segment_id]
        full_text = transcript.full_text
        if full_text:
            full_text = f"{self._full_text_before} {full_text}".lstrip()
        return replace(
            transcript,
            segment_id=name,
            segment_revision=revision + transcript.segment_revision,
            full_text=full_text,
        )

    @property
    def _units_per_s(self) -> int:
        return 48_000 if self._format.encoding == "OPUS" else audio.bytes_per_second(self._format)

    def _position_at(self, offset_s: float) -> int:
        if not self._can_move():
            return 0
        width = 1 if self._format.encoding == "OPUS" else audio.sample_bytes(self._format)
        return round((offset_s - self._zero_s) * self._units_per_s / width) * width

    def _keep(self, kind: str, message: Any) -> None:
        start = self._position
        if kind == "audio" and self._can_move():
            is_opus = self._format.encoding == "OPUS"
            content: bytes = message.content
            self._position += round(audio.opus_duration_s(content) * 48_000) if is_opus else len(content)
            self._unfinished.append(Unfinished("audio", kind, message, start, self._position))
            # While another session is being opened, what that one starts from has to stay.
            while not self._paused and self._position - self._kept_from > KEPT_AUDIO_S * self._units_per_s:
                self._drop_oldest()
        elif kind == "finalize":
            self._unfinished.append(
                Unfinished(("finalize", message.finalize_id), kind, message, start, start)
            )

    def _drop_oldest(self) -> None:
        index = next(i for i, item in enumerate(self._unfinished) if item.kind == "audio")
        end = self._unfinished[index].end
        if self._hanging or self._given_up:  # else it was heard, and there was nothing in it
            self._fallen_out += end - self._kept_from
        del self._unfinished[index]
        self._kept_from = end

    def _cover(self, position: int) -> None:
        self._covered = max(self._covered, min(position, self._position))
        self._kept_from = max(self._kept_from, self._covered)
        self._fallen_out = 0
        self._unfinished = deque(u for u in self._unfinished if u.kind != "audio" or u.end > self._covered)

    def _is_idle(self) -> bool:
        return not self._input_ended  # else it ends by itself, soon

    def _can_move(self) -> bool:
        # An Ogg stream would have to be cut between pages.
        return self._move_wanted and self._format.encoding != "OGG_OPUS"

    def _goes_on_at(self) -> int:
        """Where another session begins: a sample that is there whole, of a packet its beginning."""
        first = next((item for item in self._unfinished if item.kind == "audio"), None)
        if first is None:
            return self._position
        if self._format.encoding == "OPUS":
            return first.start
        width = audio.sample_bytes(self._format)
        return -(-max(first.start, self._covered) // width) * width

    def _start_elsewhere(self) -> transcription_service_pb2.StartTranscription:
        start = transcription_service_pb2.StartTranscription()
        start.CopyFrom(self._start_message)
        if self._settings_message is not None:
            start.settings.CopyFrom(self._settings_message.transcription)
        start.initial_audio_offset.CopyFrom(duration(self._zero_s + self._goes_on_at() / self._units_per_s))
        return start

    def _carry_over(self) -> float:
        lost_s = self._fallen_out / self._units_per_s
        at = self._goes_on_at()
        for index, item in enumerate(self._unfinished):
            if item.kind == "audio":
                if item.start < at:
                    cut = transcription_service_pb2.AudioInput(
                        content=item.message.content[at - item.start :]
                    )
                    self._unfinished[index] = replace(item, message=cut, start=at)
                break
        self._fallen_out = 0
        self._names.clear()
        self._full_text_before = self._full_text
        return lost_s

    def _what_is_lost(self) -> str:
        if self._position <= self._covered:
            return ""
        since_s = self._zero_s + self._covered / self._units_per_s
        return f"the transcript of the audio from {since_s:.2f} s on"
