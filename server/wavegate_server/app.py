"""The composition root: builds each object once, and runs it to its end.

Start: check everything that can be wrong, start the local upstream if that is the one, bind, serve, say so.
Stop (SIGTERM, SIGINT): health says NOT_SERVING, new calls get GATEWAY_DRAINING, live ones may finish within the
drain timeout, then what is left is cut. A second signal cuts at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import uvloop
from wavegate.speech.v1 import session_service_pb2 as session_pb
from wavegate.speech.v1 import session_service_pb2_grpc as session_grpc
from wavegate.speech.v1 import synthesis_service_pb2 as synthesis_pb
from wavegate.speech.v1 import synthesis_service_pb2_grpc as synthesis_grpc
from wavegate.speech.v1 import transcription_service_pb2 as transcription_pb
from wavegate.speech.v1 import transcription_service_pb2_grpc as transcription_grpc

from wavegate_server import config as options
from wavegate_server import errors
from wavegate_server.config import Config, ConfigError
from wavegate_server.local import LocalUpstream
from wavegate_server.network import is_loopback
from wavegate_server.probe import Probe, Times
from wavegate_server.rpc.auth import Authenticator, parse_tokens
from wavegate_server.rpc.gateway import Gateway
from wavegate_server.rpc.server import BindError, GrpcServer, Service, Tls, check_port
from wavegate_server.rpc.session import SessionServicer
from wavegate_server.rpc.synthesis import SynthesisServicer
from wavegate_server.rpc.trace import CallInterceptor
from wavegate_server.rpc.transcription import TranscriptionServicer
from wavegate_server.session.account import Account
from wavegate_server.session.catalogue import Catalogue
from wavegate_server.session.context import Bounds, UpstreamTarget
from wavegate_server.session.events import EndReason
from wavegate_server.session.http import UpstreamHttp
from wavegate_server.session.pool import Upstreams
from wavegate_server.session.registry import Registry
from wavegate_server.session.transport import DialOptions, ReachingDialer, WebSocketDialer, at_once
from wavegate_server.telemetry import Reading, Span, instruments, logs, otel, otlp
from wavegate_server.telemetry.lag import LoopLag
from wavegate_server.telemetry.metrics import Metrics
from wavegate_server.telemetry.session_labels import SessionLabels, attribute_of
from wavegate_server.telemetry.tracer import LiveSpan
from wavegate_server.waves.ending import Habits, habits_of_waves_local
from wavegate_server.waves.tts import Mode

if TYPE_CHECKING:
    from wavegate_server.telemetry.admin import AdminServer

logger = logging.getLogger(__name__)

DISTRIBUTION: Final = "wavegate"

LAST_WORDS_S: Final = 0.5
"""How long sessions that are cut have to say so (`session_ended`), and their callers to read it."""
STATUS_S: Final = 0.1
"""How long is waited for the statuses of what is cut before the server stops, which gives them `CUT_GRACE_S` more."""
CUT_GRACE_S: Final = 0.5
"""How long the last statuses may take to go out, and handlers to see that they are cancelled."""
FLUSH_S: Final = 1.0
"""How long a collector may take for the last spans and metrics."""
LAST_METRICS_S: Final = 0.2
"""So much is left for the metrics, even where the spans took all."""
EXIT_WITHIN_S: Final = 2.5
"""After the drain timeout, or a second signal, the process ends at the latest, whatever still hangs."""


def run(config: Config) -> int:
    """Serve until told to stop; the exit code. Raises `ConfigError` where it cannot start."""
    logs.configure(config.log_format, config.log_level)
    return uvloop.run(_run(config, os.environ))


def probe(config: Config, *, as_json: bool) -> int:
    """Ask the upstream, and print what was found; the exit code. Raises `ConfigError` where it cannot begin."""
    logs.configure(config.log_format, "error")
    return uvloop.run(_probe(config, os.environ, as_json=as_json))


async def _probe(config: Config, environment: Mapping[str, str], *, as_json: bool) -> int:
    choice = options.choose_upstream(config, environment)
    local = LocalUpstream(config.local_engine) if choice.is_local else None
    times = Times()
    try:
        if local is not None:
            await local.start()
        target = UpstreamTarget(
            base_url=choice.url if local is None else local.url,
            key=choice.keys()[0],
            expire_content=config.expire_content,
            old_tts_path=config.old_tts_path,
            old_stt_path=config.old_stt_path,
        )
        asking = Probe(
            target,
            WebSocketDialer(
                DialOptions(ping_interval_s=times.ping_s, proxies=options.proxies(config, environment))
            ),
            options.synthesis_defaults(config),
            active_requests=config.upstream_active_requests or 1,
            times=times,
            say=lambda question: print(f"… {question}", file=sys.stderr),  # noqa: T201
        )
        findings = await asking.run()
    except errors.WavegateError as exc:
        raise ConfigError(f"the upstream cannot be asked: {exc.message}") from exc
    finally:
        if local is not None:
            await local.stop()
    for finding in findings:
        if as_json:
            print(json.dumps(asdict(finding), ensure_ascii=False))  # noqa: T201
        else:
            print(f"{finding.question}\n  {finding.answer}")  # noqa: T201
    flags = [flag for finding in findings for flag in finding.flags]
    if not as_json:
        print(f"\nFlags for this upstream: {' '.join(flags)}")  # noqa: T201
    return 0


async def _run(config: Config, environment: Mapping[str, str]) -> int:
    app = App(config, environment)
    try:
        await app.start()
        app.announce()
        return await app.serve()
    finally:
        await app.stop()


def _local_habits() -> Habits:
    """What is known beforehand of the embedded upstream: nothing where the environment makes it another one."""
    changed = any(name.startswith("WAVES_LOCAL_") for name in os.environ)
    return Habits() if changed else habits_of_waves_local()


class App:
    """One gateway process. Making it checks all that can be known to be wrong, and raises `ConfigError`."""

    def __init__(self, config: Config, environment: Mapping[str, str]) -> None:
        self._config = config
        self._version = version(DISTRIBUTION)
        self._choice = options.choose_upstream(config, environment)
        self._local = LocalUpstream(config.local_engine) if self._choice.is_local else None
        self._proxies = options.proxies(config, environment)
        self._tls = options.tls_files(config)
        self._auth = Authenticator(
            None
            if config.auth_tokens_file is None
            else options.Watched(config.auth_tokens_file, parse_tokens, "the tokens file")
        )
        self._regions = options.region_table(config, self._choice.url)
        self._synthesis_defaults = options.synthesis_defaults(config)
        self._transcription_defaults = options.transcription_defaults(config)
        if self._local is not None:
            self._local.check()
        self._session_labels = SessionLabels(config.metric_labels)
        self._metrics = Metrics(
            is_traced=_is_sampled, session_labels=[attribute_of(key) for key in self._session_labels.keys]
        )
        try:
            check_port(config.listen.host, config.listen.port)
            if isinstance(config.metrics_listen, options.Address):
                check_port(config.metrics_listen.host, config.metrics_listen.port)
            self._telemetry = otel.from_environment(
                self._version,
                otel.Knobs(
                    config.trace_chunks, config.trace_context, keep_errors=config.trace_errors == "on"
                ),
                config.trace_ratio,
                self._metrics,
            )
            self._metrics_exporter = otlp.from_environment(
                self._metrics, self._telemetry.resource, self._version
            )
        except (BindError, otel.TelemetryConfigError) as exc:
            raise ConfigError(str(exc)) from exc
        if config.port_file is not None:
            options.check_port_file(config.port_file)
        self._warn()
        self._registry = Registry(config.max_sessions, config.max_sessions_per_caller)
        self._interceptor = CallInterceptor(self._telemetry, self._auth, config.max_message_bytes)
        self._upstreams: Upstreams | None = None
        self._http: UpstreamHttp | None = None
        self._server: GrpcServer | None = None
        self._admin: AdminServer | None = None
        self._metrics_url = ""
        self._ready = False
        self._lag = LoopLag(self._lagged)
        self._signalled = asyncio.Event()
        self._signalled_again = asyncio.Event()

    def __repr__(self) -> str:
        return f"<App {self._server!r} {self._registry!r} {self._interceptor!r}>"

    # -- start ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start what it needs, then serve. Raises `ConfigError`."""
        config = self._config
        if self._local is not None:
            await self._local.start()
        target = UpstreamTarget(
            base_url=self._choice.url if self._local is None else self._local.url,
            key="",
            expire_content=config.expire_content,
            tts_mode=Mode(config.tts_protocol),
            old_tts_path=config.old_tts_path,
            old_stt_path=config.old_stt_path,
            habits=Habits() if self._local is None else _local_habits(),
        )
        self._upstreams = Upstreams(target, self._choice.keys, self._account, self._regions)
        reach = at_once if self._local is None else self._local.reach
        gateway = Gateway(
            registry=self._registry,
            upstreams=self._upstreams,
            dialer=ReachingDialer(WebSocketDialer(DialOptions(proxies=self._proxies)), reach),
            telemetry=self._telemetry,
            bounds=_bounds(config),
            synthesis_defaults=self._synthesis_defaults,
            transcription_defaults=self._transcription_defaults,
            start_timeout_s=config.start_timeout,
            max_stream_message_bytes=config.max_message_bytes,
            stt_keepalive=config.stt_keepalive,
            auth=self._auth,
            session_labels=self._session_labels,
        )
        self._http = http = UpstreamHttp(self._upstreams, proxies=self._proxies, reach=reach)
        self._server = server = GrpcServer(
            _services(gateway, http),
            self._interceptor,
            max_message_bytes=max(config.max_message_bytes, config.max_recording_bytes),
            tls=None if self._tls is None else Tls(*self._tls),
        )
        try:
            port = await server.start(config.listen.host, config.listen.port)
        except BindError as exc:
            raise ConfigError(str(exc)) from exc
        self._telemetry.serving(config.listen.host, port)
        _watch(self._metrics, self._registry, self._upstreams)
        await self._start_admin()
        self._telemetry.start()
        if self._metrics_exporter is not None:
            self._metrics_exporter.start()
        self._lag.start()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._on_signal, signum)
        await server.set_serving(True)
        self._ready = True
        if config.port_file is not None:
            options.write_atomically(config.port_file, f"{port}\n")

    def _account(self) -> Account:
        """The account of a key: each has the same limits."""
        config = self._config
        return Account(
            config.upstream_active_requests,
            config.upstream_sockets,
            slot_linger_s=config.upstream_slot_linger,
            standby=True,
        )

    def _lagged(self, lag_s: float) -> None:
        self._metrics.record(instruments.LOOP_LAG, lag_s)
        self._telemetry.tracer.lagged(lag_s)

    async def _start_admin(self) -> None:
        """Serve metrics, if they are wanted. Raises `ConfigError` where the port that was asked for is taken."""
        given = self._config.metrics_listen
        if given == options.OFF:
            return
        # Late, since it takes a while to import.
        from wavegate_server.telemetry.admin import AdminServer  # noqa: PLC0415
        from wavegate_server.telemetry.exposition import Exposition  # noqa: PLC0415

        address = given or options.METRICS_ADDRESS
        admin = AdminServer(Exposition(self._metrics).render, lambda: self._ready)
        try:
            await admin.start(address.host, address.port)
        except OSError as exc:
            why = f"cannot listen on {address}: {(exc.strerror or str(exc)).lower()}"
            if given is not None:
                raise ConfigError(why) from exc
            logger.warning("no metrics are served: %s; --metrics-listen picks another port, or none", why)
            return
        self._admin = admin
        self._metrics_url = f"http://{options.Address(address.host, admin.port).reachable}/metrics"

    def announce(self) -> None:
        """Say on stdout what serves where, and what to type next."""
        assert self._server is not None
        listen = self._config.listen
        address = options.Address(listen.host, self._server.port)
        lines = [
            f"wavegate-server {self._version} listening on {address}, upstream: {self._upstream_shown()}"
        ]
        if self._local is not None and self._local.lacks:
            lines.append(f"  {self._local.lacks}")
        if spans := otel.destination():
            lines.append(f"  Spans go to {spans}")
        if self._metrics_url:
            lines.append(f"  Metrics: {self._metrics_url}")
        target = "" if address == Config().listen else f" --target {address.reachable}"
        tls = "" if self._tls is None else " --tls"
        lines.append(f'  Try it: wavegate say "Hello"{target}{tls}')
        # Whoever reads the first line only, such as `| head -1`, shall not end the service.
        try:
            print("\n".join(lines), flush=True)  # noqa: T201
        except OSError:
            # What is left in the buffer would be tried again at the end, and make that a failure.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _upstream_shown(self) -> str:
        if self._local is None:
            proxy = self._proxies.to(self._choice.url)
            return self._choice.url + (f" through the proxy {proxy}" if proxy is not None else "")
        return (
            f"local ({self._local.url}, {self._config.local_engine} engine: a test voice, no account needed)"
        )

    def _warn(self) -> None:
        config = self._config
        if not config.listen.is_loopback:
            if config.auth_tokens_file is None and config.tls_client_ca is None:
                logger.warning(
                    "whoever can reach %s may use this gateway; --auth-tokens-file or --tls-client-ca asks who calls",
                    config.listen,
                )
            elif config.tls_cert is None:
                logger.warning(
                    "callers' tokens travel in clear text to %s; --tls-cert hides them", config.listen
                )
        url = urlsplit(self._choice.url)
        if url.scheme in ("ws", "http") and not is_loopback(url.hostname or ""):
            logger.warning("the API key travels in clear text to %s; wss hides it", self._choice.url)

    # -- serve and stop ---------------------------------------------------------------------------------------

    async def serve(self) -> int:
        """Serve until a signal comes, then let live calls finish; the exit code."""
        waits: set[asyncio.Task[Any]] = {asyncio.create_task(self._signalled.wait(), name="signal")}
        keeper = None
        if self._local is not None:
            keeper = asyncio.create_task(self._local.keep(), name="keep-local-upstream")
            waits.add(keeper)
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if keeper is not None and keeper.done():
                logger.error("%s; the gateway stops", keeper.exception())
                _exit_within(EXIT_WITHIN_S)
                self._registry.draining = True
                await self._end_calls("the gateway has stopped: its local upstream cannot be started again")
                return 1
            await self._drain()
            return 0
        finally:
            await _cancelled(*waits)

    async def _drain(self) -> None:
        """Take nothing new and wait for what is live, at most for the drain timeout or until a second signal."""
        timeout_s = self._config.drain_timeout
        _exit_within(timeout_s + EXIT_WITHIN_S)
        self._registry.draining = True
        assert self._server is not None
        self._ready = False
        await self._server.set_serving(False)
        for session in self._registry:
            if session.detached:
                # Nobody could come back for it.
                self._registry.remove(session)
                await session.cut()
            else:
                session.go_away(timeout_s)
        if self._interceptor.live:
            logger.info("stopping: %d live calls may take %g s to finish", self._interceptor.live, timeout_s)
        waits: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._interceptor.idle(), name="idle"),
            asyncio.create_task(self._signalled_again.wait(), name="second-signal"),
        ]
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        await _cancelled(*waits)
        if self._interceptor.live:
            logger.warning("stopping: %d live calls are cut", self._interceptor.live)
        await self._end_calls("the gateway has stopped; open a new session elsewhere")

    async def _end_calls(self, why: str) -> None:
        """End what is live: sessions say their last words first, and whatever then remains is given its status."""
        stopped = errors.GatewayDraining(why)
        for session in self._registry:
            session.fail(stopped, EndReason.DRAIN)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._interceptor.idle()
        await self._interceptor.cut(stopped, STATUS_S)

    async def stop(self) -> None:
        """Cut what is left and give everything back. Safe however far the start came."""
        if self._server is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * CUT_GRACE_S):
                    await self._server.stop(CUT_GRACE_S)
        self._lag.stop()
        ends = [self._flush()]
        if self._admin is not None:
            ends.append(self._admin.stop())
        if self._local is not None:
            ends.append(self._local.stop())
        if self._http is not None:
            ends.append(self._http.aclose())
        if self._upstreams is not None:
            ends.append(self._upstreams.aclose())
        await asyncio.gather(*ends, return_exceptions=True)
        if self._config.port_file is not None and self._server is not None:
            with contextlib.suppress(OSError):
                self._config.port_file.unlink()
        if self._signalled.is_set():
            logger.info("stopped")

    async def _flush(self) -> None:
        """Send the last spans, and then the metrics that count them."""
        end = time.monotonic() + FLUSH_S
        await self._telemetry.shutdown(FLUSH_S)
        if self._metrics_exporter is not None:
            await self._metrics_exporter.aclose(max(LAST_METRICS_S, end - time.monotonic()))

    def _on_signal(self, signum: signal.Signals) -> None:
        if not self._signalled.is_set():
            logger.info("%s: stopping; once more stops at once", signal.Signals(signum).name)
            self._signalled.set()
        elif not self._signalled_again.is_set():
            _exit_within(EXIT_WITHIN_S)
            self._signalled_again.set()


def _is_sampled(span: Span) -> bool:
    return isinstance(span, LiveSpan) and span.recording.sampled


def _watch(metrics: Metrics, registry: Registry, upstreams: Upstreams) -> None:
    """Let the gauges be read."""

    def sessions() -> list[Reading]:
        live = Counter(session.kind for session in registry if session.ended is None)
        return [((kind,), live[kind]) for kind in ("tts", "stt")]

    def of_accounts(read: Callable[[Account], int]) -> Callable[[], list[Reading]]:
        # They go by their number: a key is nobody's to see.
        return lambda: [
            ((str(number),), read(account)) for number, account in enumerate(upstreams.accounts, start=1)
        ]

    metrics.watch(instruments.SESSIONS_ACTIVE, sessions)
    metrics.watch(instruments.SLOTS_USED, of_accounts(lambda account: account.requests.used))
    metrics.watch(instruments.SLOTS_LIMIT, of_accounts(lambda account: account.requests.limit))
    metrics.watch(instruments.SLOTS_WAITING, of_accounts(lambda account: account.requests.waiting))
    metrics.watch(instruments.SOCKETS_USED, of_accounts(lambda account: account.sockets.used))
    metrics.watch(instruments.SOCKETS_LIMIT, of_accounts(lambda account: account.sockets.limit))


def _bounds(config: Config) -> Bounds:
    return Bounds(
        idle_timeout_s=config.idle_timeout,
        # A code point has up to four bytes.
        max_text_message_chars=min(
            options.MAX_TEXT_MESSAGE_CHARS, (config.max_message_bytes - options.ENVELOPE_BYTES) // 4
        ),
        max_utterance_chars=config.max_utterance_chars,
        max_queued_utterances=config.max_queued_utterances,
        # One utterance of full length may be spoken while the next one comes in.
        max_buffered_chars=2 * config.max_utterance_chars,
        max_audio_message_bytes=config.max_message_bytes - options.ENVELOPE_BYTES,
        audio_history_s=config.audio_history,
        max_waiting_audio_s=config.max_waiting_audio,
        max_queue_wait_s=config.max_queue_wait,
        max_resume_window_s=config.resume_window,
    )


def _services(gateway: Gateway, http: UpstreamHttp) -> list[Service]:
    return [
        Service(
            synthesis_pb.DESCRIPTOR.services_by_name["SynthesisService"].full_name,
            SynthesisServicer(gateway, http, Catalogue(http)),
            synthesis_grpc.add_SynthesisServiceServicer_to_server,
        ),
        Service(
            transcription_pb.DESCRIPTOR.services_by_name["TranscriptionService"].full_name,
            TranscriptionServicer(gateway, http),
            transcription_grpc.add_TranscriptionServiceServicer_to_server,
        ),
        Service(
            session_pb.DESCRIPTOR.services_by_name["SessionService"].full_name,
            SessionServicer(gateway),
            session_grpc.add_SessionServiceServicer_to_server,
        ),
    ]


def _exit_within(seconds: float) -> None:
    """End the process then, if it has not ended by itself: a promise that no stuck thread can break."""

    def end() -> None:
        os.write(2, b"wavegate-server: something hung while stopping; ending by force\n")
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
