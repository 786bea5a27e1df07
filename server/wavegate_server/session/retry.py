"""Whether and when to dial again. Pure: time comes in, delays come out."""

from __future__ import annotations

import random
from collections.abc import Callable

from wavegate_server import errors
from wavegate_server.errors import WavegateError

DELAYS_S = (0.0, 0.1, 0.3)
"""Before the first, second and third try after a failure: a dropped connection is mostly back at once."""
JITTER = 0.25
"""Each delay varies by this share, so that many sessions do not dial in step."""
HEALTHY_S = 5.0
"""A connection that lived this long and delivered something has refilled the budget."""
CAPACITY_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""After HTTP 429 without `Retry-After`: the documented back-off."""


class RetryBudget:
    """Counts consecutive failures of one session's upstream."""

    def __init__(self, rng: Callable[[], float] = random.random) -> None:
        """`rng` returns numbers from 0 to 1."""
        self._rng = rng
        self.failures = 0

    @property
    def max_attempts(self) -> int:
        return len(DELAYS_S)

    def next_delay_s(self, error: WavegateError) -> float | None:
        """Count a failure; seconds to wait before the next try, or None to give up."""
        self.failures += 1
        if not error.retryable or self.failures > len(DELAYS_S):
            return None
        if isinstance(error, errors.UpstreamCapacity):
            return error.retry_after_s if error.retry_after_s is not None else CAPACITY_DELAYS_S[0]
        delay = DELAYS_S[self.failures - 1]
        if error.retry_after_s is not None:
            delay = max(delay, error.retry_after_s)
        return delay * (1 + JITTER * (2 * self._rng() - 1))

    def connection_ended(self, lived_s: float, delivered: bool) -> None:
        """A connection has gone; a good one refills the budget."""
        if delivered and lived_s >= HEALTHY_S:
            self.failures = 0

    def delivered(self) -> None:
        """Something that was owed arrived in full: an utterance completed, a final came."""
        self.failures = 0
