"""One request, one answer: a whole text, a whole recording."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from grpc import aio

from wavegate._channel import Channel, ResponseStream
from wavegate._events_wire import synthesis_event
from wavegate._settings_wire import audio_format_to_wire, settings_to_wire, text_to_wire
from wavegate.errors import ConnectionLostError
from wavegate.events import (
    AudioChunk,
    GatewayWarning,
    Sentence,
    SessionStarted,
    SynthesisEvent,
    TimedWord,
    UpstreamInfo,
    UtteranceCompleted,
    Word,
    WordTimings,
)
from wavegate.settings import AudioFormat
from wavegate.speech.v1 import synthesis_service_pb2, types_pb2

__all__ = ["Recognition", "Speech", "SpeechRequest"]


@dataclass(frozen=True, slots=True)
class Speech:
    """A spoken text."""

    audio: bytes
    started: SessionStarted
    completed: UtteranceCompleted
    words: tuple[TimedWord, ...]
    warnings: tuple[GatewayWarning, ...]

    @property
    def audio_format(self) -> AudioFormat:
        """What `audio` is."""
        return self.started.audio_format


@dataclass(frozen=True, slots=True)
class Recognition:
    """What is said in a recording."""

    text: str
    words: tuple[Word, ...]
    sentences: tuple[Sentence, ...]
    language_codes: tuple[str, ...]
    audio_duration_s: float
    upstream: UpstreamInfo | None


class SpeechRequest:
    """A text that is to be spoken whole: `await` it for all of its audio, or iterate over its events as they come.

    Either way asks the gateway once; both raise what it says against it.
    """

    def __init__(
        self,
        channel: Channel,
        text: str,
        settings: Mapping[str, object],
        audio_format: AudioFormat | None,
        request_id: str,
    ) -> None:
        self._channel = channel
        self._request = synthesis_service_pb2.SynthesizeRequest(
            text=text_to_wire(text),
            settings=settings_to_wire(types_pb2.SynthesisSettings, settings),
            audio_format=audio_format_to_wire(audio_format) if audio_format else None,
            request_id=request_id,
        )

    async def __aiter__(self) -> AsyncIterator[SynthesisEvent]:
        """The events: `SessionStarted`, audio and word timings, `UtteranceCompleted`. Leaving early cancels it."""
        call: ResponseStream[synthesis_service_pb2.SynthesizeResponse] = self._channel.synthesis.Synthesize(
            self._request, metadata=self._channel.metadata()
        )
        answered = completed = False
        try:
            with self._channel.in_use():
                async for response in call:
                    answered = True
                    event = synthesis_event(response)
                    completed = completed or isinstance(event, UtteranceCompleted)
                    if event is not None:
                        yield event
        except aio.AioRpcError as exc:
            raise self._channel.error(exc, answered=answered) from exc
        finally:
            call.cancel()
        if not completed:
            raise ConnectionLostError(
                f"the gateway at {self._channel.target} ended the speech before it was complete; ask again",
                code="UNAVAILABLE",
            )

    def __await__(self) -> Generator[Any, None, Speech]:
        return self._collect().__await__()

    async def _collect(self) -> Speech:
        audio: list[bytes] = []
        words: list[TimedWord] = []
        warnings: list[GatewayWarning] = []
        started: SessionStarted | None = None
        completed: UtteranceCompleted | None = None
        async for event in self:
            match event:
                case SessionStarted():
                    started = event
                case AudioChunk():
                    audio.append(event.audio)
                case WordTimings():
                    words.extend(event.words)
                case GatewayWarning():
                    warnings.append(event)
                case UtteranceCompleted():
                    completed = event
        assert completed is not None, "iteration raises otherwise"
        if started is None:
            raise ConnectionLostError(f"the gateway at {self._channel.target} did not say what it sends")
        return Speech(b"".join(audio), started, completed, tuple(words), tuple(warnings))
