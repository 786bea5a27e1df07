"""From recognized words to the transcript that was asked for."""

from __future__ import annotations

import pytest
from waves_local import numbers
from waves_local.engine import HeardWord
from waves_local.redaction import Redactor
from waves_local.transcript import Style, Writer, joined, sentences


def words(text: str) -> list[HeardWord]:
    """One word a second."""
    return [HeardWord(w, float(i), i + 0.5) for i, w in enumerate(text.split())]


@pytest.mark.parametrize(
    ("spoken", "written"),
    [
        ("five five five one two three four", "5551234"),
        ("call five five oh one", "call 5501"),
        ("two hundred forty nine dollars", "$249"),
        ("two hundred and forty nine dollars and fifty cents", "$249.50"),
        ("one thousand two hundred", "1200"),
        ("three million", "3000000"),
        ("twenty five percent of it", "25% of it"),
        ("twelve apples and thirty pears", "12 apples and 30 pears"),
        ("three point one four", "3.14"),
        ("three thirty pm", "3:30 PM"),
        ("at nine am", "at 9 AM"),
        ("on march fifteen twenty twenty five", "on March 15 2025"),
        ("july fourth", "July 4"),
        ("may twenty first", "May 21"),
        ("one two three four main street", "1234 main street"),
        ("the first one of two", "the first one of two"),
        ("you may go", "you may go"),
        ("ten, twenty, and thirty.", "10, 20, and 30."),
        ("nineteen eighty four", "1984"),
        ("a hundred", "a hundred"),
        ("oh no", "oh no"),
        ("one and two", "one and two"),
        ("", ""),
    ],
)
def test_spoken_numbers_in_written_form(spoken: str, written: str) -> None:
    assert joined(numbers.written(words(spoken))) == written


def test_a_written_number_spans_the_time_of_its_words() -> None:
    heard = words("it is twenty five dollars now")
    *_, amount, now = numbers.written(heard)
    assert (amount.text, amount.start_s, amount.end_s) == ("$25", 2.0, 4.5)
    assert now == heard[-1]


@pytest.mark.parametrize(
    ("text", "pii", "pci"),
    [
        ("this is alice miller", "this is [FIRSTNAME_1] [LASTNAME_1]", None),
        ("tell alice tomorrow", "tell [FIRSTNAME_1] tomorrow", None),
        ("alice and alice", "[FIRSTNAME_1] and [FIRSTNAME_2]", None),
        ("phone five five five one two three four five six seven.", "phone [PHONENUMBER_1].", None),
        ("phone 555-123-4567, please", "phone [PHONENUMBER_1], please", None),
        ("one two three four main street", "[ADDRESS_1]", None),
        ("card 4242 4242 4242 4242 ok", None, "card [ACCOUNTNUMBER_1] ok"),
        ("with cvv one two three", None, "with cvv [ACCOUNTNUMBER_1]"),
        ("zip code 94105", None, "zip code [ZIPCODE_1]"),
        ("two plus two", None, None),
    ],
)
def test_redaction(text: str, pii: str | None, pci: str | None) -> None:
    heard = words(text)
    assert joined(Redactor(pii=False, pci=False).redact(heard)[0]) == text
    assert joined(Redactor(pii=True, pci=False).redact(heard)[0]) == (pii or text)
    assert joined(Redactor(pii=False, pci=True).redact(heard)[0]) == (pci or text)


def test_placeholders_are_numbered_through_the_session_and_previews_use_none_up() -> None:
    redactor = Redactor(pii=True, pci=False)
    assert redactor.preview(words("alice"))[1] == ["[FIRSTNAME_1]"]
    assert redactor.redact(words("alice"))[1] == ["[FIRSTNAME_1]"]
    assert redactor.preview(words("bob"))[1] == ["[FIRSTNAME_2]"]
    assert redactor.redact(words("bob"))[1] == ["[FIRSTNAME_2]"]


@pytest.mark.parametrize(
    ("style", "partial", "final"),
    [
        (Style(), "Well i'm here", "Well I'm here."),
        (Style(punctuate=False), "Well i'm here", "Well I'm here"),
        (Style(capitalize=False), "well i'm here", "well i'm here."),
        (Style(punctuate=False, capitalize=False), "well i'm here", "well i'm here"),
    ],
)
def test_bare_words_get_punctuation_and_case(style: Style, partial: str, final: str) -> None:
    writer = Writer(style, language="en", comes_punctuated=False)
    heard = words("well i'm here")
    assert writer.partial(heard).text == partial.replace("i'm", "I'm" if style.capitalize else "i'm")
    assert writer.final(heard).text == final


def test_other_languages_are_not_redacted() -> None:
    writer = Writer(Style(redact_pii=True), language="de", comes_punctuated=True)
    assert writer.final(words("hier ist alice")).text == "hier ist alice"


def test_sentences_end_at_marks_and_speakers() -> None:
    heard = [*words("Hi there. You"), HeardWord("what?", 5, 6, speaker=1)]
    assert [[w.text for w in s] for s in sentences(heard)] == [["Hi", "there."], ["You"], ["what?"]]
