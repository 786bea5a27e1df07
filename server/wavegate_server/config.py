"""Every option of the gateway, once: flag, environment name, type, default, unit, meaning.

`Config` is the table: `cli.py` makes the flags from it, `docs/configuration.md` is compared with it, and `app.py`
hands its values down. Below `app` nobody reads the environment.

A wrong value raises `ConfigError`, or `ValueError` while one value is parsed, with a sentence that says what
would be right.
"""

# ruff: noqa: RUF009 - the rows of the table are calls, and their values immutable
from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import ssl
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import urlsplit

from wavegate_server.network import PROXY_SHAPE, Proxies, Proxy, is_loopback
from wavegate_server.telemetry import Chunks, ContextUse, logs
from wavegate_server.telemetry.session_labels import prometheus_name_of
from wavegate_server.waves import regions, settings
from wavegate_server.waves.regions import Regions

logger = logging.getLogger(__name__)

T = TypeVar("T")
C = TypeVar("C", bound=str)

ENV_PREFIX: Final = "WAVEGATE_"
API_KEY_ENV: Final = "SMALLEST_API_KEY"
PRODUCTION_URL: Final = regions.INDIA_URL
LOCAL: Final = "local"
OFF: Final = "off"
ENV: Final = "env"
KEYLESS: Final = "no-key"
"""What a loopback upstream is sent in the place of a key: it takes any."""

DEFAULT_VOICES: Final = {"lightning_v3.1": "magnus", "lightning_v3.1_pro": "meher"}
"""The voice that goes with a model where no other was chosen."""

ENVELOPE_BYTES: Final = 1024
"""Of a message's bytes, what is left for everything around its audio."""
MAX_TEXT_MESSAGE_CHARS: Final = 16_384


class ConfigError(Exception):
    """Raised when the gateway cannot start as configured; the message is one sentence for people."""


# -- types of values ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. `host` is without brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        host, colon, port_text = text.strip().rpartition(":")
        if not colon or not host or (":" in host and not (host.startswith("[") and host.endswith("]"))):
            raise ValueError(f"must be HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051, got {text!r}")
        if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > 65_535:
            raise ValueError(f"the port must be from 0 to 65535, got {port_text!r}")
        host = host.removeprefix("[").removesuffix("]")
        if any(c.isspace() or c in "/@[]" for c in host):
            raise ValueError(f"{host!r} is no host name and no IP address")
        return cls(host, int(port_text))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def reachable(self) -> Address:
        """An address by which this machine reaches it: a wildcard is no address to call."""
        wildcards = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound
        return Address(wildcards.get(self.host, self.host), self.port)


METRICS_ADDRESS: Final = Address("127.0.0.1", 9464)
"""Where metrics are served unless `--metrics-listen` says so: the port that OpenTelemetry's own exporters use."""


MAX_METRIC_LABELS: Final = 8
"""So many keys of labels may be on metrics."""
_LABEL_KEY: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def _metrics_address(text: str) -> Address | Literal["off"]:
    return OFF if text.strip() == OFF else Address.parse(text)


def _label_keys(text: str) -> tuple[str, ...]:
    if text.strip() == OFF:
        return ()
    keys = tuple(key.strip() for key in text.split(","))
    for key in keys:
        if not _LABEL_KEY.fullmatch(key):
            raise ValueError(
                f"must be keys of labels between commas, each of 1 to 128 of A-Z, a-z, 0-9, '_', '.', '-'; got {key!r}"
            )
    if len(keys) > MAX_METRIC_LABELS:
        raise ValueError(f"must be at most {MAX_METRIC_LABELS} keys, got {len(keys)}")
    if len({prometheus_name_of(key) for key in keys}) < len(keys):
        raise ValueError(f"names a label twice, or two that Prometheus writes alike: {text!r}")
    return keys


def _upstream(text: str) -> str:
    text = text.strip()
    if text == LOCAL:
        return text
    shape = f"must be {LOCAL!r} or a URL of scheme, host and port, such as {PRODUCTION_URL}"
    try:
        url = urlsplit(text)
        port, host = url.port, url.hostname
    except ValueError as exc:
        raise ValueError(f"{shape}; in {text!r} the address is malformed: {exc}") from exc
    if url.scheme not in ("ws", "wss", "http", "https"):
        raise ValueError(f"{shape}; the scheme is ws, wss, http or https, got {text!r}")
    if not host or port == 0 or any(c.isspace() for c in text):
        raise ValueError(f"{shape}, got {text!r}")
    if url.username is not None or url.password is not None:
        raise ValueError(f"{shape}; a key belongs into {API_KEY_ENV} or --api-key-file, not into the URL")
    if url.path.strip("/") or url.query or url.fragment:
        raise ValueError(f"{shape}; the paths are appended to it, so it has none, got {text!r}")
    return text.rstrip("/")


def _proxy(text: str) -> Proxy | Literal["env", "off"]:
    text = text.strip()
    if text in (ENV, OFF):
        return text  # type: ignore[return-value]  # narrowed by what stands in the tuple
    try:
        proxy = Proxy.parse(text)
    except ValueError as exc:
        raise ValueError(f"{exc}; or {ENV!r} or {OFF!r}") from exc
    return proxy


def _path(text: str) -> Path:
    if not text.strip():
        raise ValueError("must be a path, got nothing")
    return Path(text).expanduser()


def _name(text: str) -> str:
    text = text.strip()
    if not text:
        raise ValueError("must not be empty")
    return text


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ValueError(f"must be a whole number, got {text!r}") from None
        if not low <= number <= high:
            raise ValueError(f"must be from {low} to {high}, got {number}")
        return number

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise ValueError(f"must be a number of seconds, got {text!r}") from None
        if not math.isfinite(number) or not low <= number <= high:
            raise ValueError(f"must be from {low:g} to {high:g} seconds, got {text}")
        return number

    return parse


def _ratio(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"must be a number from 0 to 1, got {text!r}") from None
    if not 0 <= number <= 1:
        raise ValueError(f"must be from 0 to 1, got {text}")
    return number


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be {', '.join(choices[:-1])} or {choices[-1]}, got {text!r}")
        return text

    return parse


# -- the table ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of one option beside its default. `parse` is None for switches."""

    name: str
    """The field of `Config`."""
    group: str
    unit: str
    """What stands for the value in the help: its unit, or its choices."""
    help: str
    default: Any
    shown_default: str
    parse: Callable[[str], Any] | None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def env(self) -> str:
        return ENV_PREFIX + self.name.upper()


def _option(
    group: str,
    default: T,
    unit: str,
    help_text: str,
    parse: Callable[[str], Any] | None = None,
    shown_default: str | None = None,
) -> T:
    """A row. (Typed as its default: a dataclass replaces the field object by the value.)"""
    shown = shown_default if shown_default is not None else ("off" if parse is None else str(default))
    row: Any = field(
        default=default,
        metadata={"row": {"group": group, "unit": unit, "help": help_text, "parse": parse, "shown": shown}},
    )
    return row  # type: ignore[no-any-return]


def _one_of(group: str, default: C, choices: tuple[C, ...], help_text: str) -> C:
    return _option(group, default, "|".join(choices), help_text, _choice(*choices))


_SERVING: Final = "Serving"
_UPSTREAM: Final = "Upstream"
_DEFAULTS: Final = "Defaults of sessions"
_BOUNDS: Final = "Bounds"
_TIMES: Final = "Times"
_ACCOUNT: Final = "The account's limits"
_TRACES: Final = "Traces"
_LOGS: Final = "Logs"

_NO_FILE: Path | None = None
_BY_ENVIRONMENT: Proxy | Literal["env", "off"] = ENV
_BY_DEFAULT: Address | Literal["off"] | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """The options of one gateway. Times are seconds."""

    listen: Address = _option(
        _SERVING,
        Address("127.0.0.1", 50051),
        "HOST:PORT",
        "Where callers connect. Port 0 lets the system pick one; IPv6 addresses stand in brackets.",
        Address.parse,
    )
    port_file: Path | None = _option(
        _SERVING,
        _NO_FILE,
        "PATH",
        "File that gets the port's number once the gateway serves, and is removed when it stops.",
        _path,
        "none",
    )
    metrics_listen: Address | Literal["off"] | None = _option(
        _SERVING,
        _BY_DEFAULT,
        "HOST:PORT|off",
        "Where HTTP answers /metrics (Prometheus, OpenMetrics), /healthz and /readyz. Where another process has the "
        "default port, the gateway does without.",
        _metrics_address,
        str(METRICS_ADDRESS),
    )
    metric_labels: tuple[str, ...] = _option(
        _SERVING,
        (),
        "KEY[,KEY…]|off",
        "Labels of sessions that the metrics of sessions carry too. The first 100 combinations of values have series "
        "of their own, further ones share one of 'other'.",
        _label_keys,
        OFF,
    )
    auth_tokens_file: Path | None = _option(
        _SERVING,
        _NO_FILE,
        "PATH",
        "File of callers' bearer tokens, one NAME:TOKEN or NAME:sha256:HEX a line, read again when it changes. "
        "Without it nobody is asked who they are.",
        _path,
        "none",
    )
    tls_cert: Path | None = _option(
        _SERVING, _NO_FILE, "PATH", "Certificate chain (PEM) to serve TLS with.", _path, "none"
    )
    tls_key: Path | None = _option(
        _SERVING, _NO_FILE, "PATH", "Private key (PEM) of --tls-cert.", _path, "none"
    )
    tls_client_ca: Path | None = _option(
        _SERVING,
        _NO_FILE,
        "PATH",
        "Authorities (PEM) that callers' certificates must come from. Without tokens, the certificate's common "
        "name is the caller's name.",
        _path,
        "none",
    )

    upstream: str = _option(
        _UPSTREAM,
        "",
        "URL|local",
        "The speech service: scheme, host and port, to which the paths are appended; or 'local', the embedded "
        "local upstream, which needs no account.",
        _upstream,
        f"{PRODUCTION_URL} with a key; without one local, if listening on loopback only",
    )
    api_key_file: Path | None = _option(
        _UPSTREAM,
        _NO_FILE,
        "PATH",
        f"File with the upstream's API keys, one a line, read again when it changes. Without it: {API_KEY_ENV}, where "
        "commas stand between keys. Sessions are spread over their accounts.",
        _path,
        "none",
    )
    upstream_proxy: Proxy | Literal["env", "off"] = _option(
        _UPSTREAM,
        _BY_ENVIRONMENT,
        "URL|env|off",
        f"Proxy through which the upstream is reached, WebSockets and HTTP alike, by CONNECT: {PROXY_SHAPE}; 'env', "
        "what https_proxy, http_proxy, all_proxy and no_proxy say; or 'off', none. An upstream on this machine is "
        "always reached directly.",
        _proxy,
    )
    regions: str = _option(
        _UPSTREAM,
        "",
        "PATH|off",
        "File (TOML) that says which host serves which language, in the place of the table for the real service; or "
        "'off', one host for all.",
        _name,
        "the real service's table, where that is the upstream",
    )
    local_engine: str = _one_of(
        _UPSTREAM,
        "speech",
        ("speech", "deterministic"),
        "What the embedded local upstream speaks and listens with: real engines, or tones and ticks that tests "
        "can check.",
    )
    tts_protocol: str = _one_of(
        _UPSTREAM,
        "continuations",
        ("continuations", "flush"),
        "How text is streamed into one utterance: 'continuations' keeps the prosody and speaks sooner, 'flush' is "
        "the way that the upstream documents.",
    )
    stt_keepalive: str = _one_of(
        _UPSTREAM,
        "silence",
        ("silence", "message"),
        "What keeps a quiet transcription connection open: 100 ms of silence, taken out of all offsets again, or "
        "the keepalive message.",
    )
    expire_content: bool = _option(
        _UPSTREAM,
        False,
        "",
        "Ask the upstream not to keep text and audio (x-expire-content; enterprise accounts).",
    )
    old_tts_path: bool = _option(
        _UPSTREAM, False, "", "Speak over the older path /waves/v1/lightning-v3.1/get_speech/stream."
    )
    old_stt_path: bool = _option(_UPSTREAM, False, "", "Listen over the older path /waves/v1/pulse/get_text.")

    default_tts_model: str = _option(
        _DEFAULTS, "lightning_v3.1", "MODEL", "Model of synthesis sessions that name none.", _name
    )
    default_voice: str = _option(
        _DEFAULTS,
        "",
        "VOICE",
        "Voice of synthesis sessions that name none.",
        _name,
        ", ".join(f"{voice} with {model}" for model, voice in DEFAULT_VOICES.items()) + ", none with others",
    )
    default_tts_language: str = _option(
        _DEFAULTS,
        "",
        "TAG",
        "Language (BCP-47) of synthesis sessions that name none.",
        _name,
        "left to the upstream",
    )
    default_stt_model: str = _option(
        _DEFAULTS, "pulse", "MODEL", "Model of transcription sessions that name none.", _name
    )
    default_stt_language: str = _option(
        _DEFAULTS, "en", "TAG", "Language (BCP-47) of transcription sessions that name none.", _name
    )

    max_sessions: int = _option(
        _BOUNDS,
        1000,
        "COUNT",
        "Sessions at once; more get RESOURCE_EXHAUSTED. 0: no limit.",
        _whole(0, 1_000_000),
    )
    max_sessions_per_caller: int = _option(
        _BOUNDS, 0, "COUNT", "Sessions at once of one caller. 0: no limit.", _whole(0, 1_000_000)
    )
    max_message_bytes: int = _option(
        _BOUNDS,
        256 * 1024,
        "BYTES",
        "Largest message that a caller may send on a stream.",
        _whole(4 * 1024, 64 * 1024 * 1024),
    )
    max_recording_bytes: int = _option(
        _BOUNDS,
        32 * 1024 * 1024,
        "BYTES",
        "Largest message of Recognize, which holds a whole recording.",
        _whole(4 * 1024, 1024 * 1024 * 1024),
    )
    max_utterance_chars: int = _option(
        _BOUNDS, 100_000, "CHARS", "Longest text of one utterance, in code points.", _whole(1, 100_000_000)
    )
    max_queued_utterances: int = _option(
        _BOUNDS,
        64,
        "COUNT",
        "Utterances of one session that wait to be spoken; then its text is read no further.",
        _whole(1, 100_000),
    )
    audio_history: float = _option(
        _BOUNDS,
        30.0,
        "SECONDS",
        "Audio of a transcription session that is kept until a final transcript covers it.",
        _seconds(1, 600),
        "30",
    )
    max_waiting_audio: float = _option(
        _BOUNDS,
        2.0,
        "SECONDS",
        "Audio that waits in the gateway for a caller who reads slowly; then the upstream is read no further.",
        _seconds(0.1, 600),
        "2",
    )

    start_timeout: float = _option(
        _TIMES,
        10.0,
        "SECONDS",
        "Within this time a stream must bring its start message.",
        _seconds(0.1, 3600),
        "10",
    )
    idle_timeout: float = _option(
        _TIMES,
        600.0,
        "SECONDS",
        "A session ends when its caller says nothing for so long while nothing is being spoken or recognised.",
        _seconds(1, 604_800),
        "600",
    )
    drain_timeout: float = _option(
        _TIMES,
        30.0,
        "SECONDS",
        "How long live sessions may take to finish after SIGTERM; a second signal ends them at once.",
        _seconds(0, 86_400),
        "30",
    )
    resume_window: float = _option(
        _TIMES,
        60.0,
        "SECONDS",
        "Longest time for which a session that asked for it outlives a lost call. 0: none does.",
        _seconds(0, 3600),
        "60",
    )

    upstream_active_requests: int = _option(
        _ACCOUNT,
        0,
        "COUNT",
        "Active TTS requests that the upstream account allows, over all that share it; more wait here. "
        "0: unknown, no limit.",
        _whole(0, 100_000),
    )
    upstream_sockets: int = _option(
        _ACCOUNT,
        0,
        "COUNT",
        "TTS connections that the upstream account allows. 0: five times the active requests.",
        _whole(0, 1_000_000),
    )
    max_queue_wait: float = _option(
        _ACCOUNT,
        2.0,
        "SECONDS",
        "How long speech may wait for the account; then it fails with RESOURCE_EXHAUSTED.",
        _seconds(0, 600),
        "2",
    )
    upstream_slot_linger: float = _option(
        _ACCOUNT,
        0.0,
        "SECONDS",
        "How long a request whose connection was cut still counts as active upstream; `probe` finds out.",
        _seconds(0, 600),
        "0",
    )

    trace_chunks: Chunks = _one_of(
        _TRACES,
        "all",
        ("all", "first_last", "errors", "off"),
        "Which chunks of text, audio and transcript get spans: all, the first and last of each utterance or turn, "
        "those of sessions in which something fails, or none.",
    )
    trace_ratio: float = _option(
        _TRACES,
        1.0,
        "RATIO",
        "Share of the calls that are traced, from 0 to 1, where no caller has decided and OTEL_TRACES_SAMPLER says "
        "nothing.",
        _ratio,
        "1",
    )
    trace_context: ContextUse = _one_of(
        _TRACES,
        "trust",
        ("trust", "link"),
        "What a caller's traceparent does. trust: its trace goes on here, and its sampling decision holds; link: "
        "a trace of the gateway's own is linked to it.",
    )
    trace_errors: str = _one_of(
        _TRACES,
        "on",
        ("on", "off"),
        "Whether calls that are not sampled are sent all the same if something in them fails.",
    )

    log_format: str = _one_of(_LOGS, "text", ("text", "json"), "How log lines on stderr are written.")
    log_level: str = _one_of(
        _LOGS, "info", ("debug", "info", "warning", "error"), "The least severe lines that are written."
    )


def options() -> Iterator[Option]:
    """The rows of the table, in order."""
    for f in fields(Config):
        row = f.metadata["row"]
        yield Option(
            name=f.name,
            group=row["group"],
            unit=row["unit"],
            help=row["help"],
            default=f.default,
            shown_default=row["shown"],
            parse=row["parse"],
        )


# -- what follows from the options ----------------------------------------------------------------------------


class Watched(Generic[T]):
    """What a file says, parsed again whenever it changes. Used from one thread.

    The first reading raises `ConfigError`. Later ones keep the last good value and log, so that a half-written
    file takes nobody down.
    """

    def __init__(self, path: Path, parse: Callable[[str], T], what: str) -> None:
        self._path = path
        self._parse = parse
        self._what = what
        try:
            self._seen = self._stamp()
            self._value = parse(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise ConfigError(_unreadable(what, path, exc)) from exc
        if os.stat(path).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            logger.warning("others may read %s %s; chmod 600 keeps it to its owner", what, path)

    def __call__(self) -> T:
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._value = self._parse(self._path.read_text(encoding="utf-8"))
                logger.info("read %s %s again", self._what, self._path)
            except (OSError, ValueError) as exc:
                logger.error("%s; what it said before holds", _unreadable(self._what, self._path, exc))
        return self._value

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return (found.st_ino, found.st_mtime_ns, found.st_size)


def _unreadable(what: str, path: Path, exc: Exception) -> str:
    if isinstance(exc, OSError):
        return f"{what} {path} cannot be read: {(exc.strerror or str(exc)).lower()}"
    if isinstance(exc, UnicodeDecodeError):
        return f"{what} {path} cannot be used: it is not UTF-8 text"
    return f"{what} {path} cannot be used: {exc}"


def parse_keys(text: str, separator: str = "\n") -> tuple[str, ...]:
    """API keys, without the blanks around them; they are hidden in logs from then on. Raises `ValueError`.

    A line that begins with `#` is a comment.
    """
    parts = (part.strip() for part in text.split(separator))
    keys = tuple(dict.fromkeys(part for part in parts if part and not part.startswith("#")))
    if not keys:
        raise ValueError("it holds no key")
    for key in keys:
        if not key.isascii() or not key.isprintable() or " " in key or "," in key:
            between = "a line" if separator == "\n" else "between commas"
            raise ValueError(f"it must hold one API key {between} and nothing else")
        logs.hide(key)
    return keys


@dataclass(frozen=True, slots=True)
class UpstreamChoice:
    """Which upstream is used, and its keys. `url` is empty for the local one, whose port is not known yet."""

    url: str
    keys: Callable[[], tuple[str, ...]] = field(repr=False)

    @property
    def is_local(self) -> bool:
        return not self.url


def choose_upstream(config: Config, environment: Mapping[str, str]) -> UpstreamChoice:
    """Decide which upstream to use. Raises `ConfigError` where a key or a clear word is missing."""
    keys = _keys(config, environment)
    if config.upstream == LOCAL:
        return UpstreamChoice("", lambda: (KEYLESS,))
    if config.upstream:
        if keys is None and not is_loopback(urlsplit(config.upstream).hostname or ""):
            raise ConfigError(f"{config.upstream} needs an API key: set {API_KEY_ENV} or --api-key-file")
        return UpstreamChoice(config.upstream, keys or (lambda: (KEYLESS,)))
    if keys is not None:
        return UpstreamChoice(PRODUCTION_URL, keys)
    if config.listen.is_loopback:
        return UpstreamChoice("", lambda: (KEYLESS,))
    raise ConfigError(
        f"there is no API key ({API_KEY_ENV} or --api-key-file), and callers of other machines could connect to "
        f"{config.listen}: set a key, or ask for the local upstream's test voice with --upstream local"
    )


def _keys(config: Config, environment: Mapping[str, str]) -> Callable[[], tuple[str, ...]] | None:
    if config.api_key_file is not None:
        return Watched(config.api_key_file, parse_keys, "the API key file")
    given = environment.get(API_KEY_ENV, "")
    if not given.strip():
        return None
    try:
        keys = parse_keys(given, ",")
    except ValueError as exc:
        raise ConfigError(f"{API_KEY_ENV} cannot be used: {exc}") from exc
    return lambda: keys


def proxies(config: Config, environment: Mapping[str, str]) -> Proxies:
    """Which proxy leads to an upstream. The password is hidden in logs from then on."""
    given = config.upstream_proxy
    if isinstance(given, Proxy):
        logs.hide(given.password)
    return Proxies(given, environment)


def region_table(config: Config, url: str) -> Regions:
    """Which host serves which language, where the gateway is pointed at `url`. Raises `ConfigError`."""
    if config.regions == "off":
        return regions.EVERYWHERE
    if not config.regions:
        return regions.built_in(url)
    path = Path(config.regions).expanduser()
    try:
        return regions.parse(path.read_text(encoding="utf-8"), _region_url)
    except (OSError, ValueError) as exc:
        raise ConfigError(_unreadable("--regions", path, exc)) from exc


def _region_url(text: str) -> str:
    url = _upstream(text)
    if url == LOCAL:
        raise ValueError(f"must be a URL of scheme, host and port, such as {PRODUCTION_URL}")
    return url


def synthesis_defaults(config: Config) -> dict[str, Any]:
    """The settings of synthesis sessions that set nothing. Raises `ConfigError`."""
    model = settings.canonical_tts_model(config.default_tts_model)
    given = {"model": model}
    if voice := config.default_voice or DEFAULT_VOICES.get(model, ""):
        given["voice_id"] = voice
    if config.default_tts_language:
        given["language_code"] = config.default_tts_language
    names = {
        "model": "--default-tts-model",
        "voice_id": "--default-voice",
        "language_code": "--default-tts-language",
    }
    return _checked(settings.SYNTHESIS, given, names)


def transcription_defaults(config: Config) -> dict[str, Any]:
    """The settings of transcription sessions that set nothing. Raises `ConfigError`."""
    given = {
        "model": settings.canonical_stt_model(config.default_stt_model),
        "language_code": config.default_stt_language,
    }
    names = {"model": "--default-stt-model", "language_code": "--default-stt-language"}
    return _checked(settings.TRANSCRIPTION, given, names)


def _checked(schema: settings.Schema, given: dict[str, Any], flags: Mapping[str, str]) -> dict[str, Any]:
    for violation in settings.check(schema, given, ""):
        flag = flags[violation.field.strip(".")]
        raise ConfigError(f"{flag}: {violation.description}")
    return given


def tls_files(config: Config) -> tuple[bytes, bytes, bytes | None] | None:
    """Certificate chain, private key and client authorities as PEM, checked; None: no TLS. Raises `ConfigError`."""
    cert, key, client_ca = config.tls_cert, config.tls_key, config.tls_client_ca
    if cert is None and key is None:
        if client_ca is not None:
            raise ConfigError(
                "--tls-client-ca needs --tls-cert and --tls-key: without TLS there are no certificates"
            )
        return None
    if cert is None or key is None:
        raise ConfigError("TLS needs both --tls-cert and --tls-key")
    found = (
        _read(cert, "--tls-cert"),
        _read(key, "--tls-key"),
        None if client_ca is None else _read(client_ca, "--tls-client-ca"),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A key with a password would ask for it on the terminal.
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"--tls-key {key} is not the key of --tls-cert {cert}") from exc
        raise ConfigError(
            f"--tls-cert {cert} and --tls-key {key} must be PEM files, the key without a password: "
            f"{exc.reason or exc}"
        ) from exc
    except ValueError as exc:
        raise ConfigError(f"--tls-key {key} has a password; the gateway needs one without") from exc
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as exc:
            raise ConfigError(f"--tls-client-ca {client_ca} holds no PEM certificate") from exc
    return found


def _no_password() -> str:
    raise ValueError("a password is needed")


def _read(path: Path, flag: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(_unreadable(flag, path, exc)) from exc


def check_port_file(path: Path) -> None:
    """Remove what an earlier run left, and see that the file can be written, without making it.

    A reader may wait for the file, and is to find the port in it. Raises `ConfigError`.
    """
    draft = _draft_of(path)
    try:
        path.unlink(missing_ok=True)
        draft.write_text("", encoding="utf-8")
        draft.unlink()
    except OSError as exc:
        raise ConfigError(
            f"--port-file {path} cannot be written: {(exc.strerror or str(exc)).lower()}"
        ) from exc


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def write_atomically(path: Path, text: str) -> None:
    """Write a file that readers see whole or not at all. Raises `OSError`."""
    draft = _draft_of(path)
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
