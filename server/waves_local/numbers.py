"""Spoken numbers in written form: "two hundred forty nine dollars" -> "$249". English."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from waves_local.engine import HeardWord

_DIGITS = {w: n for n, w in enumerate("zero one two three four five six seven eight nine".split())}
_TEENS = {
    w: n
    for n, w in enumerate(
        "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split(), 10
    )
}
_TENS = {w: 10 * n for n, w in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_ORDINALS = {
    **{w: n for n, w in enumerate("first second third fourth fifth sixth seventh eighth ninth".split(), 1)},
    **{
        w: n
        for n, w in enumerate(
            "tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth "
            "nineteenth".split(),
            10,
        )
    },
    "twentieth": 20,
    "thirtieth": 30,
}
_MONTHS = frozenset(
    "january february march april may june july august september october november december".split()
)
_NUMBER_WORDS = _DIGITS.keys() | _TEENS.keys() | _TENS.keys() | _SCALES.keys()
_EDGES = re.compile(r"\A\W+|\W+\Z")
_END_MARK = re.compile(r"[.,?!;:]+\Z")


def bare(text: str) -> str:
    """A word without its punctuation and case."""
    return _EDGES.sub("", text).lower()


def is_number_word(text: str) -> bool:
    """Whether a number may go on with this word."""
    return bare(text) in _NUMBER_WORDS


def digits_of(text: str) -> str:
    """The digits that a word stands for, as in a dictated phone number; "" where it is none."""
    word = bare(text)
    if word.replace("-", "").isdigit() and word.isascii():
        return word.replace("-", "")
    if word == "oh":
        return "0"
    for table in (_DIGITS, _TEENS, _TENS):
        if word in table:
            return str(table[word])
    return ""


@dataclass(frozen=True, slots=True)
class _Number:
    end: int
    """Index of the word after it."""
    groups: tuple[int, ...]
    is_dictated: bool
    """Single digits, one after the other."""

    @property
    def written(self) -> str:
        return "".join(map(str, self.groups))


def _read(words: Sequence[str], start: int) -> _Number | None:
    """The number that begins here."""
    at, groups = start, list[int]()
    names: list[str] = []
    while (found := _read_group(words, at)) is not None:
        at, value = found
        groups.append(value)
        names.append(words[at - 1])
    if not groups:
        return None
    is_dictated = len(groups) > 1 and all(n in _DIGITS or n == "oh" for n in words[start:at])
    return _Number(at, tuple(groups), is_dictated)


def _read_group(words: Sequence[str], start: int) -> tuple[int, int] | None:
    """One cardinal: "two hundred and forty nine", "thirty", "five"; also "oh" within digits."""
    total, current, at = 0, -1, start
    while at < len(words):
        word = words[at]
        if word in _SCALES and current > 0:
            scale = _SCALES[word]
            if scale == 100:
                if current >= 100:
                    break
                current *= 100
            else:
                total, current = total + current * scale, 0
        elif word in _TENS and (
            current == -1 or (current % 100 == 0 and at > start and _is_scale(words[at - 1]))
        ):
            current = max(current, 0) + _TENS[word]
        elif word in _TEENS and (current == -1 or (current % 100 == 0 and _is_scale(words[at - 1]))):
            current = max(current, 0) + _TEENS[word]
        elif word in _DIGITS and (
            current == -1
            or (at > start and (_is_scale(words[at - 1]) or (words[at - 1] in _TENS and _DIGITS[word])))
        ):
            current = max(current, 0) + _DIGITS[word]
        elif word == "oh" and current == -1 and start > 0 and words[start - 1] in (_DIGITS.keys() | {"oh"}):
            return at + 1, 0
        elif word == "and" and at > start and _is_scale(words[at - 1]) and _joins(words, at + 1):
            pass
        else:
            break
        at += 1
    return None if current == -1 else (at, total + current)


def _is_scale(word: str) -> bool:
    return word in _SCALES or word == "and"


def _joins(words: Sequence[str], at: int) -> bool:
    return at < len(words) and words[at] in (_DIGITS.keys() | _TEENS.keys() | _TENS.keys())


def written(words: Sequence[HeardWord]) -> list[HeardWord]:
    """The words with numbers, amounts, times and dates in written form.

    Words that melt into one span the time of all of them. A lone number below ten stays a word, unless it counts
    something or names a day.
    """
    # A mark ends a number, so a word with a mark is followed by a wall that no number crosses.
    plain: list[str] = []
    places: list[int] = []
    for index, word in enumerate(words):
        plain.append(bare(word.text))
        places.append(index)
        if _END_MARK.search(word.text):
            plain.append("|")
            places.append(index)
    found: list[HeardWord] = []
    at = 0
    while at < len(plain):
        if plain[at] == "|":
            at += 1
            continue
        match = _match(plain, at)
        if match is None:
            word = words[places[at]]
            if plain[at] in _MONTHS and at + 1 < len(plain) and _day(plain, at + 1):
                word = replace(word, text=word.text.capitalize())
            found.append(word)
            at += 1
            continue
        end, text = match
        first, last = words[places[at]], words[places[end - 1]]
        mark = _END_MARK.search(last.text)
        covered = words[places[at] : places[end - 1] + 1]
        found.append(
            HeardWord(
                text + (mark[0] if mark else ""),
                first.start_s,
                last.end_s,
                min(w.confidence for w in covered),
                first.speaker,
            )
        )
        at = end
    return found


def _day(plain: Sequence[str], at: int) -> int:
    """The day of the month that begins here, 0 where none does."""
    if plain[at] in _ORDINALS:
        return _ORDINALS[plain[at]]
    if plain[at] in _TENS and at + 1 < len(plain) and plain[at + 1] in _ORDINALS:
        return _TENS[plain[at]] + _ORDINALS[plain[at + 1]]
    number = _read_group(plain, at)
    return number[1] if number is not None and 1 <= number[1] <= 31 else 0


def _match(plain: Sequence[str], at: int) -> tuple[int, str] | None:
    """What begins here in written form, and where it ends; `None` where the word stays as it is."""
    follows_month = at > 0 and plain[at - 1] in _MONTHS
    if follows_month and (day := _day(plain, at)):
        # The day alone: a year may follow it and is read by itself.
        if plain[at] in _ORDINALS:
            return at + 1, str(day)
        if plain[at] in _TENS and at + 1 < len(plain) and plain[at + 1] in _ORDINALS:
            return at + 2, str(day)
        group = _read_group(plain, at)
        assert group is not None
        return group[0], str(day)
    number = _read(plain, at)
    if number is None:
        return None
    end = number.end
    unit = plain[end] if end < len(plain) else ""
    if unit in {"dollar", "dollars"} and not number.is_dictated:
        amount = f"${number.written}"
        after = end + 2 if plain[end + 1 : end + 2] == ["and"] else end + 1
        cents = _read_group(plain, after)
        if cents is not None and plain[cents[0] : cents[0] + 1] in (["cents"], ["cent"]) and cents[1] < 100:
            return cents[0] + 1, f"{amount}.{cents[1]:02d}"
        return end + 1, amount
    if unit == "percent":
        return end + 1, f"{number.written}%"
    if unit == "point" and (fraction := _read(plain, end + 1)) is not None:
        return fraction.end, f"{number.written}.{fraction.written}"
    if unit in {"am", "pm"} and number.groups[0] <= 12 and len(number.groups) <= 2:
        minutes = f":{number.groups[1]:02d}" if len(number.groups) == 2 else ""
        return end + 1, f"{number.groups[0]}{minutes} {unit.upper()}"
    if len(number.groups) == 1 and number.groups[0] < 10:
        return None
    return end, number.written
