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
LONGEST_DELAY_S = 2.0
"""An upstream that asks for more time than this is given up: nobody waits so long in mid-speech."""
HEALTHY_S = 5.0
"""A connection that lived this long and delivered something new has refilled the budget."""
CAPACITY_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""After HTTP 429 without `Retry-After`: the documented back-off."""


class RetryBudget:
    """Counts consecutive failures of one session's upstream."""

    def __init__(self, rng: Callable[[], float] = random.random) -> None:
        """`rng` returns numbers from 0 to 1."""
        self._rng = rng
        self.failures = 0
        self._dials = 0
        self._pardon: bool | None = None
        """Whether the next failure is not counted; None while one may still be pardoned."""

    @property
    def max_attempts(self) -> int:
        return len(DELAYS_S)

    @property
    def attempt(self) -> int:
        """The number of the next attempt to connect, from 1, since the budget was full."""
        return self._dials + 1

    @property
    def attempts(self) -> int:
        """How many attempts there will be in all, with that one."""
        return self.attempt + max(0, len(DELAYS_S) - self.failures)

    def dialled(self) -> None:
        """An attempt is made."""
        self._dials += 1

    def connected(self) -> None:
        """It succeeded. Whether the connection is any good is still to be seen."""
        if not self.failures:
            self._dials = 0

    def next_delay_s(self, error: WavegateError) -> float | None:
        """Count a failure; seconds to wait before the next try, or None to give up.

        What trying again cannot mend is not counted: it says nothing about the connection. Garbage may be a
        broken connection's, so it is tried again; garbage in the place of a handshake's answer is not.
        """
        garbage = isinstance(error, errors.UpstreamProtocol) and error.http_status is None
        if not error.retryable and not garbage:
            return None
        if self._pardon:
            self._pardon = False
            return 0.0
        self.failures += 1
        if self.failures > len(DELAYS_S) or (error.retry_after_s or 0.0) > LONGEST_DELAY_S:
            return None
        delay = DELAYS_S[self.failures - 1] * (1 + JITTER * (2 * self._rng() - 1))
        return max(delay, error.retry_after_s or 0.0)

    def standby_lost(self) -> None:
        """A connection that was opened ahead was dead when it was used: the failure that follows says nothing of a dial
        now, and is not counted. Once only until the budget is full again."""
        if self._pardon is None:
            self._pardon = True

    def connection_ended(self, lived_s: float, progressed: bool) -> None:
        """A connection has gone; a good one refills the budget.

        `progressed`: whether it delivered something that no connection before it had. An upstream that begins each time
        and never goes on would be dialled for ever otherwise.
        """
        if progressed and lived_s >= HEALTHY_S:
            self.delivered()

    def delivered(self) -> None:
        """Something that was owed arrived in full: an utterance completed, a final came."""
        self.failures = self._dials = 0
        self._pardon = None


class QueueWait:
    """Waiting for a full account (HTTP 429 and the like): from the first refusal on, within the queue's time."""

    def __init__(self, limit_s: float) -> None:
        """`limit_s`: how long is waited at most, in seconds."""
        self._limit_s = limit_s
        self.since: float | None = None
        """When the waiting began; None while there is none."""
        self._refusals = 0

    def began(self, at: float) -> None:
        """Note that something was waited for since `at`, of which other waiting is a part."""
        if self.since is None:
            self.since = at

    def next_delay_s(self, error: WavegateError, now: float) -> float | None:
        """Count a refusal; seconds to wait before the next try, or None when that would be too late."""
        if self.since is None:
            self.since = now
        delay = error.retry_after_s
        if delay is None:
            delay = CAPACITY_DELAYS_S[min(self._refusals, len(CAPACITY_DELAYS_S) - 1)]
        self._refusals += 1
        if now + delay > self.since + self._limit_s:
            self.over()
            return None
        return delay

    def over(self) -> None:
        """Served, or given up: the next refusal begins anew."""
        self.since = None
        self._refusals = 0
