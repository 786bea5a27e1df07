"""What of a text is a word, what is said for it, and when it is heard."""

from __future__ import annotations

import pytest

pytest.importorskip(
    "waves_local.speech", reason="the optional extra wavegate[speech] is not installed", exc_type=ImportError
)

from waves_local.speech.text import WordClock, language_of, runs, tokens


def words(text: str) -> list[str]:
    return [text[token.start : token.end] for token in tokens(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world!", ["Hello", "world"]),
        ("It's $100 (50%) for #1 — e-mail me.", ["It's", "$100", "50%", "for", "#1", "e-mail", "me"]),
        ("“Quoted” …", ["Quoted"]),
        ("नमस्ते दुनिया।", ["नमस्ते", "दुनिया"]),
        ("今天 ok", ["今", "天", "ok"]),
        ("I am 😀", ["I", "am", "😀"]),
        ("  \n\t ", []),
    ],
)
def test_a_word_is_what_stands_between_blanks_without_the_punctuation_around_it(
    text: str, expected: list[str]
) -> None:
    assert words(text) == expected


def test_one_language_is_one_run_and_every_character_leads_back_to_the_text() -> None:
    (run,) = runs("It costs $100 today.", "en")
    assert run.spoken == "It costs $100 today."
    assert run.source == tuple(range(20))
    assert run.language == "en"


def test_numbers_in_another_language_are_runs_of_their_own() -> None:
    text = "It costs $100 for 2 days."
    found = runs(text, "en", "hi")
    assert [(run.spoken.strip(), run.language) for run in found] == [
        ("It costs", "en"),
        ("$100", "hi"),
        ("for", "en"),
        ("2", "hi"),
        ("days.", "en"),
    ]
    for run in found:
        assert "".join(text[i] for i in run.source) == run.spoken


@pytest.mark.parametrize(
    ("text", "numbers", "spoken"),
    [
        ("5x3 = 15", None, "5 times 3 equals 15"),
        ("6 ÷ 2 + 1", None, "6 divided by 2 plus 1"),
        ("2^10, 2**10", None, "2 to the power of 10, 2 to the power of 10"),
        ("9 - 4 and 8 / 2", None, "9 minus 4 and 8 divided by 2"),
        ("pages 5-3, 1/2 cup, 3 apples x pears", None, "pages 5-3, 1/2 cup, 3 apples x pears"),
        ("6 x 7", "hi", "6 गुणा 7"),
        ("6 x 7", "mr", "6 गुणिले 7"),
        ("6 x 7", "de", "6 times 7"),
    ],
)
def test_math_notation_reads_operators_between_digits(text: str, numbers: str | None, spoken: str) -> None:
    found = runs(text, "en", numbers, math_notation=True)
    assert " ".join("".join(run.spoken for run in found).split()) == spoken


def test_without_math_notation_operators_are_left_alone() -> None:
    assert runs("5 x 3", "en")[0].spoken == "5 x 3"


def test_an_operator_leads_back_to_its_sign() -> None:
    (run,) = runs("5 x 3", "en", math_notation=True)
    assert {run.source[i] for i in range(run.spoken.index("t"), run.spoken.index("s") + 1)} == {2}


def test_control_characters_would_be_commands_and_become_blanks() -> None:
    (run,) = runs("a\x01\x00b", "en")
    assert run.spoken == "a  b"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("hello", None),
        ("café", None),
        ("say नमस्ते", "hi"),
        ("привет", "ru"),
        ("こんにちは", "ja"),
        ("日本語です", "ja"),
        ("你好", "zh"),
        ("வணக்கம்", "ta"),
    ],
)
def test_a_script_points_to_a_language(text: str, language: str | None) -> None:
    assert language_of(text) == language


class TestWordClock:
    def test_a_word_ends_where_the_next_begins_or_where_it_is_silent(self) -> None:
        clock = WordClock("one two, three")
        assert clock.word(0, 0.0) == []
        assert [(w.text, w.start_s, w.end_s) for w in clock.word(4, 0.3)] == [("one", 0.0, 0.3)]
        clock.pause(0.6)
        assert [(w.text, w.start_s, w.end_s) for w in clock.word(9, 1.0)] == [("two", 0.3, 0.6)]
        assert [(w.text, w.start_s, w.end_s) for w in clock.end(1.5)] == [("three", 1.0, 1.5)]

    def test_several_reports_of_one_word_are_one_word(self) -> None:
        clock = WordClock("costs $100 now")
        clock.word(0, 0.0)
        assert [w.text for w in clock.word(6, 0.5)] == ["costs"]
        assert clock.word(7, 0.9) == []
        assert [(w.text, w.start_s, w.end_s) for w in clock.word(11, 1.5)] == [("$100", 0.5, 1.5)]

    def test_words_spoken_as_one_share_the_time_by_their_letters(self) -> None:
        clock = WordClock("I am glad")
        clock.word(0, 0.0)
        shared = clock.word(5, 0.6)
        assert [w.text for w in shared] == ["I", "am"]
        assert [(w.start_s, w.end_s) for w in shared] == [
            (0.0, pytest.approx(0.2)),
            (pytest.approx(0.2), 0.6),
        ]

    def test_a_sign_that_was_not_spoken_has_no_time(self) -> None:
        clock = WordClock("fine 🫠 then")
        clock.word(0, 0.0)
        assert [w.text for w in clock.word(7, 0.5)] == ["fine"]

    def test_an_opening_bracket_belongs_to_what_follows(self) -> None:
        clock = WordClock("a (b)")
        clock.word(0, 0.0)
        assert [w.text for w in clock.word(2, 0.2)] == ["a"]
        assert [w.text for w in clock.end(0.4)] == ["b"]

    def test_a_text_without_words_has_no_times(self) -> None:
        clock = WordClock("...")
        assert clock.word(0, 0.0) == []
        assert clock.end(1.0) == []
