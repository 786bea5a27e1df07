from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from wavegate import Client

from tests.clients.python import fake_gateway


@pytest.fixture
async def gateway() -> AsyncIterator[fake_gateway.FakeGateway]:
    """A fake gateway in the test's own event loop."""
    async with fake_gateway.serve() as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: fake_gateway.FakeGateway) -> AsyncIterator[Client]:
    async with Client(gateway.target) as client:
        yield client


@pytest.fixture
def threaded_gateway() -> Iterator[fake_gateway.FakeGateway]:
    """A fake gateway in a thread of its own, for programs that block."""
    ready: asyncio.Queue[fake_gateway.FakeGateway] = asyncio.Queue()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with fake_gateway.serve() as gateway:
            ready.put_nowait(gateway)
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    yield asyncio.run_coroutine_threadsafe(ready.get(), loop).result(timeout=30)
    loop.call_soon_threadsafe(stop.set)
    thread.join(timeout=30)
    loop.close()
