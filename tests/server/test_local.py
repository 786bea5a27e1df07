"""The embedded local upstream, as far as that needs no process."""

from __future__ import annotations

import asyncio

import pytest
from wavegate_server import errors
from wavegate_server.local import AWAY_S, LocalUpstream
from wavegate_server.session.retry import RetryBudget

from tests.support.virtual_time import virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


async def never() -> None:
    raise AssertionError("it is not there to be asked")


@virtual_time
async def test_one_that_does_not_come_back_is_waited_for_no_longer_than_promised() -> None:
    with pytest.raises(errors.UpstreamUnavailable, match="not back within 15 s") as caught:
        await LocalUpstream("deterministic").reach(never)
    assert now() == AWAY_S
    assert RetryBudget().next_delay_s(caught.value) is None, "no session waits as long once more"


@virtual_time
async def test_waiting_for_it_may_be_cancelled() -> None:
    waiting = asyncio.create_task(LocalUpstream("deterministic").reach(never))
    await asyncio.sleep(1)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    assert now() == 1
