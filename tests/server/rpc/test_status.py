"""One table says what a failure is called on the wire; the documentation says the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from wavegate_server import errors
from wavegate_server.errors import InvalidInput, Violation, WavegateError
from wavegate_server.rpc import status

ROOT = Path(__file__).parents[3]
ERRORS_PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")


def kinds(base: type[WavegateError] = WavegateError) -> Iterator[type[WavegateError]]:
    """Every class that says a reason of its own."""
    for kind in base.__subclasses__():
        if "reason" in vars(kind):
            yield kind
        yield from kinds(kind)


def details(proto: Any) -> dict[str, Any]:
    """The details of a status by the name of their type, read as a stranger would: by google.rpc alone."""
    found = {}
    for packed in status_pb2.Status.FromString(proto.SerializeToString()).details:
        name = packed.type_url.rpartition(".")[2]
        message = getattr(error_details_pb2, name)()
        assert packed.Unpack(message)
        found[name] = message
    return found


def test_every_error_has_a_code_and_a_reason_of_its_own() -> None:
    assert set(status.CODES) == set(kinds())
    assert len({kind.reason for kind in status.CODES}) == len(status.CODES)


def test_the_documentation_has_the_same_table() -> None:
    page = ERRORS_PAGE.partition("## Reasons")[2].partition("## ")[0]
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \| \S.* \| \S.* \|$", page, re.MULTILINE))
    assert rows == {kind.reason: code.name for kind, code in status.CODES.items()}


def test_the_documentation_has_every_warning() -> None:
    """A warning's reason is the first argument where it is raised."""
    session = ROOT / "server" / "wavegate_server" / "session"
    source = "\n".join(path.read_text(encoding="utf-8") for path in session.glob("*.py"))
    raised = set(re.findall(r"(?:_warn|WarningRaised)\(\s*\"([A-Z_]+)\"", source))
    page = ERRORS_PAGE.partition("## Warnings")[2]
    assert set(re.findall(r"^\| `([A-Z_]+)` \| \S.* \|$", page, re.MULTILINE)) == raised != set()


@pytest.mark.parametrize("kind", status.CODES, ids=lambda kind: kind.reason)
def test_each_error_becomes_its_status(kind: type[WavegateError]) -> None:
    proto = status.to_proto(kind("what went wrong"))
    assert proto.code == status.CODES[kind].value[0]
    assert proto.message == "what went wrong"
    info = details(proto)["ErrorInfo"]
    assert (info.reason, info.domain) == (kind.reason, "wavegate.speech")


def test_no_error_is_ok() -> None:
    assert status.to_proto(None).SerializeToString() == b""


def test_every_violation_is_in_the_status() -> None:
    found = [Violation(f"start.settings.field{i}", "must be from 0 to 1") for i in range(300)]
    bad = details(status.to_proto(InvalidInput.of(found)))["BadRequest"]
    assert [(v.field, v.description) for v in bad.field_violations] == [
        (v.field, v.description) for v in found
    ]


def test_a_full_limit_says_whose_it_is_and_when_to_come_back() -> None:
    full = details(status.to_proto(errors.UpstreamCapacity("full", retry_after_s=2.5)))
    assert full["RetryInfo"].retry_delay.ToMilliseconds() == 2500
    assert full["QuotaFailure"].violations[0].subject == "upstream-account"
    assert details(status.to_proto(errors.CallerQuota("full")))["RetryInfo"].retry_delay.ToSeconds() == 1


def test_what_waiting_does_not_mend_has_no_retry_info() -> None:
    assert set(details(status.to_proto(errors.UpstreamCredential("bad key", http_status=401)))) == {
        "ErrorInfo"
    }


def test_what_the_upstream_said_on_the_wire_is_in_the_metadata() -> None:
    error = errors.UpstreamUnavailable("closed", close_code=1011)
    assert dict(details(status.to_proto(error))["ErrorInfo"].metadata) == {"close_code": "1011"}


def test_what_nobody_expected_leaks_nothing() -> None:
    proto = status.to_proto(ValueError("the secret text"))
    assert details(proto)["ErrorInfo"].reason == "GATEWAY_BUG"
    assert b"secret" not in proto.SerializeToString()


class RecordingContext:
    """A servicer context that keeps what the call was aborted with."""

    def __init__(self) -> None:
        self.aborted: tuple[Any, str, dict[str, Any]] | None = None

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-earlier", "kept"),)

    async def abort(self, code: Any, message: str, trailers: Any) -> None:
        self.aborted = (code, message, dict(trailers))
        raise grpc.aio.AbortError("Locally aborted.")


async def test_abort_keeps_trailers_small_and_says_what_it_left_out() -> None:
    found = [Violation(f"start.settings.field{i}", "muß zwischen 0 und 1 liegen") for i in range(300)]
    context = RecordingContext()
    error = InvalidInput.of(found)
    with pytest.raises(grpc.aio.AbortError) as caught:
        await status.abort(context, error)
    assert caught.value.__cause__ is error
    assert context.aborted is not None
    code, message, trailers = context.aborted
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    raw = trailers["grpc-status-details-bin"]
    assert len(raw) <= status.MAX_TRAILER_DETAILS_BYTES
    parsed = details(status_pb2.Status.FromString(raw))
    kept = len(parsed["BadRequest"].field_violations)
    assert 0 < kept < 300
    assert parsed["ErrorInfo"].metadata["violations_left_out"] == str(300 - kept)
    assert message.startswith("start.settings.field0: muß")
    assert trailers["x-earlier"] == "kept"


async def test_a_message_in_any_script_fits_into_the_trailers() -> None:
    """Percent-encoding makes nine bytes of one such character."""
    context = RecordingContext()
    with pytest.raises(grpc.aio.AbortError):
        await status.abort(context, errors.UpstreamRejected("声" * 5000))
    assert context.aborted is not None
    assert 0 < len(context.aborted[1]) * 9 <= status.MAX_TRAILER_MESSAGE_BYTES + 9
