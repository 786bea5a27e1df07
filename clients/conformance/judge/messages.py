"""What drivers say, as messages of the contract."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.protobuf import descriptor_pool, json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from wavegate.speech import v1

MessageT = TypeVar("MessageT", bound=Message)

_CODES = {code.name: code.value[0] for code in grpc.StatusCode}
_NAMES = {number: name for name, number in _CODES.items()}


class Wrong(Exception):
    """Raised where a client, or its driver, did not do what it should; says what."""


@dataclass(frozen=True)
class Problem:
    """An error as a driver tells it, or as the contract does."""

    kind: str = ""
    """Empty where it comes out of a status in an event, which has no kind."""
    code: str = ""
    reason: str = ""
    message: str = ""
    retryable: bool | None = None
    retry_delay: float | None = None
    field_violations: tuple[tuple[str, str], ...] = ()
    quota_violations: tuple[tuple[str, str], ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(filter(None, [self.kind, self.code, self.reason, repr(self.message)]))


class Failed(Exception):
    """Raised where a command was answered with an error."""

    def __init__(self, command: str, problem: Problem) -> None:
        super().__init__(f"{command}: {problem}")
        self.problem = problem


def problem_of(error: Mapping[str, Any]) -> Problem:
    """An error object of the protocol."""
    if not isinstance(error, Mapping) or not isinstance(error.get("kind"), str):
        raise Wrong(f"this is no error of the protocol: {error!r}")
    violations = [(v.get("field", ""), v.get("description", "")) for v in error.get("field_violations") or ()]
    quotas = [(v.get("subject", ""), v.get("description", "")) for v in error.get("quota_violations") or ()]
    return Problem(
        kind=error["kind"],
        code=error.get("code") or "",
        reason=error.get("reason") or "",
        message=error.get("message") or "",
        retryable=error.get("retryable"),
        retry_delay=error.get("retry_delay"),
        field_violations=tuple(violations),
        quota_violations=tuple(quotas),
        metadata=error.get("metadata") or {},
    )


def problem_of_status(status: v1.Status) -> Problem:
    """A status of the contract."""
    reason, metadata, delay = "", {}, None
    fields: list[tuple[str, str]] = []
    quotas: list[tuple[str, str]] = []
    for detail in status.details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        bad, quota = error_details_pb2.BadRequest(), error_details_pb2.QuotaFailure()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            delay = retry.retry_delay.ToTimedelta().total_seconds()
        elif detail.Unpack(bad):
            fields = [(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(quota):
            quotas = [(v.subject, v.description) for v in quota.violations]
    return Problem(
        code=_NAMES.get(status.code, str(status.code)),
        reason=reason,
        message=status.message,
        retry_delay=delay,
        field_violations=tuple(fields),
        quota_violations=tuple(quotas),
        metadata=metadata,
    )


def message_of(value: Any, kind: type[MessageT]) -> MessageT:
    """ProtoJSON as a message of the contract; fields that it does not have are passed over."""
    message = kind()
    try:
        json_format.ParseDict(_plain(value), message, ignore_unknown_fields=True)
    except (json_format.ParseError, TypeError, ValueError) as error:
        raise Wrong(f"this is no {kind.__name__} in ProtoJSON: {error}: {str(value)[:300]}") from error
    return message


def _plain(value: Any) -> Any:
    """The same with error objects of the protocol turned into statuses, and without details of unknown types."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, inner in value.items():
        if name in ("error", "status", "cause") and isinstance(inner, dict):
            found[name] = _status_json(inner) if "kind" in inner else _known_details(inner)
        else:
            found[name] = _plain(inner)
    return found


def _known_details(status: dict[str, Any]) -> dict[str, Any]:
    pool = descriptor_pool.Default()

    def is_known(detail: Any) -> bool:
        try:
            pool.FindMessageTypeByName(str(detail["@type"]).rpartition("/")[2])
        except (KeyError, TypeError):
            return False
        return True

    return {**status, "details": [d for d in status.get("details") or () if is_known(d)]}


def _status_json(error: dict[str, Any]) -> dict[str, Any]:
    problem = problem_of(error)
    base = "type.googleapis.com/google.rpc."
    details: list[dict[str, Any]] = [
        {
            "@type": base + "ErrorInfo",
            "reason": problem.reason,
            "domain": "wavegate.speech",
            "metadata": {**problem.metadata},
        }
    ]
    if problem.retry_delay is not None:
        details.append({"@type": base + "RetryInfo", "retryDelay": f"{problem.retry_delay:.9f}s"})
    if problem.field_violations:
        violations = [{"field": f, "description": d} for f, d in problem.field_violations]
        details.append({"@type": base + "BadRequest", "fieldViolations": violations})
    if problem.quota_violations:
        quotas = [{"subject": s, "description": d} for s, d in problem.quota_violations]
        details.append({"@type": base + "QuotaFailure", "violations": quotas})
    return {"code": _CODES.get(problem.code, 2), "message": problem.message, "details": details}


@dataclass(frozen=True)
class Resumed:
    """The client's own event: the session goes on over another call."""

    session_id: str
    outage: float
    attempts: int


@dataclass(frozen=True)
class Moved:
    """The client's own event: another session goes on."""

    session_started: v1.SessionStarted
    previous_session_id: str
    target: str
    lost_audio: float


_KINDS: Mapping[str, type[Message]] = {
    item.name: getattr(v1, item.message_type.name)
    for response in (v1.SynthesizeStreamResponse, v1.TranscribeStreamResponse, v1.UpdateSettingsResponse)
    for item in response.DESCRIPTOR.oneofs_by_name["event"].fields
}


@dataclass(frozen=True)
class Event:
    """One event of a session."""

    kind: str
    message: Any


def event_of(value: Any) -> Event:
    """An event as a driver tells it."""
    if not isinstance(value, dict):
        raise Wrong(f"this is no event: {value!r}")
    arms = {snake(name): inner for name, inner in value.items()}
    for name, inner in arms.items():
        if name == "session_resumed":
            return Event(name, Resumed(inner["session_id"], inner["outage"], inner["attempts"]))
        if name == "session_moved":
            started = message_of(inner["session_started"], v1.SessionStarted)
            lost = inner.get("lost_audio") or 0.0
            return Event(name, Moved(started, inner["previous_session_id"], inner["target"], lost))
        if name in _KINDS:
            return Event(name, message_of(inner, _KINDS[name]))
    raise Wrong(f"this is no event of the contract: {str(value)[:200]}")


def snake(name: str) -> str:
    """`utteranceId` as `utterance_id`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: "_" + match[1].lower(), name)
