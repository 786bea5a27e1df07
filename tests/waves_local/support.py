"""Thin clients of the local upstream, and what tests ask of it again and again."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import websockets
from waves_local import Upstream, spoken
from websockets.asyncio.client import ClientConnection

AUTH = {"Authorization": "Bearer a-key"}
PATIENCE_S = 60
"""No wait in a test is meant to end by this."""


class TtsClient:
    """One TTS socket. Every request names a voice, a low rate (to be quick) and an immediate `complete`."""

    def __init__(self, ws: ClientConnection, **defaults: Any) -> None:
        self.ws = ws
        self._defaults = {"voice_id": "meher", "sample_rate": 8000, "complete_backoff_ms": 0, **defaults}

    async def send(self, text: str | None = None, **fields: Any) -> None:
        """A request; `continues` stands for `continue`, a keyword of Python's."""
        if "continues" in fields:
            fields["continue"] = fields.pop("continues")
        body = {**self._defaults, **({} if text is None else {"text": text}), **fields}
        await self.send_raw({k: v for k, v in body.items() if v is not ...})

    async def send_raw(self, body: Any) -> None:
        await self.ws.send(body if isinstance(body, (str, bytes)) else json.dumps(body))

    async def frame(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            frame = json.loads(await self.ws.recv())
        assert isinstance(frame, dict)
        return frame

    async def until(self, status: str = "complete") -> list[dict[str, Any]]:
        """Frames up to the first with this status."""
        frames = [await self.frame()]
        while frames[-1].get("status") != status:
            frames.append(await self.frame())
        return frames

    async def rest(self) -> list[dict[str, Any]]:
        """Frames up to the close."""
        return await rest_of(self.ws)

    async def silence(self, seconds: float) -> None:
        """Nothing comes for a while."""
        try:
            async with asyncio.timeout(seconds):
                frame = await self.ws.recv()
        except TimeoutError:
            return
        raise AssertionError(f"unexpected: {frame!r}")


class SttClient:
    """One STT socket."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws

    async def hear(self, audio: bytes, size: int = 3200) -> None:
        for start in range(0, len(audio), size):
            await self.ws.send(audio[start : start + size])

    async def control(self, kind: str) -> None:
        await self.ws.send(json.dumps({"type": kind}))

    async def frame(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            frame = json.loads(await self.ws.recv())
        assert isinstance(frame, dict)
        return frame

    async def until_final(self) -> list[dict[str, Any]]:
        """Frames up to the next final transcript."""
        frames = [await self.frame()]
        while not frames[-1].get("is_final"):
            frames.append(await self.frame())
        return frames

    async def finish(self) -> list[dict[str, Any]]:
        """Close the stream; everything that still comes."""
        await self.control("close_stream")
        return await self.rest()

    async def rest(self) -> list[dict[str, Any]]:
        """Frames up to the close."""
        return await rest_of(self.ws)


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait until it is true of something that nobody announces."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def rest_of(ws: ClientConnection) -> list[dict[str, Any]]:
    """All JSON frames up to the close, whatever its code."""
    frames = []
    with contextlib.suppress(websockets.ConnectionClosedError):
        async with asyncio.timeout(PATIENCE_S):
            async for message in ws:
                frames.append(json.loads(message))
    return frames


def ws_url(upstream: Upstream, path: str, query: dict[str, Any] | None = None) -> str:
    url = upstream.url.replace("http", "ws", 1) + path
    return f"{url}?{urlencode(query)}" if query else url


@asynccontextmanager
async def tts(
    upstream: Upstream, path: str = "/waves/v1/tts/live", query: dict[str, Any] | None = None, **defaults: Any
) -> AsyncIterator[TtsClient]:
    async with websockets.connect(ws_url(upstream, path, query), additional_headers=AUTH) as ws:
        yield TtsClient(ws, **defaults)


@asynccontextmanager
async def stt(upstream: Upstream, path: str = "/waves/v1/stt/live", **query: Any) -> AsyncIterator[SttClient]:
    query = {"model": "pulse", "language": "en", "sample_rate": 8000, **query}
    query = {k: v for k, v in query.items() if v is not ...}
    async with websockets.connect(ws_url(upstream, path, query), additional_headers=AUTH) as ws:
        yield SttClient(ws)


async def status_of_handshake(
    upstream: Upstream, path: str = "/waves/v1/tts/live", headers: dict[str, str] = AUTH
) -> int:
    """101 where the socket is accepted."""
    try:
        async with websockets.connect(ws_url(upstream, path), additional_headers=headers):
            return 101
    except websockets.InvalidStatus as refused:
        return refused.response.status_code


def audio_of(frames: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(base64.b64decode(f["data"]["audio"]) for f in frames if f.get("status") == "chunk")


def text_of(frames: Iterable[dict[str, Any]]) -> str:
    """What the chunks among these frames say."""
    return spoken(audio_of(frames))


def statuses(frames: Iterable[dict[str, Any]]) -> list[str]:
    """The statuses in order, each run of chunks counted once."""
    found: list[str] = []
    for frame in frames:
        if frame["status"] != "chunk" or found[-1:] != ["chunk"]:
            found.append(frame["status"])
    return found


def finals(frames: Iterable[dict[str, Any]]) -> list[str]:
    """The final transcripts."""
    return [f["transcript"] for f in frames if f.get("is_final")]
