"""The event log: nothing is lost, doubled or out of order, whatever is taken back and whoever gives up waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wavegate_server import errors
from wavegate_server.session.log import KEPT_BYTES, MAX_WAITING_EVENTS, Detached, Entry, EventLog

from tests.support.virtual_time import run_virtual, settle, virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


async def read(log: EventLog, count: int) -> list[Any]:
    return [entry.event for entry in [await log.next() for _ in range(count)] if entry is not None]


@virtual_time
async def test_events_leave_in_the_order_in_which_they_came() -> None:
    log = EventLog(2.0)
    log.append("a", 1)
    log.append("b", 2, 0.5)
    log.append("c", 2)
    assert list(log) == ["a", "b", "c"]
    assert [await log.next() for _ in range(3)] == [Entry("a", 1), Entry("b", 2, 0.5), Entry("c", 2)]


@virtual_time
async def test_the_reader_waits_for_an_event() -> None:
    log = EventLog(2.0)
    reader = asyncio.create_task(log.next())
    await settle()
    assert not reader.done()
    log.append("a", 1)
    assert await reader == Entry("a", 1)


@virtual_time
async def test_what_is_there_when_the_log_closes_is_still_delivered() -> None:
    log = EventLog(2.0)
    log.append("a", 1)
    log.close()
    log.append("too late", 2)
    assert await log.next() == Entry("a", 1)
    assert await log.next() is None
    assert await log.next() is None


@virtual_time
async def test_a_waiting_reader_learns_that_the_log_has_closed() -> None:
    log = EventLog(2.0)
    reader = asyncio.create_task(log.next())
    await settle()
    log.close()
    assert await reader is None


@virtual_time
async def test_waiting_audio_is_bounded_by_its_playing_time() -> None:
    log = EventLog(1.0)
    log.append("a", 1, 0.6)
    assert not log.full
    log.append("b", 1, 0.6)
    assert log.full
    assert log.waiting_audio_s == pytest.approx(1.2)
    producer = asyncio.create_task(log.room())
    await settle()
    assert not producer.done()
    await log.next()
    await settle()
    assert producer.done()
    assert not log.full


@virtual_time
async def test_other_events_are_bounded_by_their_number() -> None:
    log = EventLog(1.0)
    for number in range(MAX_WAITING_EVENTS):
        assert not log.full
        log.append(number, 1)
    assert log.full
    assert log.waiting_events == MAX_WAITING_EVENTS
    await log.next()
    assert not log.full


@virtual_time
async def test_a_closed_log_holds_nobody_back() -> None:
    log = EventLog(1.0)
    log.append("a", 1, 5.0)
    producer = asyncio.create_task(log.room())
    await settle()
    log.close()
    await settle()
    assert producer.done()
    assert not log.full
    await log.next()
    assert not log.full


@virtual_time
async def test_audio_that_is_taken_back_makes_room() -> None:
    log = EventLog(1.0)
    log.append("a", 1, 0.7)
    log.append("note", 1)
    log.append("b", 1, 0.7)
    assert log.take_back(lambda event: event == "b") == ["b"]
    assert not log.full
    assert log.take_back(lambda event: event == "b") == []
    assert await read(log, 2) == ["a", "note"]
    assert log.waiting_audio_s == 0


@virtual_time
async def test_sums_of_floats_come_back_to_zero() -> None:
    """Else a session that has said everything would seem busy for ever."""
    log = EventLog(10.0)
    for _ in range(3):
        for audio_s in (0.1, 0.2, 0.3, 0.7):
            log.append("audio", 1, audio_s)
        log.append("note", 1)
    await read(log, 15)
    assert log.waiting_audio_s == 0
    assert log.waiting_events == 0


@virtual_time
async def test_an_event_is_replaced_where_it_stands() -> None:
    log = EventLog(1.0)
    for number, event in enumerate("abc"):
        log.append(event, number)
    log.replace(lambda event: event == "b", "B")
    log.replace(lambda event: event == "x", "X")
    assert [await log.next() for _ in range(3)] == [Entry("a", 0), Entry("B", 1), Entry("c", 2)]
    assert log.waiting_events == 0


# -- what a resuming caller missed --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """An event with audio, as far as the log looks at it."""

    audio: bytes


@virtual_time
async def test_what_was_delivered_comes_again_under_its_old_numbers() -> None:
    log = EventLog(2.0)
    log.keep()
    for event in "abc":
        log.append(event, 1)
    assert await read(log, 3) == ["a", "b", "c"]
    log.append("d", 1)
    log.rewind(1)
    seen = [((await read(log, 1))[0], log.position) for _ in range(3)]
    assert seen == [("b", 2), ("c", 3), ("d", 4)]


@virtual_time
async def test_rewinding_to_the_newest_event_repeats_nothing() -> None:
    log = EventLog(2.0)
    log.keep()
    log.append("a", 1)
    await log.next()
    log.rewind(1)
    log.append("b", 1)
    assert await read(log, 1) == ["b"]


@pytest.mark.parametrize("sequence", [-1, 3, 99])
@virtual_time
async def test_a_place_where_the_log_never_was_is_a_gap(sequence: int) -> None:
    log = EventLog(2.0)
    log.keep()
    log.append("a", 1)
    log.append("b", 1)
    assert await read(log, 2) == ["a", "b"]
    with pytest.raises(errors.ResumeGap):
        log.rewind(sequence)
    log.append("c", 1)
    assert await read(log, 1) == ["c"], "nothing has changed"


@virtual_time
async def test_without_keeping_only_the_newest_place_is_left() -> None:
    log = EventLog(2.0)
    log.append("a", 1)
    await log.next()
    log.rewind(1)
    with pytest.raises(errors.ResumeGap):
        log.rewind(0)


@virtual_time
async def test_what_is_kept_is_bounded_and_the_oldest_goes_first() -> None:
    log = EventLog(2.0)
    log.keep()
    size = KEPT_BYTES // 4
    for number in range(6):
        log.append(Chunk(bytes([number]) * size), 1)
        await log.next()
    with pytest.raises(errors.ResumeGap, match="came after 3 is still held"):
        log.rewind(2)
    log.rewind(3)
    assert [event.audio[0] for event in await read(log, 3)] == [3, 4, 5]


@virtual_time
async def test_a_new_reader_takes_the_place_of_the_old_one() -> None:
    log = EventLog(2.0)
    old = log.attach()
    waiting = asyncio.create_task(log.next(old))
    await settle()
    new = log.attach()
    with pytest.raises(Detached):
        await waiting
    log.append("a", 1)
    with pytest.raises(Detached):
        await log.next(old)
    assert await log.next(new) == Entry("a", 1)


# -- the pace ----------------------------------------------------------------------------------------------------


async def delivery_times(log: EventLog, count: int) -> list[float]:
    times = []
    for _ in range(count):
        await log.next()
        times.append(round(now(), 2))
    return times


@virtual_time
async def test_without_a_lead_audio_goes_as_fast_as_it_is_read() -> None:
    log = EventLog(100.0)
    for _ in range(10):
        log.append("audio", 1, 1.0)
    assert await delivery_times(log, 10) == [0.0] * 10


@virtual_time
async def test_a_lead_holds_audio_to_the_listeners_pace() -> None:
    log = EventLog(100.0, max_audio_lead_s=2.0)
    for _ in range(5):
        log.append("audio", 1, 1.0)
    # Two seconds at once, then one each second.
    assert await delivery_times(log, 5) == [0.0, 0.0, 1.0, 2.0, 3.0]


@virtual_time
async def test_a_chunk_longer_than_the_lead_goes_when_nothing_is_ahead_of_it() -> None:
    log = EventLog(100.0, max_audio_lead_s=0.5)
    log.append("audio", 1, 3.0)
    log.append("audio", 1, 3.0)
    assert await delivery_times(log, 2) == [0.0, 3.0]


@virtual_time
async def test_the_lead_counts_from_delivery() -> None:
    """What a pause has played is no lead."""
    log = EventLog(100.0, max_audio_lead_s=1.0)
    log.append("audio", 1, 1.0)
    await log.next()
    await asyncio.sleep(10)
    log.append("audio", 1, 1.0)
    log.append("audio", 1, 1.0)
    assert await delivery_times(log, 2) == [10.0, 11.0]


@virtual_time
async def test_other_events_wait_for_the_audio_before_them_only() -> None:
    log = EventLog(100.0, max_audio_lead_s=1.0)
    log.append("audio", 1, 1.0)
    log.append("note", 1)
    log.append("audio", 1, 1.0)
    log.append("note", 1)
    assert await delivery_times(log, 4) == [0.0, 0.0, 1.0, 1.0]


@virtual_time
async def test_a_barge_in_forgets_the_lead() -> None:
    log = EventLog(100.0, max_audio_lead_s=1.0)
    log.append("old", 1, 1.0)
    log.append("old", 1, 1.0)
    await log.next()
    reader = asyncio.create_task(log.next())
    await asyncio.sleep(0.25)
    log.take_back(lambda event: event == "old")
    log.forget_lead()
    log.append("new", 2, 1.0)
    assert await reader == Entry("new", 2, 1.0)
    assert now() == pytest.approx(0.25)


@virtual_time
async def test_a_paced_reader_is_not_woken_into_haste() -> None:
    log = EventLog(100.0, max_audio_lead_s=1.0)
    log.append("audio", 1, 1.0)
    log.append("audio", 1, 1.0)
    await log.next()
    reader = asyncio.create_task(log.next())
    for _ in range(5):
        await asyncio.sleep(0.1)
        log.append("note", 1)
    assert not reader.done()
    await reader
    assert now() == pytest.approx(1.0, abs=0.01)


@given(
    st.lists(st.floats(0.001, 3.0), min_size=1, max_size=30),
    st.floats(0.1, 3.0),
)
def test_the_lead_is_never_passed(pieces: list[float], lead_s: float) -> None:
    async def main() -> None:
        log = EventLog(1e9, max_audio_lead_s=lead_s)
        for piece in pieces:
            log.append("audio", 1, piece)
        played_until = 0.0
        for index, piece in enumerate(pieces):
            await log.next()
            ahead = max(0.0, played_until - now())
            assert index == 0 or ahead <= 0.002 or ahead + piece <= lead_s + 0.002
            played_until = max(now(), played_until) + piece
        assert now() <= sum(pieces) + 0.001, "and nobody waits for longer than the audio plays"

    run_virtual(main())


# -- nothing lost, doubled or out of order -----------------------------------------------------------------------


@dataclass(frozen=True)
class Append:
    tag: int
    audio_s: float


@dataclass(frozen=True)
class Read:
    pass


@dataclass(frozen=True)
class GiveUp:
    """A reader begins to wait, and is cancelled."""


@dataclass(frozen=True)
class TakeBack:
    tag: int


@dataclass(frozen=True)
class Wait:
    seconds: float


steps = st.one_of(
    st.builds(Append, st.integers(0, 3), st.sampled_from([0.0, 0.0, 0.1, 0.3, 1.5])),
    st.just(Read()),
    st.just(GiveUp()),
    st.builds(TakeBack, st.integers(0, 3)),
    st.builds(Wait, st.floats(0.0, 2.0)),
)


@given(st.lists(steps, max_size=40), st.sampled_from([None, 0.5]))
def test_every_event_leaves_once_and_in_order_or_is_taken_back_once(
    script: list[Any], lead_s: float | None
) -> None:
    async def main() -> None:
        log = EventLog(1.0, lead_s)
        waiting: list[tuple[int, int]] = []  # the model: (tag, number)
        audio: dict[int, float] = {}
        number = 0

        def is_of(tag: int) -> Callable[[Any], bool]:
            return lambda event: bool(event[0] == tag)

        for step in script:
            match step:
                case Append():
                    number += 1
                    audio[number] = step.audio_s
                    waiting.append((step.tag, number))
                    log.append((step.tag, number), number, step.audio_s)
                case Read() if waiting:
                    entry = await log.next()
                    assert entry is not None
                    assert entry.event == waiting.pop(0)
                    assert entry.acknowledged_input_sequence == entry.event[1]
                case GiveUp():
                    reader = asyncio.create_task(log.next())
                    await asyncio.sleep(0)
                    if not reader.done():
                        reader.cancel()
                        await settle()
                    if not reader.cancelled():
                        entry = await reader
                        assert entry is not None
                        assert entry.event == waiting.pop(0)
                case TakeBack():
                    gone = [e for e in waiting if e[0] == step.tag]
                    assert log.take_back(is_of(step.tag)) == gone
                    waiting = [e for e in waiting if e[0] != step.tag]
                case Wait():
                    await asyncio.sleep(step.seconds)
            assert list(log) == waiting
            expected_s = sum(audio[n] for _, n in waiting)
            assert log.waiting_audio_s == pytest.approx(expected_s, abs=1e-9)
            assert (log.waiting_audio_s == 0) == (expected_s == 0)
            if abs(expected_s - 1.0) > 1e-6:
                assert log.full is (expected_s >= 1.0)
        log.close()
        rest = []
        while (entry := await log.next()) is not None:
            rest.append(entry.event)
        assert rest == waiting

    run_virtual(main())
