"""What can go wrong, as exceptions.

    WavegateError                     whatever the gateway answered; also the base of all others
    ├── GatewayUnavailableError       no gateway there, or it takes nothing new on
    │   └── ConnectionLostError       it was there, and went away in mid-call
    ├── InvalidRequestError           a field, a text, a size or an order of messages that is not allowed
    ├── AccessDeniedError             the caller's credential is missing, wrong or not enough
    ├── SessionNotFoundError          no session of this caller has that id, or no trace
    ├── ConflictError                 somebody else was quicker: another revision, another owner
    ├── CapacityError                 a limit is reached: of the caller, the gateway or the account
    ├── DeadlineError                 something took too long
    ├── SessionClosedError            this session has ended; nothing more goes in
    └── UpstreamError                 the speech service behind the gateway failed

`AudioFileError` stands apart: it is about a file of the caller's, and no gateway was asked.

`reason` is the stable name of what happened (`FIELD_INVALID`, `UPSTREAM_CAPACITY`, ...); `docs/errors.md` lists them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2

from wavegate._target import Proxy, host_of
from wavegate.speech.v1 import types_pb2

__all__ = [
    "AccessDeniedError",
    "AudioFileError",
    "AudioFileWarning",
    "CapacityError",
    "Code",
    "ConflictError",
    "ConnectionLostError",
    "DeadlineError",
    "FieldViolation",
    "GatewayUnavailableError",
    "InvalidRequestError",
    "QuotaViolation",
    "SessionClosedError",
    "SessionNotFoundError",
    "UpstreamError",
    "WavegateError",
    "error_from_rpc",
    "error_from_status",
]

Code = Literal[
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]
"""The gRPC status codes by name, in the order of their numbers."""

_CODES: tuple[Code, ...] = get_args(Code)

Cure = Literal["raw", "convert"] | None

STATUS_DETAILS_KEY = "grpc-status-details-bin"
"""The trailer that carries a `google.rpc.Status`."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that the gateway refused."""

    field: str
    """Path from the request message, such as `start.settings.speed`."""
    description: str


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """One limit that was reached."""

    subject: str
    description: str


class WavegateError(Exception):
    """A call or a session failed; `str()` says what happened and what to do."""

    def __init__(
        self,
        message: str,
        *,
        code: Code = "UNKNOWN",
        reason: str = "",
        retry_delay_s: float | None = None,
        field_violations: tuple[FieldViolation, ...] = (),
        quota_violations: tuple[QuotaViolation, ...] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code: Code = code
        self.reason = reason
        """Stable name of what happened; empty where no gateway gave one."""
        self.retry_delay_s = retry_delay_s
        """Wait this long before trying again; `None` where the gateway gave no such advice."""
        self.field_violations = field_violations
        self.quota_violations = quota_violations
        self.metadata: Mapping[str, str] = dict(metadata or {})

    @property
    def retryable(self) -> bool:
        """Whether the same call may well succeed later, with nothing changed."""
        return self.retry_delay_s is not None or self.code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")

    def __str__(self) -> str:
        # A gateway may well have put the violations into its message already.
        missing = [v for v in self.field_violations if v.description not in self.message]
        return "".join([self.message, *(f"\n  {v.field}: {v.description}" for v in missing)])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, code={self.code!r}, reason={self.reason!r})"


class GatewayUnavailableError(WavegateError):
    """No gateway answers at the target, or it is shutting down."""


class ConnectionLostError(GatewayUnavailableError):
    """The connection to the gateway broke before the call had ended."""


class InvalidRequestError(WavegateError):
    """The request is wrong; `field_violations` names every field. Not worth repeating unchanged."""


class AccessDeniedError(WavegateError):
    """The caller's credential is missing, wrong, or does not allow this."""


class SessionNotFoundError(WavegateError):
    """No live session of this caller has that id: unknown, ended, or another caller's. Or no trace of it is held."""


class ConflictError(WavegateError):
    """The session is not as expected: another settings revision, or another call has taken it over."""


class CapacityError(WavegateError):
    """A limit is reached; try again after `retry_delay_s`."""


class DeadlineError(WavegateError):
    """A time limit passed."""


class SessionClosedError(WavegateError):
    """The session has ended, so that nothing can be sent or awaited any more."""


class UpstreamError(WavegateError):
    """The speech service behind the gateway failed, or refused the gateway."""


class AudioFileError(ValueError):
    """This is no audio that can be decoded; `str()` says of what and why.

    `cure` is what may help: `raw` to say of which kind raw samples are, `convert` to convert it to another kind; None
    where only another file will do.
    """

    def __init__(self, message: str, cure: Cure = None) -> None:
        super().__init__(message)
        self.cure: Cure = cure


class AudioFileWarning(UserWarning):
    """A recording is damaged, cut off or followed by something else: a part of it was not sent."""


_BY_REASON: Mapping[str, type[WavegateError]] = {
    "UPSTREAM_CREDENTIAL": UpstreamError,
    "UPSTREAM_GONE": UpstreamError,
    "UPSTREAM_UNAVAILABLE": UpstreamError,
    "UPSTREAM_STALLED": UpstreamError,
    "UPSTREAM_PROTOCOL": UpstreamError,
}
"""Where the reason says more than the status code does."""

_BY_CODE: Mapping[Code, type[WavegateError]] = {
    "UNAVAILABLE": GatewayUnavailableError,
    "INVALID_ARGUMENT": InvalidRequestError,
    "OUT_OF_RANGE": InvalidRequestError,
    "UNAUTHENTICATED": AccessDeniedError,
    "PERMISSION_DENIED": AccessDeniedError,
    "NOT_FOUND": SessionNotFoundError,
    "ABORTED": ConflictError,
    "RESOURCE_EXHAUSTED": CapacityError,
    "DEADLINE_EXCEEDED": DeadlineError,
}


def error_from_status(status: types_pb2.Status) -> WavegateError:
    """The exception for a status with a code other than OK; details of unknown type are passed over."""
    code = _CODES[status.code] if 0 <= status.code < len(_CODES) else "UNKNOWN"
    reason = ""
    retry_delay_s: float | None = None
    fields: tuple[FieldViolation, ...] = ()
    quotas: tuple[QuotaViolation, ...] = ()
    metadata: Mapping[str, str] = {}
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    bad_request, quota = error_details_pb2.BadRequest(), error_details_pb2.QuotaFailure()
    for detail in status.details:
        try:
            if detail.Unpack(info):
                reason, metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(retry):
                retry_delay_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
            elif detail.Unpack(bad_request):
                fields = tuple(FieldViolation(v.field, v.description) for v in bad_request.field_violations)
            elif detail.Unpack(quota):
                quotas = tuple(QuotaViolation(v.subject, v.description) for v in quota.violations)
        except DecodeError:
            continue  # a damaged detail must not hide the code and the message
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, WavegateError)
    return kind(
        status.message or f"the gateway answered {code} without a message",
        code=code,
        reason=reason,
        retry_delay_s=retry_delay_s,
        field_violations=fields,
        quota_violations=quotas,
        metadata=metadata,
    )


_TOO_LARGE = re.compile(r"(Sent|Received) message larger than max \((\d+) vs\. (\d+)\)")
"""What gRPC says, on either side, of a message above a transport's limit. Its code for that, RESOURCE_EXHAUSTED, is
also that of limits that pass; this one does not."""


def request_too_large(size_bytes: int, limit_bytes: int, field: str = "") -> InvalidRequestError:
    """Return the exception for a request of `size_bytes` where `limit_bytes` may be sent; `field` is to blame."""
    wrong = (
        f"at most {limit_bytes} bytes with the rest of the request, got {size_bytes}; stream a larger recording "
        "(`transcribe` and `send_file`, or `wavegate listen`), or give its `uri`"
    )
    return InvalidRequestError(
        f"the {'recording' if field == 'content' else 'request'} is too large: {wrong}",
        code="INVALID_ARGUMENT",
        field_violations=(FieldViolation(field, wrong),) if field else (),
    )


_LOST = frozenset[Code]({"UNAVAILABLE", "INTERNAL", "CANCELLED", "UNKNOWN"})
"""What a broken connection looks like through gRPC and the proxies in use: they do not agree on one code."""


def error_from_rpc(
    code_name: str,
    details: str,
    trailers: Iterable[tuple[str, str | bytes]],
    *,
    target: str,
    answered: bool,
    proxy: Proxy | None = None,
    tls: bool = False,
) -> WavegateError:
    """The exception for a call that gRPC ended.

    `answered` says whether the gateway had sent anything in this call: it tells a gateway that is not there
    from one that went away. `proxy` is the one that the call went through, `tls` whether it was encrypted.
    """
    code: Code = code_name if code_name in _CODES else "UNKNOWN"
    for key, value in trailers:
        if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
            try:
                return error_from_status(types_pb2.Status.FromString(value))
            except DecodeError:
                break
    if code == "RESOURCE_EXHAUSTED" and (too_large := _TOO_LARGE.search(details)) is not None:
        size_bytes, limit_bytes = int(too_large[2]), int(too_large[3])
        # A client that received it says so itself; a server says it of what this client sent.
        if too_large[1] == "Received" and "SERVER:" not in details and "CLIENT:" in details:
            return InvalidRequestError(
                f"the answer of the gateway at {target} is too large: {size_bytes} bytes in one message, and this "
                f"client takes {limit_bytes}; ask for less, or raise the option grpc.max_receive_message_length",
                code="INVALID_ARGUMENT",
            )
        return request_too_large(size_bytes, limit_bytes)
    if answered and code in _LOST:
        return ConnectionLostError(
            f"the connection to the gateway at {target} was lost ({details or code}); open a new session",
            code="UNAVAILABLE",
        )
    if code == "UNAVAILABLE":
        return GatewayUnavailableError(_why_unavailable(details, target, proxy, tls=tls), code=code)
    if code == "UNIMPLEMENTED":
        details = (
            f"the gateway at {target} does not know this call ({details}); it may be older than this client"
        )
    return error_from_status(types_pb2.Status(code=_CODES.index(code), message=details))


_TLS_TROUBLE = (
    (
        "WRONG_VERSION_NUMBER",
        "what answers there does not speak TLS; connect without --tls and --ca-file (in Python tls=False)",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "the certificate there comes from an authority that is not trusted here; name the authority with --ca-file (in "
        "Python root_certificates)",
    ),
    (
        "Hostname Verification",
        "the certificate there is for another name; connect by the name that it holds",
    ),
)
"""What gRPC's texts say where encryption is what failed, and what to say instead."""

_HUNG_UP = ("Socket closed", "Connection reset")
"""What gRPC says where the other side hung up at the first byte, as a TLS server does at one in clear text, and at a
caller without the certificate that it asks for."""


def _why_unavailable(details: str, target: str, proxy: Proxy | None, *, tls: bool) -> str:
    if tls:
        for words, sentence in _TLS_TROUBLE:
            if words in details:
                return f"no gateway at {target}: {sentence}"
        if any(words in details for words in _HUNG_UP):
            return (
                f"no gateway at {target}: what answers there hangs up on an encrypted connection, as a gateway that "
                f"asks for its callers' certificates does to one without (in Python client_certificate) ({details})"
            )
    elif any(words in details for words in _HUNG_UP):
        return (
            f"no gateway at {target}: what answers there hangs up on a connection in clear text; if it serves TLS, "
            f"connect with --tls or --ca-file (in Python tls=True) ({details})"
        )
    elif "http1" in details.lower():
        return f"no gateway at {target}: what answers there speaks HTTP/1; is that the port of its metrics?"
    why = f" ({details})" if details and ("refused" not in details or proxy) else ""
    if proxy is not None:
        return f"no gateway at {target} through {proxy}{why}; with no_proxy={host_of(target)} it is reached directly"
    return f"no gateway at {target}; start one with `make run` or `wavegate-server`{why}"
