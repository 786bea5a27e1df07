"""Whole-text synthesis over Server-Sent Events: the request's body, and what each event means. Sans-IO.

`POST …/tts/live` answers with `data:` lines of JSON in one of two shapes: `{"audio", "done", "status": "206"}`
as documented today, or the WebSocket's `{"status": "chunk", "data": {"audio"}}` of older documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import pybase64

from wavegate_server import errors
from wavegate_server.waves import close
from wavegate_server.waves.settings import LIGHTNING_V2, SYNTHESIS, Settings, upstream_values
from wavegate_server.waves.tts import is_word_time

SSE_PATH = "/waves/v1/tts/live"
SSE_OLD_PATH = "/waves/v1/lightning-v3.1/stream"
SSE_V2_PATH = "/waves/v1/lightning-v2/stream"

_STREAM_ONLY = ("max_buffer_delay_ms", "complete_backoff_ms")
"""What has a meaning only where text is streamed."""


@dataclass(frozen=True, slots=True)
class Audio:
    """PCM, as it came."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class Word:
    """A word's times from the start of the audio, in seconds."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Done:
    """All audio was sent."""


SseEvent = Audio | Word | Done


def path_of(settings: Settings, *, old_paths: bool) -> str:
    """The endpoint that serves these settings: an old model has its own, a flag brings the old one back."""
    if settings.get("model") == LIGHTNING_V2:
        return SSE_V2_PATH
    return SSE_OLD_PATH if old_paths else SSE_PATH


def body(settings: Settings, text: str, sample_rate_hz: int, session_id: str, request_id: str) -> bytes:
    """The JSON body of a request."""
    values = {k: v for k, v in upstream_values(SYNTHESIS, settings).items() if k not in _STREAM_ONLY}
    values |= {
        "text": text,
        "sample_rate": sample_rate_hz,
        "output_format": "pcm",
        "session_id": session_id,
        "request_id": request_id,
    }
    return msgspec.json.encode(values)


class SseReader:
    """Turns lines of the response into events. `request_id` is the upstream's own, once it is known."""

    def __init__(self) -> None:
        self.session_id = ""
        self.request_id = ""
        self._data: list[str] = []

    def line(self, line: str) -> list[SseEvent]:
        """Take one line without its end. Raises an error of `wavegate_server.errors` for what cannot go on."""
        if line.startswith("data:"):
            self._data.append(line[5:].removeprefix(" "))
            return []
        if line:
            return []  # event, id, retry, comments: they say nothing that the data does not
        return self.finish()

    def finish(self) -> list[SseEvent]:
        """The event that the lines so far make up."""
        if not self._data:
            return []
        data, self._data = "\n".join(self._data), []
        try:
            frame = msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise errors.UpstreamProtocol("the upstream sent an event that is not JSON") from exc
        if not isinstance(frame, dict):
            raise errors.UpstreamProtocol("the upstream sent an event that is not an object")
        return self._event(frame)

    def _event(self, frame: Mapping[str, Any]) -> list[SseEvent]:
        self.session_id = _text(frame.get("session_id")) or self.session_id
        self.request_id = _text(frame.get("request_id")) or self.request_id
        status = frame.get("status")
        inner = frame.get("data")
        data: Mapping[str, Any] = inner if isinstance(inner, Mapping) else {}
        if status == "error" or close.is_error_status(status) or frame.get("error") is not None:
            raise close.from_error_frame(frame)
        if status == "word_timestamp":
            text, start, end = data.get("word"), data.get("start"), data.get("end")
            if isinstance(text, str) and is_word_time(start) and is_word_time(end):
                return [Word(text, start, max(start, end))]
            return []
        if not {"status", "audio", "done", "data", "session_id", "request_id"} & set(frame):
            # It may have stood in the place of audio: a hole is never passed over.
            raise errors.UpstreamProtocol("the upstream sent an event of no kind that is known")
        out: list[SseEvent] = []
        audio = frame.get("audio", data.get("audio"))
        if audio:
            try:
                out.append(Audio(pybase64.b64decode(audio, validate=True)))
            except (ValueError, TypeError) as exc:
                raise errors.UpstreamProtocol("the upstream sent audio that is not base64") from exc
        if frame.get("done") is True or status == "complete":
            out.append(Done())
        return out


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
