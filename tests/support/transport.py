"""Scripted upstream connections at the transport port, for both kinds of session.

A test reads like a conversation:

    dialer = FakeDialer()
    ...
    upstream = await dialer.connection(0)
    await upstream.expect(lambda m: m == {"type": "finalize"})
    upstream.say(stt_transcript("hello", final=True, words=[("hello", 0.1, 0.5)]))
    upstream.drop()

or gives the peer a behaviour: `FakeDialer(peer=lambda upstream: Echo(upstream))`, whose `received(message)` is
called for each message that the session writes.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from wavegate_server import errors
from wavegate_server.session.transport import SEND_TIMEOUT_S, TransportClosed

Message = str | bytes


class Peer(Protocol):
    """The upstream's side of one connection."""

    def received(self, message: Message) -> None:
        """The session wrote a message."""


class FakeTransport:
    """One connection. Times are the loop's."""

    def __init__(self, url: str, headers: Mapping[str, str], index: int) -> None:
        self.url = url
        self.headers = dict(headers)
        self.index = index
        self.timings = None
        self.reading_s: Callable[[], float] = lambda: 0.0
        self.pings = 0
        self.sent: list[Message] = []
        self.sent_at: list[float] = []
        self.peer: Peer | None = None
        self.aborted = False
        self.closed_code: int | None = None
        """The code with which the session closed it."""
        self.answers = True
        """Whether the peer answers pings; each is answered at once."""
        self.pings = 0
        self._incoming: deque[Message | TransportClosed] = deque()
        self._changed = asyncio.Event()
        self._gone: TransportClosed | None = None
        self._reads = True

    def __repr__(self) -> str:
        return f"<FakeTransport #{self.index} {len(self.sent)} sent, gone={self.gone}>"

    # -- the port -------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        await asyncio.sleep(0)
        if not self._reads:
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    while not self._reads and not self.gone:
                        await self._change()
            except TimeoutError as exc:
                self.abort()
                raise errors.UpstreamStalled(f"the upstream took nothing for {SEND_TIMEOUT_S:g} s") from exc
        if self._gone is not None:
            raise self._gone
        self.sent.append(message)
        self.sent_at.append(asyncio.get_running_loop().time())
        self._notify()
        if self.peer is not None:
            self.peer.received(message)

    async def ping(self, on_pong: Callable[[], None]) -> None:
        """Answered at once, unless the peer does not answer (`answers`) or has a say (`pinged`)."""
        await asyncio.sleep(0)
        if self._gone is not None:
            raise self._gone
        self.pings += 1
        pinged = getattr(self.peer, "pinged", None)
        if pinged is not None:
            pinged(on_pong)
        elif self.answers:
            asyncio.get_running_loop().call_soon(on_pong)

    async def recv(self) -> Message:
        while not self._incoming:
            if self._gone is not None:
                raise self._gone
            await self._change()
        item = self._incoming.popleft()
        if isinstance(item, TransportClosed):
            self._gone = item
            self._notify()
            raise item
        return item

    async def close(self, code: int = 1000) -> None:
        await asyncio.sleep(0)
        if self._gone is None:
            self.closed_code = code
            self._gone = TransportClosed(code)
        self._notify()

    def leave(self) -> None:
        if self._gone is None:
            self.closed_code = 1000
            self._gone = TransportClosed(1000)
        self._notify()

    def abort(self) -> None:
        self.aborted = True
        if self._gone is None:
            self._gone = TransportClosed(None, "aborted")
        self._notify()

    @property
    def is_open(self) -> bool:
        return self._gone is None

    # -- the other end --------------------------------------------------------------------------------------

    @property
    def gone(self) -> bool:
        """Whether the connection has ended, from either side."""
        return self._gone is not None

    @property
    def query(self) -> dict[str, str]:
        """The parameters of its URL; a repeated one is a mistake."""
        parsed = parse_qs(urlsplit(self.url).query, keep_blank_values=True)
        assert all(len(v) == 1 for v in parsed.values()), parsed
        return {k: v[0] for k, v in parsed.items()}

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    def say(self, *messages: Mapping[str, Any] | Message) -> None:
        """Send frames to the session; a mapping goes as JSON."""
        for message in messages:
            self._incoming.append(json.dumps(message) if isinstance(message, Mapping) else message)
        self._notify()

    def finish(self, code: int = 1000, reason: str = "") -> None:
        """Close after what was said has been read."""
        self._incoming.append(TransportClosed(code, reason))
        self._notify()

    def drop(self, code: int | None = None, reason: str = "", *, stalled: bool = False) -> None:
        """Cut the connection now: nothing unread arrives, nothing more can be sent. `stalled`: as this end does
        where a ping was not answered."""
        self._incoming.clear()
        self._gone = TransportClosed(code, reason, stalled=stalled)
        self._notify()

    def stop_reading(self) -> None:
        """Take nothing more: sends block, and end as a stall."""
        self._reads = False

    def read_again(self) -> None:
        self._reads = True
        self._notify()

    def json_sent(self) -> list[dict[str, Any]]:
        """The text messages that the session wrote, parsed."""
        return [json.loads(m) for m in self.sent if isinstance(m, str)]

    def audio_sent(self) -> bytes:
        """The binary messages that the session wrote, joined."""
        return b"".join(m for m in self.sent if isinstance(m, bytes))

    async def expect(self, matches: Callable[[Any], bool] = lambda m: True, start: int = 0) -> int:
        """Wait until the session wrote a message for which `matches` is true; its index, from `start` on.

        Text messages are parsed before they are shown to `matches`.
        """
        index = start
        while True:
            while index < len(self.sent):
                message = self.sent[index]
                if matches(json.loads(message) if isinstance(message, str) else message):
                    return index
                index += 1
            if self.gone:
                raise AssertionError(f"{self!r} ended before the expected message came")
            await self._change()

    async def ended(self) -> None:
        """Wait until the connection has ended."""
        while not self.gone:
            await self._change()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self) -> None:
        await self._changed.wait()


@dataclass(frozen=True, slots=True)
class Dial:
    """One attempt to connect."""

    url: str
    at: float
    transport: FakeTransport | None
    error: errors.WavegateError | None


class FakeDialer:
    """Makes `FakeTransport`s; keeps every attempt."""

    def __init__(
        self, peer: Callable[[FakeTransport], Peer] | None = None, *, handshake_s: float = 0.05
    ) -> None:
        """`peer` makes the other end of each connection. `handshake_s`: how long a connection takes to open."""
        self.dials: list[Dial] = []
        self.transports: list[FakeTransport] = []
        self.handshake_s = handshake_s
        self.peer = peer
        self._refusals: deque[errors.WavegateError | None] = deque()
        self._open = asyncio.Event()
        self._open.set()
        self._changed = asyncio.Event()

    async def dial(self, url: str, headers: Mapping[str, str]) -> FakeTransport:
        at = asyncio.get_running_loop().time()
        refusal = self._refusals.popleft() if self._refusals else None
        await asyncio.sleep(self.handshake_s)
        await self._open.wait()
        if refusal is not None:
            self.dials.append(Dial(url, at, None, refusal))
            self._notify()
            raise refusal
        transport = FakeTransport(url, headers, len(self.transports))
        if self.peer is not None:
            transport.peer = self.peer(transport)
        self.transports.append(transport)
        self.dials.append(Dial(url, at, transport, None))
        self._notify()
        return transport

    def refuse(self, *refusals: errors.WavegateError | None) -> None:
        """Answer the next attempts with these errors; None lets one through."""
        self._refusals.extend(refusals)

    def hold(self) -> None:
        """Let no handshake finish until `let_go`."""
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    async def connection(self, index: int) -> FakeTransport:
        """Wait for connection number `index`, from 0, refused attempts not counted."""
        while len(self.transports) <= index:
            await self._changed.wait()
        return self.transports[index]

    @property
    def last(self) -> FakeTransport:
        return self.transports[-1]

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


# -- frames of the speech side ------------------------------------------------------------------------------


def tts_chunk(pcm: bytes, external: str = "", request_id: str = "up-1") -> dict[str, Any]:
    """Audio. `external` echoes the gateway's request id; empty: an upstream that echoes nothing."""
    return _tts("chunk", external, request_id, data={"audio": base64.b64encode(pcm).decode()})


def tts_word(
    word: str, start_s: float, end_s: float, external: str = "", request_id: str = "up-1"
) -> dict[str, Any]:
    data = {"id": 0, "word": word, "start": start_s, "end": end_s}
    return _tts("word_timestamp", external, request_id, data=data)


def tts_complete(external: str = "", request_id: str = "up-1") -> dict[str, Any]:
    return _tts("complete", external, request_id)


def tts_error(message: str, external: str = "", request_id: str = "up-1") -> dict[str, Any]:
    return _tts("error", external, request_id, message=message)


def _tts(status: str, external: str, request_id: str, **rest: Any) -> dict[str, Any]:
    frame: dict[str, Any] = {"session_id": "up-session", "request_id": request_id, "status": status, **rest}
    if external:
        frame["external_request_id"] = external
    return frame


# -- frames of the listening side ---------------------------------------------------------------------------


def stt_transcript(
    text: str,
    *,
    final: bool = False,
    last: bool = False,
    from_finalize: bool = False,
    words: Sequence[tuple[str, float, float]] | Iterable[Mapping[str, Any]] | None = None,
    **rest: Any,
) -> dict[str, Any]:
    """A transcription frame. `words` are (word, start, end) in seconds of the connection, or whole objects."""
    frame: dict[str, Any] = {
        "type": "transcription",
        "status": "success",
        "session_id": "up-session",
        "transcript": text,
        "is_final": final,
        "is_last": last,
        **rest,
    }
    if from_finalize:
        frame["from_finalize"] = True
    if words is not None:
        frame["words"] = [
            dict(w) if isinstance(w, Mapping) else {"word": w[0], "start": w[1], "end": w[2]} for w in words
        ]
    return frame


def stt_speech_started(timestamp_s: float) -> dict[str, Any]:
    return {"type": "speech_started", "session_id": "up-session", "timestamp": timestamp_s}


def stt_speech_ended(timestamp_s: float) -> dict[str, Any]:
    return {"type": "speech_ended", "session_id": "up-session", "timestamp": timestamp_s}


def stt_error(message: str) -> dict[str, Any]:
    return {"type": "error", "status": "error", "message": message}
