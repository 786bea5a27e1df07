"""The control plane: live sessions, deltas from outside, and what is told of them."""

from __future__ import annotations

from typing import Any

from wavegate.speech.v1 import session_service_pb2 as pb

from wavegate_server.rpc.convert import common
from wavegate_server.session.base import Session, State
from wavegate_server.session.events import (
    ConnectionChanged,
    SessionEnded,
    SettingsAcknowledged,
    UpdateSettings,
)
from wavegate_server.telemetry import EndedSpan
from wavegate_server.waves.settings import SYNTHESIS


def session(live: Session) -> pb.Session:
    """A live session as the contract shows it."""
    return pb.Session(
        session_id=live.session_id,
        state=f"STATE_{(State.DETACHED if live.detached else live.state).value}",
        settings=common.effective_settings(live.ledger.schema, live.ledger.settings),
        settings_revision=live.ledger.revision,
        audio_format=common.audio_format_to_proto(live.audio_format),
        usage=common.usage(live.usage()),
        upstream=common.upstream_info(live.upstream()),
        labels=dict(live.context.labels),
        create_time=common.timestamp(live.created_at),
        last_activity_time=common.timestamp(live.last_activity_at),
        trace_id=live.context.span.trace_id,
    )


def update(live: Session, request: pb.UpdateSettingsRequest) -> UpdateSettings:
    """A delta for a session of this kind. Raises `errors.InvalidInput` for an id that is none."""
    return common.control_update_from_proto(live.ledger.schema, request)


def session_event(live: Session, event: Any) -> pb.UpdateSettingsResponse:
    """What a listener of a session was told."""
    response = pb.UpdateSettingsResponse(session_id=live.session_id)
    match event:
        case SettingsAcknowledged():
            response.ack.CopyFrom(common.settings_ack(event, live.ledger.schema))
        case ConnectionChanged():
            response.connection.CopyFrom(common.connection_event(event))
        case SessionEnded():
            response.session_ended.CopyFrom(common.session_ended(event))
        case _:
            raise TypeError(f"no control response for {type(event).__name__}")
    return response


def unknown_session_ack(session_id: str, ack: SettingsAcknowledged) -> pb.UpdateSettingsResponse:
    """The ack of a delta whose session is not there."""
    return pb.UpdateSettingsResponse(session_id=session_id, ack=common.settings_ack(ack, SYNTHESIS))


def trace_span(span: EndedSpan) -> pb.TraceSpan:
    """A span as the contract shows it."""
    message = pb.TraceSpan(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_id,
        parent_is_remote=span.parent_is_remote,
        name=span.name,
        kind=f"KIND_{span.kind}",
        failed=span.failed,
        error_message=span.error_message,
        links=[pb.TraceSpan.Link(trace_id=trace_id, span_id=span_id) for trace_id, span_id in span.links],
    )
    message.start_time.FromNanoseconds(span.start_ns)
    message.end_time.FromNanoseconds(span.end_ns)
    fields = message.attributes.fields
    for key, value in span.attributes.items():
        if isinstance(value, str):
            fields[key].string_value = value
        elif isinstance(value, bool):
            fields[key].bool_value = value
        elif isinstance(value, int | float):
            fields[key].number_value = value
        else:
            fields[key].list_value.extend(value)
    return message
