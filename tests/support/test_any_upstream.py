"""The proof that audio is whole can fail."""

from __future__ import annotations

import pytest

from tests.support.any_upstream import CHUNK_S, RATE_HZ, SPEEDS, pcm_of, read_back

CHAR_S = 0.06
HELLO = pcm_of("hello", CHAR_S, 0)
CHAR_BYTES = len(HELLO) // 5


def test_characters_are_read_back_at_every_speed() -> None:
    for kind in range(len(SPEEDS)):
        assert read_back(pcm_of("hello there", CHAR_S, kind), CHAR_S) == ("hello there", "")
    assert read_back(HELLO + pcm_of(" you", CHAR_S, 1), CHAR_S) == ("hello you", "")


def test_a_character_that_is_cut_off_is_told() -> None:
    assert read_back(HELLO[: -CHAR_BYTES // 2], CHAR_S) == ("hell", "o")
    assert read_back(HELLO[:-8], CHAR_S) == ("hello", ""), "by less than times of words are rounded"


@pytest.mark.parametrize("at", [8, CHAR_BYTES - 8, CHAR_BYTES + 100, 2 * CHAR_BYTES + 32])
@pytest.mark.parametrize("size", [16, 160, CHAR_BYTES, round(RATE_HZ * CHUNK_S) * 2])
def test_a_hole_is_found_wherever_it_is(at: int, size: int) -> None:
    assert read_back(HELLO, CHAR_S) == ("hello", "")
    try:
        found = read_back(HELLO[:at] + HELLO[at + size :], CHAR_S)
    except AssertionError:
        return
    assert found != ("hello", "")


def test_what_comes_twice_within_a_character_is_found() -> None:
    with pytest.raises(AssertionError):
        read_back(HELLO[: CHAR_BYTES + 160] + HELLO[CHAR_BYTES + 80 :], CHAR_S)
