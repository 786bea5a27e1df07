"""Addresses of gateways: which are written right, which are this machine, and which proxy gRPC takes to the others."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_TARGET = "127.0.0.1:50051"

_LOCAL_SCHEMES = ("unix", "unix-abstract", "vsock")
_NAME_SCHEMES = (*_LOCAL_SCHEMES, "dns", "ipv4", "ipv6", "xds", "google-c2p")
"""Schemes of gRPC's own names (its document "naming"); what follows them is gRPC's to read."""
_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
_NO_PROXY_VARIABLES = ("no_grpc_proxy", "no_proxy")
"""The variables that gRPC reads, the first that is set wins. It knows them in small letters only."""


def check_target(target: str, *, tls: bool) -> str:
    """Return the target as given if it is written right; raises `ValueError` that says what to write instead.

    Without TLS a target needs a port. With TLS the port may be left out, which means 443.
    """
    if not target.strip():
        raise ValueError("the target is empty: write HOST:PORT")
    scheme, colon, _ = target.partition(":")
    if colon and scheme.lower() in _NAME_SCHEMES:
        return target
    if "://" in target:
        raise ValueError(_without_scheme(target))
    host, port = _split(target)
    if not host or re.search(r"[\s/@?#]", target):
        raise ValueError(f"{target!r} is no HOST:PORT")
    if ":" in host and not target.startswith("["):
        raise ValueError(f"an IPv6 address stands in brackets: write [{target}]:PORT, not {target!r}")
    if port is None:
        if tls:
            return target
        raise ValueError(f"{target!r} names no port: write {target}:{_DEFAULT_PORT}, or wherever it listens")
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= 65_535):
        raise ValueError(f"{port!r} is no port: write a number from 1 to 65535, as in {host}:{_DEFAULT_PORT}")
    return target


_DEFAULT_PORT = DEFAULT_TARGET.rpartition(":")[2]


def _without_scheme(target: str) -> str:
    scheme, _, rest = target.partition("://")
    address = rest.partition("/")[0].rpartition("@")[2]
    _, port = _split(address)
    if port is None and address:
        address += ":443" if scheme == "https" else f":{_DEFAULT_PORT}"
    encrypted = ", and --tls (in Python: tls=True) for an encrypted connection"
    return (
        f"a target has no {scheme}:// in front: write {address or 'HOST:PORT'}"
        f"{encrypted if scheme in ('https', 'grpcs') else ''}"
    )


def _split(address: str) -> tuple[str, str | None]:
    """Host and port; the port is `None` where there is none. An IPv6 address without brackets is all host."""
    if address.startswith("["):
        host, bracket, after = address[1:].partition("]")
        return (host, after[1:] if after.startswith(":") else None) if bracket else ("", None)
    host, colon, port = address.rpartition(":")
    if not colon or ":" in host:
        return address, None
    return host, port


def host_of(target: str) -> str:
    """The host that a target names, without port and brackets; empty for a socket of this machine's own."""
    scheme, colon, rest = target.partition(":")
    if colon and scheme.lower() in _LOCAL_SCHEMES:
        return ""
    if colon and scheme.lower() in _NAME_SCHEMES:
        target = rest.rpartition("/")[2]  # dns://AUTHORITY/HOST:PORT
    return _split(target.partition(",")[0])[0]


def is_loopback(target: str) -> bool:
    """True if only this machine can be meant: `localhost`, 127.0.0.0/8, ::1, a wildcard address, a Unix socket."""
    host = host_of(target)
    return not host or is_loopback_host(host)


def is_loopback_host(host: str) -> bool:
    """True if the host, without port and brackets, can only be this machine."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    return address is not None and (address.is_loopback or address.is_unspecified)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))  # 127.1
    except (OSError, UnicodeError):
        return None


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy between here and the gateway."""

    url: str
    """Scheme, host and port. Never its user or password."""
    named_by: str
    """The variable, or channel argument, that says so."""

    def __str__(self) -> str:
        return f"the proxy {self.url} ({self.named_by})"


def proxy_to(
    target: str, options: Mapping[str, str | int], environment: Mapping[str, str] = os.environ
) -> Proxy | None:
    """The proxy that gRPC takes to `target` with these channel arguments; `None` if it connects directly.

    It is gRPC's own choice, told again: an error has to name the proxy, and gRPC's texts do not.
    """
    if not options.get("grpc.enable_http_proxy", 1) or not host_of(target):
        return None
    named_by, url = "grpc.http_proxy", str(options.get("grpc.http_proxy", ""))
    if not url:
        named_by = next((name for name in _PROXY_VARIABLES if environment.get(name)), "")
        url = environment.get(named_by, "")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme != "http" or not parts.hostname:
        return None  # gRPC passes over what it cannot read, too
    without = next((environment[name] for name in _NO_PROXY_VARIABLES if environment.get(name)), "")
    if _is_exempt(host_of(target), without):
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Proxy(f"http://{host}:{port or 80}", named_by)


def _is_exempt(host: str, without: str) -> bool:
    address = _address(host)
    for entry in filter(None, map(str.strip, without.split(","))):
        if host.lower().endswith(entry.lower()):
            return True
        try:
            if address is not None and address in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False
