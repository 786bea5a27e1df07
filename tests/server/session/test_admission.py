"""The account's limits, as plain calls."""

from __future__ import annotations

import random

from wavegate_server.session.account import Account
from wavegate_server.session.admission import LocalLimiter, Ticket


def ask(limiter: LocalLimiter, caller: str, order: list[str] | None = None, name: str = "") -> Ticket:
    return limiter.ask(caller, lambda: order.append(name or caller) if order is not None else None)


def test_within_the_limit_a_ticket_is_held_at_once() -> None:
    limiter = LocalLimiter(2)
    order: list[str] = []
    first, second, third = (ask(limiter, "a", order, str(n)) for n in range(3))
    assert (first.held, second.held, third.held) == (True, True, False)
    assert order == ["0", "1"]
    assert (limiter.used, limiter.waiting) == (2, 1)


def test_no_limit_lets_everybody_in() -> None:
    limiter = LocalLimiter(0)
    assert all(ask(limiter, "a").held for _ in range(1000))


def test_a_ticket_given_back_goes_to_who_waits_first() -> None:
    limiter = LocalLimiter(1)
    order: list[str] = []
    held = ask(limiter, "a")
    waiting = [ask(limiter, "a", order, str(n)) for n in range(3)]
    held.release()
    assert order == ["0"]
    waiting[0].release()
    waiting[1].release()
    assert order == ["0", "1", "2"]


def test_waiting_is_fair_between_callers() -> None:
    """A caller with many sessions does not keep one with few waiting."""
    limiter = LocalLimiter(1)
    order: list[str] = []
    held = ask(limiter, "x")
    tickets = {n: ask(limiter, "many", order, n) for n in ("m1", "m2", "m3", "m4")}
    tickets["f1"] = ask(limiter, "few", order, "f1")
    held.release()
    for _ in range(4):
        tickets[order[-1]].release()
    assert order == ["m1", "f1", "m2", "m3", "m4"]


def test_who_stops_waiting_is_passed_over() -> None:
    limiter = LocalLimiter(1)
    order: list[str] = []
    held = ask(limiter, "a")
    gone = ask(limiter, "a", order, "gone")
    ask(limiter, "a", order, "there")
    gone.release()
    gone.release()
    held.release()
    assert order == ["there"]
    assert limiter.used == 1


def test_an_offered_ticket_is_called_in_when_somebody_waits() -> None:
    limiter = LocalLimiter(2)
    order: list[str] = []
    old, new = ask(limiter, "a"), ask(limiter, "b")
    limiter.offer(old, lambda: (order.append("old called"), old.release())[0])
    limiter.offer(new, lambda: (order.append("new called"), new.release())[0])
    ask(limiter, "c", order, "c")
    assert order == ["old called", "c"]
    limiter.keep(new)
    ask(limiter, "d", order, "d")
    assert order == ["old called", "c"]
    limiter.offer(new, lambda: (order.append("new called"), new.release())[0])
    assert order == ["old called", "c", "new called", "d"]


def test_the_limit_is_never_exceeded() -> None:
    rng = random.Random(7)
    limiter = LocalLimiter(3)
    tickets: list[Ticket] = []
    for _ in range(5000):
        if tickets and rng.random() < 0.5:
            tickets.pop(rng.randrange(len(tickets))).release()
        else:
            tickets.append(ask(limiter, rng.choice("abcd")))
        held = sum(t.held for t in tickets)
        assert held == limiter.used <= 3
        assert held == 3 or limiter.waiting == 0


def test_an_account_has_five_sockets_a_request() -> None:
    account = Account(active_requests=2)
    tickets = [account.sockets.ask("a", lambda: None) for _ in range(11)]
    assert [t.held for t in tickets] == [True] * 10 + [False]
    assert Account().sockets.ask("a", lambda: None).held
