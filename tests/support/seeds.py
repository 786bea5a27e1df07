"""Seeds of random tests: fixed in `make test`, so that it passes or fails every time; new ones in `make soak`.

    WAVEGATE_SEEDS unset         the fixed seeds; hypothesis derives its examples from the test's own source
    WAVEGATE_SEEDS=random        as many seeds, drawn anew; hypothesis draws its examples anew
    WAVEGATE_SEEDS=7,12-15       just these; `random` examples of hypothesis are replayed by its own line

A failed test prints the command that replays it (`tests/conftest.py`).
"""

from __future__ import annotations

import os
import random

VARIABLE = "WAVEGATE_SEEDS"


def are_random() -> bool:
    """True where seeds are to be drawn anew."""
    return os.environ.get(VARIABLE) == "random"


def seeds(count: int, first: int = 0) -> list[int]:
    """Return the seeds that a test is parametrized with: `count` from `first` on, or those of the environment."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen == "random":
        # Every worker of xdist has to collect the same tests, so the draw is made once for all of them.
        session = os.environ.get("PYTEST_XDIST_TESTRUNUID")
        return sorted(random.Random(session).sample(range(10**6), count))
    if not chosen:
        return list(range(first, first + count))
    found: list[int] = []
    for part in chosen.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def repetitions(usual: int, soaking: int) -> int:
    """Return how often to repeat what differs by its seed alone: `usual` in `make test`, `soaking` beyond it."""
    return soaking if os.environ.get(VARIABLE) else usual
