"""The voice catalogues: asked for once in a while, kept, and missed by nobody who has no use for them."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from wavegate_server import errors
from wavegate_server.session.catalogue import FRESH_S, Catalogue
from wavegate_server.session.context import UpstreamTarget
from wavegate_server.session.http import UpstreamHttp
from wavegate_server.session.pool import Upstreams

from tests.support.virtual_time import virtual_time

V3, V2 = "/waves/v1/lightning-v3.1/get_voices", "/waves/v1/lightning-v2/get_voices"


class Shop:
    """An upstream with these voices by path; a number in their place is the status that refuses."""

    def __init__(self, **voices: str | int) -> None:
        self.voices: dict[str, str | int] = {V3: voices.pop("v3", "a b"), V2: voices.pop("v2", "b z")}
        self.asked: list[str] = []
        http = UpstreamHttp(
            Upstreams(UpstreamTarget("wss://host.example", "k")), httpx.MockTransport(self._answer)
        )
        self.catalogue = Catalogue(http)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        await asyncio.sleep(0.1)
        found = self.voices.get(request.url.path, 400)
        if isinstance(found, int):
            return httpx.Response(found, json={"error": "no"})
        return httpx.Response(200, json={"voices": [{"voiceId": v} for v in found.split()]})

    async def ids(self, model: str = "") -> str:
        return " ".join(v.voice_id for v in await self.catalogue.voices(model))


@virtual_time
async def test_each_model_has_its_voices_and_all_have_all() -> None:
    shop = Shop()
    assert await shop.ids() == "a b z"
    assert await shop.ids("lightning_v3.1_pro") == "a b"
    assert await shop.ids("lightning-v2") == "b z"
    assert sorted(shop.asked) == [V2, V3]


@pytest.mark.parametrize("status", [400, 404, 410, 500])
def test_all_voices_are_listed_without_those_of_a_retired_model(status: int) -> None:
    @virtual_time
    async def scenario() -> None:
        shop = Shop(v2=status)
        assert await shop.ids() == "a b"
        with pytest.raises(errors.WavegateError):
            await shop.ids("lightning-v2")
        shop.voices[V2] = "z"
        assert await shop.ids() == "a b z"

    scenario()


@virtual_time
async def test_what_cannot_be_had_fails_and_is_asked_for_again() -> None:
    shop = Shop(v3=500)
    with pytest.raises(errors.UpstreamUnavailable):
        await shop.ids()
    shop.voices[V3] = "a"
    assert await shop.ids("lightning_v3.1") == "a"


@virtual_time
async def test_an_answer_is_good_for_a_while_and_an_old_one_better_than_none() -> None:
    shop = Shop()
    assert await shop.ids("lightning_v3.1") == "a b"
    shop.voices[V3] = "c"
    await asyncio.sleep(FRESH_S - 1)
    assert await shop.ids("lightning_v3.1") == "a b"
    await asyncio.sleep(1)
    assert await shop.ids("lightning_v3.1") == "c"
    shop.voices[V3] = 500
    await asyncio.sleep(FRESH_S)
    assert await shop.ids("lightning_v3.1") == "c"


@virtual_time
async def test_many_who_ask_at_once_ask_once_and_names_of_no_model_are_not_kept() -> None:
    shop = Shop()
    await asyncio.gather(*(shop.ids("lightning_v3.1") for _ in range(9)))
    assert shop.asked == [V3]
    for number in range(20):
        with pytest.raises(errors.UpstreamRejected):
            await shop.ids(f"model-{number}")
    assert set(shop.catalogue._shelves) == {V3}
