"""Statuses to exceptions: one table, and what a sentence has to say."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from wavegate import errors
from wavegate.errors import error_from_rpc, error_from_status
from wavegate.speech.v1 import types_pb2

from tests.clients.python.fake_gateway import status

S = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "reason", "kind", "retryable"),
    [
        (S.INVALID_ARGUMENT, "FIELD_INVALID", errors.InvalidRequestError, False),
        (S.INVALID_ARGUMENT, "UPSTREAM_REJECTED", errors.InvalidRequestError, False),
        (S.OUT_OF_RANGE, "RESUME_GAP", errors.InvalidRequestError, False),
        (S.UNAUTHENTICATED, "CALLER_UNAUTHENTICATED", errors.AccessDeniedError, False),
        (S.PERMISSION_DENIED, "CALLER_FORBIDDEN", errors.AccessDeniedError, False),
        (S.RESOURCE_EXHAUSTED, "CALLER_QUOTA", errors.CapacityError, True),
        (S.RESOURCE_EXHAUSTED, "UPSTREAM_CAPACITY", errors.CapacityError, True),
        (S.NOT_FOUND, "SESSION_NOT_FOUND", errors.SessionNotFoundError, False),
        (S.ABORTED, "REVISION_MISMATCH", errors.ConflictError, False),
        (S.FAILED_PRECONDITION, "UPSTREAM_CREDENTIAL", errors.UpstreamError, False),
        (S.FAILED_PRECONDITION, "UPSTREAM_GONE", errors.UpstreamError, False),
        (S.UNAVAILABLE, "UPSTREAM_UNAVAILABLE", errors.UpstreamError, True),
        (S.UNAVAILABLE, "UPSTREAM_STALLED", errors.UpstreamError, True),
        (S.INTERNAL, "UPSTREAM_PROTOCOL", errors.UpstreamError, False),
        (S.UNAVAILABLE, "GATEWAY_DRAINING", errors.GatewayUnavailableError, True),
        (S.DEADLINE_EXCEEDED, "SESSION_IDLE", errors.DeadlineError, False),
        (S.INTERNAL, "GATEWAY_BUG", errors.WavegateError, False),
        (S.UNIMPLEMENTED, "NOT_YET", errors.WavegateError, False),
    ],
)
def test_every_reason_is_of_a_kind(
    code: grpc.StatusCode, reason: str, kind: type[errors.WavegateError], retryable: bool
) -> None:
    error = error_from_status(status(code, reason, "it is so"))
    assert type(error) is kind
    assert (error.code, error.reason, error.retryable) == (code.name, reason, retryable)
    assert str(error) == "it is so"
    assert error.metadata == {"from": "fake"}


def test_the_details_are_taken_apart() -> None:
    error = error_from_status(
        status(
            S.INVALID_ARGUMENT,
            "FIELD_INVALID",
            "2 fields are invalid",
            retry_s=4,
            fields={"start.settings.speed": "must be 0.5 to 2.0", "start.settings.extra.a": "is taken"},
            quota=("sessions", "5 of 5"),
        )
    )
    assert [v.field for v in error.field_violations] == ["start.settings.speed", "start.settings.extra.a"]
    assert error.retry_delay_s == 4
    assert error.quota_violations == (errors.QuotaViolation("sessions", "5 of 5"),)
    assert str(error).splitlines() == [
        "2 fields are invalid",
        "  start.settings.speed: must be 0.5 to 2.0",
        "  start.settings.extra.a: is taken",
    ]


def test_a_violation_that_the_message_tells_already_is_not_told_twice() -> None:
    fields = {"text": "must not be empty"}
    error = error_from_status(
        status(S.INVALID_ARGUMENT, "FIELD_INVALID", "text must not be empty", fields=fields)
    )
    assert str(error) == "text must not be empty"


def test_unknown_and_damaged_details_hide_nothing() -> None:
    made = status(S.NOT_FOUND, "SESSION_NOT_FOUND", "gone")
    made.details.insert(0, Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff\xff"))
    made.details.insert(0, Any(type_url="type.googleapis.com/new.Thing", value=b"?"))
    error = error_from_status(made)
    assert (error.reason, error.message) == ("SESSION_NOT_FOUND", "gone")


def test_a_code_of_a_newer_grpc_is_unknown() -> None:
    error = error_from_status(types_pb2.Status(code=99))
    assert error.code == "UNKNOWN"
    assert "without a message" in str(error)


def rpc(
    code: str, details: str = "", *, answered: bool, trailer: bytes | None = None
) -> errors.WavegateError:
    trailers = [("grpc-status-details-bin", trailer)] if trailer is not None else []
    return error_from_rpc(code, details, trailers, target="host:1", answered=answered)


class TestCallsThatGrpcEnded:
    @pytest.mark.parametrize(
        ("details", "says"),
        [
            ("Sent message larger than max (40000011 vs. 33554432)", "the request is too large"),
            ("CLIENT: Sent message larger than max (40000011 vs. 33554432)", "the request is too large"),
            ("SERVER: Received message larger than max (40000011 vs. 33554432)", "the request is too large"),
            ("Received message larger than max (40000011 vs. 33554432)", "the request is too large"),
            ("CLIENT: Received message larger than max (40000011 vs. 33554432)", "the answer of the gateway"),
        ],
    )
    def test_a_message_above_the_transports_limit_is_no_limit_that_passes(
        self, details: str, says: str
    ) -> None:
        error = rpc("RESOURCE_EXHAUSTED", details, answered=False)
        assert type(error) is errors.InvalidRequestError
        assert not error.retryable
        assert says in error.message
        assert "33554432" in error.message
        assert "40000011" in error.message

    def test_other_limits_of_the_transport_pass(self) -> None:
        error = rpc(
            "RESOURCE_EXHAUSTED", "received trailing metadata size exceeds soft limit", answered=False
        )
        assert type(error) is errors.CapacityError

    def test_details_in_the_trailer_win(self) -> None:
        trailer = status(S.NOT_FOUND, "SESSION_NOT_FOUND", "gone").SerializeToString()
        assert isinstance(
            rpc("NOT_FOUND", "gone", answered=False, trailer=trailer), errors.SessionNotFoundError
        )
        assert rpc("NOT_FOUND", "as it is", answered=False, trailer=b"\xff").message == "as it is"

    @pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "CANCELLED", "UNKNOWN"])
    def test_a_broken_connection_looks_different_behind_each_proxy(self, code: str) -> None:
        error = rpc(code, "Received RST_STREAM with error code 2", answered=True)
        assert isinstance(error, errors.ConnectionLostError)
        assert error.code == "UNAVAILABLE"
        assert "host:1 was lost (Received RST_STREAM" in str(error)

    def test_nobody_there(self) -> None:
        error = rpc("UNAVAILABLE", "failed to connect: Connection refused", answered=False)
        assert type(error) is errors.GatewayUnavailableError
        assert str(error) == "no gateway at host:1; start one with `make run` or `wavegate-server`"

    def test_no_way_there_says_why(self) -> None:
        error = rpc("UNAVAILABLE", "DNS resolution failed for host:1", answered=False)
        assert "DNS resolution failed" in str(error)

    def test_an_old_gateway(self) -> None:
        assert "may be older than this client" in str(
            rpc("UNIMPLEMENTED", "Method not found!", answered=False)
        )

    def test_other_codes_stay_what_they_are(self) -> None:
        error = rpc("INVALID_ARGUMENT", "Exception deserializing request!", answered=False)
        assert isinstance(error, errors.InvalidRequestError)
