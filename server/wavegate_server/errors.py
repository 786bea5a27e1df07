"""What can go wrong, and whose move it is.

- `WavegateError`: has a documented `reason`, a safe `message`, and says whether trying again may help
    - `CallerError`: the caller did something that it can mend
        - `InvalidInput` (FIELD_INVALID), `MessageOrder`, `RevisionMismatch`, `NotSupported`
        - `StartTimeout`, `SessionIdle`
        - `Unauthenticated`, `Forbidden`
        - `SessionNotFound`, `TraceNotFound`, `SessionTakenOver`, `SessionClosed`, `ResumeGap`
    - `CapacityError`: no room now
        - `CallerQuota`, `GatewayCapacity`, `UpstreamCapacity`
    - `UpstreamError`: the other side of the gateway
        - `UpstreamCredential`, `UpstreamGone`, `UpstreamRejected`
        - `UpstreamUnavailable`, `UpstreamStalled`, `UpstreamProtocol`
    - `GatewayDraining`, `GatewayBug`

No status code lives here: `rpc/status.py` maps classes to codes, in one table. Each class says "Raised
when", and `docs/errors.md` says what a caller does about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that is wrong.

    `field` is a path that starts at the request message, such as `start.settings.speed`.
    """

    field: str
    description: str


class WavegateError(Exception):
    """Base of all errors that a caller may see.

    `retryable` says whether the same request may succeed later. `retry_after_s` is in seconds; None where
    there is nothing to say. `metadata` goes into `google.rpc.ErrorInfo` and never holds text, audio or keys.
    """

    reason: ClassVar[str] = "GATEWAY_BUG"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.reason}: {self.message}>"


class CallerError(WavegateError):
    """The caller can mend it."""


class InvalidInput(CallerError):
    """Raised when fields are missing, malformed or out of range; carries every violation at once."""

    reason = "FIELD_INVALID"

    @classmethod
    def of(cls, violations: Sequence[Violation]) -> InvalidInput:
        """Make one error of all violations."""
        text = "; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in violations)
        return cls(text, violations=violations)

    @classmethod
    def field(cls, field: str, description: str) -> InvalidInput:
        """Make an error of one violation."""
        return cls.of([Violation(field, description)])


class MessageOrder(CallerError):
    """Raised when a message comes where the contract does not allow it."""

    reason = "MESSAGE_ORDER"


class RevisionMismatch(CallerError):
    """Raised when `expected_revision` is not the session's revision."""

    reason = "REVISION_MISMATCH"
    retryable = True


class NotSupported(CallerError):
    """Raised when the contract names something that this gateway or its upstream cannot do."""

    reason = "NOT_SUPPORTED"


class ReconnectRequired(CallerError):
    """Raised when APPLY_POLICY_NO_RECONNECT meets a delta that needs a new upstream connection."""

    reason = "RECONNECT_REQUIRED"


class StartTimeout(CallerError):
    """Raised when no `start` message came in time."""

    reason = "START_TIMEOUT"
    retryable = True


class SessionIdle(CallerError):
    """Raised when a session heard nothing from its client for the idle timeout."""

    reason = "SESSION_IDLE"
    retryable = True


class Unauthenticated(CallerError):
    """Raised when the caller's own credential is missing or wrong."""

    reason = "CALLER_UNAUTHENTICATED"


class Forbidden(CallerError):
    """Reserved for a gateway whose callers have different rights; raised nowhere yet, and mapped to its status.

    What belongs to another caller is not found rather than forbidden, so that its existence is not told.
    """

    reason = "CALLER_FORBIDDEN"


class SessionNotFound(CallerError):
    """Raised for an unknown session, an ended one and another caller's alike."""

    reason = "SESSION_NOT_FOUND"


class TraceNotFound(CallerError):
    """Raised where no span of a trace or a session is held that the caller may see."""

    reason = "TRACE_NOT_FOUND"


class SessionTakenOver(CallerError):
    """Raised on the old call when another call resumed its session."""

    reason = "SESSION_TAKEN_OVER"


class SessionClosed(CallerError):
    """Raised on a session's own stream when `CloseSession` ended it with `discard`."""

    reason = "SESSION_CLOSED"


class ResumeGap(CallerError):
    """Raised when a resuming client missed more than the gateway still holds."""

    reason = "RESUME_GAP"


class CapacityError(WavegateError):
    """No room at the moment; `retry_after_s` says when to come back."""

    retryable = True


class CallerQuota(CapacityError):
    """Raised when the caller is at its own limit of sessions."""

    reason = "CALLER_QUOTA"


class GatewayCapacity(CapacityError):
    """Raised when the gateway is at its limit of sessions."""

    reason = "GATEWAY_CAPACITY"


class UpstreamCapacity(CapacityError):
    """Raised when the account is full: HTTP 429, close 1008, or no slot in time."""

    reason = "UPSTREAM_CAPACITY"


class UpstreamError(WavegateError):
    """The upstream's side of it. `close_code` and `http_status` are known where the upstream said them."""

    def __init__(
        self,
        message: str,
        *,
        close_code: int | None = None,
        http_status: int | None = None,
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s, metadata=metadata, violations=violations)
        self.close_code = close_code
        self.http_status = http_status
        if close_code is not None:
            self.metadata.setdefault("close_code", str(close_code))
        if http_status is not None:
            self.metadata.setdefault("http_status", str(http_status))


class UpstreamCredential(UpstreamError):
    """Raised on upstream 401 or 403: the gateway's own key is bad. Not retried."""

    reason = "UPSTREAM_CREDENTIAL"


class UpstreamGone(UpstreamError):
    """Raised on upstream 404 or 410: a model or path was retired. Not retried."""

    reason = "UPSTREAM_GONE"


class UpstreamRejected(UpstreamError):
    """Raised on upstream 400 and on an error frame about the request itself."""

    reason = "UPSTREAM_REJECTED"


class UpstreamUnavailable(UpstreamError):
    """Raised on upstream 5xx, a refused or lost connection."""

    reason = "UPSTREAM_UNAVAILABLE"
    retryable = True


class UpstreamStalled(UpstreamError):
    """Raised when the upstream owes something and stays silent, or no longer takes what is sent."""

    reason = "UPSTREAM_STALLED"
    retryable = True


class UpstreamProtocol(UpstreamError):
    """Raised when the upstream sends what its protocol does not allow."""

    reason = "UPSTREAM_PROTOCOL"


class GatewayDraining(WavegateError):
    """Raised for new streams while the gateway shuts down."""

    reason = "GATEWAY_DRAINING"
    retryable = True


class GatewayBug(WavegateError):
    """Raised in place of an exception that nobody expected."""

    reason = "GATEWAY_BUG"
