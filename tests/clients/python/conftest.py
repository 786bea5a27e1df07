from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from wavegate import Client

from tests.clients.python import fake_gateway


@pytest.fixture
async def gateway() -> AsyncIterator[fake_gateway.FakeGateway]:
    async with fake_gateway.serve() as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: fake_gateway.FakeGateway) -> AsyncIterator[Client]:
    async with Client(gateway.target) as client:
        yield client
