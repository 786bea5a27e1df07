"""Every name that goes out: spans, attributes, log fields. One place, so that a rename is one line.

RPC names follow the OpenTelemetry conventions for RPC (`rpc.system.name`, `rpc.method`,
`rpc.response.status_code`); what is ours begins with `speech.`. No value ever holds text, audio or a key.
"""

from __future__ import annotations

from typing import Final

SERVICE_NAME: Final = "wavegate-gateway"
"""`service.name` where `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` set none."""
SCOPE: Final = "wavegate_server"
"""Name of the instrumentation scope."""

# Spans. The SERVER span of an RPC is named by its method: `package.Service/Method`.
UPSTREAM_CONNECTION: Final = "upstream.connection"
"""CLIENT span of one upstream WebSocket, from dialling to its end."""

# Attributes by the conventions.
RPC_SYSTEM_NAME: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_RESPONSE_STATUS_CODE: Final = "rpc.response.status_code"
"""The name of the gRPC status: `OK`, `CANCELLED`, ..."""
ERROR_TYPE: Final = "error.type"
"""A reason of `docs/errors.md`, or the status where there is none."""
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
NETWORK_PROTOCOL_NAME: Final = "network.protocol.name"
URL_SCHEME: Final = "url.scheme"
URL_PATH: Final = "url.path"

# Attributes of our own.
SESSION_ID: Final = "speech.session.id"
CALLER: Final = "speech.caller"
"""Name of the caller, as in the tokens file or the client certificate; absent for anonymous ones."""
UPSTREAM_KIND: Final = "speech.upstream.kind"
"""`tts` or `stt`."""
UPSTREAM_ATTEMPT: Final = "speech.upstream.attempt"
"""1 for the first try of a connection, one more for each that follows a failure."""

# Fields of log lines.
LOG_TRACE_ID: Final = "trace_id"
LOG_SPAN_ID: Final = "span_id"
LOG_SESSION_ID: Final = "session_id"
