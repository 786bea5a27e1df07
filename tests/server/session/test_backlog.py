"""How far an upstream is behind what it was sent."""

from __future__ import annotations

import pytest
from wavegate_server.session.backlog import BURST_S, LAG_S, MARK_S, WINDOW_S, Backlog


def test_a_source_in_real_time_leaves_nothing_behind() -> None:
    backlog = Backlog()
    for second in range(60):
        backlog.sent(1.0, float(second))
        if (position := backlog.mark()) is not None:
            backlog.read(position)
    assert backlog.unread_s == 0.0
    assert backlog.behind_s(60.0) == 0.0
    assert backlog.unheard_s == 60.0
    assert not backlog.was_pushed
    assert backlog.send_at() == 0.0


def test_what_was_sent_at_once_may_take_as_long_as_it_plays() -> None:
    """Also where a pong came: a proxy may have answered it."""
    backlog = Backlog()
    backlog.sent(28.0, 100.0)
    backlog.read(backlog.mark_now())
    assert backlog.behind_s(100.0) == 28.0
    assert backlog.behind_s(110.0) == 18.0
    assert backlog.behind_s(200.0) == 0.0


def test_what_was_heard_takes_no_time_any_more() -> None:
    backlog = Backlog()
    backlog.sent(28.0, 0.0)
    backlog.heard(25.0)
    assert backlog.behind_s(0.0) == 3.0
    backlog.heard(90.0)
    assert (backlog.heard_s, backlog.behind_s(0.0)) == (28.0, 0.0)


def test_an_upstream_slower_than_speech_is_still_behind_while_a_pong_is_missing() -> None:
    backlog = Backlog()
    for second in range(20):
        backlog.sent(1.0, float(second))
        backlog.mark()
    backlog.read(16.0)
    assert backlog.behind_s(30.0) == 4.0
    backlog.read(20.0)
    assert backlog.behind_s(30.0) == 0.0


def test_audio_waits_while_too_much_is_unread() -> None:
    backlog = Backlog()
    backlog.sent(WINDOW_S - 0.1, 0.0)
    assert backlog.send_at() == 0.0
    backlog.sent(0.1, 0.0)
    assert backlog.send_at() is None
    backlog.read(0.1)
    assert backlog.send_at() == 0.0
    backlog.sent(1.0, 0.0)
    assert backlog.send_at() is None
    backlog.heard(3.0)
    assert backlog.send_at() == 0.0, "what was heard was read, pong or no pong"


def test_a_ping_follows_each_second_of_audio() -> None:
    backlog = Backlog()
    marks = []
    for _ in range(100):
        backlog.sent(0.1, 0.0)
        if (position := backlog.mark()) is not None:
            marks.append(position)
    gaps = [b - a for a, b in zip([0.0, *marks], marks, strict=False)]
    assert len(gaps) >= 8
    assert all(MARK_S <= gap < MARK_S + 0.11 for gap in gaps)


@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_a_set_pace_is_kept(speed: float) -> None:
    backlog, now = Backlog(), 50.0
    backlog.keep_pace(speed, now)
    while backlog.sent_s < 10.0:
        at = backlog.send_at()
        assert at is not None
        now = max(now, at)
        backlog.sent(0.1, now)
        backlog.read(backlog.mark_now())
    assert now - 50.0 == pytest.approx((10.0 - BURST_S) / speed, abs=0.1)
    backlog.keep_pace(0.0, now)
    assert backlog.send_at() == 0.0


def test_bursts_are_no_push() -> None:
    backlog = Backlog()
    for second in range(10):
        backlog.sent(0.5, float(second))
        backlog.sent(0.5, float(second))
    assert not backlog.was_pushed
    for _ in range(4):
        backlog.sent(LAG_S / 2, 10.0)
    assert backlog.was_pushed


def test_when_audio_must_have_been_heard() -> None:
    backlog = Backlog()
    backlog.sent(20.0, 100.0)
    assert backlog.must_be_heard(0.0, 100.0) == -20.0
    assert backlog.must_be_heard(20.0, 100.0) == 0.0
    assert backlog.must_be_heard(5.0, 118.0) == 3.0
