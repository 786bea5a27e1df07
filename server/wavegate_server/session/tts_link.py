"""One upstream connection of a synthesis session."""

from __future__ import annotations

from wavegate_server import errors
from wavegate_server.errors import WavegateError
from wavegate_server.session.base import Link
from wavegate_server.session.events import ConnectionReason, Upstream
from wavegate_server.waves import tts


class TtsLink(Link):
    """A connection with its protocol core."""

    def __init__(self, base: Link, protocol: tts.TtsProtocol) -> None:
        super().__init__(base.transport, base.url, base.index, base.span, base.opened_at, base.handshake_s)
        self.protocol = protocol
        self.last_sent_at = base.opened_at
        self.opened_ahead = False
        """Whether it was a standby connection."""
        self.asked = False
        """Whether a ping waits for its answer."""
        self.broken = False
        """A send found it closed; its receiver will say why."""
        self.close_code: int | None = None
        """What it was closed with; 1006 where it was lost without a code, None where it was let go."""
        self.drop_reason: ConnectionReason | None = None
        """Why it will be let go, where that is decided before."""

    @property
    def upstream(self) -> Upstream:
        return Upstream(self.protocol.upstream_session_id, "", self.endpoint, self.index)

    @property
    def is_lost(self) -> bool:
        """Whether it broke, rather than having been closed in good order or let go."""
        return self.drop_reason is None and self.close_code not in (None, 1000, 1005)

    def reason(self, error: WavegateError | None) -> ConnectionReason:
        """Why it has gone, or is let go, with `error`."""
        if self.drop_reason is not None:
            return self.drop_reason
        return ConnectionReason.IDLE_TIMEOUT if self.protocol.announced_idle else reason_of(error)


def reason_of(error: WavegateError | None) -> ConnectionReason:
    """What a connection event says for an error; None is a close in good order."""
    match error:
        case None:
            return ConnectionReason.UPSTREAM_CLOSED
        case errors.UpstreamCredential():
            return ConnectionReason.AUTHENTICATION
        case errors.UpstreamCapacity():
            return ConnectionReason.CONCURRENCY_LIMIT
        case errors.UpstreamError(close_code=code) if code not in (None, 1006):
            return ConnectionReason.UPSTREAM_CLOSED
        case _:
            return ConnectionReason.NETWORK_ERROR
