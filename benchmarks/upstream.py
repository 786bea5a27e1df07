"""A scripted upstream that costs as little as it can, so that the gateway is what is measured.

    python -m benchmarks.upstream --port-file PATH

It speaks just enough of the protocol for the benchmarks, and checks nothing: no limits, no settings, no errors.
One `asyncio.Protocol` a connection, no task and no parser for audio: a chunk's frame is made once per request, and
only its stamp is replaced; of audio that comes in, only the stamp is unmasked. It ends when its stdin does.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pybase64
import uvloop

from benchmarks.wire import (
    FRAMES_A_WORD,
    SAMPLE_RATE_STT_HZ,
    STAMP_BYTES,
    WORDS_A_FINAL,
    Damaged,
    Heard,
    Order,
    filling,
    now_ns,
    read_stamp,
    stamp,
)

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10
_STAMP_CHARS = STAMP_BYTES * 4 // 3
BURST_FRAMES = 16
"""Frames that a connection may write before the others have their turn."""


def frame(opcode: int, payload: bytes) -> bytes:
    """An unmasked WebSocket frame."""
    size = len(payload)
    if size < 126:
        return struct.pack(">BB", 0x80 | opcode, size) + payload
    if size < 65536:
        return struct.pack(">BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack(">BBQ", 0x80 | opcode, 127, size) + payload


def unmask(payload: bytes, mask: bytes) -> bytes:
    """The first bytes of a masked payload as they were."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


class Socket(asyncio.Protocol):
    """One WebSocket: handshake and frames. What comes in goes to the endpoint that the path names."""

    def __init__(self) -> None:
        self.transport: Any = None
        self._buffer = bytearray()
        self._endpoint: Speaker | Listener | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._endpoint is not None:
            self._endpoint.gone()
            self._endpoint = None

    def pause_writing(self) -> None:
        if isinstance(self._endpoint, Speaker):
            self._endpoint.pause()

    def resume_writing(self) -> None:
        if isinstance(self._endpoint, Speaker):
            self._endpoint.resume()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._endpoint is None and not self._upgrade():
            return
        while self._next():
            pass

    def write(self, opcode: int, payload: bytes) -> None:
        self.transport.write(frame(opcode, payload))

    def close(self) -> None:
        self.write(_CLOSE, struct.pack(">H", 1000))
        self.transport.close()

    def _upgrade(self) -> bool:
        """Answer the handshake once it is whole."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        first, *lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (x.partition(b":") for x in lines)
        }
        key = headers.get(b"sec-websocket-key", b"")
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        path = urlsplit(first.split(b" ")[1].decode()).path
        self._endpoint = Listener(self) if "stt" in path else Speaker(self)
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        return True

    def _next(self) -> bool:
        """Take one frame off the buffer. Clients send theirs whole and masked."""
        buffer = self._buffer
        if len(buffer) < 6:
            return False
        size = buffer[1] & 0x7F
        at = 2
        if size == 126:
            if len(buffer) < 8:
                return False
            size, at = int.from_bytes(buffer[2:4], "big"), 4
        elif size == 127:
            if len(buffer) < 14:
                return False
            size, at = int.from_bytes(buffer[2:10], "big"), 10
        if len(buffer) < at + 4 + size:
            return False
        opcode = buffer[0] & 0x0F
        mask = bytes(buffer[at : at + 4])
        at += 4
        wanted = min(size, STAMP_BYTES) if opcode == _BINARY else size
        payload = unmask(bytes(buffer[at : at + wanted]), mask)
        del buffer[: at + size]
        endpoint = self._endpoint
        if opcode == _BINARY and isinstance(endpoint, Listener):
            endpoint.audio(payload, size)
        elif opcode == _TEXT and endpoint is not None:
            endpoint.message(json.loads(payload))
        elif opcode == _PING:
            self.write(_PONG, payload)
        elif opcode == _CLOSE:
            self.close()
            return False
        return True


class Speaker:
    """The TTS endpoint: speaks what each closing message orders, one order at a time."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self._paused = False
        self._requests = 0
        self._order: Order | None = None
        self._template = bytearray()
        self._stamp_at = 0
        self._complete = b""
        self._said = 0
        self._began = 0.0
        self._timer: asyncio.Handle | None = None

    def message(self, message: dict[str, Any]) -> None:
        if message.get("cancel_request"):
            self._stop()
        elif not message.get("continue", True) and message.get("text", "").strip():
            self._begin(message)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._order is not None and not self._order.interval_us:
            self._burst()

    def gone(self) -> None:
        self._stop()

    def _begin(self, message: dict[str, Any]) -> None:
        self._stop()
        self._order = order = Order.parse(message["text"])
        self._requests += 1
        ids = {
            "session_id": "bench",
            "request_id": f"r{self._requests}",
            "external_session_id": message.get("session_id", ""),
            "external_request_id": message.get("request_id", ""),
        }
        about = json.dumps(ids, separators=(",", ":"))[:-1].encode()
        rest = pybase64.b64encode(filling(order.chunk_bytes))
        chunk = about + b',"status":"chunk","data":{"audio":"' + b"A" * _STAMP_CHARS + rest + b'"}}'
        self._template = bytearray(frame(_TEXT, chunk))
        self._stamp_at = len(self._template) - len(rest) - _STAMP_CHARS - 3
        self._complete = frame(_TEXT, about + b',"status":"complete"}')
        self._said = 0
        self._began = self._loop.time()
        if order.interval_us:
            self._tick()
        else:
            self._burst()

    def _stop(self) -> None:
        self._order = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _chunk(self) -> bytes:
        at = self._stamp_at
        self._template[at : at + _STAMP_CHARS] = pybase64.b64encode(stamp(self._said, now_ns()))
        self._said += 1
        return bytes(self._template)

    def _tick(self) -> None:
        """A chunk whenever one is due, by the schedule and not by when the last one went: an open loop."""
        order = self._order
        if order is None:
            return
        interval_s = order.interval_us / 1e6
        due = int((self._loop.time() - self._began) / interval_s) + 1
        while self._said < min(due, order.chunks):
            self._socket.transport.write(self._chunk())
        if self._said < order.chunks:
            self._timer = self._loop.call_at(self._began + self._said * interval_s, self._tick)
        else:
            self._finish()

    def _burst(self) -> None:
        order = self._order
        if order is None:
            return
        for _ in range(BURST_FRAMES):
            if self._said >= order.chunks:
                self._finish()
                return
            if self._paused:
                return
            self._socket.transport.write(self._chunk())
        self._timer = self._loop.call_soon(self._burst)

    def _finish(self) -> None:
        self._order = None
        self._socket.transport.write(self._complete)


class Listener:
    """The STT endpoint: a word for every few frames of audio, a partial for every word, a final now and then."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._text: list[str] = []
        self._words: list[str] = []
        self._samples = 0
        self._word_from = 0
        self._next = 0

    def audio(self, beginning: bytes, size_bytes: int) -> None:
        self._samples += size_bytes // 2
        try:
            number, at_ns = read_stamp(beginning)
            if number != self._next:
                raise Damaged(f"frame {number} came where {self._next} was due")
        except Damaged as exc:
            self._socket.write(_TEXT, json.dumps({"type": "error", "message": str(exc)}).encode())
            return
        self._next += 1
        if self._next % FRAMES_A_WORD == 0:
            self._say_word(Heard.now(at_ns))

    def message(self, message: dict[str, Any]) -> None:
        if message.get("type") == "close_stream":
            self._transcript(is_last=True)
            self._socket.close()

    def gone(self) -> None:
        pass

    def _say_word(self, word: Heard) -> None:
        start, end = self._word_from / SAMPLE_RATE_STT_HZ, self._samples / SAMPLE_RATE_STT_HZ
        self._word_from = self._samples
        self._text.append(str(word))
        self._words.append(f'{{"word":"{word}","start":{start:.3f},"end":{end:.3f},"confidence":0.9}}')
        self._transcript()
        if len(self._words) >= WORDS_A_FINAL:
            self._transcript(is_final=True)

    def _transcript(self, *, is_final: bool = False, is_last: bool = False) -> None:
        final = is_final or is_last
        frame_text = (
            '{"session_id":"bench","type":"transcription","status":"success",'
            f'"transcript":"{" ".join(self._text)}","is_final":{json.dumps(final)},"is_last":{json.dumps(is_last)},'
            f'"language":"en","words":[{",".join(self._words)}]}}'
        )
        if final:
            self._text.clear()
            self._words.clear()
        self._socket.write(_TEXT, frame_text.encode())


async def _serve(port_file: Path) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Socket, "127.0.0.1", 0, backlog=1024)
    draft = port_file.with_suffix(".new")
    draft.write_text(f"{server.sockets[0].getsockname()[1]}\n")
    draft.replace(port_file)
    await stdin_closed()
    server.close()


async def stdin_closed() -> None:
    """Wait until whoever started this process is gone, or done with it."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def read() -> None:
        if not os.read(0, 4096):
            done.set()

    loop.add_reader(0, read)
    await done.wait()
    loop.remove_reader(0)


def main() -> None:
    parser = argparse.ArgumentParser(description="The benchmarks' upstream.")
    parser.add_argument("--port-file", type=Path, required=True)
    uvloop.run(_serve(parser.parse_args().port_file))


if __name__ == "__main__":
    main()
