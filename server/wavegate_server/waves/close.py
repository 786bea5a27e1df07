"""What the upstream's refusals mean: handshake statuses, close codes and error frames, as errors.

One table a kind of refusal. `retryable` of the resulting error says whether dialling again may help.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from wavegate_server import errors
from wavegate_server.errors import UpstreamError, WavegateError

_GONE = "the upstream no longer serves this model or path; choose a current model (ListVoices names them)"

_BAD_KEY = "the upstream rejected the gateway's API key"

_BY_STATUS: dict[int, tuple[type[UpstreamError], str]] = {
    400: (errors.UpstreamRejected, "the upstream rejected the request"),
    401: (errors.UpstreamCredential, _BAD_KEY),
    403: (errors.UpstreamCredential, "the gateway's API key may not use this model"),
    404: (errors.UpstreamGone, _GONE),
    410: (errors.UpstreamGone, _GONE),
    413: (errors.UpstreamRejected, "the recording is larger than the upstream takes"),
    422: (errors.UpstreamRejected, "the upstream rejected the request"),
}

MAX_DETAIL_CHARS = 300
"""How much of the upstream's own words an error repeats."""


def detail(text: str) -> str:
    """The upstream's own words, on one line and bounded."""
    flat = " ".join(text.split())
    return flat if len(flat) <= MAX_DETAIL_CHARS else flat[: MAX_DETAIL_CHARS - 1] + "…"


def retry_after_s(header: str | None) -> float | None:
    """Seconds of a `Retry-After` header; None where it is missing or a date."""
    try:
        seconds = float(header) if header else None
    except ValueError:
        return None
    return seconds if seconds is not None and 0 <= seconds < 86_400 else None


def from_status(status: int, body: str = "", retry_after: str | None = None) -> WavegateError:
    """The error of an HTTP response, of a WebSocket handshake or of a plain request."""
    said = detail(message_of(body)) if body else ""
    suffix = f": {said}" if said else ""
    wait = retry_after_s(retry_after)
    if status == 429:
        return errors.UpstreamCapacity(
            f"the upstream account is at its limit (HTTP 429){suffix}",
            retry_after_s=wait,
            metadata={"http_status": "429"},
        )
    if status in _BY_STATUS:
        kind, text = _BY_STATUS[status]
        if kind is errors.UpstreamCredential:
            suffix = ""  # those words may hold the key
        return kind(f"{text} (HTTP {status}){suffix}", http_status=status)
    if 400 <= status < 500:
        return errors.UpstreamRejected(
            f"the upstream rejected the request (HTTP {status}){suffix}", http_status=status
        )
    if status >= 500:
        return errors.UpstreamUnavailable(
            f"the upstream failed (HTTP {status}){suffix}", http_status=status, retry_after_s=wait
        )
    return errors.UpstreamProtocol(f"the upstream answered HTTP {status}{suffix}", http_status=status)


def from_close(code: int | None, reason: str = "") -> WavegateError:
    """The error of a WebSocket that closed while something was owed. `code` None: no closing handshake."""
    said = f": {detail(reason)}" if reason else ""
    if code == 1008:
        return errors.UpstreamCapacity(
            f"the upstream closed the connection, the account is at its limit (close 1008){said}",
            metadata={"close_code": "1008"},
        )
    if code in (1002, 1003, 1007, 1009):
        # From either side: the transport leaves an upstream that breaks the protocol with such a code.
        return errors.UpstreamProtocol(
            f"the conversation with the upstream was malformed (close {code}){said}", close_code=code
        )
    if code is None or code == 1006:
        return errors.UpstreamUnavailable(f"the upstream connection was lost{said}", close_code=code)
    return errors.UpstreamUnavailable(
        f"the upstream closed the connection (close {code}){said}", close_code=code
    )


def message_of(body: str | Mapping[str, Any]) -> str:
    """The words of an error body or frame: `message`, `error`, or `error.message`, in text or JSON."""
    if isinstance(body, str):
        try:
            parsed = msgspec.json.decode(body)
        except msgspec.DecodeError:
            return body
        if not isinstance(parsed, dict):
            return body
        body = parsed
    error = body.get("error")
    said = (error.get("message") or error.get("code")) if isinstance(error, Mapping) else error
    words = str(said or "")
    message = body.get("message")
    if isinstance(message, str) and message:
        return message if not words or words in message else f"{words}: {message}"
    return words or "no reason given"


def error_code_of(frame: Mapping[str, Any]) -> str:
    """`error.code`, `code`, or a `status` that is an HTTP error's; else "". For telling a full account from a bad
    request."""
    error = frame.get("error")
    code = error.get("code") if isinstance(error, Mapping) else frame.get("code")
    if code is None and is_error_status(frame.get("status")):
        code = frame["status"]
    return str(code) if code is not None else ""


def is_error_status(status: Any) -> bool:
    """Whether a frame's `status`, a number or its text, is an HTTP error's."""
    said = str(status)
    return said.isdecimal() and int(said) >= 400


_CAPACITY_WORDS = ("concurren", "rate limit", "too many", "capacity", "quota")
_CREDENTIAL_WORDS = ("unauthorized", "invalid api key", "invalid token", "authentication")
_TIMEOUT_WORDS = ("inactivity", "timed out after")


def is_idle_timeout(frame: Mapping[str, Any]) -> bool:
    """Whether an error frame announces the idle close."""
    words = message_of(frame).lower()
    return any(w in words for w in _TIMEOUT_WORDS)


def from_error_frame(frame: Mapping[str, Any]) -> WavegateError:
    """The error of an error frame: a full account, a bad key, a failing upstream or a bad request.

    A numeric code decides; without one the words do. 404 is about the voice or the model that a message named,
    so it is the request that is bad; 410 says that something was retired.
    """
    words = message_of(frame)
    said = detail(words)
    code = error_code_of(frame)
    numeric = code.isdecimal()
    folded = "" if numeric else f"{words} {code.replace('_', ' ')}".lower()
    if code == "429" or any(w in folded for w in _CAPACITY_WORDS):
        return errors.UpstreamCapacity(f"the upstream account is at its limit: {said}")
    if code in ("401", "403") or any(w in folded for w in _CREDENTIAL_WORDS):
        return errors.UpstreamCredential(_BAD_KEY)
    if code == "410":
        return errors.UpstreamGone(f"{_GONE}: {said}")
    if (numeric and int(code) >= 500) or "internal" in folded:
        return errors.UpstreamUnavailable(f"the upstream failed: {said}")
    return errors.UpstreamRejected(f"the upstream rejected the request: {said}")
