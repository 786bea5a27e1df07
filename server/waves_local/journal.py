"""What each connection received, and how it began and ended.

The journal is how a test asks "what reached the upstream?". It is bounded: old connections and old
messages fall out. It never holds a key.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One message of the client."""

    at_s: float
    """Event loop time."""
    text: str | None
    """The text frame or request body; `None` for binary."""
    parsed: Any
    """The text as JSON; `None` where it is binary or no JSON."""
    size_bytes: int


@dataclass(slots=True, eq=False)
class ConnectionRecord:
    """One connection or HTTP request, from its handshake to its end."""

    kind: str
    """`tts`, `stt` (WebSockets), `sse`, `tts-http`, `stt-http`, `voices`."""
    number: int
    """1 for the first connection of its kind."""
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """Names in lower case, without credentials."""
    opened_at_s: float
    status: int | None = None
    """HTTP status of the handshake or response: 101 for a WebSocket; `None` before there is one."""
    refusal: str = ""
    """Why the handshake was refused."""
    messages: deque[ReceivedMessage] = field(default_factory=deque)
    received_count: int = 0
    audio_bytes: int = 0
    audio: bytearray | None = None
    """All binary frames in order, where `Options.journal_audio` asks for it."""
    frames_sent: int = 0
    audio_bytes_sent: int = 0
    close_code: int | None = None
    """Close code on the wire; 1006 where there was none; `None` while open, and for HTTP."""
    closed_by: str = ""
    """`client`, `server` or `fault`."""
    closed_at_s: float | None = None
    spoken: list[str] = field(default_factory=list)
    """TTS: the texts given to the engine, in order; of many, the latest."""
    _digest: Any = field(default_factory=hashlib.sha256)

    @property
    def is_open(self) -> bool:
        return self.status is not None and self.closed_at_s is None

    @property
    def audio_sha256(self) -> str:
        """Digest of all binary frames so far, joined."""
        return str(self._digest.hexdigest())

    @property
    def texts(self) -> list[dict[str, Any]]:
        """The text messages that were JSON objects."""
        return [m.parsed for m in self.messages if isinstance(m.parsed, dict)]

    @property
    def binary_sizes(self) -> list[int]:
        """The size of each binary frame, in bytes."""
        return [m.size_bytes for m in self.messages if m.text is None]

    def to_dict(self) -> dict[str, Any]:
        """For the control endpoint."""
        return {
            "kind": self.kind,
            "number": self.number,
            "path": self.path,
            "query": self.query,
            "headers": self.headers,
            "opened_at_s": self.opened_at_s,
            "status": self.status,
            "refusal": self.refusal,
            "open": self.is_open,
            "received_count": self.received_count,
            "messages": [
                {
                    "at_s": m.at_s,
                    "size_bytes": m.size_bytes,
                    **({"json": m.parsed} if m.parsed is not None else {"text": m.text} if m.text else {}),
                }
                for m in self.messages
            ],
            "audio_bytes": self.audio_bytes,
            "audio_sha256": self.audio_sha256,
            "spoken": self.spoken,
            "frames_sent": self.frames_sent,
            "audio_bytes_sent": self.audio_bytes_sent,
            "close_code": self.close_code,
            "closed_by": self.closed_by,
            "closed_at_s": self.closed_at_s,
        }

    def __repr__(self) -> str:
        state = (
            "open" if self.is_open else f"status={self.status} close={self.close_code} by {self.closed_by}"
        )
        return f"<{self.kind} #{self.number} {self.path} received={self.received_count} {state}>"


class Journal:
    """The connections of one local upstream, oldest first."""

    def __init__(self, max_connections: int, max_messages: int, *, keep_audio: bool) -> None:
        self._records: deque[ConnectionRecord] = deque(maxlen=max_connections)
        self._max_messages = max_messages
        self._keep_audio = keep_audio
        self._counts: dict[str, int] = {}
        self._changed: asyncio.Event | None = None

    def open(
        self, kind: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> ConnectionRecord:
        """Begin a record."""
        self._counts[kind] = number = self._counts.get(kind, 0) + 1
        record = ConnectionRecord(
            kind=kind,
            number=number,
            path=path,
            query=dict(query),
            headers={k.lower(): v for k, v in headers.items() if k.lower() not in _SECRET_HEADERS},
            opened_at_s=asyncio.get_running_loop().time(),
            messages=deque(maxlen=self._max_messages),
            audio=bytearray() if self._keep_audio else None,
        )
        self._records.append(record)
        self.notify()
        return record

    def received(self, record: ConnectionRecord, message: str | bytes, parsed: Any = None) -> None:
        """Note one message of the client."""
        now_s = asyncio.get_running_loop().time()
        record.received_count += 1
        if isinstance(message, str):
            record.messages.append(ReceivedMessage(now_s, message, parsed, len(message)))
        else:
            record.messages.append(ReceivedMessage(now_s, None, None, len(message)))
            record.audio_bytes += len(message)
            record._digest.update(message)
            if record.audio is not None:
                record.audio += message
        self.notify()

    def spoke(self, record: ConnectionRecord, text: str) -> None:
        """Note a text that was given to the engine."""
        record.spoken.append(text)
        del record.spoken[: -self._max_messages]
        self.notify()

    def sent(self, record: ConnectionRecord, audio_bytes: int) -> None:
        """Note a frame that was sent."""
        record.frames_sent += 1
        record.audio_bytes_sent += audio_bytes
        self.notify()

    def notify(self) -> None:
        """Wake those who wait for a change."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def wait_for(self, condition: Callable[[Journal], Any], timeout_s: float = 30.0) -> Any:
        """Wait until `condition(journal)` is true and return what it returned.

        Raises TimeoutError, with the journal's content in its message, after `timeout_s`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not (result := condition(self)):
                    if self._changed is None:
                        self._changed = asyncio.Event()
                    await self._changed.wait()
                return result
        except TimeoutError:
            raise TimeoutError(f"no such thing within {timeout_s} s in {list(self._records)!r}") from None

    def of(self, kind: str) -> list[ConnectionRecord]:
        """The connections of one kind, oldest first."""
        return [r for r in self._records if r.kind == kind]

    def clear(self) -> None:
        """Forget all connections that have ended. Numbers run on."""
        still_open = [r for r in self._records if r.is_open]
        self._records.clear()
        self._records.extend(still_open)

    def __iter__(self) -> Iterator[ConnectionRecord]:
        return iter(tuple(self._records))

    def __len__(self) -> int:
        return len(self._records)
