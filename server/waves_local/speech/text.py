"""What of a text is a word, what is said for it, and in which language.

espeak-ng is handed `Run`s. It reports where it is by character offsets into them; `Run.source` leads from there
back to the text as the caller wrote it, and `WordClock` from there to words and their times.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass

from waves_local.engine import SpokenWord

# Scripts without blanks between words: each character is a word of its own.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
# Punctuation around a word is not part of it; signs that are spoken (%, $, #, @, &, +) are.
_EDGES = ".,;:!?…\"'`“”„‘’‚«»‹›()[]{}<>¡¿—–-_|/\\।॥،؛؟、。，！？；：「」『』（）·~"

# How operators between digits are read; every other language reads them in English.
_OPERATORS = {
    "en": {"×": "times", "÷": "divided by", "+": "plus", "-": "minus", "=": "equals", "^": "to the power of"},
    "hi": {"×": "गुणा", "÷": "बटा", "+": "प्लस", "-": "माइनस", "=": "बराबर", "^": "की घात"},
    "mr": {"×": "गुणिले", "÷": "भागिले", "+": "अधिक", "-": "वजा", "=": "बरोबर", "^": "ची घात"},
}
_SAME_OPERATOR = {"x": "×", "X": "×", "*": "×", "/": "÷", "–": "-", "−": "-", "**": "^"}
# `-` and `/` are operators only between blanks: 5-3 is a range and 1/2 a fraction.
_OPERATOR = re.compile(r"(?<=\d)(?:\s*(\*\*|[×xX*÷^+=])\s*|\s+([-–−/])\s+)(?=\d)")

# The language of a script, where a script has one that espeak-ng should speak by default.
_SCRIPTS = {
    "DEVANAGARI": "hi",
    "BENGALI": "bn",
    "GURMUKHI": "pa",
    "GUJARATI": "gu",
    "ORIYA": "or",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "CYRILLIC": "ru",
    "GREEK": "el",
    "ARABIC": "ar",
    "HANGUL": "ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh",
}
NON_LATIN = frozenset(_SCRIPTS.values())
"""Languages that are not written in the Latin script."""


@dataclass(frozen=True, slots=True)
class Token:
    """A word of the text: `text[start:end]`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Run:
    """Text to say in one language, with the index in the caller's text of each of its characters."""

    spoken: str
    source: tuple[int, ...]
    language: str


def tokens(text: str) -> list[Token]:
    """The words of a text, without the punctuation around them."""
    found = []
    for match in _WORD.finditer(text):
        word = match.group()
        start = match.start() + len(word) - len(word.lstrip(_EDGES))
        end = match.end() - len(word) + len(word.rstrip(_EDGES))
        if start < end:
            found.append(Token(start, end))
    return found


def language_of(text: str) -> str | None:
    """The language that a text's first letter outside the Latin script points to."""
    found = None
    for character in text:
        if not character.isascii() and character.isalpha():
            found = _SCRIPTS.get(unicodedata.name(character, "").partition(" ")[0], found)
            if found not in {None, "zh"}:
                break  # Chinese characters are Japanese where kana follow
    return found


def runs(
    text: str, language: str, number_language: str | None = None, math_notation: bool = False
) -> list[Run]:
    """What to say for a text, in order.

    `number_language` puts words with digits, and operators between them, into runs of their own.
    """
    numbers = number_language or language
    spoken: list[tuple[str, int]] = []
    numeric = [False] * len(text)
    for token in tokens(text):
        if any(character.isdigit() for character in text[token.start : token.end]):
            numeric[token.start : token.end] = [True] * (token.end - token.start)
    position = 0
    for match in _OPERATOR.finditer(text) if math_notation else ():
        spoken += [(text[i], i) for i in range(position, match.start())]
        sign = match[1] or match[2]
        word = _OPERATORS.get(numbers, _OPERATORS["en"])[_SAME_OPERATOR.get(sign, sign)]
        at = match.start(1) if match[1] else match.start(2)
        spoken += [(character, at) for character in f" {word} "]
        numeric[match.start() : match.end()] = [True] * (match.end() - match.start())
        position = match.end()
    spoken += [(text[i], i) for i in range(position, len(text))]

    found: list[Run] = []
    begin = 0
    for i in range(1, len(spoken) + 1):
        if i < len(spoken) and (numbers == language or numeric[spoken[i][1]] == numeric[spoken[begin][1]]):
            continue
        part = spoken[begin:i]
        if any(not character.isspace() for character, _at in part):
            found.append(
                Run(
                    # Control characters are commands to espeak-ng, which has no business in a text.
                    "".join(" " if unicodedata.category(c) == "Cc" else c for c, _at in part),
                    tuple(at for _c, at in part),
                    numbers if numeric[part[0][1]] else language,
                )
            )
        begin = i
    return found


class WordClock:
    """Turns espeak-ng's reports into word times. Reports come in the order of the audio; times are seconds.

    espeak-ng says where a word begins, and where it pauses. Short words that it speaks as one ("I am") it reports
    once; they share the time between them by their letters.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._starts = [token.start for token in self._tokens]
        self._next = 0
        """The first token that has not been given a time."""
        self._current: int | None = None
        """The token that was last reported."""
        self._start_s = 0.0
        self._pause_s: float | None = None

    def word(self, index: int, at_s: float) -> list[SpokenWord]:
        """The character at this index begins to be heard. Returns the words that are over by it."""
        if not self._tokens:
            return []
        token = max(bisect_right(self._starts, index) - 1, 0)
        if index >= self._tokens[token].end:
            token = min(token + 1, len(self._tokens) - 1)  # an opening bracket belongs to what follows
        if self._current is None:
            self._current, self._start_s = token, at_s
            return []
        if token <= self._current:
            self._pause_s = None  # a pause inside of a word
            return []
        spoken = self._give(token, self._end_s(at_s)) if self._end_s(at_s) > self._start_s else []
        self._current, self._start_s, self._pause_s = token, at_s, None
        return spoken

    def pause(self, at_s: float) -> None:
        """Silence begins."""
        if self._current is not None and self._pause_s is None:
            self._pause_s = at_s

    def end(self, at_s: float) -> list[SpokenWord]:
        """The audio ends. Returns the words that are over by it."""
        if self._current is None:
            return []
        return self._give(len(self._tokens), self._end_s(at_s))

    def _end_s(self, at_s: float) -> float:
        return at_s if self._pause_s is None else self._pause_s

    def _give(self, until: int, end_s: float) -> list[SpokenWord]:
        texts = [self._text[token.start : token.end] for token in self._tokens[self._next : until]]
        self._next = until
        # What espeak-ng did not report and has no letter (an unknown emoji) was not spoken.
        texts = [text for text in texts if len(texts) == 1 or any(character.isalnum() for character in text)]
        letters = sum(map(len, texts))
        spoken, start_s, length_s = [], self._start_s, end_s - self._start_s
        for text in texts:
            word_end_s = start_s + length_s * len(text) / letters
            spoken.append(SpokenWord(text, start_s, word_end_s))
            start_s = word_end_s
        return spoken
