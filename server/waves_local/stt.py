"""The speech-to-text socket: audio in by binary messages, transcripts out by frames."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from waves_local import codecs, frames, transcript, voice_traits
from waves_local.connection import Connection, ConnectionGone, IdleClock
from waves_local.engine import (
    Engine,
    HeardWord,
    Hypothesis,
    RecognitionEvent,
    RecognitionRequest,
    VoiceActivity,
)
from waves_local.options import Options
from waves_local.stt_request import LiveParameters

_log = logging.getLogger(__name__)

# Traits of a voice are estimated from so much audio, at most.
_TRAITS_S = 30


class _SessionError(Exception):
    """Raised when the session ends with an error frame. The message is meant for the client."""

    def __init__(self, message: str, close_code: int) -> None:
        super().__init__(message)
        self.close_code = close_code


class SttSession:
    """One STT connection."""

    def __init__(
        self,
        connection: Connection,
        engine: Engine,
        options: Options,
        parameters: LiveParameters,
        *,
        time_offset_s: float = 0.0,
    ) -> None:
        """`time_offset_s` is added to all times: for a service whose clock runs on from socket to socket."""
        self._connection = connection
        self._engine = engine
        self._options = options
        self._parameters = parameters
        self._offset_s = time_offset_s
        self._session_id = frames.new_session_id().removeprefix("ws_")
        self._decoder = codecs.decoder(parameters.encoding, parameters.sample_rate_hz)
        style = transcript.Style(
            punctuate=parameters.punctuate,
            capitalize=parameters.capitalize,
            numbers=parameters.itn_normalize or parameters.numerals,
            redact_pii=parameters.redact_pii,
            redact_pci=parameters.redact_pci,
        )
        self._writer = transcript.Writer(
            style, language=parameters.language, comes_punctuated=engine.punctuates
        )
        self._wants_traits = parameters.model == "pulse-2" and (
            parameters.emotion_detection or parameters.gender_detection
        )
        self._voice = bytearray()
        """Audio since the last final, for those traits."""
        self._outbox: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(10_000)
        self._can_send = True
        self._finals: list[str] = []
        self._cut_s = 0.0
        """Words before this belong to a final that their number forced."""
        self.heard_s = 0.0
        """Seconds of audio received."""
        self._busy_until_s = 0.0
        """When the audio so far is heard, at the listening speed; on the loop's clock."""

    async def run(self) -> None:
        """Serve the connection until it ends, whoever ends it."""
        loop = asyncio.get_running_loop()
        sender = asyncio.create_task(self._send_all())
        idle = IdleClock(self._options.stt_idle_timeout_s, lambda: self._on_idle(loop))
        stream = await self._engine.recognizer.open(self._recognition_request())
        try:
            self._check_model()
            async with contextlib.aclosing(self._messages(idle)) as messages:
                async for message in messages:
                    if isinstance(message, bytes):
                        self._connection.received(message)
                        await self._hear(stream, message)
                    elif await self._control(stream, message):
                        await self._flush(sender)
                        await self._connection.close(1000)
                        return
        except ConnectionGone:
            pass
        except _SessionError as error:
            await self._put(frames.stt_error(self._session_id, self._options.stt_error_shape, str(error)))
            await self._flush(sender)
            await self._connection.close(error.close_code)
        except Exception:
            _log.exception("the recognizer failed")
            await self._put(
                frames.stt_error(self._session_id, self._options.stt_error_shape, "Internal server error")
            )
            await self._flush(sender)
            await self._connection.close(1011)
        finally:
            idle.stop()
            sender.cancel()
            await asyncio.wait([sender])
            await stream.close()

    # --- in --------------------------------------------------------------------------------------------

    async def _messages(self, idle: IdleClock) -> AsyncGenerator[str | bytes, None]:
        """The client's messages, in order; read ahead of the listening where the options say so."""
        if not self._options.listens_behind:
            async for message in self._connection:
                idle.heard()
                yield message
            return
        waiting: asyncio.Queue[str | bytes | None] = asyncio.Queue()

        async def read() -> None:
            async for message in self._connection:
                idle.heard()
                waiting.put_nowait(message)
            waiting.put_nowait(None)

        reader = asyncio.create_task(read())
        try:
            while (waited_for := await waiting.get()) is not None:
                yield waited_for
        finally:
            reader.cancel()
            await asyncio.wait([reader])

    async def _take_time(self, duration_s: float) -> None:
        """Take as long as a listener of this speed takes for so much audio."""
        if speed := self._options.listening_speed:
            now_s = asyncio.get_running_loop().time()
            self._busy_until_s = max(now_s, self._busy_until_s) + duration_s / speed
            await self._connection.sleep(self._busy_until_s - now_s)

    def _recognition_request(self) -> RecognitionRequest:
        p = self._parameters
        return RecognitionRequest(
            sample_rate_hz=p.sample_rate_hz,
            language=p.language,
            model=p.model,
            endpointing=p.endpointing,
            end_of_utterance_s=p.silence_ms / 1000,
            keywords=p.keywords,
            vad_threshold=p.vad_threshold,
            vad_min_speech_s=None if p.vad_min_speech_ms is None else p.vad_min_speech_ms / 1000,
        )

    def _check_model(self) -> None:
        # The real service accepts this connection and closes it.
        if self._parameters.model == "pulse-2" and self._parameters.language != "en":
            raise _SessionError("Model 'pulse-2' supports language 'en' only.", 1003)

    async def _hear(self, stream: Any, message: bytes) -> None:
        try:
            pcm = self._decoder.decode(message)
        except ValueError as error:
            raise _SessionError(f"Cannot decode the audio: {error}.", 1007) from error
        if pcm:
            duration_s = len(pcm) / 2 / self._parameters.sample_rate_hz
            await self._take_time(duration_s)
            self.heard_s += duration_s
            if self._wants_traits:
                self._voice += pcm
                del self._voice[: -_TRAITS_S * 2 * self._parameters.sample_rate_hz]
            await self._report(await stream.accept(pcm))

    async def _control(self, stream: Any, message: str) -> bool:
        """Obey a text message. True: the session is over."""
        try:
            body = frames.loads(message)
        except ValueError as error:
            self._connection.received(message)
            raise _SessionError("Invalid JSON in the message.", 1007) from error
        self._connection.received(message, body)
        kind = body.get("type") if isinstance(body, dict) else None
        if kind == "finalize":
            await self._report(await stream.finalize(), from_finalize=True)
        elif kind == "close_stream":
            await self._report(await stream.finalize(), is_last=True)
            return True
        elif kind == "keepalive" and self._options.stt_keepalive != "refused":
            if self._options.stt_keepalive == "pong":
                await self._put(frames.dumps({"type": "pong"}))
        else:
            raise _SessionError(f"Unknown message type: {str(kind)[:64]}", 1003)
        return False

    def _on_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        timeout_s = self._options.stt_idle_timeout_s
        message = f"Connection timed out after {timeout_s:g} seconds of inactivity"
        frame = frames.stt_error(self._session_id, self._options.stt_error_shape, message)
        with contextlib.suppress(asyncio.QueueFull):
            self._outbox.put_nowait((loop.time(), frame))
            self._outbox.put_nowait((loop.time(), None))

    # --- out -------------------------------------------------------------------------------------------

    async def _report(
        self, events: Sequence[RecognitionEvent], *, from_finalize: bool = False, is_last: bool = False
    ) -> None:
        last_final = max(
            (i for i, e in enumerate(events) if isinstance(e, Hypothesis) and e.is_final), default=-1
        )
        for index, event in enumerate(events):
            if isinstance(event, VoiceActivity):
                await self._report_activity(event)
            elif not event.is_final:
                await self._report_partial(event)
            else:
                # An engine may have to end an utterance by itself before the one that it was asked to end.
                is_asked_for = index == last_final
                await self._report_final(
                    event, from_finalize=from_finalize and is_asked_for, is_last=is_last and is_asked_for
                )

    async def _report_activity(self, event: VoiceActivity) -> None:
        if self._parameters.vad_events:
            kind = "speech_started" if event.speaking else "speech_ended"
            timestamp = round(event.at_s + self._offset_s, 4)
            await self._put(
                frames.dumps({"type": kind, "session_id": self._session_id, "timestamp": timestamp})
            )

    async def _report_partial(self, event: Hypothesis) -> None:
        words = self._new_words(event.words)
        limit = self._parameters.max_words
        # The last word may still grow, so one more than the limit makes the others certain.
        while self._parameters.finalize_on_words and limit and len(words) > limit:
            await self._send_transcript(words[:limit], is_final=True)
            self._cut_s = words[limit - 1].end_s
            words = words[limit:]
        if words and self._options.partials:
            await self._send_transcript(words, is_final=False)

    async def _report_final(self, event: Hypothesis, *, from_finalize: bool, is_last: bool) -> None:
        words = self._new_words(event.words)
        self._cut_s = 0.0
        speech_final = event.by_endpoint and self._options.speech_final
        if is_last:
            if words and self._options.last_apart:
                await self._send_transcript(words, is_final=True)
                words = []
            await self._send_transcript(words, is_final=True, is_last=True)
        elif words or (
            from_finalize and (self._writer.holds_back or self._options.empty_finalize == "answered")
        ):
            await self._send_transcript(
                words, is_final=True, from_finalize=from_finalize, speech_final=speech_final
            )

    def _new_words(self, words: Sequence[HeardWord]) -> list[HeardWord]:
        """Those that no earlier final of this utterance has taken."""
        return [w for w in words if (w.start_s + w.end_s) / 2 >= self._cut_s]

    async def _send_transcript(
        self,
        heard: Sequence[HeardWord],
        *,
        is_final: bool,
        is_last: bool = False,
        from_finalize: bool = False,
        speech_final: bool = False,
    ) -> None:
        p, options = self._parameters, self._options
        if is_final:
            may_go_on = not (is_last or from_finalize or p.no_format_delay)
            written = self._writer.final(heard, may_go_on=may_go_on)
            if not written.words and may_go_on:
                return  # all of it waits for the next final
            if written.text:
                self._finals.append(written.text)
        else:
            written = self._writer.partial(heard)
        words, text = written.words, written.text
        frame: dict[str, Any] = {"type": "transcription", "status": "success", "session_id": self._session_id}
        if options.transcript_field != "transcript":
            frame["transcription"] = text
        if options.transcript_field != "transcription":
            frame["transcript"] = text
        frame["is_final"] = is_final
        frame["is_last"] = is_last
        frame["from_finalize"] = from_finalize
        if speech_final:
            frame["speech_final"] = True
        is_multi = p.language.startswith("multi") or p.language == "north_indic"
        frame["language"] = "en" if is_multi else p.language
        if is_multi:
            frame["languages"] = ["en"]
        if p.word_timestamps:
            frame["words"] = [self._word(w) for w in words]
        if p.sentence_timestamps:
            frame["utterances"] = [
                {
                    "text": transcript.joined(sentence),
                    "start": self._time(sentence[0].start_s),
                    "end": self._time(sentence[-1].end_s),
                    **({"speaker": self._speaker(sentence[0])} if p.diarize else {}),
                }
                for sentence in transcript.sentences(words)
            ]
        if written.entities:
            frame["redacted_entities"] = written.entities
        if is_final and self._wants_traits:
            frame |= self._traits()
        if p.full_transcript:
            frame["full_transcript"] = " ".join(self._finals)
        await self._put(frames.dumps(frame))

    def _traits(self) -> dict[str, Any]:
        traits = voice_traits.estimate(bytes(self._voice), self._parameters.sample_rate_hz)
        self._voice.clear()
        if traits is None:
            return {}
        found: dict[str, Any] = {}
        if self._parameters.emotion_detection:
            found["emotion"] = traits.emotions
        if self._parameters.gender_detection:
            found["gender"] = traits.gender
        return found

    def _word(self, word: HeardWord) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "word": word.text,
            "start": self._time(word.start_s),
            "end": self._time(word.end_s),
            "confidence": round(word.confidence, 4),
        }
        if self._parameters.diarize:
            shown["speaker"] = self._speaker(word)
            shown["speaker_confidence"] = 1.0
        return shown

    def _speaker(self, word: HeardWord) -> str | int:
        return str(word.speaker) if self._options.speaker_type == "string" else word.speaker

    def _time(self, time_s: float) -> float:
        # Fine enough for a single sample at 48 kHz.
        return round(time_s + self._offset_s, 5)

    async def _put(self, frame: bytes) -> None:
        if not self._can_send:
            return  # nobody empties the queue any more
        await self._outbox.put((asyncio.get_running_loop().time() + self._options.stt_delay_s, frame))

    async def _flush(self, sender: asyncio.Task[None]) -> None:
        """Wait until everything is sent, or cannot be."""
        flushed = asyncio.create_task(self._outbox.join())
        await asyncio.wait([flushed, sender], return_when=asyncio.FIRST_COMPLETED)
        flushed.cancel()

    async def _send_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, frame = await self._outbox.get()
            if (delay_s := due_s - loop.time()) > 0:
                await asyncio.sleep(delay_s)
            if frame is None:
                self._connection.close_soon(self._options.idle_close_code, "idle timeout")
                return
            try:
                await self._connection.send(frame)
            except ConnectionGone:
                self._can_send = False
                while not self._outbox.empty():  # lets go those who wait for room
                    self._outbox.get_nowait()
                return
            self._outbox.task_done()
