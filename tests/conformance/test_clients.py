"""Every client does what clients/conformance/scenarios.py says, as far as this machine can build it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from clients.conformance import scenarios
from clients.conformance.judge.clients import CLIENTS, build, missing
from clients.conformance.judge.runner import judge
from clients.conformance.judge.script import ALL
from clients.conformance.judge.world import World

assert scenarios is not None  # it fills `ALL`

GROUPS = sorted({name.partition("/")[0] for name in ALL})

# Much work: on a machine under load it takes minutes.
pytestmark = [pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    """The gateways, which all tests of this file share in turn."""
    async with World() as world:
        yield world


@pytest.fixture(scope="module")
def run() -> str:
    """A name of this run, the same in all of its processes."""
    return os.environ.get("PYTEST_XDIST_TESTRUNUID", f"process {os.getpid()}")


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_client(world: World, run: str, client: str, group: str) -> None:
    if why := missing(client):
        pytest.skip(why)
    try:
        command = build(client, run)
    except subprocess.CalledProcessError as error:
        pytest.fail(f"the driver of {client} cannot be built:\n{error.stdout}{error.stderr}", pytrace=False)
    wanted = [scenario for name, scenario in ALL.items() if name.partition("/")[0] == group]
    cells = await judge(client, command, wanted, world)
    assert len(cells) >= len(wanted)
    wrong = [
        f"{cell.scenario}: {cell.state}\n{cell.what}"
        for cell in cells
        if cell.state in ("FAIL", "not implemented")
    ]
    if wrong:
        pytest.fail("\n\n".join(wrong), pytrace=False)
