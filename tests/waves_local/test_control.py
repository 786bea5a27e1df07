"""The control endpoint, for those who are not in the same process."""

from __future__ import annotations

import httpx
import pytest
import websockets
from waves_local import Options, serve

from tests.waves_local.support import AUTH, text_of, tts, ws_url


async def test_the_journal_can_be_read_and_cleared() -> None:
    async with serve() as upstream, httpx.AsyncClient(base_url=upstream.url) as client:
        async with tts(upstream) as socket:
            await socket.send("Hi.")
            await socket.until()
        await upstream.journal.wait_for(lambda j: not j.of("tts")[0].is_open)
        [record] = (await client.get("/_waves_local/journal?kind=tts")).json()["connections"]
        assert (record["kind"], record["status"], record["spoken"]) == ("tts", 101, ["Hi."])
        assert record["messages"][0]["json"]["text"] == "Hi."
        assert (await client.get("/_waves_local/journal?kind=stt")).json() == {"connections": []}
        assert (await client.delete("/_waves_local/journal")).json() == {"connections": 0}
        assert (await client.get("/_waves_local/journal")).json() == {"connections": []}


async def test_faults_can_be_added_listed_and_removed() -> None:
    async with serve() as upstream, httpx.AsyncClient(base_url=upstream.url) as client:
        response = await client.post(
            "/_waves_local/faults", json=["tts:refuse=500,times=1", {"on": "stt", "do": "drop"}]
        )
        assert response.json() == {"ids": [1, 2]}
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(ws_url(upstream, "/waves/v1/tts/live"), additional_headers=AUTH)
        listed = (await client.get("/_waves_local/faults")).json()["faults"]
        assert listed[0] == {"id": 1, "struck": 1, "on": "tts", "do": "refuse", "status": 500, "times": 1}
        assert (await client.delete("/_waves_local/faults?id=1")).json() == {"faults": 1}
        assert (await client.delete("/_waves_local/faults")).json() == {"faults": 0}
        async with tts(upstream) as socket:
            await socket.send("Fine.")
            assert text_of(await socket.until()) == "Fine."


@pytest.mark.parametrize("body", [b"{", b'"tts:explode"', b'{"on":"tts"}', b"7", b'["tts:drop","nonsense"]'])
async def test_a_bad_fault_is_refused_and_none_is_added(body: bytes) -> None:
    async with serve() as upstream, httpx.AsyncClient(base_url=upstream.url) as client:
        response = await client.post("/_waves_local/faults", content=body)
        assert response.status_code == 400
        assert response.json()["message"]
        assert len(upstream.faults) == 0


async def test_pages_in_a_browser_may_not_use_it() -> None:
    async with serve() as upstream, httpx.AsyncClient(base_url=upstream.url) as client:
        response = await client.delete("/_waves_local/faults", headers={"Origin": "http://example.com"})
        assert response.status_code == 403


async def test_it_can_be_switched_off() -> None:
    async with (
        serve(options=Options(control=False)) as upstream,
        httpx.AsyncClient(base_url=upstream.url) as client,
    ):
        assert (await client.get("/_waves_local/journal")).status_code == 404
