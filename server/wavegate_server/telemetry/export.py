"""The way to the collector: OTLP over gRPC or HTTP, from the gateway's own loop, with no thread.

What waits is bounded, by spans. A collector that is down, hangs or refuses costs the streams nothing: what does not
fit is dropped, the oldest first, and counted. It is asked again after `RETRY_S` at most and an answer is waited for
`TIMEOUT_S`, so that five seconds after it is back, all goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import math
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final, Literal, Protocol
from urllib.parse import unquote, urlsplit

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from wavegate_server.network import is_loopback
from wavegate_server.telemetry import encoding

logger = logging.getLogger(__name__)

Signal = Literal["traces", "metrics"]

PROTOCOLS: Final = ("grpc", "http/protobuf")
QUEUE_SPANS: Final = 25_000
"""Ten seconds of 2,500 chunks a second, about 8 MB; `OTEL_BSP_MAX_QUEUE_SIZE`."""
BATCH_SPANS: Final = 2_048
"""About 600 kB, far below the 4 MiB that collectors take by default; `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`."""
BATCH_BYTES: Final = 2 * 2**20
"""The same for spans that are long."""
DELAY_S: Final = 0.4
"""How long spans wait for others; a live session is to be found within a second. `OTEL_BSP_SCHEDULE_DELAY`."""
TIMEOUT_S: Final = 3.0
"""How long an answer is waited for. `OTEL_EXPORTER_OTLP_TIMEOUT`."""
FIRST_RETRY_S: Final = 0.2
RETRY_S: Final = 1.5
_RETRYABLE_HTTP: Final = frozenset({408, 429, 502, 503, 504})
_RETRYABLE_GRPC: Final = frozenset(
    {
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNAVAILABLE",
        "DATA_LOSS",
        "RESOURCE_EXHAUSTED",
    }
)
_METHODS: Final[dict[Signal, str]] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
_PATHS: Final[dict[Signal, str]] = {"traces": "v1/traces", "metrics": "v1/metrics"}


class TelemetryConfigError(Exception):
    """Raised when a variable or flag says something that cannot be done."""


class Verdict(Enum):
    """What became of an export."""

    TAKEN = auto()
    LATER = auto()
    """Not now: it may be tried again."""
    REFUSED = auto()
    """It would be refused again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to an export."""

    verdict: Verdict
    answer: bytes = b""
    why: str = ""


class Sender(Protocol):
    """Brings encoded requests to the collector. Used from one loop."""

    async def send(self, signal: Signal, body: bytes) -> Outcome:
        """Send one request; raises nothing but a cancel."""

    async def aclose(self) -> None:
        """Let go of the connection."""


# -- what the environment says ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a signal goes, and how, by the standard `OTEL_EXPORTER_OTLP_…` variables."""

    signal: Signal
    endpoint: str
    protocol: str
    headers: Mapping[str, str]
    timeout_s: float
    gzip: bool
    insecure: bool
    certificate: bytes | None
    client_key: bytes | None
    client_certificate: bytes | None

    @classmethod
    def from_environment(cls, signal: Signal) -> Destination | None:
        """None where the signal goes nowhere. Raises `TelemetryConfigError`."""
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return None
        exporter = os.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp").strip().lower()
        if exporter == "none":
            return None
        own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()
        common = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
        if not own and not common:
            return None
        protocol = _variable(signal, "PROTOCOL") or "grpc"
        if protocol not in PROTOCOLS:
            raise TelemetryConfigError(
                f"OTEL_EXPORTER_OTLP_PROTOCOL must be {' or '.join(PROTOCOLS)}, got {protocol!r}"
            )
        endpoint = own or common
        if protocol != "grpc" and not own:
            endpoint = f"{common.rstrip('/')}/{_PATHS[signal]}"
        if "://" not in endpoint:
            in_the_clear = protocol != "grpc" or _variable(signal, "INSECURE").lower() == "true"
            endpoint = f"{'http' if in_the_clear else 'https'}://{endpoint}"
        parts = urlsplit(endpoint)
        try:
            usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
        except ValueError:
            usable = False
        if not usable:
            raise TelemetryConfigError(
                f"OTEL_EXPORTER_OTLP_ENDPOINT must be http(s)://HOST:PORT, got {endpoint!r}"
            )
        compression = _variable(signal, "COMPRESSION") or "none"
        if compression not in ("gzip", "none"):
            raise TelemetryConfigError(
                f"OTEL_EXPORTER_OTLP_COMPRESSION must be gzip or none, got {compression!r}"
            )
        return cls(
            signal,
            endpoint,
            protocol,
            _headers(_variable(signal, "HEADERS")),
            _seconds(_variable(signal, "TIMEOUT"), "OTEL_EXPORTER_OTLP_TIMEOUT") or TIMEOUT_S,
            compression == "gzip",
            parts.scheme == "http",
            _file(_variable(signal, "CERTIFICATE")),
            _file(_variable(signal, "CLIENT_KEY")),
            _file(_variable(signal, "CLIENT_CERTIFICATE")),
        )


def _variable(signal: Signal, name: str) -> str:
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", "").strip()
    return own or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()


def _headers(text: str) -> dict[str, str]:
    found = {}
    for pair in filter(None, (p.strip() for p in text.split(","))):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            # The value may be a credential, so it is not repeated.
            raise TelemetryConfigError(
                "OTEL_EXPORTER_OTLP_HEADERS must be key=value pairs with commas between them"
            )
        found[unquote(key.strip()).lower()] = unquote(value.strip())
    return found


def _seconds(text: str, name: str) -> float | None:
    """Milliseconds by the specification, seconds by the Python SDK: nobody means less than 100 ms."""
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 < number < math.inf:
        raise TelemetryConfigError(f"{name} must be a time above 0, got {text!r}")
    return number / 1000 if number >= 100 else number


def _file(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise TelemetryConfigError(
            f"cannot read {path}, which an OTEL_… variable names: {exc.strerror}"
        ) from exc


def whole_number(name: str, default: int) -> int:
    """A variable that holds a number from 1 on. Raises `TelemetryConfigError`."""
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) == 0:
        raise TelemetryConfigError(f"{name} must be a whole number above 0, got {text!r}")
    return int(text)


# -- senders ------------------------------------------------------------------------------------------------------


def sender(destination: Destination) -> Sender:
    """The sender for a destination. Opens nothing yet. Raises `TelemetryConfigError`."""
    return GrpcSender(destination) if destination.protocol == "grpc" else HttpSender(destination)


class GrpcSender:
    """OTLP/gRPC, of bytes that are encoded already."""

    def __init__(self, destination: Destination) -> None:
        import grpc.aio  # noqa: PLC0415 - each way takes its while to import, and only one is needed

        self._grpc: Any = grpc
        self._destination = destination
        self._timeout_s = destination.timeout_s
        self._metadata = tuple(destination.headers.items())
        self._compression = grpc.Compression.Gzip if destination.gzip else None
        self._channel: Any = None
        self._calls: dict[Signal, Any] = {}
        self._open()

    def _open(self) -> None:
        grpc, destination = self._grpc, self._destination
        target = urlsplit(destination.endpoint).netloc.rpartition("@")[2]
        options = [
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 1_000),
            ("grpc.max_reconnect_backoff_ms", round(RETRY_S * 1000)),
            # A new channel is to have a connection of its own.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if is_loopback(urlsplit(destination.endpoint).hostname or ""):
            options.append(("grpc.enable_http_proxy", 0))
        if destination.insecure:
            self._channel = grpc.aio.insecure_channel(target, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(
                destination.certificate, destination.client_key, destination.client_certificate
            )
            self._channel = grpc.aio.secure_channel(target, credentials, options=options)
        self._calls = {signal: self._channel.unary_unary(method) for signal, method in _METHODS.items()}

    def __repr__(self) -> str:
        return "<GrpcSender>"

    async def send(self, signal: Signal, body: bytes) -> Outcome:
        try:
            answer = await self._calls[signal](
                body, timeout=self._timeout_s, metadata=self._metadata, compression=self._compression
            )
        except self._grpc.aio.AioRpcError as exc:
            code = exc.code().name
            if code == "DEADLINE_EXCEEDED":
                # Maybe the network swallows what is sent: TCP would notice much later than the collector is back.
                old = self._channel
                self._open()
                with contextlib.suppress(Exception):
                    await old.close(None)
            verdict = Verdict.LATER if code in _RETRYABLE_GRPC else Verdict.REFUSED
            return Outcome(verdict, why=f"{code}: {exc.details()}")
        except Exception as exc:
            return Outcome(Verdict.LATER, why=repr(exc))
        return Outcome(Verdict.TAKEN, answer)

    async def aclose(self) -> None:
        await self._channel.close(None)


class HttpSender:
    """OTLP/HTTP with protobuf bodies."""

    def __init__(self, destination: Destination) -> None:
        import aiohttp  # noqa: PLC0415 - see above; now, since with the first spans it would hold up the loop

        self._aiohttp: Any = aiohttp
        self._destination = destination
        self._session: Any = None
        self._tls = _tls(destination)

    def __repr__(self) -> str:
        return f"<HttpSender {self._destination.signal}>"

    async def send(self, signal: Signal, body: bytes) -> Outcome:
        destination = self._destination
        if self._session is None:
            self._session = self._aiohttp.ClientSession(
                timeout=self._aiohttp.ClientTimeout(total=destination.timeout_s),
                # The environment's proxies do not lead back to this machine.
                trust_env=not is_loopback(urlsplit(destination.endpoint).hostname or ""),
            )
        headers = {"Content-Type": "application/x-protobuf", **destination.headers}
        if destination.gzip:
            body = await asyncio.to_thread(gzip.compress, body, 1)
            headers["Content-Encoding"] = "gzip"
        try:
            async with self._session.post(
                destination.endpoint, data=body, headers=headers, ssl=self._tls, allow_redirects=False
            ) as response:
                answer = await response.read()
                if response.status < 300:
                    return Outcome(Verdict.TAKEN, answer)
                verdict = Verdict.LATER if response.status in _RETRYABLE_HTTP else Verdict.REFUSED
                return Outcome(verdict, why=f"HTTP {response.status}")
        except Exception as exc:
            return Outcome(Verdict.LATER, why=repr(exc))

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


def _tls(destination: Destination) -> Any:
    if destination.insecure or not (destination.certificate or destination.client_certificate):
        return True
    import ssl  # noqa: PLC0415
    import tempfile  # noqa: PLC0415

    try:
        context = ssl.create_default_context(
            cadata=destination.certificate.decode() if destination.certificate else None
        )
        if destination.client_certificate and destination.client_key:
            # The library takes no key from memory.
            with tempfile.NamedTemporaryFile() as pem:
                pem.write(destination.client_certificate + b"\n" + destination.client_key)
                pem.flush()
                context.load_cert_chain(pem.name)
    except (OSError, ValueError) as exc:
        raise TelemetryConfigError(
            f"the certificates that OTEL_EXPORTER_OTLP_… variables name cannot be used: {exc}"
        ) from exc
    return context


# -- the queue ----------------------------------------------------------------------------------------------------


class SpanExporter:
    """Sends encoded spans on, in batches. Used from one loop; `offer` returns at once."""

    def __init__(
        self,
        to: Sender,
        resource: bytes,
        scope: bytes,
        *,
        count: Callable[[str, int], None] = lambda outcome, spans: None,
        queue_spans: int = QUEUE_SPANS,
        batch_spans: int = BATCH_SPANS,
        delay_s: float = DELAY_S,
    ) -> None:
        """`count(outcome, spans)` is told of spans `produced`, `sent` and `dropped`."""
        self._sender = to
        self._resource = resource
        self._scope = scope
        self._count = count
        self._queue_spans = queue_spans
        self._batch_spans = batch_spans
        self._delay_s = delay_s
        self._waiting: deque[bytes] = deque()
        """Those that are on their way not counted."""
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._trouble = ""
        self._closed = False
        self.dropped = 0
        """How many were dropped, in all."""

    def __repr__(self) -> str:
        return f"<SpanExporter {len(self._waiting)} waiting, {self.dropped} dropped>"

    def start(self) -> None:
        """Begin to send. On the loop."""
        self._task = asyncio.create_task(self._run(), name="export spans")

    def offer(self, spans: Sequence[bytes]) -> None:
        """Take spans, to be sent soon. Where too many wait, the oldest are dropped."""
        if not spans:
            return
        self._count("produced", len(spans))
        self._waiting.extend(spans)
        excess = len(self._waiting) - (0 if self._closed else self._queue_spans)
        if excess > 0:
            for _ in range(excess):
                self._waiting.popleft()
            self._drop(excess)
        self._wake.set()

    async def aclose(self, timeout_s: float) -> None:
        """Send what waits, for at most `timeout_s` seconds; drop the rest."""
        self._closing.set()
        self._wake.set()
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await asyncio.shield(self._task)
            if not self._task.done():
                logger.warning(
                    "the collector took no more spans within %g s; the last ones are lost", timeout_s
                )
                self._task.cancel()
                await asyncio.wait({self._task})
        self._closed = True
        self._drop(len(self._waiting))
        self._waiting.clear()
        await self._sender.aclose()

    def _drop(self, spans: int) -> None:
        if spans:
            self.dropped += spans
            self._count("dropped", spans)

    async def _run(self) -> None:
        while True:
            while not self._waiting:
                if self._closing.is_set():
                    return
                self._wake.clear()
                await self._wake.wait()
            if len(self._waiting) < self._batch_spans:
                await self._pause(self._delay_s)
            batch: list[bytes] = []
            size = 0
            waiting = self._waiting
            while waiting and len(batch) < self._batch_spans and size < BATCH_BYTES:
                batch.append(span := waiting.popleft())
                size += len(span)
            if batch:
                try:
                    await self._send(batch)
                except asyncio.CancelledError:
                    self._drop(len(batch))
                    raise

    async def _send(self, batch: list[bytes]) -> None:
        body = encoding.request(self._resource, self._scope, batch)
        wait_s = FIRST_RETRY_S
        while True:
            outcome = await self._sender.send("traces", body)
            match outcome.verdict:
                case Verdict.TAKEN:
                    rejected, why = _rejected(outcome.answer, len(batch))
                    self._count("sent", len(batch) - rejected)
                    self._drop(rejected)
                    if rejected:
                        self._say("the collector takes only a part of the spans (%s)", why)
                    elif self._trouble:
                        logger.info("the collector takes spans again")
                        self._trouble = ""
                    return
                case Verdict.REFUSED:
                    self._say("the collector refuses spans (%s)", outcome.why)
                    self._drop(len(batch))
                    return
                case Verdict.LATER:
                    self._say(
                        "the collector takes no spans (%s); they wait, then the oldest are dropped",
                        outcome.why,
                    )
                    if len(self._waiting) + len(batch) > self._queue_spans:
                        self._drop(len(batch))  # it is the oldest
                        return
                    await self._pause(wait_s)
                    wait_s = min(wait_s * 2, RETRY_S)

    def _say(self, text: str, why: str) -> None:
        """A line when trouble begins or changes, not one for each try."""
        if self._trouble != text:
            logger.warning(text, why)
            self._trouble = text

    async def _pause(self, pause_s: float) -> None:
        if self._closing.is_set():
            pause_s = min(pause_s, 0.05)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._closing.wait()
                await asyncio.sleep(min(pause_s, 0.05))


def _rejected(answer: bytes, spans: int) -> tuple[int, str]:
    """How many spans the collector says it did not take, and why."""
    if not answer:
        return 0, ""
    try:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
    except Exception:
        return 0, ""
    return max(0, min(partial.rejected_spans, spans)), partial.error_message
