"""Which hosts are this machine, and which proxy leads to the others. No I/O.

A proxy opens a tunnel to the host (HTTP CONNECT); what goes through it is encrypted for the host alone where the URL
says so. Its password is in `Proxy.url` and `Tunnel.request` only, and hidden in logs.
"""

from __future__ import annotations

import base64
import ipaddress
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import SplitResult, unquote, urlsplit

import h11

logger = logging.getLogger(__name__)

_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_VARIABLES: Final = {
    "http": ("http_proxy", "all_proxy"),
    "https": ("https_proxy", "all_proxy"),
    "ws": ("http_proxy", "all_proxy"),
    "wss": ("https_proxy", "all_proxy"),
}
"""Where the environment names the proxy for a scheme; the first that is set wins, small letters before large ones."""
PROXY_SHAPE: Final = "http://[USER:PASSWORD@]HOST:PORT"


def is_loopback(host: str) -> bool:
    """True if only this machine can be meant."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    return address.is_loopback


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. `str()` is what may be shown of it: scheme, host and port."""

    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """Read a URL. Raises `ValueError` with a sentence that does not repeat it, for it may hold a password."""
        try:
            parts = urlsplit(text.strip())
            port = parts.port
        except ValueError:
            raise ValueError(f"must be {PROXY_SHAPE}; host or port is malformed") from None
        if parts.scheme != "http":
            named = f"got {parts.scheme}://" if "://" in text else "got no scheme"
            raise ValueError(f"must be {PROXY_SHAPE}, {named}: proxies of other kinds are not supported")
        if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError(f"must be {PROXY_SHAPE} and nothing more")
        return cls(parts.hostname, port or 80, unquote(parts.username or ""), unquote(parts.password or ""))


class Proxies:
    """Chooses the proxy for a URL. Safe to share."""

    def __init__(
        self, choice: Proxy | Literal["env", "off"] = "off", environment: Mapping[str, str] | None = None
    ) -> None:
        """`env`: by the variables of `environment` that curl and most programs read (`https_proxy`, `no_proxy`, …)."""
        self._choice = choice
        self._environment = environment or {}
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        return f"<Proxies {self._choice}>"

    def to(self, url: str) -> Proxy | None:
        """The proxy on the way to `url`; None if there is none. This machine is always reached directly."""
        parts = urlsplit(url)
        if self._choice == "off" or is_loopback(parts.hostname or ""):
            return None
        return self._named(parts) if self._choice == "env" else self._choice

    def _named(self, parts: SplitResult) -> Proxy | None:
        for variable in _VARIABLES.get(parts.scheme, ()):
            if not (value := self._variable(variable)):
                continue
            port = parts.port or _DEFAULT_PORTS[parts.scheme]
            if is_exempt(parts.hostname or "", port, self._variable("no_proxy")):
                return None
            try:
                return Proxy.parse(value if "://" in value else f"http://{value}")
            except ValueError as exc:
                if variable not in self._warned:
                    self._warned.add(variable)
                    logger.warning(
                        "%s is passed over, and the upstream reached directly: it %s; --upstream-proxy overrides it",
                        variable,
                        exc,
                    )
        return None

    def _variable(self, name: str) -> str:
        return (self._environment.get(name) or self._environment.get(name.upper()) or "").strip()


def is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """True if a `no_proxy` list names the host: itself, a domain above it, a network (CIDR) or `*`, port or not."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for entry in filter(None, (e.strip().lower() for e in no_proxy.split(","))):
        name, colon, number = entry.rpartition(":")
        if colon and number == str(port) and not name.endswith(":"):
            entry = name  # noqa: PLW2901 - the same entry without its port
        if address is not None:
            try:
                if address in ipaddress.ip_network(entry.strip("[]"), strict=False):
                    return True
            except ValueError:
                pass
        domain = entry.lstrip(".")
        if entry == "*" or host == domain or host.endswith(f".{domain}"):
            return True
    return False


class TunnelRefused(Exception):
    """Raised when a proxy does not open a tunnel; the message says why."""


class Tunnel:
    """One CONNECT: `request` is to be sent, then the answer handed in until `feed` says that the tunnel is open."""

    def __init__(self, proxy: Proxy, host: str, port: int) -> None:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        headers = [("Host", authority)]
        if proxy.user or proxy.password:
            pair = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
            headers.append(("Proxy-Authorization", f"Basic {pair}"))
        self._what = f"the proxy {proxy} opens no tunnel to {authority}"
        self._has_password = bool(proxy.password)
        self._connection = h11.Connection(h11.CLIENT)
        self.request: bytes = self._connection.send(
            h11.Request(method="CONNECT", target=authority, headers=headers)
        ) + self._connection.send(h11.EndOfMessage())

    def feed(self, data: bytes) -> bool:
        """Take what the proxy sent, b"" at its end. True once the tunnel is open; raises `TunnelRefused`."""
        try:
            self._connection.receive_data(data)
            event = self._connection.next_event()
            while isinstance(event, h11.InformationalResponse):
                event = self._connection.next_event()
        except h11.RemoteProtocolError as exc:
            why = f"it does not answer in HTTP ({exc})" if data else "it hung up"
            raise TunnelRefused(f"{self._what}: {why}") from exc
        if not isinstance(event, h11.Response):
            return False
        if 200 <= event.status_code < 300:
            return True
        reason = bytes(event.reason).decode("ascii", "replace").strip()
        cure = ""
        if event.status_code == 407:
            cure = (
                "; the user or the password in --upstream-proxy is wrong"
                if self._has_password
                else "; it wants a user and a password in --upstream-proxy"
            )
        raise TunnelRefused(f"{self._what}: HTTP {event.status_code} {reason}".rstrip() + cure)
