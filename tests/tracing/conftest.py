"""The real programs that these tests hold the gateway's telemetry against."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import tools
from tests.support.jaeger import Jaeger, running_jaeger

_making: list[tools.InBackground] = []


def pytest_collection_finish(session: pytest.Session) -> None:
    """Where Jaeger has to be built, that takes minutes: it begins now and goes on beside the other tests."""
    wanted = any("jaeger" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not session.config.option.collectonly:
        _making.append(tools.InBackground("jaeger.py", "get"))


def pytest_sessionfinish() -> None:
    for making in _making:
        making.stop()


@pytest.fixture(scope="session")
def jaeger() -> Iterator[Jaeger]:
    with running_jaeger() as found:
        yield found
