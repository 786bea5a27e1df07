"""What every servicer is given: the objects that `app` built once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from wavegate_server.rpc.auth import Authenticator
from wavegate_server.session.context import Bounds
from wavegate_server.session.pool import Upstreams
from wavegate_server.session.registry import Registry
from wavegate_server.session.transport import Dialer
from wavegate_server.telemetry import NullTelemetry, Telemetry
from wavegate_server.telemetry.session_labels import SessionLabels
from wavegate_server.waves.settings import Settings

ANSWER_S = 0.1
"""So long before its deadline a call that waits in vain is answered: later, the caller would only learn that time is
up, and not why, nor when to come back."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway's parts, and the options that servicers need. `config.py` says what each option means."""

    registry: Registry
    upstreams: Upstreams
    dialer: Dialer
    telemetry: Telemetry = field(default_factory=NullTelemetry)
    bounds: Bounds = field(default_factory=Bounds)
    synthesis_defaults: Settings = field(default_factory=dict)
    transcription_defaults: Settings = field(default_factory=dict)
    start_timeout_s: float = 10.0
    max_stream_message_bytes: int = 256 * 1024
    """The largest message of a stream; the server's own limit is that of `Recognize`."""
    stt_keepalive: str = "silence"
    """`silence` or `message`: what keeps a quiet transcription connection open."""
    auth: Authenticator = field(default_factory=Authenticator)
    session_labels: SessionLabels = field(default_factory=SessionLabels)
    """Which labels of sessions metrics carry."""

    def queue_wait_s(self, context: Any) -> float:
        """Seconds that a unary call, or one with a single request, may wait for the account: the gateway's bound, or
        what its own deadline leaves where that is sooner."""
        left_s: float | None = context.time_remaining()
        if left_s is None:
            return self.bounds.max_queue_wait_s
        return min(self.bounds.max_queue_wait_s, max(0.0, left_s - ANSWER_S))
