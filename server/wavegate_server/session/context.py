"""What a session is given: its bounds, its way upstream, and who its caller is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from wavegate_server.session.account import Account
from wavegate_server.session.transport import Dialer
from wavegate_server.telemetry import NullSpan, NullTelemetry, Span, Telemetry
from wavegate_server.waves.ending import Habits
from wavegate_server.waves.settings import Settings
from wavegate_server.waves.tts import Mode

if TYPE_CHECKING:
    from wavegate_server.session.pool import Upstreams


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of one session. `config.py` says where each number comes from."""

    idle_timeout_s: float = 600.0
    max_text_message_chars: int = 16_384
    max_utterance_chars: int = 100_000
    max_queued_utterances: int = 64
    max_buffered_chars: int = 200_000
    max_audio_message_bytes: int = 256 * 1024
    audio_history_s: float = 30.0
    max_waiting_audio_s: float = 2.0
    max_queue_wait_s: float = 2.0
    max_resume_window_s: float = 60.0


@dataclass(frozen=True, slots=True)
class UpstreamTarget:
    """Where and how the upstream is spoken to.

    `base_url` is scheme, host and port; `ws` and `http` are taken alike. `account` is the one that `key` opens.
    """

    base_url: str
    key: str = field(repr=False)
    expire_content: bool = False
    tts_mode: Mode = Mode.CONTINUATIONS
    old_tts_path: bool = False
    old_stt_path: bool = False
    habits: Habits = field(default_factory=Habits)
    account: Account = field(default_factory=Account)

    def websocket_url(self, path: str, query: str = "") -> str:
        return self._url({"http": "ws", "https": "wss"}, path, query)

    def http_url(self, path: str, query: str = "") -> str:
        return self._url({"ws": "http", "wss": "https"}, path, query)

    def headers(self) -> dict[str, str]:
        """Headers of every request. They hold the key: never log them."""
        headers = {"Authorization": f"Bearer {self.key}"}
        if self.expire_content:
            headers["x-expire-content"] = "true"
        return headers

    def _url(self, schemes: Mapping[str, str], path: str, query: str) -> str:
        parts = urlsplit(self.base_url)
        scheme = schemes.get(parts.scheme, parts.scheme)
        return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + path, query, ""))


def endpoint_of(url: str) -> str:
    """Scheme, host and path of a URL: what may be shown. Never a query, a user or a key."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


@dataclass(frozen=True, slots=True)
class SessionContext:
    """All that a session needs to know of the process around it."""

    session_id: str
    caller: str
    """Who opened it; sessions of one caller are invisible to another."""
    upstreams: Upstreams
    dialer: Dialer
    bounds: Bounds = field(default_factory=Bounds)
    labels: Mapping[str, str] = field(default_factory=dict)
    metric_labels: tuple[str, ...] = ()
    """The values of those labels that metrics carry, as `telemetry.session_labels` chose them."""
    client_session_id: str = ""
    defaults: Settings = field(default_factory=dict)
    """The gateway's own defaults for this kind of session; `reset_mask` goes back to them."""
    telemetry: Telemetry = field(default_factory=NullTelemetry)
    span: Span = field(default_factory=NullSpan)
    """The span of the RPC, parent of the connections' spans."""
    max_concurrent_sessions: int = 0
    active_sessions: int = 0
