"""The frames and bodies that the server sends, in their documented shapes."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pybase64

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder()


def dumps(value: Any) -> bytes:
    """JSON, compact."""
    return _encode(value)


def loads(text: str | bytes) -> Any:
    """Parse JSON. Raises ValueError."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def new_session_id() -> str:
    return f"ws_{uuid.uuid4()}"


def new_request_id() -> str:
    return f"task_{uuid.uuid4()}"


def tts_envelope(
    session_id: str, request_id: str | None, external_session_id: str | None, external_request_id: str | None
) -> dict[str, Any]:
    """The fields that every TTS frame of one request has."""
    envelope = {"session_id": session_id}
    if request_id is not None:
        envelope["request_id"] = request_id
    if external_session_id is not None:
        envelope["external_session_id"] = external_session_id
    if external_request_id is not None:
        envelope["external_request_id"] = external_request_id
    return envelope


def chunk_prefix(envelope: dict[str, Any]) -> bytes:
    """A chunk frame up to its audio: the same for all chunks of one request, so made once."""
    return dumps({**envelope, "status": "chunk", "data": {"audio": ""}})[:-3]


def chunk_frame(prefix: bytes, audio: bytes) -> bytes:
    """A chunk frame."""
    return prefix + pybase64.b64encode(audio) + b'"}}'


def sse_chunk(audio: bytes) -> bytes:
    """The data of an `audio` event."""
    return b'{"audio":"' + pybase64.b64encode(audio) + b'","done":false,"status":"206"}'


def tts_error(envelope: dict[str, Any], shape: str, message: str, code: str) -> bytes:
    """An error frame of the TTS socket in one of its three shapes."""
    body: dict[str, Any] = {**envelope, "status": "error"}
    if shape == "message":
        body["message"] = message
    elif shape == "error":
        body["error"] = message
    else:
        body["error"] = {"message": message, "code": code}
    return dumps(body)


def stt_error(session_id: str, shape: str, message: str) -> bytes:
    """An error frame of the STT socket in one of its two shapes."""
    if shape == "error":
        return dumps({"error": message})
    return dumps({"type": "error", "status": "error", "message": message, "session_id": session_id})


def tts_http_error(error: str, message: str) -> bytes:
    """An error body of the TTS endpoints."""
    return dumps({"error": error, "message": message})


def stt_http_error(message: str, details: list[dict[str, str]] | None = None) -> bytes:
    """An error body of the STT endpoints."""
    body: dict[str, Any] = {"error": message, "request_id": str(uuid.uuid4())}
    if details:
        body["details"] = details
    return dumps(body)
