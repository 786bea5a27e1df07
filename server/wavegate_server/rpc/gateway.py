"""What every servicer is given: the objects that `app` built once."""

from __future__ import annotations

from dataclasses import dataclass, field

from wavegate_server.rpc.auth import Authenticator
from wavegate_server.session.context import Bounds
from wavegate_server.session.pool import Upstreams
from wavegate_server.session.registry import Registry
from wavegate_server.session.transport import Dialer
from wavegate_server.telemetry import NullTelemetry, Telemetry
from wavegate_server.waves.settings import Settings


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
