"""The journal tells what a connection received, and nothing that is secret."""

from __future__ import annotations

import asyncio
import hashlib
import json

import httpx
import pytest
import websockets
from waves_local import Journal, Options, serve

from tests.waves_local.support import AUTH, PATIENCE_S, stt, tts, ws_url


async def test_a_connection_is_recorded_from_handshake_to_close() -> None:
    async with serve() as upstream:
        async with websockets.connect(
            ws_url(upstream, "/waves/v1/tts/live", {"timeout": 30}),
            additional_headers={**AUTH, "X-Source": "test"},
        ) as ws:
            await ws.send(json.dumps({"text": "Hi.", "voice_id": "meher"}))
            await ws.send("no json")
            record = await upstream.journal.wait_for(
                lambda j: j.of("tts")[0].received_count == 2 and j.of("tts")[0]
            )
            assert record.is_open
            await ws.close(4001)
        await upstream.journal.wait_for(lambda j: record.closed_at_s is not None)
    assert (record.kind, record.number, record.path) == ("tts", 1, "/waves/v1/tts/live")
    assert (record.query, record.status) == ({"timeout": "30"}, 101)
    assert record.headers["x-source"] == "test"
    assert record.texts == [{"text": "Hi.", "voice_id": "meher"}]
    assert [m.text for m in record.messages] == ['{"text": "Hi.", "voice_id": "meher"}', "no json"]
    assert record.messages[0].at_s <= record.messages[1].at_s
    assert (record.close_code, record.closed_by) == (4001, "client")
    assert "a-key" not in json.dumps(record.to_dict())


async def test_audio_is_counted_and_digested_and_kept_only_if_wanted() -> None:
    pieces = [bytes([n]) * 320 for n in range(4)]
    for keep in (False, True):
        async with serve(options=Options(journal_audio=keep)) as upstream, stt(upstream) as client:
            for piece in pieces:
                await client.ws.send(piece)
            await client.finish()
            [record] = upstream.journal.of("stt")
            assert record.audio_bytes == 1280
            assert record.audio_sha256 == hashlib.sha256(b"".join(pieces)).hexdigest()
            assert record.binary_sizes == [320] * 4
            assert record.texts == [{"type": "close_stream"}]
            assert record.audio == (bytearray(b"".join(pieces)) if keep else None)


async def test_refusals_and_posts_are_recorded() -> None:
    async with serve() as upstream, httpx.AsyncClient(base_url=upstream.url) as client:
        await client.post("/waves/v1/tts", json={"text": "x"})
        await client.post("/waves/v1/tts", json={"text": "x"}, headers=AUTH)
        refused, bad = upstream.journal.of("tts-http")
        assert (refused.status, refused.texts) == (401, [])
        assert (bad.status, bad.texts) == (400, [{"text": "x"}])
        assert "voice_id" in bad.refusal
        assert not bad.is_open


async def test_what_a_client_sent_before_it_vanished_is_recorded() -> None:
    async with serve() as upstream:
        ws = await websockets.connect(ws_url(upstream, "/waves/v1/tts/live"), additional_headers=AUTH)
        for number in range(50):
            await ws.send(json.dumps({"context_id": f"c{number}", "cancel_request": True}))
        await ws.close()
        record = await upstream.journal.wait_for(
            lambda j: next((r for r in j.of("tts") if r.closed_at_s is not None), None)
        )
        assert record.received_count == 50


async def test_the_journal_is_bounded() -> None:
    async with serve(options=Options(journal_connections=2, journal_messages=3)) as upstream:
        for _ in range(3):
            async with tts(upstream) as client:
                for number in range(5):
                    await client.send(str(number))
                    await client.until()
        assert [r.number for r in upstream.journal] == [2, 3]
        last = upstream.journal.of("tts")[-1]
        assert (last.received_count, [t["text"] for t in last.texts]) == (5, ["2", "3", "4"])


async def test_clearing_keeps_what_is_open() -> None:
    async with serve() as upstream, tts(upstream):
        async with tts(upstream):
            pass
        await upstream.journal.wait_for(lambda j: not j.of("tts")[1].is_open)
        upstream.journal.clear()
        assert [r.number for r in upstream.journal] == [1]


async def test_waiting_gives_up_with_a_picture_of_what_there_is() -> None:
    journal = Journal(10, 10, keep_audio=False)
    journal.open("tts", "/p", {}, {})
    with pytest.raises(TimeoutError, match="tts #1"):
        await journal.wait_for(lambda j: False, timeout_s=0.05)


async def test_waiting_ends_when_the_condition_comes_true() -> None:
    journal = Journal(10, 10, keep_audio=False)
    waiting = asyncio.create_task(journal.wait_for(lambda j: j.of("stt"), PATIENCE_S))
    await asyncio.sleep(0)
    record = journal.open("stt", "/p", {}, {})
    assert await waiting == [record]
