"""Whether and when to dial again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wavegate_server import errors
from wavegate_server.errors import WavegateError
from wavegate_server.session.retry import (
    CAPACITY_DELAYS_S,
    DELAYS_S,
    HEALTHY_S,
    JITTER,
    LONGEST_DELAY_S,
    QueueWait,
    RetryBudget,
)

LOST = errors.UpstreamUnavailable("lost")


def budget() -> RetryBudget:
    """Without jitter."""
    return RetryBudget(rng=lambda: 0.5)


def test_three_tries_at_once_and_a_little_later_then_no_more() -> None:
    retry = budget()
    assert [retry.next_delay_s(LOST) for _ in range(5)] == [0.0, 0.1, 0.3, None, None]


@pytest.mark.parametrize(
    "error",
    [
        errors.UpstreamCredential("401"),
        errors.UpstreamGone("410"),
        errors.UpstreamRejected("400"),
        errors.UpstreamProtocol("302", http_status=302),
        errors.InvalidInput("bad"),
    ],
)
def test_what_dialling_cannot_mend_is_not_tried_again_and_costs_nothing(error: WavegateError) -> None:
    retry = budget()
    assert retry.next_delay_s(error) is None
    assert retry.failures == 0
    assert retry.next_delay_s(LOST) == 0.0


@pytest.mark.parametrize(
    "error",
    [
        LOST,
        errors.UpstreamStalled("silent"),
        errors.UpstreamProtocol("garbage"),
        errors.UpstreamProtocol("1002", close_code=1002),
    ],
)
def test_what_a_new_connection_may_mend_is_tried_again(error: WavegateError) -> None:
    assert budget().next_delay_s(error) == 0.0


def test_a_good_connection_refills_the_budget() -> None:
    retry = budget()
    retry.next_delay_s(LOST)
    retry.next_delay_s(LOST)
    retry.connection_ended(HEALTHY_S - 0.01, progressed=True)
    assert retry.failures == 2
    retry.connection_ended(HEALTHY_S * 10, progressed=False)
    assert retry.failures == 2, "a silent upstream would be retried for ever"
    retry.connection_ended(HEALTHY_S, progressed=True)
    assert retry.failures == 0


def test_a_standby_that_was_dead_is_not_counted_once() -> None:
    retry = budget()
    retry.standby_lost()
    assert (retry.next_delay_s(LOST), retry.failures) == (0.0, 0)
    retry.standby_lost()
    assert [retry.next_delay_s(LOST) for _ in range(4)] == [0.0, 0.1, 0.3, None]
    retry.delivered()
    retry.standby_lost()
    assert (retry.next_delay_s(LOST), retry.failures) == (0.0, 0)


def test_what_was_delivered_in_full_refills_the_budget() -> None:
    retry = budget()
    for _ in range(4):
        retry.next_delay_s(LOST)
    retry.delivered()
    assert retry.next_delay_s(LOST) == 0.0


def test_an_upstream_that_names_a_time_gets_it_but_not_too_much_of_it() -> None:
    assert budget().next_delay_s(errors.UpstreamUnavailable("503", retry_after_s=1.5)) == 1.5
    assert (
        RetryBudget(rng=lambda: 0.0).next_delay_s(errors.UpstreamUnavailable("503", retry_after_s=1.5)) == 1.5
    )
    late = errors.UpstreamUnavailable("503", retry_after_s=LONGEST_DELAY_S + 0.1)
    assert budget().next_delay_s(late) is None


@given(st.floats(0, 1))
def test_delays_vary_so_that_sessions_do_not_dial_in_step(chance: float) -> None:
    retry = RetryBudget(rng=lambda: chance)
    for delay in DELAYS_S:
        found = retry.next_delay_s(LOST)
        assert found is not None
        assert delay * (1 - JITTER) <= found <= delay * (1 + JITTER)


# -- the count that callers see ----------------------------------------------------------------------------------


def test_attempts_of_a_first_connection() -> None:
    """One try and three more."""
    retry = budget()
    seen = []
    for _ in range(4):
        seen.append((retry.attempt, retry.attempts))
        retry.dialled()
        retry.next_delay_s(LOST)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_attempts_after_a_drop() -> None:
    """Connections that open and are lost again, unused, count on."""
    retry = budget()
    retry.dialled()
    retry.connected()
    seen = []
    for _ in range(3):
        retry.next_delay_s(LOST)
        seen.append((retry.attempt, retry.attempts))
        retry.dialled()
        retry.connected()
    assert seen == [(1, 3), (2, 3), (3, 3)]
    retry.delivered()
    retry.next_delay_s(LOST)
    assert (retry.attempt, retry.attempts) == (1, 3)


# -- a full account ----------------------------------------------------------------------------------------------


def full(retry_after_s: float | None = None) -> WavegateError:
    return errors.UpstreamCapacity("429", retry_after_s=retry_after_s)


def test_a_full_account_is_asked_again_ever_more_slowly_within_the_queues_time() -> None:
    wait = QueueWait(4.0)
    now = 100.0
    delays = []
    while (delay := wait.next_delay_s(full(), now)) is not None:
        delays.append(delay)
        now += delay
    assert delays == [0.5, 1.0, 2.0]


def test_retry_after_is_honoured() -> None:
    wait = QueueWait(2.0)
    assert wait.next_delay_s(full(0.75), 0.0) == 0.75
    assert wait.next_delay_s(full(1.25), 0.75) == 1.25
    assert wait.next_delay_s(full(0.1), 2.0) is None


def test_one_that_asks_for_too_much_is_not_waited_for() -> None:
    assert QueueWait(2.0).next_delay_s(full(60.0), 0.0) is None


@pytest.mark.parametrize("served", [True, False])
def test_the_next_refusal_after_the_end_of_waiting_begins_anew(served: bool) -> None:
    wait = QueueWait(2.0)
    assert wait.next_delay_s(full(), 0.0) == 0.5
    if served:
        wait.over()
    else:
        assert wait.next_delay_s(full(60.0), 1.0) is None
    assert wait.next_delay_s(full(), 1000.0) == 0.5


def test_back_off_ends_at_the_documented_longest() -> None:
    wait = QueueWait(1e6)
    delays = [wait.next_delay_s(full(), 0.0) for _ in range(20)]
    assert delays[: len(CAPACITY_DELAYS_S)] == list(CAPACITY_DELAYS_S)
    assert set(delays[len(CAPACITY_DELAYS_S) :]) == {30.0}


@given(st.lists(st.floats(0, 3), max_size=20), st.floats(0.1, 5))
def test_nobody_waits_longer_than_the_queues_time(named: list[float], limit_s: float) -> None:
    wait = QueueWait(limit_s)
    now = 0.0
    for retry_after_s in named:
        delay = wait.next_delay_s(full(retry_after_s), now)
        if delay is None:
            return
        now += delay
        assert now <= limit_s + 1e-9
