"""The server: health, reflection, its port, its limits, TLS."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from wavegate.speech.v1 import session_service_pb2 as pb
from wavegate.speech.v1 import session_service_pb2_grpc as pb_grpc
from wavegate_server.rpc.auth import Authenticator, parse_tokens
from wavegate_server.rpc.server import BindError, Tls, check_port, options
from wavegate_server.rpc.trace import current_call

from tests.server.rpc.serving import MAX_MESSAGE_BYTES, SESSION_SERVICE, Served, serving
from tests.support.certificates import Certificates

TOKENS = Authenticator(lambda: parse_tokens("alice:0123456789abcdef"))


async def health(served: Served, service: str) -> str:
    async with grpc.aio.insecure_channel(served.address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service)
        )
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


async def test_health_has_an_entry_for_each_service_and_one_for_all() -> None:
    async with serving() as served:
        assert await health(served, "") == await health(served, SESSION_SERVICE) == "SERVING"
        await served.server.set_serving(False)
        assert await health(served, "") == await health(served, SESSION_SERVICE) == "NOT_SERVING"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(served, "wavegate.speech.v1.Nothing")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_is_open_to_all_and_watched() -> None:
    async with serving(auth=TOKENS) as served, grpc.aio.insecure_channel(served.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await served.server.set_serving(False)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


VERSIONS = ["v1", "v1alpha"]
V1ALPHA_FILE = reflection_pb2.DESCRIPTOR.name


async def reflect(served: Served, metadata: Any = (), version: str = "v1", **question: str) -> Any:
    """Ask by the method's own name: the messages are the same in both versions."""
    async with grpc.aio.insecure_channel(served.address) as channel:
        method = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        call = method(metadata=metadata)
        await call.write(reflection_pb2.ServerReflectionRequest(**question))
        await call.done_writing()
        return await call.read()


@pytest.mark.parametrize("version", VERSIONS)
async def test_reflection_lists_every_service(version: str) -> None:
    async with serving() as served:
        answer = await reflect(served, version=version, list_services="")
    assert [s.name for s in answer.list_services_response.service] == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        SESSION_SERVICE,
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        (SESSION_SERVICE, "wavegate/speech/v1/session_service.proto"),
        (f"{SESSION_SERVICE}.GetSession", "wavegate/speech/v1/session_service.proto"),
        ("wavegate.speech.v1.Session", "wavegate/speech/v1/session_service.proto"),
        ("wavegate.speech.v1.Session.session_id", "wavegate/speech/v1/session_service.proto"),
        ("wavegate.speech.v1.Session.State", "wavegate/speech/v1/session_service.proto"),
        (
            "wavegate.speech.v1.SynthesisService.SynthesizeStream",
            "wavegate/speech/v1/synthesis_service.proto",
        ),
        ("wavegate.speech.v1.ApplyPolicy", "wavegate/speech/v1/types.proto"),
        ("wavegate.speech.v1.SynthesizeStreamRequest.input", "wavegate/speech/v1/synthesis_service.proto"),
        ("grpc.health.v1.Health.Check", health_pb2.DESCRIPTOR.name),
        ("grpc.reflection.v1.ServerReflection", "grpc/reflection/v1/reflection.proto"),
        (
            "grpc.reflection.v1.ServerReflection.ServerReflectionInfo",
            "grpc/reflection/v1/reflection.proto",
        ),
        (
            "grpc.reflection.v1.ServerReflectionRequest.message_request",
            "grpc/reflection/v1/reflection.proto",
        ),
        ("grpc.reflection.v1alpha.ServerReflection", V1ALPHA_FILE),
    ],
)
async def test_reflection_knows_every_name(version: str, symbol: str, file: str) -> None:
    async with serving() as served:
        answer = await reflect(served, version=version, file_containing_symbol=symbol)
    files = {
        parsed.name: parsed
        for parsed in map(
            descriptor_pb2.FileDescriptorProto.FromString,
            answer.file_descriptor_response.file_descriptor_proto,
        )
    }
    assert file in files
    # All that it needs comes with it, so that a client can build it: each file behind those it depends on.
    pool, left = descriptor_pool.DescriptorPool(), dict(files)
    while left:
        ready = [n for n, f in left.items() if not set(f.dependency) & set(left)]
        assert ready, f"{set(left)} depend on each other"
        for name in ready:
            pool.Add(left.pop(name))
    if symbol == "wavegate.speech.v1.Session":
        assert pool.FindMessageTypeByName(symbol).fields_by_name["session_id"]


async def test_reflection_answers_by_file_as_well() -> None:
    async with serving() as served:
        for name in ("grpc/reflection/v1/reflection.proto", "wavegate/speech/v1/types.proto"):
            answer = await reflect(served, file_by_filename=name)
            (raw, *_) = answer.file_descriptor_response.file_descriptor_proto
            assert descriptor_pb2.FileDescriptorProto.FromString(raw).name == name
        answer = await reflect(served, file_by_filename="no/such.proto")
        assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.parametrize(
    "symbol",
    [
        f"{SESSION_SERVICE}.Nothing",
        "wavegate.speech.v1.Session.nothing",
        "nothing.at.All",
        "Nothing",
        "",
        ".",
    ],
)
async def test_reflection_says_what_it_does_not_know(symbol: str) -> None:
    async with serving() as served:
        answer = await reflect(served, file_containing_symbol=symbol)
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_reflection_is_for_callers_only() -> None:
    async with serving(auth=TOKENS) as served:
        for version in VERSIONS:
            assert await reflect(served, BEARER, version, list_services="")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await reflect(served, version=version, list_services="")
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


BEARER = (("authorization", "Bearer 0123456789abcdef"),)


async def test_a_taken_port_is_refused_with_the_systems_reason() -> None:
    async with serving() as served:
        port = served.server.port
        with pytest.raises(BindError, match=f"cannot listen on 127.0.0.1:{port}: address already in use"):
            check_port("127.0.0.1", port)
        async with serving() as other:
            other.server.port = 0
            with pytest.raises(BindError, match="address already in use"):
                await type(other.server)([], other.interceptor, max_message_bytes=1024).start(
                    "127.0.0.1", port
                )


def test_a_host_that_is_not_here_is_refused() -> None:
    with pytest.raises(BindError, match=r"cannot listen on 192\.0\.2\.1:0: cannot assign requested address"):
        check_port("192.0.2.1", 0)
    with pytest.raises(BindError, match=r"cannot listen on \[2001:db8::1\]:0: "):
        check_port("2001:db8::1", 0)


async def test_a_message_above_the_transports_limit_is_refused() -> None:
    async with serving(get=answer) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = channel.unary_unary(f"/{SESSION_SERVICE}/GetSession")
        assert await call(b"") is not None
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\x00" * (MAX_MESSAGE_BYTES + 1))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def answer(request: Any, context: Any) -> pb.GetSessionResponse:
    return pb.GetSessionResponse(session={"session_id": current_call().caller})


def test_client_pings_are_never_punished() -> None:
    """By the names that grpc listens to on servers; `min_ping_…` would have no effect."""
    chosen = dict(options(1024))
    assert chosen["grpc.http2.max_ping_strikes"] == 0
    assert chosen["grpc.http2.min_recv_ping_interval_without_data_ms"] <= 5_000
    assert "grpc.max_connection_age_grace_ms" not in chosen, "it would cut long streams"


async def test_a_client_that_pings_often_keeps_its_quiet_stream() -> None:
    """A server with grpc's defaults cuts such a client after two pings: the third second."""
    impatient = [
        ("grpc.keepalive_time_ms", 1000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with (
        serving(update=one_answer_at_the_end) as served,
        grpc.aio.insecure_channel(served.address, impatient) as channel,
    ):
        call = pb_grpc.SessionServiceStub(channel).UpdateSettings()
        await call.write(pb.UpdateSettingsRequest())
        await asyncio.sleep(5.5)
        await call.done_writing()
        assert await call.read() is not grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def one_answer_at_the_end(requests: Any, context: Any) -> None:
    while await context.read() is not grpc.aio.EOF:
        pass
    await context.write(pb.UpdateSettingsResponse())


async def secure_get(served: Served, credentials: Any) -> str:
    async with grpc.aio.secure_channel(f"localhost:{served.server.port}", credentials) as channel:
        found = await pb_grpc.SessionServiceStub(channel).GetSession(pb.GetSessionRequest(), timeout=10)
    return str(found.session.session_id)


async def test_tls(certificates: Certificates) -> None:
    tls = Tls(certificates.read("server.pem"), certificates.read("server.key"))
    async with serving(get=answer, tls=tls) as served:
        assert (
            await secure_get(served, grpc.ssl_channel_credentials(certificates.read("ca.pem"))) == "anonymous"
        )


async def test_with_client_certificates_the_common_name_is_the_caller(certificates: Certificates) -> None:
    tls = Tls(certificates.read("server.pem"), certificates.read("server.key"), certificates.read("ca.pem"))
    async with serving(get=answer, tls=tls) as served:
        ca = certificates.read("ca.pem")
        known = grpc.ssl_channel_credentials(
            ca, certificates.read("client.key"), certificates.read("client.pem")
        )
        assert await secure_get(served, known) == "alice.example"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await secure_get(served, grpc.ssl_channel_credentials(ca))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
