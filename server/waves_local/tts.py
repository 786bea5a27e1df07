"""The text-to-speech socket: text in by messages, speech out by frames.

Text is collected in *turns* and leaves them in *releases*. A turn is everything up to the message that says
that no more input comes; with continuations, one `context_id` is one turn, and several may be open. A release
is a piece of text that is spoken in one go under a `request_id` of its own. All releases of a connection are
spoken one after another, in the order in which they were made.

    messages -> turns (buffer, timer) -> queue of releases and turn ends -> one speaker -> frames

Everything up to the queue happens at once, when a message comes or a timer rings; only the speaker waits.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from waves_local import codecs, frames
from waves_local.connection import Connection, ConnectionGone, IdleClock
from waves_local.engine import Engine, SpokenAudio, SpokenWord, Voice
from waves_local.limits import Limits, RequestSlot
from waves_local.options import Options
from waves_local.speaking import Chunks, Pace, speech_of
from waves_local.tts_request import RequestError, TtsRequest, read_request

_log = logging.getLogger(__name__)

# A sentence ends at its mark and any closing quotes, where a blank follows or the buffer ends.
_SENTENCE_END = re.compile(r"[.!?…。！？।॥]+[\"'”’»)\]]*(?=\s|\Z)|[。！？।॥]+[”’」』）]*")
# At the end of the buffer a point after a digit may yet become a decimal one: "3." + "14".
_OPEN_NUMBER = re.compile(r"\d\.\Z")


def sentence_cut(text: str) -> int:
    """How much of the text is whole sentences, in code points. 0: none."""
    cut = 0
    for match in _SENTENCE_END.finditer(text):
        if match.end() < len(text) or not _OPEN_NUMBER.search(text):
            cut = match.end()
    return cut


@dataclass(slots=True, eq=False)
class _Turn:
    """Text that belongs together, and how far it has come."""

    context_id: str | None
    request: TtsRequest
    """The latest message: its settings are those of what is buffered."""
    buffer: str = ""
    messages: list[TtsRequest] = field(default_factory=list)
    """Messages with text that no release has taken up."""
    timer: asyncio.TimerHandle | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the turn is dropped."""
    has_spoken: bool = False
    last_chunk_at_s: float = 0.0
    envelope: dict[str, Any] = field(default_factory=dict)
    """Of the latest release."""
    words: int = 0
    seconds: float = 0.0
    slot: RequestSlot | None = None

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@dataclass(frozen=True, slots=True)
class _Release:
    turn: _Turn
    text: str
    request: TtsRequest
    messages: tuple[TtsRequest, ...]


@dataclass(frozen=True, slots=True)
class _TurnEnd:
    turn: _Turn
    request: TtsRequest


@dataclass(frozen=True, slots=True, eq=False)
class _Complete:
    """A `complete` that is due."""

    frame: bytes
    turn: _Turn


class TtsSession:
    """One TTS connection."""

    def __init__(
        self,
        connection: Connection,
        engine: Engine,
        options: Options,
        limits: Limits,
        voices: dict[str, Voice],
        *,
        key: str,
        idle_timeout_s: float,
        is_v2: bool = False,
    ) -> None:
        self._connection = connection
        self._engine = engine
        self._options = options
        self._limits = limits
        self._voices = voices
        self._voice_ids = frozenset(voices)
        self._key = key
        self._idle_timeout_s = idle_timeout_s
        self._is_v2 = is_v2
        self._session_id = frames.new_session_id()
        self._loop = asyncio.get_running_loop()
        self._contexts: dict[str, _Turn] = {}
        self._flush_turn: _Turn | None = None
        self._queue: deque[_Release | _TurnEnd] = deque()
        self._queued = asyncio.Event()
        self._speaking: _Turn | None = None
        self._completes: dict[_Complete, asyncio.TimerHandle] = {}
        self._slots: set[RequestSlot] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve the connection until it ends, whoever ends it."""
        idle = IdleClock(self._idle_timeout_s, lambda: self._in_background(self._end_idle()))
        if self._options.ping_resets_idle:
            self._connection.on_ping = idle.heard
        speaker = asyncio.create_task(self._speak_all())
        try:
            async for message in self._connection:
                idle.heard()
                self._on_message(message)
        except ConnectionGone:
            pass
        finally:
            idle.stop()
            speaker.cancel()
            await asyncio.wait([speaker])
            for task in self._tasks:
                task.cancel()
            for turn in (*self._contexts.values(), *filter(None, [self._flush_turn])):
                turn.stop_timer()
            for timer in self._completes.values():
                timer.cancel()
            for slot in self._slots:
                slot.free(self._options.slot_linger_s)

    # --- messages in -----------------------------------------------------------------------------------

    def _on_message(self, message: str | bytes) -> None:
        body: Any = None
        try:
            if isinstance(message, bytes):
                self._connection.received(message)
                raise RequestError("Binary messages are not accepted here: send JSON as text.")
            try:
                body = frames.loads(message)
            except ValueError as error:
                self._connection.received(message)
                raise RequestError("Invalid JSON in the message.") from error
            self._connection.received(message, body)
            request = read_request(body, self._options, self._voice_ids, over_socket=True, is_v2=self._is_v2)
            self._accept(request)
        except RequestError as error:
            # Not awaited: a stalled connection is still read.
            self._in_background(self._send_error(self._envelope_of(body), str(error), error.code))

    def _accept(self, request: TtsRequest) -> None:
        if request.cancel:
            self._cancel(request)
            return
        if request.is_bare_flush:
            if self._flush_turn is not None:
                self._advance(self._flush_turn, request)
            return
        turn = self._turn_of(request)
        if turn is None:
            return
        if request.text.strip() and self._options.text_while_speaking != "queued":
            self._make_way_for(turn)
        if turn.buffer and request.text and _settings(request) != _settings(turn.request):
            # The buffered text was written for other settings.
            self._release(turn, len(turn.buffer))
        turn.buffer += request.text
        if request.text:
            turn.messages.append(request)
            turn.request = request
        self._advance(turn, request)

    def _turn_of(self, request: TtsRequest) -> _Turn | None:
        if request.context_id is not None:
            return self._contexts.setdefault(request.context_id, _Turn(request.context_id, request))
        if self._flush_turn is None:
            if request.text and not request.text.strip() and not request.continues:
                # A blank alone: the keepalive of some clients.
                if self._options.blank_text == "silent":
                    return None
                if self._options.blank_text == "rejected":
                    raise RequestError("'text' must not be blank.")
            self._flush_turn = _Turn(None, request)
        return self._flush_turn

    def _make_way_for(self, turn: _Turn) -> None:
        """Text of this turn has come while another may be spoken. Raises RequestError where that is not allowed."""
        others = {job.turn for job in self._queue if isinstance(job, _Release)} - {turn}
        if self._speaking is not None and self._speaking is not turn:
            others.add(self._speaking)
        if not others:
            return
        if self._options.text_while_speaking == "rejected":
            self._forget(turn)
            raise RequestError("Another request is being spoken.", "REQUEST_IN_PROGRESS")
        self._drop(others)

    def _forget(self, turn: _Turn) -> None:
        """No more text comes for this turn."""
        turn.stop_timer()
        if turn.context_id is not None:
            self._contexts.pop(turn.context_id, None)
        elif self._flush_turn is turn:
            self._flush_turn = None

    def _advance(self, turn: _Turn, request: TtsRequest) -> None:
        """Release what has become ready by this message."""
        if not request.continues:
            self._end_turn(turn, request)
        elif request.flush:
            self._release(turn, len(turn.buffer))
        elif turn.context_id is not None:
            if request.max_buffer_delay_ms == 0:
                self._release(turn, len(turn.buffer))
            else:
                self._release(turn, sentence_cut(turn.buffer))
                self._release_later(turn, request.max_buffer_delay_ms)
        elif request.max_buffer_flush_ms:
            if self._options.optimal_chars and len(turn.buffer) >= self._options.optimal_chars:
                self._release(turn, len(turn.buffer))
            else:
                self._release_later(turn, request.max_buffer_flush_ms)

    def _end_turn(self, turn: _Turn, request: TtsRequest) -> None:
        self._release(turn, len(turn.buffer), is_last=True)
        self._forget(turn)
        self._enqueue(_TurnEnd(turn, request))

    def _release(self, turn: _Turn, length: int, *, is_last: bool = False) -> None:
        """Let the first `length` code points of the buffer go to be spoken."""
        text = turn.buffer[:length]
        if not text:
            return
        if not text.strip() and not (is_last and self._options.blank_text == "spoken"):
            return  # inner blanks are spoken with what follows; blanks at the end are not
        turn.buffer = turn.buffer[length:]
        turn.stop_timer()
        messages, turn.messages = (tuple(turn.messages), []) if not turn.buffer else ((), turn.messages)
        self._enqueue(_Release(turn, text, turn.request, messages))

    def _release_later(self, turn: _Turn, delay_ms: int) -> None:
        """Release the whole buffer after a while, counted from its oldest text."""
        if turn.timer is None and turn.buffer.strip():
            turn.timer = self._loop.call_later(delay_ms / 1000, self._on_release_timer, turn)

    def _on_release_timer(self, turn: _Turn) -> None:
        turn.timer = None
        self._release(turn, len(turn.buffer))

    def _cancel(self, request: TtsRequest) -> None:
        if self._options.cancel == "ignored":
            return
        assert request.context_id is not None
        turns = {job.turn for job in self._queue if job.turn.context_id == request.context_id}
        if self._speaking is not None and self._speaking.context_id == request.context_id:
            turns.add(self._speaking)
        if (open_turn := self._contexts.get(request.context_id)) is not None:
            turns.add(open_turn)
        turns |= {c.turn for c in self._completes if c.turn.context_id == request.context_id}
        self._drop(turns)
        if self._options.cancel_answer != "none":
            status = self._options.cancel_answer
            envelope = self._envelope(request, None)
            frame = frames.dumps({**envelope, "context_id": request.context_id, "status": status})
            self._in_background(self._connection.send(frame))

    def _drop(self, turns: set[_Turn]) -> None:
        """Speak nothing more of these turns, and say nothing more about them."""
        for turn in turns:
            self._forget(turn)
            turn.stopped.set()
            if turn is not self._speaking:
                self._free_slot(turn)
        for complete in [c for c in self._completes if c.turn in turns]:
            self._completes.pop(complete).cancel()
        self._queue = deque(job for job in self._queue if job.turn not in turns)

    def _enqueue(self, job: _Release | _TurnEnd) -> None:
        self._queue.append(job)
        self._queued.set()

    # --- speech out ------------------------------------------------------------------------------------

    async def _speak_all(self) -> None:
        try:
            while True:
                while self._queue:
                    job = self._queue.popleft()
                    if job.turn.stopped.is_set():
                        continue
                    if isinstance(job, _Release):
                        await self._overtake_completes()
                        await self._speak(job)
                    else:
                        await self._on_turn_end(job)
                self._queued.clear()
                await self._queued.wait()
        except ConnectionGone:
            pass
        except Exception:
            _log.exception("speaking failed")
            self._connection.close_soon(1011, "internal error")

    async def _speak(self, release: _Release) -> None:
        turn, request = release.turn, release.request
        turn.envelope = envelope = self._envelope(request, frames.new_request_id())
        if turn.slot is None:
            turn.slot = self._limits.take_request(self._key)
            if turn.slot is None:
                await self._send_error(envelope, self._limits.request_refusal(), "CONCURRENCY_LIMIT")
                return
            self._slots.add(turn.slot)
        self._speaking = turn
        self._connection.spoke(release.text)
        try:
            async with speech_of(self._engine, request, release.text) as pieces:
                await self._send_speech(turn, request, envelope, pieces)
        except ConnectionGone:
            raise
        except Exception:
            _log.exception("the engine failed on %d characters", len(release.text))
            await self._send_error(envelope, "Internal server error", "INTERNAL_ERROR")
        finally:
            self._speaking = None
        if self._options.slot_freed_by == "last_chunk" or turn.stopped.is_set():
            self._free_slot(turn)
        if turn.stopped.is_set():
            return
        if self._options.complete_per == "release":
            await self._complete_later(turn, envelope, request)
        elif self._options.complete_per == "request":
            for message in release.messages:
                own = self._envelope(message, envelope["request_id"])
                await self._complete_later(turn, own, message)

    async def _send_speech(
        self, turn: _Turn, request: TtsRequest, envelope: dict[str, Any], pieces: AsyncIterator[Any]
    ) -> None:
        options = self._options
        prefix = frames.chunk_prefix(envelope)
        wants_words = request.word_timestamps and self._sends_words(request.voice_id)
        encode = codecs.chunk_encoder(
            request.output_format if options.socket_output_format == "honoured" else "pcm",
            request.sample_rate_hz,
        )
        pace = Pace(options, request.sample_rate_hz)
        words, first_word_id, offset_s = 0, 0, 0.0
        if not options.word_times_restart:
            first_word_id, offset_s = turn.words, turn.seconds

        async def send_chunk(pcm: bytes) -> None:
            await turn_pause(turn, pace.wait_s(self._loop.time()))
            if turn.stopped.is_set():
                return
            audio = encode(pcm)
            await self._connection.send(frames.chunk_frame(prefix, audio), len(audio))
            pace.sent(len(pcm), self._loop.time())
            turn.has_spoken = True
            turn.last_chunk_at_s = self._loop.time()

        pace.start(self._loop.time())
        chunks = Chunks(pace.chunk_bytes)
        async for piece in pieces:
            if isinstance(piece, SpokenAudio):
                for chunk in chunks.add(piece.pcm):
                    await send_chunk(chunk)
            elif wants_words and isinstance(piece, SpokenWord):
                data = {
                    "id": first_word_id + words,
                    "word": piece.text,
                    "start": round(offset_s + piece.start_s, 4),
                    "end": round(offset_s + piece.end_s, 4),
                }
                words += 1
                await self._connection.send(
                    frames.dumps({**envelope, "status": "word_timestamp", "data": data})
                )
            if turn.stopped.is_set():
                return
            await asyncio.sleep(0)
        if rest := chunks.rest():
            await send_chunk(rest)
        turn.words += words
        turn.seconds += pace.sent_s

    def _sends_words(self, voice_id: str) -> bool:
        match self._options.word_timings:
            case "always":
                return True
            case "never":
                return False
        voice = self._voices.get(voice_id)
        return voice is not None and voice.word_timestamps

    # --- `complete` ------------------------------------------------------------------------------------

    async def _on_turn_end(self, end: _TurnEnd) -> None:
        turn = end.turn
        if not turn.has_spoken:
            if self._options.empty_turn_complete:
                envelope = turn.envelope or self._envelope(end.request, frames.new_request_id())
                await self._complete(_Complete(self._complete_frame(envelope), turn))
        elif self._options.complete_per == "turn":
            await self._complete_later(turn, turn.envelope, end.request)
        if self._options.complete_per == "none":
            self._free_slot(turn)

    async def _complete_later(self, turn: _Turn, envelope: dict[str, Any], request: TtsRequest) -> None:
        complete = _Complete(self._complete_frame(envelope), turn)
        due_s = turn.last_chunk_at_s + request.complete_backoff_ms / 1000 + self._options.complete_late_s
        if due_s <= self._loop.time():
            await self._complete(complete)
        else:
            self._completes[complete] = self._loop.call_at(due_s, self._on_complete_timer, complete)

    def _on_complete_timer(self, complete: _Complete) -> None:
        del self._completes[complete]
        self._in_background(self._complete(complete))

    async def _overtake_completes(self) -> None:
        """New text is about to be spoken: what becomes of a `complete` that still waits."""
        if self._options.complete_overtaken == "late":
            return
        for complete, timer in tuple(self._completes.items()):
            timer.cancel()
            self._completes.pop(complete, None)
            if self._options.complete_overtaken == "prompt":
                await self._complete(complete)
            else:
                self._free_slot(complete.turn)

    async def _complete(self, complete: _Complete) -> None:
        await self._connection.send(complete.frame)
        self._free_slot(complete.turn)
        if self._options.complete_closes:
            self._connection.close_soon(1000)

    def _complete_frame(self, envelope: dict[str, Any]) -> bytes:
        extra = {"message": "All chunks sent", "done": True} if self._options.complete_extra else {}
        return frames.dumps({**envelope, "status": "complete", **extra})

    def _free_slot(self, turn: _Turn) -> None:
        if turn.slot is not None:
            turn.slot.free()
            self._slots.discard(turn.slot)
            turn.slot = None

    # --- the rest --------------------------------------------------------------------------------------

    def _envelope(self, request: TtsRequest, request_id: str | None) -> dict[str, Any]:
        if not self._options.echo_ids:
            return frames.tts_envelope(self._session_id, request_id, None, None)
        return frames.tts_envelope(self._session_id, request_id, request.session_id, request.request_id)

    def _envelope_of(self, body: Any) -> dict[str, Any]:
        """For an error about a message that could not be read: its ids, where they can be."""

        def text(name: str) -> str | None:
            value = body.get(name) if isinstance(body, dict) and self._options.echo_ids else None
            return value if isinstance(value, str) else None

        return frames.tts_envelope(self._session_id, None, text("session_id"), text("request_id"))

    async def _send_error(self, envelope: dict[str, Any], message: str, code: str) -> None:
        await self._connection.send(frames.tts_error(envelope, self._options.error_shape, message, code))
        if self._options.error_closes:
            self._connection.close_soon(self._options.error_close_code)

    def _in_background(self, sending: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            with suppress(ConnectionGone):
                await sending

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Where the connection ends before the task has begun, nobody else does it.
        task.add_done_callback(lambda _: sending.close())

    async def _end_idle(self) -> None:
        message = f"Connection timed out after {self._idle_timeout_s:g} seconds of inactivity"
        await self._connection.send(frames.tts_error({}, self._options.error_shape, message, "TIMEOUT"))
        self._connection.close_soon(self._options.idle_close_code, "idle timeout")


def _settings(request: TtsRequest) -> tuple[Any, ...]:
    """What decides how a text sounds."""
    return (
        request.voice_id,
        request.model,
        request.language,
        request.number_language,
        request.math_notation,
        request.sample_rate_hz,
        request.speed,
        request.output_format,
        request.consistency,
        request.similarity,
        request.enhancement,
    )


async def turn_pause(turn: _Turn, delay_s: float) -> None:
    """Wait, or until the turn is dropped."""
    if delay_s <= 0 or turn.stopped.is_set():
        return
    try:
        async with asyncio.timeout(delay_s):
            await turn.stopped.wait()
    except TimeoutError:
        pass
