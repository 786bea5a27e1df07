"""Markdown as the text that it stands for, and how to tell that a text is Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})")
_SENTENCE_END: Final = re.compile(r"[.!?…:;,।。]['\")\]’”]*$")


class PlainText:
    """Takes Markdown in pieces and gives what is to be said of it, a block at a time.

    A block ends at a blank line, so that a list or a paragraph is spoken once it has come as a whole. Marks of emphasis
    and headings, addresses of links and tags are left out, and so are blocks of code.
    """

    def __init__(self) -> None:
        self.blocks_of_code = 0
        """How many blocks of code were left out."""
        self._parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
        self._block = ""
        self._line = ""
        self._fence = ""

    def feed(self, text: str) -> Iterator[str]:
        """Text that is complete with this piece."""
        *lines, rest = (self._line + text).split("\n")
        self._line = rest
        for line in lines:
            self._block += f"{line}\n"
            if match := _FENCE.match(line):
                mark = match[1]
                if not self._fence:
                    self._fence = mark
                elif mark.startswith(self._fence) and not line.strip().strip(mark[0]):
                    self._fence = ""
            elif not line.strip() and not self._fence:
                yield from self._spoken()

    def end(self) -> Iterator[str]:
        """Text that was still waiting for its end."""
        self._block += self._line
        self._line = self._fence = ""
        yield from self._spoken()

    def _spoken(self) -> Iterator[str]:
        block, self._block = self._block, ""
        if text := "\n".join(self._lines(self._parser.parse(block))):
            yield f"{text}\n\n"

    def _lines(self, tokens: Sequence[Token]) -> Iterator[str]:
        number = ""
        cells: list[str] = []
        in_row = is_sentence = False
        for token in tokens:
            match token.type:
                case "fence" | "code_block":
                    self.blocks_of_code += 1
                case "list_item_open":
                    number = f"{token.info}. " if token.info else ""
                    is_sentence = True
                case "heading_open":
                    is_sentence = True
                case "list_item_close" | "heading_close":
                    is_sentence = False
                case "tr_open":
                    in_row, cells = True, []
                case "tr_close":
                    in_row = False
                    yield _as_sentence(", ".join(filter(None, cells)))
                case "inline":
                    text = _said(token.children or ())
                    if in_row:
                        cells.append(text)
                    elif text:
                        yield number + (_as_sentence(text) if is_sentence else text)
                        number = ""


def _said(tokens: Sequence[Token]) -> str:
    """The words of a paragraph."""
    said = ""
    for token in tokens:
        if token.type in ("text", "code_inline"):
            said += token.content
        elif token.type in ("softbreak", "hardbreak"):
            said += " "
        elif token.type == "image":
            said += _said(token.children or ())
    return " ".join(said.split())


def _as_sentence(text: str) -> str:
    """With an end that a voice makes a pause at."""
    return text if not text or _SENTENCE_END.search(text) else f"{text}."


_SIGNS: Final = (
    (re.compile(r"^ {0,3}(?:`{3}|~{3})", re.MULTILINE), "a block of code"),
    (re.compile(r"^ {0,3}#{1,6} \S", re.MULTILINE), "a heading"),
    (re.compile(r"\*\*[^\s*][^*\n]*\*\*"), "emphasis"),
    (re.compile(r"\[[^\]\n]+\]\((?:https?:|mailto:|/|#)[^)\s]*\)"), "a link"),
    (re.compile(r"(?:^ {0,3}(?:[-*+]|\d+[.)]) \S.*\n+){2}", re.MULTILINE), "a list"),
    (re.compile(r"^ {0,3}\|?(?: *:?-{3,}:? *\|)+", re.MULTILINE), "a table"),
    (re.compile(r"`[^`\s][^`\n]*`"), "code"),
)


def sign_of_markdown(text: str) -> str | None:
    """What in a text looks like Markdown, such as `a heading`; `None` if nothing does."""
    return next((name for pattern, name in _SIGNS if pattern.search(text)), None)
