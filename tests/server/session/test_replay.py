"""What is kept of the audio, what is let go, and what falls out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wavegate_server.session.replay import MAX_FRAMES, AudioHistory
from wavegate_server.waves.framing import Piece


def pcm(samples: int, value: int) -> Piece:
    return Piece(bytes([value % 256]) * 2 * samples, samples)


def filled(*lengths: int) -> AudioHistory:
    history = AudioHistory(2)
    for number, length in enumerate(lengths):
        history.append(pcm(length, number), number + 1, float(number))
    return history


def places(history: AudioHistory) -> list[tuple[int, int]]:
    frames = [history.frame(i) for i in range(history.first_index, history.next_index)]
    return [(f.start, f.end) for f in frames]


def test_frames_lie_behind_each_other() -> None:
    history = filled(10, 20, 5)
    assert places(history) == [(0, 10), (10, 30), (30, 35)]
    assert (history.start, history.end, history.kept) == (0, 35, 35)
    assert history.frame(1).data == bytes([1]) * 40
    assert (history.frame(2).input_sequence, history.frame(2).received_at) == (3, 2.0)


def test_frames_are_references() -> None:
    data = bytes(20)
    history = AudioHistory(2)
    history.append(Piece(data, 10), 1, 0.0)
    assert history.frame(0).data is data


def test_a_final_lets_go_of_what_it_covers_to_the_sample() -> None:
    history = filled(10, 20, 5)
    history.cover(13)
    assert places(history) == [(13, 30), (30, 35)]
    assert history.frame(1).data == bytes([1]) * 34
    assert (history.start, history.first_index, history.passed_sequence) == (13, 1, 2)
    history.cover(13)
    history.cover(4)  # finals come in order, but a late one does no harm
    assert places(history) == [(13, 30), (30, 35)]
    history.cover(35)
    assert (len(history), history.start, history.end) == (0, 35, 35)
    history.append(pcm(5, 9), 9, 9.0)
    assert places(history) == [(35, 40)]
    with pytest.raises(IndexError):
        history.frame(2)


def test_only_what_was_sent_falls_out() -> None:
    history = filled(10, 10, 10, 10)
    assert [f.start for f in history.evict(15, before_index=2)] == [0, 10]
    assert history.kept == 20
    assert history.evict(15, before_index=2) == []
    assert [f.start for f in history.evict(15, before_index=4)] == [20]
    assert history.start == 30


def test_tiny_messages_are_bounded_too() -> None:
    history = filled(*[1] * (MAX_FRAMES + 10))
    assert len(history.evict(10**9, before_index=10**9)) == 10


def test_the_frame_before_a_place_is_found() -> None:
    history = filled(10, 20, 5)
    assert history.at(10) is history.frame(0)
    assert history.at(11) is history.frame(1)
    assert history.at(35) is history.frame(2)
    assert history.at(36) is None
    assert history.at(0) is None
    history.cover(20)
    assert history.at(15) is None


# Frames that cannot be cut: Opus packets, Ogg pages.


def opus(*pieces: Piece, lead_in: int = 0) -> AudioHistory:
    history = AudioHistory(0)
    history.lead_in = lead_in
    for number, piece in enumerate(pieces):
        history.append(piece, number + 1, float(number))
    return history


def test_packets_are_kept_whole() -> None:
    history = opus(*[Piece(b"p", 960)] * 4)
    history.cover(1000)
    assert places(history)[0] == (960, 1920)
    assert history.start == 960
    history.cover(3840)
    assert places(history) == [(2880, 3840)]


def test_header_pages_are_kept_apart_and_for_ever() -> None:
    history = opus(Piece(b"head", 0, header=True), Piece(b"tags", 0, header=True), Piece(b"a", 960))
    history.cover(960)
    assert history.headers == [b"head", b"tags"]
    assert (history.start, history.end) == (0, 960)


def test_a_decoder_that_begins_again_drops_its_lead_in_again() -> None:
    """So it has to begin that much earlier."""
    history = opus(*[Piece(b"p", 960)] * 4, lead_in=312)
    assert places(history)[0] == (-312, 648)
    assert (history.start, history.end) == (0, 3528)
    history.cover(700)
    # The packet at 648 holds it, but a decoder that begins there hears nothing before 960.
    assert history.start == 0
    history.cover(960)
    assert history.start == 960


def test_a_decoder_cannot_begin_on_a_continued_page() -> None:
    history = opus(Piece(b"a", 960), Piece(b"b", 960), Piece(b"c", 960, fresh=False), Piece(b"d", 960))
    history.cover(2000)
    assert places(history)[0] == (960, 1920)
    assert [f.data for f in history.evict(1000, before_index=4)] == [b"b", b"c"]
    assert places(history) == [(2880, 3840)]


def test_a_boundary_lets_no_packet_from_before_it_be_sent_again() -> None:
    """Not even those that a decoder would need to hear the first sample behind it."""
    for lead_in in (0, 312):
        history = opus(*[Piece(b"p", 960)] * 4, lead_in=lead_in)
        history.begin_at(1920 - lead_in)
        assert places(history)[0] == (1920 - lead_in, 2880 - lead_in)
        history.begin_at(3840 - lead_in)
        assert len(history) == 0
    history = filled(10, 20, 5)
    history.begin_at(13)
    assert places(history) == [(13, 30), (30, 35)]


def test_a_place_has_a_first_frame_behind_it() -> None:
    history = filled(10, 20, 5)
    assert [history.index_at(p) for p in (-5, 0, 1, 10, 11, 30, 31, 35, 99)] == [0, 0, 1, 1, 2, 2, 3, 3, 3]
    history.cover(13)
    assert [history.index_at(p) for p in (0, 13, 14)] == [1, 1, 2]


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=30),
    finals=st.lists(st.integers(0, 1500), max_size=10),
)
def test_a_replay_begins_exactly_where_the_finals_end(lengths: list[int], finals: list[int]) -> None:
    history = filled(*lengths)
    covered = 0
    for position in sorted(min(f, sum(lengths)) for f in finals):
        history.cover(position)
        covered = position
    assert history.start == covered
    kept = b"".join(history.frame(i).data for i in range(history.first_index, history.next_index))
    everything = b"".join(bytes([n % 256]) * 2 * length for n, length in enumerate(lengths))
    assert kept == everything[2 * covered :]
