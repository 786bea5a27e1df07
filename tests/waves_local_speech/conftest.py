"""The speech engine, loaded once: its processes take about a second to start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from waves_local.engine import Engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    speech = pytest.importorskip(
        "waves_local.speech",
        reason="the optional extra wavegate[speech] is not installed",
        exc_type=ImportError,
    )
    loaded = speech.load_engine()
    yield loaded
    loaded.synthesizer.close()
    loaded.recognizer.close()
