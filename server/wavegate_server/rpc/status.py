"""What a failure is called on the wire: exception -> status code and `google.rpc` details, in one table.

The same status goes into `session_ended`, into acks and into the trailers of a call. `docs/errors.md` says what
each reason means to a caller; a test compares that page with this table.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn
from urllib.parse import quote

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from wavegate.speech.v1 import types_pb2

from wavegate_server import errors
from wavegate_server.errors import WavegateError

DOMAIN: Final = "wavegate.speech"
"""The domain of every `google.rpc.ErrorInfo`."""

Code = grpc.StatusCode

CODES: Final[dict[type[WavegateError], Any]] = {
    errors.InvalidInput: Code.INVALID_ARGUMENT,
    errors.MessageOrder: Code.INVALID_ARGUMENT,
    errors.RevisionMismatch: Code.ABORTED,
    errors.NotSupported: Code.UNIMPLEMENTED,
    errors.ReconnectRequired: Code.FAILED_PRECONDITION,
    errors.StartTimeout: Code.DEADLINE_EXCEEDED,
    errors.SessionIdle: Code.DEADLINE_EXCEEDED,
    errors.Unauthenticated: Code.UNAUTHENTICATED,
    errors.Forbidden: Code.PERMISSION_DENIED,
    errors.SessionNotFound: Code.NOT_FOUND,
    errors.TraceNotFound: Code.NOT_FOUND,
    errors.SessionTakenOver: Code.ABORTED,
    errors.SessionClosed: Code.ABORTED,
    errors.ResumeGap: Code.OUT_OF_RANGE,
    errors.CallerQuota: Code.RESOURCE_EXHAUSTED,
    errors.GatewayCapacity: Code.RESOURCE_EXHAUSTED,
    errors.UpstreamCapacity: Code.RESOURCE_EXHAUSTED,
    errors.UpstreamCredential: Code.FAILED_PRECONDITION,
    errors.UpstreamGone: Code.FAILED_PRECONDITION,
    errors.UpstreamRejected: Code.INVALID_ARGUMENT,
    errors.UpstreamUnavailable: Code.UNAVAILABLE,
    errors.UpstreamStalled: Code.UNAVAILABLE,
    errors.UpstreamProtocol: Code.INTERNAL,
    errors.GatewayDraining: Code.UNAVAILABLE,
    errors.GatewayBug: Code.INTERNAL,
}

QUOTA_SUBJECTS: Final[dict[type[WavegateError], str]] = {
    errors.CallerQuota: "caller",
    errors.GatewayCapacity: "gateway",
    errors.UpstreamCapacity: "upstream-account",
}
"""Whose limit was met, for `google.rpc.QuotaFailure`."""

CAPACITY_RETRY_S: Final = 1.0
"""`RetryInfo` of a full limit where nobody named a time: long enough for an utterance to end."""

# A client takes about 8 KiB of trailers (grpc's soft limit; above it calls fail at random), and a call has
# others beside ours. So the trailers' copy of an error is bounded; `session_ended` carries it whole.
MAX_MESSAGE_CHARS: Final = 1024
MAX_TRAILER_MESSAGE_BYTES: Final = 1500
"""`grpc-message`, as percent-encoded."""
MAX_TRAILER_DETAILS_BYTES: Final = 3072
"""`grpc-status-details-bin`, before its base64."""

DETAILS_KEY: Final = "grpc-status-details-bin"


def as_error(exc: BaseException) -> WavegateError:
    """`exc` itself, or a `GatewayBug` in the place of what nobody expected: its text stays in the log."""
    if isinstance(exc, WavegateError):
        return exc
    return errors.GatewayBug("the gateway failed; its log has the details under this call's trace id")


def code_of(exc: BaseException) -> Any:
    """The `grpc.StatusCode` of an exception."""
    error = as_error(exc)
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), Code.INTERNAL)


def to_proto(exc: BaseException | None) -> types_pb2.Status:
    """The status of an exception, with every detail; None is OK. Its bytes are those of a `google.rpc.Status`."""
    if exc is None:
        return types_pb2.Status()
    error = as_error(exc)
    return _status(error, _shortened(error.message, MAX_MESSAGE_CHARS), len(error.violations))


async def abort(context: Any, exc: BaseException) -> NoReturn:
    """End the call with the status of `exc`. Raises `grpc.aio.AbortError`, with `exc` as its cause."""
    error = as_error(exc)
    status = _for_trailers(error)
    try:
        await context.abort(
            code_of(error),
            status.message,
            (*context.trailing_metadata(), (DETAILS_KEY, status.SerializeToString())),
        )
    except grpc.aio.AbortError as aborted:
        raise aborted from exc
    raise AssertionError("abort returned")


def _for_trailers(error: WavegateError) -> types_pb2.Status:
    """The status, bounded to what trailers may hold."""
    message = _shortened(error.message, MAX_MESSAGE_CHARS)
    while len(quote(message, safe=" ")) > MAX_TRAILER_MESSAGE_BYTES:
        message = _shortened(message, len(message) * 3 // 4)
    kept = len(error.violations)
    status = _status(error, message, kept)
    while status.ByteSize() > MAX_TRAILER_DETAILS_BYTES and kept:
        kept = kept * 3 // 4
        status = _status(error, message, kept)
    return status


def _shortened(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"


def _status(error: WavegateError, message: str, violations: int) -> types_pb2.Status:
    status = types_pb2.Status(code=code_of(error).value[0], message=message)
    for detail in _details(error, violations):
        status.details.add().Pack(detail)
    return status


def _details(error: WavegateError, violations: int) -> list[Message]:
    metadata = dict(error.metadata)
    if violations < len(error.violations):
        metadata["violations_left_out"] = str(len(error.violations) - violations)
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    ]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
                    for v in error.violations[:violations]
                ]
            )
        )
    retry_after_s = error.retry_after_s
    if retry_after_s is None and isinstance(error, errors.CapacityError):
        retry_after_s = CAPACITY_RETRY_S
    if retry_after_s is not None:
        delay = Duration()
        delay.FromMilliseconds(round(retry_after_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if (subject := QUOTA_SUBJECTS.get(type(error))) is not None:
        details.append(
            error_details_pb2.QuotaFailure(
                violations=[
                    error_details_pb2.QuotaFailure.Violation(
                        subject=subject, description=_shortened(error.message, 200)
                    )
                ]
            )
        )
    return details
