"""How the end of a request is reckoned: the table, the releases of a text, the words, and what is learnt."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wavegate_server.waves import ending
from wavegate_server.waves.ending import (
    FORGET_S,
    LAST_WORD_S,
    LEARN_BLIND_REQUESTS,
    LEARN_REQUESTS,
    NOTHING_TO_SAY_S,
    OWED_S,
    PACE_CHARS,
    PACE_REQUESTS,
    REMEMBERED_VOICES,
    VERDICTS,
    Completes,
    Custom,
    Habits,
    Heard,
    PerRequest,
    Sends,
    SpokenWords,
    Verdict,
)

ROWS = list(itertools.product(Completes, Heard, Sends))


def test_the_table_has_a_row_for_everything_that_can_be_known() -> None:
    assert set(VERDICTS) == set(itertools.product(Completes, Heard))
    for row in VERDICTS.values():
        assert isinstance(row, Verdict) or set(row) == set(Sends)


@pytest.mark.parametrize(("completes", "heard", "sends"), ROWS)
def test_no_row_ends_what_is_known_to_be_missing(completes: Completes, heard: Heard, sends: Sends) -> None:
    verdict = ending.verdict(completes, heard, sends)
    if heard is Heard.MISSING:
        assert verdict is Verdict.STALL
        assert ending.hand_over_s(completes, heard, sends) is None


@pytest.mark.parametrize(("completes", "heard", "sends"), ROWS)
def test_a_short_silence_ends_only_what_owes_nothing(
    completes: Completes, heard: Heard, sends: Sends
) -> None:
    verdict = ending.verdict(completes, heard, sends)
    if verdict.quiet_s < OWED_S:
        known = heard in (Heard.NOTHING_TO_SAY, Heard.SOMETHING, Heard.LAST_WORD)
        assert known or completes is Completes.ALL or verdict is Verdict.HAS_LIKELY_ENDED
    if heard is Heard.SHORT and verdict is not Verdict.STALL:
        assert verdict.is_unconfirmed
    if verdict is Verdict.ENDED:
        assert completes is not Completes.NONE, "nothing is over at once without a word of the upstream"


@pytest.mark.parametrize(("completes", "heard", "sends"), ROWS)
def test_more_that_is_known_never_makes_an_end_later(
    completes: Completes, heard: Heard, sends: Sends
) -> None:
    order = list(Completes)
    if completes is Completes.ALL or heard is Heard.MISSING:
        return
    later = order[order.index(completes) + 1]
    assert ending.verdict(later, heard, sends).value <= ending.verdict(completes, heard, sends).value


@pytest.mark.parametrize(("completes", "heard", "sends"), ROWS)
def test_the_next_request_never_waits_longer_than_the_report(
    completes: Completes, heard: Heard, sends: Sends
) -> None:
    after_s = ending.hand_over_s(completes, heard, sends)
    verdict = ending.verdict(completes, heard, sends)
    if after_s is not None:
        assert after_s <= verdict.quiet_s or verdict is Verdict.ENDED


def test_the_times_are_those_of_the_contract() -> None:
    assert (OWED_S, LAST_WORD_S, NOTHING_TO_SAY_S) == (5.0, 1.0, 2.0)
    assert {v.quiet_s for v in Verdict} == {0.0, LAST_WORD_S, NOTHING_TO_SAY_S, OWED_S}


# -- releases ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" \n", 0),
        ("🙂 …", 0),
        ("Hello", 1),
        ("Hello.", 1),
        ("Hello. ", 1),
        ("Yes. No.", 2),
        ("Yes. No", 2),
        ("Dr. Smith came.", 2),
        ("What?! Really...", 2),
        ("He said “No.” And went.", 2),
        ("3.14 is pi.", 1),
        ("Yes.No", 2),
        ("One line\nand another", 2),
        ("你好。再见。", 2),
        ("नमस्ते। फिर मिलेंगे।", 2),
        ("a" * 150, 1),
        ("a" * 151, 2),
        ("a, " * 100 + ".", 3),
        (". . . Hello.", 1),
    ],
)
def test_the_most_releases_of_a_text(text: str, count: int) -> None:
    assert ending.possible_releases(text) == count


@given(st.text(st.sampled_from("ab. !\n…")), st.text(st.sampled_from("ab. !\n…")))
def test_more_text_is_never_fewer_releases(first: str, second: str) -> None:
    assert ending.possible_releases(first + second) >= ending.possible_releases(first) - 1
    assert (ending.possible_releases(first) > 0) == (ending.letters_of(first) > 0)


# -- words -------------------------------------------------------------------------------------------------------


def heard(text: str, *words: str) -> int | None:
    spoken = SpokenWords()
    for at, word in enumerate(words):
        spoken.add(text, word, at + 1.0)
    return spoken.left(text)


def test_words_tell_how_much_is_left() -> None:
    text = "Hello there. How are you?"
    assert heard(text) is None
    assert heard(text, "Hello") == 4
    assert heard(text, "Hello", "there.", "How", "are") == 1
    assert heard(text, *text.split()) == 0


def test_words_are_found_whatever_their_case_and_marks() -> None:
    assert heard("Don’t go, Anna!", "don’t", "GO", "anna") == 0


def test_words_that_are_spoken_otherwise_are_passed_over() -> None:
    assert heard("It costs 249 dollars today.", "It", "costs", "two", "hundred", "dollars", "today.") == 0


def test_words_of_which_few_are_found_tell_nothing() -> None:
    assert heard("12 34 56 78 it", "twelve", "thirty", "four", "fifty", "it") is None
    assert heard("你好再见", "你", "好") is None


def test_a_word_that_comes_again_much_later_is_no_sign_of_the_end() -> None:
    text = "go " + "on " * 20 + "go"
    assert heard(text, "go", "go") == 21


def test_marks_among_the_words_are_no_words() -> None:
    assert heard("Well - yes.", "Well", "-", "yes", ".") == 0


# -- what is learnt ----------------------------------------------------------------------------------------------


def test_a_custom_is_known_from_a_few_in_a_row() -> None:
    custom = Custom()
    for _ in range(LEARN_REQUESTS):
        assert not custom.sends_one(10)
        custom.see(PerRequest.ONE, 10, is_sure=True)
    assert custom.sends_one(10)
    assert not custom.sends_one(11), "nothing was seen of longer texts"
    custom.see(None, 5, is_sure=False)
    assert not custom.sends_one(10), "one that showed something else"


def test_what_could_have_been_one_release_teaches_slowly() -> None:
    custom = Custom()
    for _ in range(LEARN_BLIND_REQUESTS):
        assert not custom.sends_one(10)
        custom.see(PerRequest.ONE, 10, is_sure=False)
    assert custom.sends_one(10)


def test_a_pace_is_known_from_a_few_and_by_voice() -> None:
    habits = Habits()
    for _ in range(PACE_REQUESTS):
        assert habits.least_s("a", "x" * 100, 100, 1.0, prior=False, strict=False) == 0
        habits.spoken_whole("a", 100, 8.0)
    assert habits.least_s("a", "x" * 100, 100, 1.0, prior=True, strict=False) == pytest.approx(8.0 * 0.7)
    assert habits.least_s("a", "x" * 100, 100, 1.0, prior=True, strict=True) == pytest.approx(8.0 * 0.85)
    assert habits.least_s("b", "x" * 100, 100, 1.0, prior=True, strict=False) == pytest.approx(3.9)
    assert habits.least_s("b", "x" * 100, 100, 2.0, prior=True, strict=False) == pytest.approx(1.95)


def test_a_pace_tells_what_is_more_than_a_text_takes() -> None:
    habits = Habits()
    for audio_s in (8.0, 9.0, 8.5):
        assert not habits.is_more_than("a", "x" * 100, 100.0), "not known yet"
        habits.spoken_whole("a", 100, audio_s)
    assert not habits.is_more_than("a", "x" * 100, 9.9), "it varies"
    assert habits.is_more_than("a", "x" * 100, 10.1)
    assert not habits.is_more_than("b", "x" * 100, 100.0)


@pytest.mark.parametrize(
    ("text", "beginning"),
    [
        ("", ""),
        ("🙂 …", ""),
        ("Hello there", ""),
        ("Yes. No.", "Yes."),
        ("Yes. No. …", "Yes."),
        ("One. Two, and more.", "One."),
        ("a" * 151, "a" * 150),
        ("Yes. " + "a" * 301, "Yes. " + "a" * 300),
    ],
)
def test_what_can_be_spoken_without_the_last_release(text: str, beginning: str) -> None:
    assert ending.without_last_release(text).strip() == beginning.strip()


@given(st.text(st.sampled_from("ab. !\n…")))
def test_what_is_spoken_without_the_last_release_has_one_less(text: str) -> None:
    possible = ending.possible_releases(text)
    assert ending.possible_releases(ending.without_last_release(text)) == max(0, possible - 1)


def test_short_texts_teach_no_pace_and_old_voices_are_forgotten() -> None:
    habits = Habits()
    habits.spoken_whole("a", PACE_CHARS - 1, 8.0)
    assert not habits.paces
    for number in range(REMEMBERED_VOICES + 5):
        habits.spoken_whole(f"voice-{number}", 100, 8.0)
    assert len(habits.paces) == REMEMBERED_VOICES


def test_what_an_upstream_did_not_do_is_tried_again_some_time() -> None:
    habits = Habits()
    assert habits.obeys_cancel(0.0)
    assert habits.speaks_in_turn(0.0)
    habits.disobeyed_at = habits.out_of_turn_at = 100.0
    assert not habits.obeys_cancel(101.0)
    assert not habits.speaks_in_turn(101.0)
    assert habits.obeys_cancel(100.0 + FORGET_S)
    assert habits.speaks_in_turn(100.0 + FORGET_S)


def test_two_requests_without_a_complete_before_the_next_teach_that_none_comes() -> None:
    habits = Habits()
    habits.ended_without()
    assert habits.sends is Sends.UNKNOWN
    habits.ended_without()
    assert habits.sends is Sends.NEVER
    habits.completed(0.0)
    assert habits.sends is Sends.ALWAYS


def test_the_embedded_upstream_is_known_beforehand() -> None:
    habits = ending.habits_of_waves_local()
    assert habits.sends is Sends.ALWAYS
    assert habits.whole.sends_one(10**6)
    assert habits.streamed.sends_one(10**6)
    habits.late_audio("a", streamed=True)
    assert not habits.streamed.sends_one(1)
    assert habits.whole.sends_one(1), "the two are apart"
