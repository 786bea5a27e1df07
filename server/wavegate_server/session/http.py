"""Plain HTTP to the upstream, and the one import of `httpx`: event streams, recordings, the catalogue."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import httpcore
import httpx

from wavegate_server import errors
from wavegate_server.network import Proxies, Tunnel, TunnelRefused
from wavegate_server.session.context import UpstreamTarget, endpoint_of
from wavegate_server.session.pool import Upstreams
from wavegate_server.session.transport import OPEN_TIMEOUT_S, SEND_TIMEOUT_S, Reach, at_once
from wavegate_server.waves import close

STREAM_SILENCE_S = 5.0
"""An event stream that is silent for longer has stalled (the semantics' stall rule)."""
MAX_CONNECTIONS = 256
IDLE_S = 5.0
"""How long a connection is kept for the next request; httpx's own default."""
MAX_LINE_BYTES = 2**22
"""The longest line of an event stream; over a minute of speech fits in."""


class HttpStream:
    """One response while it is read."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.headers: Mapping[str, str] = response.headers

    async def lines(self) -> AsyncGenerator[str, None]:
        """The response's lines without their ends. Raises errors of `wavegate_server.errors`.

        Lines end as those of an event stream do, at LF or CR LF; other separators may stand in their text.
        """
        waiting: list[bytes] = []
        waiting_bytes = 0
        with _mapped(str(self._response.url)):
            async for data in self._response.aiter_bytes():
                first, *rest = data.split(b"\n")
                waiting.append(first)
                waiting_bytes += len(first)
                if waiting_bytes > MAX_LINE_BYTES:
                    raise errors.UpstreamProtocol(
                        f"the upstream sent a line of more than {MAX_LINE_BYTES} bytes"
                    )
                for after in rest:
                    yield _text(waiting)
                    waiting, waiting_bytes = [after], len(after)
            if waiting_bytes:
                yield _text(waiting)


def _text(line: list[bytes]) -> str:
    return b"".join(line).removesuffix(b"\r").decode(errors="replace")


class UpstreamHttp:
    """Requests to targets that the caller chooses of `upstreams`. Safe to use from many tasks of one loop."""

    def __init__(
        self,
        upstreams: Upstreams,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        proxies: Proxies | None = None,
        tls: ssl.SSLContext | None = None,
        reach: Reach = at_once,
    ) -> None:
        """`proxies` says which proxy leads to a URL, by default none; `reach` how the upstream is waited for.

        `tls` replaces the system's trust, and `transport` the whole network, for tests.
        """
        self.upstreams = upstreams
        self._reach = reach
        self._client = httpx.AsyncClient(
            transport=transport,
            mounts={} if transport else _networks(proxies or Proxies(), tls or httpx.create_ssl_context()),
            # Of the environment only what --upstream-proxy allows counts, and none of its credentials.
            trust_env=False,
            follow_redirects=False,
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def request(
        self,
        target: UpstreamTarget,
        method: str,
        path: str,
        *,
        query: str = "",
        content: bytes | AsyncIterator[bytes] | None = None,
        content_type: str = "",
        timeout_s: float,
    ) -> bytes:
        """The body of a response that is all there within `timeout_s` of silence.

        Raises errors of `wavegate_server.errors`. Cancelling gives the request up.
        """
        url = target.http_url(path, query)

        async def ask() -> httpx.Response:
            with _mapped(url):
                return await self._client.request(
                    method,
                    url,
                    content=content,
                    headers=_headers(target, content_type),
                    timeout=_timeout(timeout_s),
                )

        response = await self._reach(ask)
        if response.status_code != 200:
            raise self._refusal(target, response)
        return response.content

    @asynccontextmanager
    async def stream(
        self,
        target: UpstreamTarget,
        method: str,
        path: str,
        *,
        content: bytes,
        content_type: str = "application/json",
    ) -> AsyncGenerator[HttpStream, None]:
        """A response to be read as it comes. Leaving the block early cuts it off."""
        url = target.http_url(path)
        request = self._client.build_request(
            method,
            url,
            content=content,
            headers={**_headers(target, content_type), "Accept": "text/event-stream"},
            timeout=_timeout(STREAM_SILENCE_S),
        )

        async def ask() -> httpx.Response:
            with _mapped(url):
                return await self._client.send(request, stream=True)

        response = await self._reach(ask)
        try:
            if response.status_code != 200:
                with _mapped(url):
                    await response.aread()
                raise self._refusal(target, response)
            yield HttpStream(response)
        finally:
            await response.aclose()

    def _refusal(self, target: UpstreamTarget, response: httpx.Response) -> errors.WavegateError:
        error = close.from_status(response.status_code, response.text, response.headers.get("Retry-After"))
        if isinstance(error, errors.UpstreamCredential):
            self.upstreams.refused(target)
        return error


def _networks(proxies: Proxies, tls: ssl.SSLContext) -> dict[str, httpx.AsyncBaseTransport]:
    return {f"{scheme}://": _Network(scheme, proxies, tls) for scheme in ("http", "https")}


class _Network(httpx.AsyncHTTPTransport):
    """httpx's own transport, over connections that lead through a proxy where there is one.

    httpx would ask a proxy to forward what is not encrypted; by CONNECT it is as for WebSockets, and the proxy neither
    reads nor answers a request.
    """

    def __init__(self, scheme: str, proxies: Proxies, tls: ssl.SSLContext) -> None:
        super().__init__(verify=tls, trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=MAX_CONNECTIONS,
            keepalive_expiry=IDLE_S,
            network_backend=_Tunnels(scheme, proxies),
        )


class _Tunnels(httpcore.AsyncNetworkBackend):
    """Opens TCP connections for URLs of a scheme, through a proxy where there is one."""

    def __init__(self, scheme: str, proxies: Proxies) -> None:
        self._scheme = scheme
        self._proxies = proxies
        self._direct = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        proxy = self._proxies.to(f"{self._scheme}://{where}")
        first_host, first_port = (host, port) if proxy is None else (proxy.host, proxy.port)
        try:
            stream = await self._direct.connect_tcp(
                first_host, first_port, timeout, local_address, socket_options
            )
        except httpcore.ConnectError as exc:
            if proxy is None:
                raise
            raise httpcore.ConnectError(f"the proxy {proxy} cannot be reached: {exc}") from exc
        if proxy is None:
            return stream
        try:
            async with asyncio.timeout(timeout):
                tunnel = Tunnel(proxy, host, port)
                await stream.write(tunnel.request)
                while not tunnel.feed(await stream.read(4096)):
                    pass
        except TunnelRefused as exc:
            await stream.aclose()
            raise httpcore.ConnectError(str(exc)) from exc
        except TimeoutError as exc:
            await stream.aclose()
            raise httpcore.ConnectTimeout(f"the proxy {proxy} does not answer") from exc
        except BaseException:
            await stream.aclose()
            raise
        return stream

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _headers(target: UpstreamTarget, content_type: str) -> dict[str, str]:
    headers = target.headers()
    if content_type:
        headers["Content-Type"] = content_type
    return headers


def _timeout(silence_s: float) -> httpx.Timeout:
    return httpx.Timeout(connect=OPEN_TIMEOUT_S, read=silence_s, write=SEND_TIMEOUT_S, pool=OPEN_TIMEOUT_S)


class _mapped:  # noqa: N801 - used like a function
    """Turns httpx's exceptions into the gateway's."""

    def __init__(self, url: str) -> None:
        self._where = endpoint_of(url)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        match exc:
            case httpx.ConnectTimeout() | httpx.PoolTimeout():
                raise errors.UpstreamUnavailable(
                    f"the upstream at {self._where} did not accept a connection within {OPEN_TIMEOUT_S:g} s"
                ) from exc
            case httpx.ReadTimeout():
                raise errors.UpstreamStalled("the upstream owes an answer and is silent") from exc
            case httpx.WriteTimeout():
                raise errors.UpstreamStalled(f"the upstream took nothing for {SEND_TIMEOUT_S:g} s") from exc
            case httpx.RemoteProtocolError() | httpx.DecodingError():
                raise errors.UpstreamUnavailable(f"the upstream connection was lost: {exc}") from exc
            case httpx.HTTPError() | httpx.InvalidURL():
                raise errors.UpstreamUnavailable(
                    f"the upstream at {self._where} cannot be reached: {exc}"
                ) from exc
