"""From recognized words to the transcript that a client asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from waves_local import numbers, redaction
from waves_local.engine import HeardWord

_MARKS = re.compile(r"[.,?!]+(?=\W*\Z)")
_SENTENCE_MARK = re.compile(r"[.?!…。！？।][\"'”’)]*\Z")


@dataclass(frozen=True, slots=True)
class Style:
    """How transcripts are to look."""

    punctuate: bool = True
    capitalize: bool = True
    numbers: bool = False
    redact_pii: bool = False
    redact_pci: bool = False


def punctuated(
    words: Sequence[HeardWord], style: Style, *, comes_punctuated: bool, is_final: bool
) -> list[HeardWord]:
    """Punctuation and case, added or taken away.

    Words that come with both keep them unless the style says otherwise. Words that come without get a capital at
    the beginning and, in a final, a full stop at the end.
    """
    texts = [word.text for word in words]
    if comes_punctuated:
        if not style.punctuate:
            texts = [_MARKS.sub("", text) for text in texts]
        if not style.capitalize:
            texts = [text.lower() for text in texts]
    elif texts:
        if style.capitalize:
            texts = ["I" if t == "i" else "I'" + t[2:] if t.startswith("i'") else t for t in texts]
            texts[0] = texts[0][:1].upper() + texts[0][1:]
        if style.punctuate and is_final and not _SENTENCE_MARK.search(texts[-1]):
            texts[-1] += "."
    return [replace(w, text=t) for w, t in zip(words, texts, strict=True) if t]


def joined(words: Sequence[HeardWord]) -> str:
    """The words as a text."""
    return " ".join(word.text for word in words)


def sentences(words: Sequence[HeardWord]) -> list[list[HeardWord]]:
    """The words, sentence by sentence; a change of speaker ends one too."""
    found: list[list[HeardWord]] = []
    begins = True
    for word in words:
        if begins or found[-1][-1].speaker != word.speaker:
            found.append([])
        found[-1].append(word)
        begins = bool(_SENTENCE_MARK.search(word.text))
    return found


@dataclass(frozen=True, slots=True)
class Written:
    """A transcript."""

    words: list[HeardWord]
    entities: list[str]
    """Placeholders that stand for redacted words."""

    @property
    def text(self) -> str:
        return joined(self.words)


class Writer:
    """Writes the transcripts of one session in one style."""

    def __init__(self, style: Style, *, language: str, comes_punctuated: bool) -> None:
        self._style = style
        self._comes_punctuated = comes_punctuated
        redacts = language in redaction.LANGUAGES
        self._redactor = redaction.Redactor(
            pii=style.redact_pii and redacts, pci=style.redact_pci and redacts
        )
        self._held: list[HeardWord] = []
        """Words of a number that may go on in the next final."""

    def partial(self, words: Sequence[HeardWord]) -> Written:
        """A transcript that will be revised: numbers stay as they were spoken."""
        shown, entities = self._redactor.preview([*self._held, *words])
        return Written(self._punctuated(shown, is_final=False), entities)

    def final(self, words: Sequence[HeardWord], *, may_go_on: bool = False) -> Written:
        """A transcript that stands. With `may_go_on`, a number at its end is held back for the next one, so that
        it is written as a whole."""
        words = [*self._held, *words]
        self._held = []
        if self._style.numbers:
            if may_go_on:
                end = len(words)
                while end and numbers.is_number_word(words[end - 1].text):
                    end -= 1
                words, self._held = words[:end], words[end:]
            words = numbers.written(words)
        shown, entities = self._redactor.redact(words)
        return Written(self._punctuated(shown, is_final=True), entities)

    @property
    def holds_back(self) -> bool:
        """Whether words wait for the next final."""
        return bool(self._held)

    def _punctuated(self, words: Sequence[HeardWord], *, is_final: bool) -> list[HeardWord]:
        return punctuated(words, self._style, comes_punctuated=self._comes_punctuated, is_final=is_final)
