"""The real programs that these tests hold the gateway's telemetry against."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import tools
from tests.support.jaeger import Jaeger, running_jaeger

# By the fixture that needs it.
_MADE_BY = {"jaeger": ("jaeger.py", "get"), "prometheus": ("prometheus.py", "path")}
_making: list[tools.InBackground] = []


def pytest_collection_finish(session: pytest.Session) -> None:
    """What has to be built takes minutes: it begins now and goes on beside the other tests."""
    if session.config.option.collectonly:
        return
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for fixture, command in _MADE_BY.items():
        if fixture in wanted:
            _making.append(tools.InBackground(*command))


def pytest_sessionfinish() -> None:
    for making in _making:
        making.stop()


@pytest.fixture(scope="session")
def jaeger() -> Iterator[Jaeger]:
    with running_jaeger() as found:
        yield found
