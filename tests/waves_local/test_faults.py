"""Scripted faults: how they are written, whom they strike, and what a client sees of them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest
import uvloop
import websockets
from waves_local import Fault, Faults, Options, serve, speak
from waves_local.faults import FaultSyntaxError

from tests.waves_local.support import (
    AUTH,
    PATIENCE_S,
    TtsClient,
    rest_of,
    status_of_handshake,
    stt,
    text_of,
    tts,
    ws_url,
)

TEN_CHUNKS = "0123456789" + "abcdef"  # 0.96 s: ten chunks of 0.1 s


# --- how they are written ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("tts:close=1011,after-frames=3", Fault("tts", "close", code=1011, after_frames=3)),
        ("stt:drop,after-messages=10,nth=1", Fault("stt", "drop", after_messages=10, nth=1)),
        (
            "tts:refuse=503,retry-after=2,times=2",
            Fault("tts", "refuse", status=503, retry_after_s=2, times=2),
        ),
        ("*:slow=0.2,every=3", Fault("*", "slow", delay_s=0.2, every=3, frames=0)),
        ("sse:bad-json,probability=0.5,seed=7", Fault("sse", "bad-json", probability=0.5, seed=7)),
        ("stt:stall,after=1.5", Fault("stt", "stall", after_s=1.5)),
        ("tts:error=Out of cheese", Fault("tts", "error", body="Out of cheese")),
    ],
)
def test_a_fault_is_read_from_its_text_and_from_its_fields(spec: str, fault: Fault) -> None:
    assert Fault.parse(spec) == fault
    assert Fault.from_dict({"on": fault.on, "do": fault.do, **fault.to_dict()}) == fault


@pytest.mark.parametrize(
    "spec",
    [
        "tts", "tts:", "tts:explode", "fax:drop", "tts:drop=3", "tts:close=many", "tts:close=1005", "tts:close=99",
        "tts:refuse=200", "tts:drop,nth", "tts:drop,when=now", "tts:drop,nth=-1", "tts:drop,probability=2",
        "tts:slow=-1", "",
    ],
)  # fmt: skip
def test_what_is_no_fault_is_refused_with_a_reason(spec: str) -> None:
    with pytest.raises(FaultSyntaxError) as error:
        Fault.parse(spec)
    assert str(error.value)


# --- whom they strike -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "struck"),
    [
        (Fault("tts", "drop"), [1, 2, 3, 4, 5, 6]),
        (Fault("*", "drop"), [1, 2, 3, 4, 5, 6]),
        (Fault("stt", "drop"), []),
        (Fault("tts", "drop", nth=2), [2]),
        (Fault("tts", "drop", every=3), [3, 6]),
        (Fault("tts", "drop", probability=0.0), []),
    ],
)
def test_which_connections_are_concerned(fault: Fault, struck: list[int]) -> None:
    assert [n for n in range(1, 7) if fault.concerns("tts", n)] == struck


def test_chance_is_drawn_from_the_seed() -> None:
    def draw(seed: int) -> list[bool]:
        return [Fault("tts", "drop", probability=0.5, seed=seed).concerns("tts", n) for n in range(200)]

    assert draw(1) == draw(1) != draw(2)
    assert 60 < sum(draw(1)) < 140


async def test_a_fault_strikes_so_many_times_and_no_more() -> None:
    async with serve(faults=["tts:refuse=500,times=2"]) as upstream:
        seen = []
        for _ in range(4):
            seen.append(await status_of_handshake(upstream))
        assert seen == [500, 500, 101, 101]


# --- what a client sees -----------------------------------------------------------------------------------


async def test_a_refused_handshake_says_what_it_was_told_to() -> None:
    fault = Fault("tts", "refuse", status=429, retry_after_s=3, body="busy")
    async with serve(faults=[fault]) as upstream:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(ws_url(upstream, "/waves/v1/tts/live"), additional_headers=AUTH)
        response = refused.value.response
        assert (response.status_code, response.headers["Retry-After"], bytes(response.body)) == (
            429,
            "3",
            b"busy",
        )
        assert upstream.journal.of("tts")[0].status == 429


async def test_a_handshake_that_is_never_answered() -> None:
    async with serve(faults=["tts:hang"]) as upstream:
        with pytest.raises(TimeoutError):
            await websockets.connect(
                ws_url(upstream, "/waves/v1/tts/live"), additional_headers=AUTH, open_timeout=1.0
            )
        await upstream.journal.wait_for(lambda j: j.of("tts")[0].closed_at_s is not None)
        assert upstream.journal.of("tts")[0].status is None


async def speak_with(fault: Fault | str, options: Options | None = None) -> tuple[list[Any], TtsClient]:
    """All that comes when a text of ten chunks is spoken, until the socket closes or `complete` comes."""
    async with serve(options=options, faults=[fault]) as upstream, tts(upstream) as client:
        await client.send(TEN_CHUNKS)
        messages: list[Any] = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                async for message in client.ws:
                    messages.append(message)
                    if b'"complete"' in (message if isinstance(message, bytes) else message.encode()):
                        break
        except websockets.ConnectionClosedError:
            pass
        return messages, client


@pytest.mark.parametrize("code", [1000, 1008, 1011, 1013, 4000])
async def test_a_close_comes_after_exactly_so_many_frames(code: int) -> None:
    messages, client = await speak_with(f"tts:close={code},after-frames=3")
    assert len(messages) == 3
    assert client.ws.close_code == code


async def test_a_close_arrives_while_the_client_is_still_sending() -> None:
    async with serve(faults=["stt:close=1013,after-messages=3"]) as upstream:
        for number in range(20):
            async with stt(upstream) as client:
                with contextlib.suppress(websockets.ConnectionClosed):
                    while True:
                        await client.ws.send(bytes(32000))
                await client.ws.wait_closed()
                assert client.ws.close_code == 1013
            record = upstream.journal.of("stt")[number]
            assert (record.received_count, record.close_code, record.closed_by) == (3, 1013, "fault")


async def test_a_drop_resets_the_connection_after_so_many_frames() -> None:
    messages, client = await speak_with("tts:drop,after-frames=4")
    assert len(messages) == 4
    assert client.ws.close_code == 1006


async def test_a_drop_after_bytes_and_after_messages() -> None:
    messages, _ = await speak_with("tts:drop,after-bytes=4000")
    assert len(messages) == 3  # 1600 bytes each
    async with serve(faults=["stt:drop,after-messages=2"]) as upstream, stt(upstream) as client:
        for _ in range(2):
            await client.ws.send(bytes(320))
        assert await client.rest() == []
        assert upstream.journal.of("stt")[0].closed_by == "fault"


async def test_a_fault_can_wait_for_its_time() -> None:
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    async with serve(faults=["stt:close=1012,after=0.3"]) as upstream, stt(upstream) as client:
        assert await client.rest() == []
        assert client.ws.close_code == 1012
        assert loop.time() - start_s >= 0.3


async def test_a_stalled_connection_goes_on_reading_and_answers_pings() -> None:
    async with serve(faults=["tts:stall,after-frames=2"]) as upstream, tts(upstream) as client:
        await client.send(TEN_CHUNKS)
        await client.frame()
        await client.frame()
        await client.silence(0.2)
        await client.send("More.")
        await (await client.ws.ping())
        await upstream.journal.wait_for(lambda j: j.of("tts")[0].received_count == 2)
        upstream.faults.clear()
        frames = [*await client.until(), *await client.until()]
        assert text_of(frames).endswith("More.")


async def test_a_deaf_connection_reads_nothing_more() -> None:
    async with serve(faults=["stt:deaf,after-messages=1"]) as upstream, stt(upstream) as client:
        await client.ws.send(bytes(320))
        await upstream.journal.wait_for(lambda j: j.of("stt")[0].received_count == 1)

        sent = 0

        async def send_for_ever() -> None:
            nonlocal sent
            while True:  # until the network's buffers are full
                await client.ws.send(bytes(65536))
                sent += 1

        sending = asyncio.create_task(send_for_ever())
        before = -1
        while before != sent or sent <= 10:
            before = sent
            await asyncio.sleep(0.3)
        sending.cancel()
        assert upstream.journal.of("stt")[0].received_count == 1
        upstream.faults.clear()
        await upstream.journal.wait_for(lambda j: j.of("stt")[0].received_count > 10)
        client.ws.transport.abort()


async def test_a_half_open_connection_does_nothing_at_all_until_it_is_back() -> None:
    async with serve(faults=["tts:vanish,after-frames=2"]) as upstream, tts(upstream) as client:
        await client.send(TEN_CHUNKS)
        await client.frame()
        await client.frame()
        await client.silence(0.2)
        pong = await client.ws.ping()
        await client.send("More.")
        await client.silence(0.2)
        assert not pong.done()
        assert upstream.journal.of("tts")[0].received_count == 1
        upstream.faults.clear()
        frames = [*await client.until(), *await client.until()]
        assert text_of(frames).endswith("More.")
        await pong


async def test_a_slow_reader_takes_one_message_after_the_other() -> None:
    loop = asyncio.get_running_loop()
    async with serve(faults=["stt:slow-read=0.1,frames=5"]) as upstream, stt(upstream) as client:
        start_s = loop.time()
        for _ in range(8):
            await client.ws.send(bytes(320))
        await (await client.ws.ping())
        assert loop.time() - start_s >= 0.5, "pings wait behind the audio"
        await upstream.journal.wait_for(lambda j: j.of("stt")[0].received_count == 8)


async def test_a_pause_is_one_slow_frame() -> None:
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    messages, _ = await speak_with("tts:slow=0.5,after-frames=2,frames=1")
    assert 0.5 <= loop.time() - start_s < 0.5 * len(messages)


async def test_a_slow_connection_waits_before_each_frame() -> None:
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    messages, _ = await speak_with("tts:slow=0.05")
    assert loop.time() - start_s >= 0.05 * len(messages)


async def test_an_error_frame_can_be_scripted() -> None:
    messages, _ = await speak_with("tts:error=Out of cheese,after-frames=1")
    errors = [json.loads(m) for m in messages if b"error" in m.encode()]
    assert [e["message"] for e in errors] == ["Out of cheese"]


def parse(message: Any) -> Any:
    try:
        return json.loads(message)
    except ValueError:
        return None


async def test_damaged_frames() -> None:
    messages, _ = await speak_with("tts:bad-json,after-frames=2")
    assert [parse(m) is None for m in messages] == [False, False, True, *[False] * (len(messages) - 3)]

    messages, _ = await speak_with("tts:bad-base64,after-frames=1,frames=2")
    bad = []
    for message in messages[:-1]:
        try:
            base64.b64decode(json.loads(message)["data"]["audio"], validate=True)
        except binascii.Error:
            bad.append(message)
    assert bad == messages[1:3]

    messages, _ = await speak_with("tts:unknown-frame,after-frames=1")
    assert [json.loads(m)["status"] for m in messages[:3]] == ["chunk", "weather", "chunk"]

    messages, _ = await speak_with("tts:wrong-type")
    wrong = json.loads(messages[0])
    assert (wrong["status"], type(wrong["session_id"]), type(wrong["data"]["audio"])) == ("chunk", int, int)

    messages, _ = await speak_with("tts:binary")
    assert isinstance(messages[0], bytes)
    assert json.loads(messages[0])["status"] == "chunk"

    messages, _ = await speak_with("tts:duplicate,after-frames=1")
    assert messages[1] == messages[2] != messages[0]

    messages, _ = await speak_with("tts:empty-audio")
    assert json.loads(messages[0])["data"]["audio"] == ""

    messages, client = await speak_with("tts:bad-utf8,after-frames=1")
    assert len(messages) == 1
    # The client's own verdict.
    assert client.ws.protocol.close_sent is not None
    assert client.ws.protocol.close_sent.code == 1007


async def test_a_lasting_damage_strikes_every_frame() -> None:
    messages, _ = await speak_with("tts:duplicate,frames=0,after-frames=1")
    assert len(set(messages)) < len(messages)
    assert [messages.count(m) for m in messages[1:-1]] == [2] * (len(messages) - 2)


async def test_faults_reach_connections_that_are_open_already() -> None:
    async with serve() as upstream, tts(upstream) as first, tts(upstream) as second:
        await first.send("Fine.")
        await first.until()
        number = upstream.faults.add("tts:close=1012,nth=2")
        assert await second.rest() == []
        assert second.ws.close_code == 1012
        assert upstream.faults.struck(number) == 1
        await first.send("Still fine.")
        assert text_of(await first.until()) == "Still fine."
        upstream.faults.remove(number)
        assert len(upstream.faults) == 0


def test_faults_can_be_listed() -> None:
    faults = Faults(["tts:drop", Fault("stt", "stall")])
    assert [f.do for _, f in faults.items()] == ["drop", "stall"]


# --- HTTP -------------------------------------------------------------------------------------------------

BODY = {"text": TEN_CHUNKS, "voice_id": "magnus", "sample_rate": 8000}


async def post(fault: str, path: str = "/waves/v1/tts/live") -> tuple[bytes, bool, int]:
    """The body as far as it came, whether it came whole, and the status."""
    async with serve(faults=[fault]) as upstream, httpx.AsyncClient(timeout=PATIENCE_S) as client:
        got = b""
        async with client.stream("POST", upstream.url + path, json=BODY, headers=AUTH) as response:
            try:
                async for piece in response.aiter_raw():
                    got += piece
            except httpx.TransportError:
                return got, False, response.status_code
        return got, True, response.status_code


async def test_sse_faults() -> None:
    body, whole, status = await post("sse:refuse=502")
    assert (status, whole) == (502, True)
    body, whole, _ = await post("sse:drop,after-frames=3")
    assert not whole
    body, whole, _ = await post("sse:close=1011,after-frames=3")
    assert (body.count(b"event: audio"), whole) == (3, False)
    body, whole, _ = await post("sse:unknown-frame,after-frames=1")
    assert (body.count(b"weather"), whole) == (2, True)
    body, whole, _ = await post("sse:bad-json")
    assert (b"#\n\n" in body, whole) == (True, True)
    body, whole, _ = await post("sse:error=Broken,after-frames=2")
    assert b'"message":"Broken"' in body


async def test_faults_of_whole_recordings() -> None:
    _, whole, status = await post("tts-http:refuse=500", "/waves/v1/tts")
    assert (status, whole) == (500, True)
    _, whole, _ = await post("tts-http:drop", "/waves/v1/tts")
    assert not whole
    async with serve(faults=["stt-http:bad-json"]) as upstream, httpx.AsyncClient() as client:
        response = await client.post(
            upstream.url + "/waves/v1/stt/?model=pulse&language=en&sample_rate=8000",
            content=speak(["x"], 8000),
            headers=AUTH,
        )
        with pytest.raises(json.JSONDecodeError):
            response.json()


async def test_rest_of_is_empty_after_a_drop_at_once() -> None:
    async with serve(faults=["tts:drop"]) as upstream:
        try:
            ws = await websockets.connect(ws_url(upstream, "/waves/v1/tts/live"), additional_headers=AUTH)
        except (OSError, websockets.InvalidHandshake):
            return  # the reset overtook the answer to the handshake
        assert await rest_of(ws) == []


# --- on the other loop ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "check",
    [
        test_a_drop_resets_the_connection_after_so_many_frames,
        test_a_stalled_connection_goes_on_reading_and_answers_pings,
        test_a_deaf_connection_reads_nothing_more,
        test_a_half_open_connection_does_nothing_at_all_until_it_is_back,
        test_a_slow_reader_takes_one_message_after_the_other,
        test_a_handshake_that_is_never_answered,
        test_faults_reach_connections_that_are_open_already,
        test_sse_faults,
    ],
)
def test_faults_reach_down_to_the_transport_of_uvloop_too(
    check: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    uvloop.run(check())
