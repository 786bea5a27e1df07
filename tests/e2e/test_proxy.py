"""An upstream that is reached through a proxy only, and one on this machine that no proxy leads to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import waves_local
from wavegate import Client, UpstreamError
from wavegate_server.network import Proxies, Proxy

from tests.support.certificates import Certificates
from tests.support.connect_proxy import connect_proxy
from tests.support.gateway import running_gateway
from tests.support.process import finished, running

HOST = "waves.invalid"
"""A name that no resolver knows (RFC 2606): it is reached through the proxy, or not at all."""
KEY = "sk_test_0123456789"
TEXT = "Hello from behind the office wall."


@pytest.fixture
async def upstream() -> AsyncIterator[waves_local.Upstream]:
    async with waves_local.serve() as upstream:
        yield upstream


@asynccontextmanager
async def tls_in_front_of(port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """The port of a server that speaks TLS and hands everything on to `port`."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(reader, far_writer))
            group.create_task(pump(far_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def use_all_ways(target: str) -> None:
    """A WebSocket of each kind, an event stream, a plain answer, and an upload."""
    async with Client(target) as client:
        async with client.synthesize(voice_id="magnus") as session:
            spoken = await (await session.say(TEXT)).read()
            assert len(spoken) > 24_000
        async with client.transcribe(language_code="en") as listening:
            await listening.send_audio(bytes(32_000))
            await listening.finalize()
        assert len((await client.synthesize_once(TEXT, voice_id="magnus")).audio) > 24_000
        assert [voice async for voice in client.list_voices()]
        await client.recognize(wav(spoken))


def wav(pcm: bytes) -> bytes:
    from wavegate.audio import wav_header
    from wavegate.settings import AudioFormat

    return wav_header(AudioFormat("LINEAR16", 24000), len(pcm)) + pcm


async def test_websockets_and_http_go_through_the_proxy(upstream: waves_local.Upstream) -> None:
    """Which wants to know who asks."""
    async with connect_proxy({f"{HOST}:80": upstream.port}, user="ann", password="s3/cret:x") as proxy:
        proxies = Proxies(Proxy("127.0.0.1", proxy.port, "ann", "s3/cret:x"))
        async with running_gateway(upstream_url=f"ws://{HOST}", proxies=proxies) as gateway:
            await use_all_ways(gateway.target)
        assert set(proxy.tunnels) == {f"{HOST}:80"}
        assert proxy.opened >= 3


async def test_what_goes_through_is_encrypted_for_the_upstream_alone(
    upstream: waves_local.Upstream, tmp_path: Path
) -> None:
    if not Certificates.possible():
        pytest.skip("there is no openssl to make certificates with")
    made = Certificates(tmp_path)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    trusting = ssl.create_default_context(cadata=made.read("ca.pem").decode())
    trusting.check_hostname = False  # the certificate is for localhost, which no proxy leads to
    async with (
        tls_in_front_of(upstream.port, serving) as port,
        connect_proxy({f"{HOST}:443": port}) as proxy,
        running_gateway(
            upstream_url=f"wss://{HOST}",
            key=KEY,
            proxies=Proxies(Proxy("127.0.0.1", proxy.port)),
            upstream_tls=trusting,
        ) as gateway,
    ):
        await use_all_ways(gateway.target)
        assert len(proxy.heard) > 100_000, "it did go through"
        assert KEY.encode() not in proxy.heard
        assert b"HTTP/1.1" not in proxy.heard


@pytest.mark.parametrize(
    ("status", "user", "sentence"),
    [
        (403, "", "HTTP 403"),
        (407, "", "it wants a user and a password"),
        (502, "", "HTTP 502"),
        (200, "ann", "it wants a user and a password"),
    ],
)
async def test_a_proxy_that_refuses_is_named_and_is_not_the_upstream(
    upstream: waves_local.Upstream, status: int, user: str, sentence: str
) -> None:
    """A 403 of the proxy is no bad key."""
    async with connect_proxy({f"{HOST}:80": upstream.port}, user=user, password="x", status=status) as proxy:
        proxies = Proxies(Proxy("127.0.0.1", proxy.port))
        async with (
            running_gateway(upstream_url=f"ws://{HOST}", proxies=proxies) as gateway,
            Client(gateway.target) as client,
        ):
            with pytest.raises(UpstreamError) as over_websocket:
                async with client.synthesize(voice_id="magnus"):
                    pass
            with pytest.raises(UpstreamError) as over_http:
                await client.recognize(wav(bytes(4800)))
    for failure in (over_websocket.value, over_http.value):
        assert (failure.code, failure.reason) == ("UNAVAILABLE", "UPSTREAM_UNAVAILABLE")
        assert f"the proxy http://127.0.0.1:{proxy.port}" in str(failure)
        assert sentence in str(failure)


async def test_a_proxy_that_is_not_there_is_named(upstream: waves_local.Upstream) -> None:
    async with connect_proxy({}) as proxy:
        port = proxy.port
    async with (
        running_gateway(upstream_url=f"ws://{HOST}", proxies=Proxies(Proxy("127.0.0.1", port))) as gateway,
        Client(gateway.target) as client,
    ):
        for ask in (
            client.synthesize(voice_id="magnus").__aenter__,
            lambda: client.recognize(wav(bytes(4800))),
        ):
            with pytest.raises(UpstreamError, match=f"the proxy http://127.0.0.1:{port} cannot be reached"):
                await ask()


async def test_the_option_and_the_environment_of_a_whole_gateway(upstream: waves_local.Upstream) -> None:
    """And the password is neither in what it prints nor in what it logs, whatever goes wrong."""
    hosts = {f"{HOST}:80": upstream.port}
    async with connect_proxy(hosts, user="ann", password="pass/w0rd") as proxy:
        url = f"http://ann:pass%2Fw0rd@127.0.0.1:{proxy.port}"
        shown = f"through the proxy http://127.0.0.1:{proxy.port}"
        for option, more in (
            (["--upstream-proxy", url], {}),
            ([], {"WAVEGATE_UPSTREAM_PROXY": url}),
            ([], {"http_proxy": url}),
            (["--upstream-proxy", "env"], {"all_proxy": url}),
        ):
            env = {"SMALLEST_API_KEY": KEY, **more}
            async with running(
                "--upstream", f"ws://{HOST}", "--log-level", "debug", *option, env=env
            ) as gateway:
                assert shown in gateway.banner[0]
                async with Client(gateway.target) as client:
                    assert (await client.synthesize_once("Hello.", voice_id="magnus")).audio
                    proxy.status = 407
                    with pytest.raises(UpstreamError, match="the user or the password"):
                        async with client.synthesize(voice_id="magnus"):
                            pass
                    proxy.status = 200
            for secret in ("pass%2Fw0rd", "pass/w0rd", KEY):
                assert secret not in "\n".join(gateway.banner + gateway.log)


async def test_off_is_off() -> None:
    async with connect_proxy({}) as proxy:
        env = {"SMALLEST_API_KEY": KEY, "http_proxy": proxy.url}
        async with (
            running("--upstream", f"ws://{HOST}", "--upstream-proxy", "off", env=env) as gateway,
            Client(gateway.target) as client,
        ):
            assert "proxy" not in gateway.banner[0]
            with pytest.raises(UpstreamError, match="cannot be reached"):
                await client.recognize(wav(bytes(4800)))
        assert proxy.tunnels == []


async def test_what_is_no_proxy_is_refused_at_the_start() -> None:
    code, _, err = await finished("--upstream-proxy", "socks5://ann:s3cret@p:1080")
    assert code == 2
    assert "Invalid value for --upstream-proxy: must be http://" in err
    assert "s3cret" not in err


async def test_on_one_machine_no_proxy_of_the_environment_is_asked() -> None:
    """Neither by the client, nor by the health check, nor by the gateway for its embedded upstream."""
    async with connect_proxy({}) as proxy:
        env = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "ALL_PROXY"), proxy.url)
        async with running("--upstream", "local", "--local-engine", "deterministic", env=env) as gateway:
            assert "local" in gateway.banner[0]
            code, out, _ = await finished("healthcheck", "--target", gateway.target, env=env)
            assert (code, out.strip()) == (0, "SERVING")
            await use_all_ways(gateway.target)
        assert proxy.tunnels == []
