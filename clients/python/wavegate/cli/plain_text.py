"""Markdown as the text that it stands for, and how to tell that a text is Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})")
_LIST_ITEM: Final = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])(?:\s|$)")
_LINE_BREAK: Final = re.compile(r"<br\s*/?>", re.IGNORECASE)
_SENTENCE_END: Final = re.compile(r"[.!?…:;,।。]['\")\]’”]*$")


class PlainText:
    """Takes Markdown in pieces and gives what is to be said of it, a block at a time.

    A block ends at a blank line, so that a list or a paragraph is spoken once it has come as a whole. Where the block
    has a list, indented lines behind the blank line belong to it still. Marks of emphasis and headings, addresses of
    links and tags are left out, and so are blocks of code.
    """

    def __init__(self) -> None:
        self.blocks_of_code = 0
        """How many blocks of code were left out."""
        self._parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
        self._block = ""
        self._line = ""
        self._fence = ""
        self._has_list = False
        self._at_blank = False
        """True once a blank line has come behind a list, until the next line tells whether the list goes on."""

    def feed(self, text: str) -> Iterator[str]:
        """Text that is complete with this piece."""
        *lines, rest = (self._line + text).split("\n")
        self._line = rest
        for line in lines:
            if self._at_blank and line.strip():
                yield from self._ended_by(line)
            self._block += f"{line}\n"
            if match := _FENCE.match(line):
                mark = match[1]
                if not self._fence:
                    self._fence = mark
                elif mark.startswith(self._fence) and not line.strip().strip(mark[0]):
                    self._fence = ""
            elif self._fence:
                continue
            elif line.strip():
                self._has_list = self._has_list or _LIST_ITEM.match(line) is not None
            elif self._has_list:
                self._at_blank = True
            else:
                yield from self._spoken()
        if self._at_blank and rest.strip():
            yield from self._ended_by(rest)

    def end(self) -> Iterator[str]:
        """Text that was still waiting for its end."""
        if self._at_blank and self._line.strip():
            yield from self._ended_by(self._line)
        self._block += self._line
        self._line = self._fence = ""
        yield from self._spoken()

    def _ended_by(self, line: str) -> Iterator[str]:
        """What is said of a list if this line, the first behind a blank one, is not indented and so ends it."""
        self._at_blank = False
        if not line[0].isspace():
            yield from self._spoken()

    def _spoken(self) -> Iterator[str]:
        block, self._block = self._block, ""
        self._has_list = self._at_blank = False
        if text := "\n".join(self._lines(self._parser.parse(block))):
            yield f"{text}\n\n"

    def _lines(self, tokens: Sequence[Token]) -> Iterator[str]:
        number = ""
        cells: list[str] = []
        in_row = False
        sentences = 0  # how many list items and headings are open: text in them ends as a sentence
        for token in tokens:
            match token.type:
                case "fence" | "code_block":
                    self.blocks_of_code += 1
                case "html_block" if _LINE_BREAK.match(token.content.lstrip()):
                    # Markdown takes what follows a tag on a line of its own for HTML; behind this one it is text.
                    yield from self._lines(self._parser.parseInline(token.content))
                case "list_item_open":
                    number = f"{token.info}. " if token.info else ""
                    sentences += 1
                case "heading_open":
                    sentences += 1
                case "list_item_close" | "heading_close":
                    sentences -= 1
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
                        yield number + (_as_sentence(text) if sentences else text)
                        number = ""


def _said(tokens: Sequence[Token]) -> str:
    """The words of a paragraph."""
    said = ""
    for token in tokens:
        if token.type in ("text", "code_inline"):
            said += token.content
        elif token.type in ("softbreak", "hardbreak") or _LINE_BREAK.fullmatch(token.content):
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
