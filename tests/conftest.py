"""What all tests rely on."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Generator
from pathlib import Path, PurePosixPath

import hypothesis
import pytest

from tests.support import levels, seeds

TESTS = Path(__file__).parent

# A shell starts what it puts in the background with interrupts ignored, and programs hand that on to those they
# start. Tests interrupt programs, wherever they are run from.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes, or is made, says something about the machine, not about the code.
_COMMON = hypothesis.settings(
    deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
# `make test` tries the same examples every time. Those that nobody has tried yet are for `make soak`.
hypothesis.settings.register_profile("fixed", _COMMON, derandomize=True)
hypothesis.settings.register_profile("random", _COMMON)
hypothesis.settings.load_profile("random" if seeds.are_random() else "fixed")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "random: draws its cases from a seed; `make soak` tries new ones, and more of them"
    )
    config.addinivalue_line(
        "markers", "unit: needs neither a process nor a socket; see tests/support/levels.py"
    )
    config.addinivalue_line(
        "markers", "e2e: runs a gateway as its users have it; see tests/support/levels.py"
    )
    config.addinivalue_line(
        "markers", "polyglot: needs the toolchains of other languages, or Envoy and nginx"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its level, and as random where hypothesis or a parameter `seed` draws its cases."""
    for item in items:
        level = levels.level_of(PurePosixPath(item.path.relative_to(TESTS)))
        if level:
            item.add_marker(level)
        if levels.is_polyglot(
            PurePosixPath(item.path.relative_to(TESTS)), _parameters(item).get("client", "")
        ):
            item.add_marker("polyglot")
        is_drawn = isinstance(item, pytest.Function) and hypothesis.is_hypothesis_test(item.obj)
        if is_drawn or "seed" in _parameters(item):
            item.add_marker("random")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failed random test the command that replays it."""
    report = yield
    if report.failed and item.get_closest_marker("random"):
        report.sections.append(("Replay", _replay(item)))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Hold the tests of the unit level to what they are."""
    if item.get_closest_marker("unit") is None:
        yield
        return
    with levels.watched() as found:
        yield
    if found:
        pytest.fail(f"{found[0]}: tests of the unit level do without; see tests/support/levels.py")


def _parameters(item: pytest.Item) -> dict[str, object]:
    return item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}


def _replay(item: pytest.Item) -> str:
    parameters = _parameters(item)
    command = [".venv/bin/pytest", item.nodeid]
    if "seed" in parameters:
        return f"{seeds.VARIABLE}={parameters['seed']} {shlex.join(command)}"
    if seeds.are_random():
        seed = item.config.getoption("hypothesis_seed", None)
        if seed is None:
            return "by the @seed or @reproduce_failure line that hypothesis printed, put above the test"
        command.insert(1, f"--hypothesis-seed={seed}")
        return f"{seeds.VARIABLE}=random {shlex.join(command)}"
    return shlex.join(command)
