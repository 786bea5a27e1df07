"""What the upstream's refusals mean: the tables of handshake statuses, close codes and error frames."""

from __future__ import annotations

import json
from typing import Any

import pytest
from wavegate_server import errors
from wavegate_server.errors import WavegateError
from wavegate_server.waves import close

Kind = type[WavegateError]

# -- HTTP statuses -----------------------------------------------------------------------------------------------

STATUSES: list[tuple[int, Kind, bool]] = [
    # status, what it is, whether dialling again may help
    (400, errors.UpstreamRejected, False),
    (401, errors.UpstreamCredential, False),
    (403, errors.UpstreamCredential, False),
    (404, errors.UpstreamGone, False),
    (405, errors.UpstreamRejected, False),
    (410, errors.UpstreamGone, False),
    (413, errors.UpstreamRejected, False),
    (422, errors.UpstreamRejected, False),
    (429, errors.UpstreamCapacity, True),
    (500, errors.UpstreamUnavailable, True),
    (502, errors.UpstreamUnavailable, True),
    (503, errors.UpstreamUnavailable, True),
    (504, errors.UpstreamUnavailable, True),
    (200, errors.UpstreamProtocol, False),
    (302, errors.UpstreamProtocol, False),
]


@pytest.mark.parametrize(("status", "kind", "retryable"), STATUSES)
def test_statuses(status: int, kind: Kind, retryable: bool) -> None:
    error = close.from_status(status)
    assert type(error) is kind
    assert error.retryable is retryable
    assert f"HTTP {status}" in error.message
    assert error.metadata["http_status"] == str(status)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("2", 2.0),
        ("0", 0.0),
        ("0.25", 0.25),
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("99999999", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert close.from_status(429, retry_after=header).retry_after_s == seconds
    assert close.from_status(503, retry_after=header).retry_after_s == seconds


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", ""),
        ("plain words", "plain words"),
        ('{"error": "Bad voice"}', "Bad voice"),
        ('{"message": "Bad voice"}', "Bad voice"),
        ('{"error": {"message": "Bad voice", "code": "400"}}', "Bad voice"),
        ('{"error": {"code": "bad_voice"}}', "bad_voice"),
        ('{"error": "Validation", "message": "Bad voice"}', "Validation: Bad voice"),
        ('{"error": "Bad voice", "message": "Bad voice"}', "Bad voice"),
        ("{}", "no reason given"),
        ("[1]", "[1]"),
        ("two\n  lines", "two lines"),
    ],
)
def test_the_upstreams_own_words_are_repeated(body: str, words: str) -> None:
    message = close.from_status(400, body).message
    assert message == "the upstream rejected the request (HTTP 400)" + (f": {words}" if words else "")


def test_its_words_are_bounded() -> None:
    message = close.from_status(400, "x" * 10_000).message
    assert len(message) < 2 * close.MAX_DETAIL_CHARS
    assert message.endswith("…")


@pytest.mark.parametrize("status", [401, 403])
def test_words_that_may_hold_the_key_are_not_repeated(status: int) -> None:
    assert "sk_secret" not in close.from_status(status, '{"error": "Invalid API key sk_secret"}').message
    frame = {"status": "error", "error": {"message": "Invalid API key sk_secret", "code": str(status)}}
    assert "sk_secret" not in close.from_error_frame(frame).message


# -- close codes -------------------------------------------------------------------------------------------------

CODES: list[tuple[int | None, Kind, bool]] = [
    (None, errors.UpstreamUnavailable, True),
    (1000, errors.UpstreamUnavailable, True),
    (1001, errors.UpstreamUnavailable, True),
    (1002, errors.UpstreamProtocol, False),
    (1003, errors.UpstreamProtocol, False),
    (1005, errors.UpstreamUnavailable, True),
    (1006, errors.UpstreamUnavailable, True),
    (1007, errors.UpstreamProtocol, False),
    (1008, errors.UpstreamCapacity, True),
    (1009, errors.UpstreamProtocol, False),
    (1011, errors.UpstreamUnavailable, True),
    (1012, errors.UpstreamUnavailable, True),
    (1013, errors.UpstreamUnavailable, True),
    (4000, errors.UpstreamUnavailable, True),
]


@pytest.mark.parametrize(("code", "kind", "retryable"), CODES)
def test_close_codes(code: int | None, kind: Kind, retryable: bool) -> None:
    error = close.from_close(code, "as it happens")
    assert type(error) is kind
    assert error.retryable is retryable
    assert "as it happens" in error.message
    if code is not None:
        assert error.metadata["close_code"] == str(code)


# -- error frames ------------------------------------------------------------------------------------------------

FRAMES: list[tuple[Any, Any, Kind]] = [
    # code, words, what it is
    (None, "Invalid voice_id", errors.UpstreamRejected),
    ("400", "Invalid voice_id", errors.UpstreamRejected),
    (422, "speed must be at most 2", errors.UpstreamRejected),
    ("404", "Voice 'nobody' not found", errors.UpstreamRejected),
    ("410", "lightning-v2 has been retired", errors.UpstreamGone),
    ("401", "Unauthorized", errors.UpstreamCredential),
    (403, "Forbidden", errors.UpstreamCredential),
    ("429", "Slow down", errors.UpstreamCapacity),
    ("500", "Something broke", errors.UpstreamUnavailable),
    (503, "Not now", errors.UpstreamUnavailable),
    (None, "Too many concurrent requests", errors.UpstreamCapacity),
    (None, "Concurrency limit reached", errors.UpstreamCapacity),
    (None, "Rate limit exceeded", errors.UpstreamCapacity),
    ("rate_limit_exceeded", "Please wait", errors.UpstreamCapacity),
    ("concurrency_limit", None, errors.UpstreamCapacity),
    (None, "Unauthorized", errors.UpstreamCredential),
    (None, "Invalid API key", errors.UpstreamCredential),
    (None, "Internal server error", errors.UpstreamUnavailable),
    ("internal_error", "Oops", errors.UpstreamUnavailable),
    # A number decides, whatever the words say: they may be the caller's own.
    ("400", "the text 'my quota for authentication' is refused", errors.UpstreamRejected),
    (None, None, errors.UpstreamRejected),
]


@pytest.mark.parametrize(("code", "words", "kind"), FRAMES)
def test_error_frames(code: Any, words: Any, kind: Kind) -> None:
    inner = {k: v for k, v in (("message", words), ("code", code)) if v is not None}
    shapes: list[dict[str, Any]] = [{"status": "error", "error": inner}]
    if words is not None:
        outer = {} if code is None else {"code": code}
        shapes += [
            {"status": "error", "message": words, **outer},
            {"status": "error", "error": words, **outer},
        ]
    for frame in shapes:
        error = close.from_error_frame(frame)
        assert type(error) is kind, frame
        if words is not None and kind is not errors.UpstreamCredential:
            assert words in error.message


@pytest.mark.parametrize("odd", [None, 5, [], ["x"], {}, {"message": None}, {"message": 5}, True, ""])
def test_odd_error_frames_are_errors_all_the_same(odd: Any) -> None:
    for frame in ({"status": "error", "error": odd}, {"status": "error", "message": odd}):
        error = close.from_error_frame(frame)
        assert type(error) is errors.UpstreamRejected
        assert error.message
        json.dumps(error.metadata)


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        ("Connection timed out after 60 seconds of inactivity", True),
        ("Closed due to inactivity", True),
        ("Invalid voice_id", False),
        ("", False),
    ],
)
def test_the_announcement_of_an_idle_close(words: str, idle: bool) -> None:
    assert close.is_idle_timeout({"status": "error", "message": words}) is idle
    assert close.is_idle_timeout({"status": "error", "error": {"message": words}}) is idle
