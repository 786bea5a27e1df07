"""Clients that others wrote for the real service, pointed at the local one.

They run where these packages are installed and are skipped elsewhere:

    pip install smallestai==5.14.0 'pipecat-ai[smallest]==1.14.0' livekit-plugins-smallestai==1.8.9
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from waves_local import Options, Upstream, deterministic_engine, serve
from waves_local.engine import Engine, VoiceRequest

ENGINES = ("deterministic", "speech")


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each of the engines that this machine has."""
    if request.param == "deterministic":
        yield deterministic_engine(character_s=0.03)
        return
    speech = pytest.importorskip(
        "waves_local.speech", reason="the speech engine's packages are not installed", exc_type=ImportError
    )
    yield speech.load_engine()


@pytest.fixture
async def upstream(engine: Engine) -> AsyncIterator[Upstream]:
    """A local upstream with that engine, which has spoken before: loading it takes longer than some clients wait."""
    async for _ in engine.synthesizer.synthesize(VoiceRequest("Hello.", "magnus")):
        pass
    # Clients that wait for `complete` would spend four seconds on each turn.
    async with serve(engine=engine, options=Options(default_complete_backoff_ms=300)) as running:
        yield running
