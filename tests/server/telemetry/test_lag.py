"""How late the loop runs, as it is measured."""

from __future__ import annotations

import asyncio
import time

from wavegate_server.telemetry.lag import LoopLag


async def test_what_holds_the_loop_up_is_measured() -> None:
    samples: list[float] = []
    lag = LoopLag(samples.append, interval_s=0.02)
    lag.start()
    async with asyncio.timeout(60):
        while len(samples) < 3:  # noqa: ASYNC110 - the sampler tells nobody
            await asyncio.sleep(0.01)
    before = len(samples)
    time.sleep(0.3)  # noqa: ASYNC251 - that is what a loop must not be given
    async with asyncio.timeout(60):
        while len(samples) == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    lag.stop()
    # The timer was due at most 20 ms after the hold-up began.
    assert samples[before] >= 0.27
    assert all(sample >= 0 for sample in samples)


async def test_nothing_is_measured_after_the_end() -> None:
    samples: list[float] = []
    lag = LoopLag(samples.append, interval_s=0.005)
    lag.start()
    lag.stop()
    lag.stop()
    await asyncio.sleep(0.05)
    assert samples == []
