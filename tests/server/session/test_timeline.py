"""The samples of a connection on the samples of the session."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wavegate_server.session.timeline import SessionClock, Timeline

HZ = 8000


def test_a_connection_counts_from_where_it_took_up_the_session() -> None:
    timeline = Timeline(16_000, HZ)
    timeline.sent(8_000)
    assert timeline.position == 24_000
    assert timeline.to_session(0.0) == 16_000
    assert timeline.to_session(0.25) == 18_000


def test_silences_one_after_the_other_are_one() -> None:
    """A caller may be silent for hours, at a keepalive every few seconds."""
    timeline = Timeline(0, HZ)
    timeline.sent(8000)
    for _ in range(1000):
        timeline.inserted(800)
    assert repr(timeline) == "<Timeline 0+8000 silences=1>"
    assert timeline.connection_samples == 808_000
    timeline.sent(8000)
    timeline.inserted(800)
    assert repr(timeline) == "<Timeline 0+16000 silences=2>"


def test_inserted_silence_is_taken_out_again() -> None:
    timeline = Timeline(0, HZ)
    timeline.sent(8_000)
    timeline.inserted(800)
    timeline.sent(8_000)
    assert timeline.connection_samples == 16_800
    assert timeline.position == 16_000
    assert timeline.to_session(0.5) == 4_000  # before it
    assert timeline.to_session(1.05) == 8_000  # within: where it was put in
    assert timeline.to_session(1.1) == 8_000
    assert timeline.to_session(1.6) == 12_000  # behind


def test_silence_before_the_first_sample_moves_nothing() -> None:
    timeline = Timeline(100, HZ)
    timeline.inserted(800)
    timeline.inserted(800)
    timeline.sent(8_000)
    assert timeline.to_session(0.3) == 100 + 800


def test_times_outside_of_what_was_sent_are_drawn_to_its_ends() -> None:
    timeline = Timeline(100, HZ)
    timeline.sent(80)
    assert timeline.to_session(-1.0) == 100
    assert timeline.to_session(5.0) == 180


def test_what_a_decoder_drops_is_before_its_time_zero() -> None:
    timeline = Timeline(0, 48_000)
    timeline.drops(312)
    timeline.sent(960)
    assert timeline.position == 648
    assert timeline.to_session(0.01) == 480
    assert timeline.to_session(1.0) == 648


def test_an_upstream_that_counts_on_from_socket_to_socket_is_noticed() -> None:
    timeline = Timeline(40_000, HZ, sent_before=48_000)
    timeline.sent(8_000)
    timeline.notice(1.4)  # within what recognisers get wrong
    assert timeline.to_session(0.5) == 44_000
    timeline.notice(6.5)
    assert timeline.to_session(6.5) == 44_000
    first = Timeline(0, HZ)
    first.sent(8_000)
    first.notice(6.5)
    assert first.to_session(0.5) == 4_000


@given(
    base=st.integers(0, 10**9),
    steps=st.lists(st.tuples(st.booleans(), st.integers(1, 5_000)), max_size=20),
    data=st.data(),
)
def test_every_sample_of_the_caller_is_found_again(
    base: int, steps: list[tuple[bool, int]], data: st.DataObject
) -> None:
    """Exactly, whatever silence lies between."""
    timeline = Timeline(base, HZ)
    places: list[int] = []
    """Where on the connection each of the caller's samples is."""
    for is_silence, samples in steps:
        at = timeline.connection_samples
        if is_silence:
            timeline.inserted(samples)
        else:
            places.extend(range(at, at + samples))
            timeline.sent(samples)
    if places:
        index = data.draw(st.integers(0, len(places) - 1))
        # 5 decimals are as fine as upstreams write times, and finer than a sample.
        assert timeline.to_session(round(places[index] / HZ, 5)) == base + index


def test_a_session_clock_adds_its_offset_to_places_only() -> None:
    clock = SessionClock(HZ, 60.0)
    assert clock.seconds(4_000) == 60.5
    assert clock.duration_s(4_000) == 0.5
    assert clock.samples(0.5) == 4_000
    assert clock.seconds(clock.samples(3600.123)) == pytest.approx(3660.123, abs=1 / HZ)
