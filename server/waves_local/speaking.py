"""How speech is had from an engine, in what portions it goes out, and how fast."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from waves_local.engine import Engine, SpokenAudio, SpokenWord
from waves_local.options import Options
from waves_local.tts_request import TtsRequest


@asynccontextmanager
async def speech_of(
    engine: Engine, request: TtsRequest, text: str
) -> AsyncIterator[AsyncIterator[SpokenAudio | SpokenWord]]:
    """The speech of a text with a request's settings. Leaving the block stops the engine's work."""
    pieces = engine.synthesizer.synthesize(request.voice_request(text))
    try:
        yield pieces
    finally:
        # Left to the garbage collector, an abandoned generator would end some time later.
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


class Chunks:
    """Cuts audio into chunks of one size; what is left over is the last."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._rest = bytearray()

    def add(self, pcm: bytes) -> list[bytes]:
        """The chunks that this audio makes full."""
        self._rest += pcm
        size = self._size_bytes
        end = len(self._rest) // size * size
        if not end:
            return []
        whole = bytes(self._rest[:end])
        del self._rest[:end]
        return [whole[i : i + size] for i in range(0, end, size)]

    def rest(self) -> bytes:
        """What no chunk has taken."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest


class Pace:
    """When the next chunk may go out."""

    def __init__(self, options: Options, sample_rate_hz: int) -> None:
        self._options = options
        self._bytes_per_s = 2 * sample_rate_hz
        self.chunk_bytes = options.chunk_bytes or 2 * max(1, round(options.chunk_s * sample_rate_hz))
        self._start_s = 0.0
        self._next_s = 0.0
        self.sent_s = 0.0
        """Seconds of audio sent."""

    def start(self, now_s: float) -> None:
        """The text has been released."""
        self._start_s = now_s + self._options.first_audio_delay_s
        self._next_s = self._start_s

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next chunk may go out; 0 or less: now."""
        return self._next_s - now_s

    def sent(self, pcm_bytes: int, now_s: float) -> None:
        """A chunk has gone out."""
        self.sent_s += pcm_bytes / self._bytes_per_s
        self._next_s = now_s + self._options.chunk_interval_s
        if self._options.generation_speed:
            self._next_s = max(self._next_s, self._start_s + self.sent_s / self._options.generation_speed)
