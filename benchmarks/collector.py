"""A collector of spans that costs as little as it can: it counts what comes, and looks closely at a sample.

    python -m benchmarks.collector

It has an endpoint each for OTLP/gRPC and OTLP/HTTP, one that takes every request and never answers, and one where
nobody listens. Its first line on stdout says where they are. Then it answers each line on stdin with what the
endpoints have had since the beginning, as one line of JSON. It ends when its stdin does.

Spans are counted by the lengths in front of them, without being parsed. Of every `SAMPLE`th request the whole is
parsed by OpenTelemetry's own classes, and has to say the same.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from dataclasses import asdict, dataclass
from typing import Any

import grpc
import grpc.aio
import uvloop
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SAMPLE = 16
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
MAX_REQUEST_BYTES = 16 * 2**20
ENDPOINTS = ("grpc", "http", "hanging", "down")
_CHUNK_OUT, _CHUNK_IN = (b"\x2a" + bytes((len(name),)) + name for name in (b"chunk.out", b"chunk.in"))
"""The names as fields of a span."""


class Malformed(Exception):
    """Raised where a request is not what was to be expected."""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def _field(data: bytes, at: int, tag: int) -> tuple[int, int]:
    """Beginning and end of a field of bytes. Raises `Malformed` where another one stands."""
    if data[at] != tag:
        raise Malformed(f"tag {data[at]:#x} at {at}, not {tag:#x}")
    size, at = _varint(data, at + 1)
    if at + size > len(data):
        raise Malformed(f"a field of {size} bytes at {at} of {len(data)}")
    return at, at + size


def count_spans(data: bytes) -> int:
    """How many spans a request has that was made for one resource and one scope. Raises `Malformed`."""
    at, end = _field(data, 0, 0x0A)
    if end != len(data):
        raise Malformed("more than one resource")
    _, at = _field(data, at, 0x0A)
    at, end = _field(data, at, 0x12)
    if end != len(data):
        raise Malformed("more than one scope")
    _, at = _field(data, at, 0x0A)
    spans = 0
    while at < end:
        _, at = _field(data, at, 0x12)
        spans += 1
    return spans


@dataclass
class Had:
    """What an endpoint had."""

    requests: int = 0
    size_bytes: int = 0
    spans: int = 0
    chunks_in: int = 0
    chunks_out: int = 0
    parsed: int = 0
    malformed: int = 0

    def take(self, data: bytes) -> None:
        self.requests += 1
        self.size_bytes += len(data)
        try:
            spans = count_spans(data)
            self.chunks_in += data.count(_CHUNK_IN)
            self.chunks_out += data.count(_CHUNK_OUT)
            if self.requests % SAMPLE == 1:
                _look_closely(data, spans)
                self.parsed += spans
        except Exception:
            self.malformed += 1
            return
        self.spans += spans


def _look_closely(data: bytes, spans: int) -> None:
    """Raises where the request does not parse, or says something else than was counted."""
    request = ExportTraceServiceRequest.FromString(data)
    parsed = [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
    if len(parsed) != spans or len({(s.trace_id, s.span_id) for s in parsed}) != spans:
        raise Malformed("spans are missing, or there twice")
    for span in parsed:
        if len(span.trace_id) != 16 or len(span.span_id) != 8 or not span.name:
            raise Malformed("a span without ids or name")
        if not 0 < span.start_time_unix_nano <= span.end_time_unix_nano:
            raise Malformed("a span that ends before it begins")


class _Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """OTLP/gRPC on bytes; its answers are empty messages."""

    def __init__(self, had: Had, *, answers: bool) -> None:
        self._had = had
        self._answers = answers

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._export) if details.method == EXPORT else None

    async def _export(self, request: bytes, context: Any) -> bytes:
        self._had.take(request)
        if not self._answers:
            await asyncio.Event().wait()
        return b""


async def _grpc(had: Had, *, answers: bool) -> int:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_REQUEST_BYTES)])
    server.add_generic_rpc_handlers((_Service(had, answers=answers),))
    port: int = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _kept.append(server)
    return port


async def _http(had: Had) -> int:
    from aiohttp import web  # noqa: PLC0415 - it takes a while to import

    async def export(request: web.Request) -> web.Response:
        had.take(await request.read())
        return web.Response(content_type="application/x-protobuf")

    app = web.Application(client_max_size=MAX_REQUEST_BYTES)
    app.router.add_post("/v1/traces", export)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    _kept.append(runner)
    port: int = runner.addresses[0][1]
    return port


def _nobody() -> int:
    """A port where nobody listens, and that nobody else is given."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    _kept.append(held)
    port: int = held.getsockname()[1]
    return port


_kept: list[Any] = []
"""What serves, until the process ends."""


async def _serve() -> None:
    had = {name: Had() for name in ENDPOINTS}
    ports = {
        "grpc": await _grpc(had["grpc"], answers=True),
        "http": await _http(had["http"]),
        "hanging": await _grpc(had["hanging"], answers=False),
        "down": _nobody(),
    }
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    print(json.dumps(ports), flush=True)
    while await reader.readline():
        print(json.dumps({name: asdict(one) for name, one in had.items()}), flush=True)


def main() -> None:
    uvloop.run(_serve())


if __name__ == "__main__":
    main()
