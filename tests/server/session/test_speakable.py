"""What is taken out of a text before it is spoken: one sequence a row, whole and in pieces of any size."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wavegate_server.session.speakable import MAX_SEQUENCE_CHARS, Speakable, speakable

TEXTS = [
    # Nothing to take out.
    ("", ""),
    ("plain, é, 日本, 🙂", "plain, é, 日本, 🙂"),
    (
        "tab\tline\nreturn\rvertical\x0bform\x0cnext\x85end",
        "tab\tline\nreturn\rvertical\x0bform\x0cnext\x85end",
    ),
    (
        "\ufeff\u200bzero\u200d\u200cwidth\u00ad \u202ebidi\u2066",
        "\ufeff\u200bzero\u200d\u200cwidth\u00ad \u202ebidi\u2066",
    ),
    # Single characters.
    ("Hel\x02lo", "Hello"),
    ("\x00Hello\x00", "Hello"),
    ("helo\x08lo", "helolo"),
    ("bell\x07 del\x7f sub\x1a", "bell del sub"),
    ("don\x92t", "dont"),
    ("\x00\x01\x1f\x80\x9f", ""),
    # Escape sequences, whole.
    ("\x1b[31mred\x1b[0m text", "red text"),
    ("\x1b[1;38;2;255;0;0mbold\x1b[m", "bold"),
    ("\x1b[38:2::1:2:3mcolons", "colons"),
    ("\x9b31meight bits", "eight bits"),
    ("\x1b[2J\x1b[H\x1b[?25l\x1b[5 q\x1b[!pcursor", "cursor"),
    ("\x1b]0;a title\x07Hello", "Hello"),
    ("\x1b]8;;https://example.com/a?b=c\x1b\\the link\x1b]8;;\x1b\\.", "the link."),
    ("\x1b]8;;https://example.com\x9cthe link\x1b]8;;\x9c.", "the link."),
    ("\x1bP1$r0m\x1b\\\x1b_payload\x1b\\Hello", "Hello"),
    ("\x1b(B\x1b)0\x1b#8Hello", "Hello"),
    ("\x1bc\x1b7\x1b[2J Hello \x1b8", " Hello "),
    # Escape characters that begin no sequence: no letter of the text is lost.
    ("Hel\x1blo", "Hello"),
    ("\x1bHello", "Hello"),
    ("\x1bPeter and \x1bXaver", "Peter and Xaver"),
    ("\x1b 5 miles", " 5 miles"),
    ("\x1b7x", "7x"),
    ("\x1b]hello", "hello"),
    # Sequences that never end.
    ("Hello\x1b", "Hello"),
    ("Hello\x1b[", "Hello"),
    ("Hello\x1b[31", "Hello"),
    ("\x1b[31é", "é"),
    ("\x1b[31\x1b[32mgreen", "green"),
    ("\x1b]0;words", "0;words"),
    ("\x1b]0;words\nand more\x07", "0;words\nand more"),
    ("\x1bP" + "w" * (MAX_SEQUENCE_CHARS + 1), "P" + "w" * (MAX_SEQUENCE_CHARS + 1)),
]


@pytest.mark.parametrize(("text", "spoken"), TEXTS)
def test_what_is_spoken_of_a_text(text: str, spoken: str) -> None:
    assert speakable(text)[0] == spoken


@pytest.mark.parametrize(("text", "spoken"), TEXTS)
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_cut_between_messages_changes_nothing(text: str, spoken: str, size: int) -> None:
    cleaner = Speakable()
    pieces = [cleaner.add(text[at : at + size]) for at in range(0, len(text), size)]
    assert "".join(pieces) + cleaner.finish() == spoken


@given(st.lists(st.text(alphabet="\x1b[]0;1mMP\\\x07\x9b\x9c a8(Bq!_\x02é", max_size=6)))
def test_any_pieces_say_what_the_whole_says_and_nothing_that_cannot_be_said(pieces: list[str]) -> None:
    cleaner = Speakable()
    said = "".join([cleaner.add(piece) for piece in pieces]) + cleaner.finish()
    whole, removed = speakable("".join(pieces))
    assert said == whole
    assert cleaner.removed == removed
    assert not any(unicodedata.category(c) == "Cc" and not c.isspace() for c in said)


@given(st.text(), st.text())
def test_what_is_no_control_character_is_never_taken_out(before: str, after: str) -> None:
    kept = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
    before, after = kept.sub("", before), kept.sub("", after)
    assert speakable(before + "\x02" + after) == (before + after, "U+0002")


def test_text_is_not_held_back_without_need() -> None:
    cleaner = Speakable()
    assert cleaner.add("Hello ") == "Hello "
    assert cleaner.add("there\x1b[3") == "there"
    assert cleaner.add("1m, you") == ", you"
    assert cleaner.finish() == ""


def test_a_stray_escape_holds_back_a_bounded_length() -> None:
    cleaner = Speakable()
    held = 0
    while not cleaner.add("\x1b_" if held == 0 else "w"):
        held += 1
        assert held <= MAX_SEQUENCE_CHARS + 1


@pytest.mark.parametrize(
    ("pieces", "removed"),
    [(["plain"], ""), (["a\x1b[0m", "\x02"], "U+001B"), (["a\x02"], "U+0002"), (["a", "b\x1b"], "U+001B")],
)
def test_the_first_character_taken_out_is_known(pieces: list[str], removed: str) -> None:
    cleaner = Speakable()
    for piece in pieces:
        cleaner.add(piece)
    assert cleaner.removed == removed
