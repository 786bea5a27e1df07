"""Text without what cannot be spoken: control characters, and the escape sequences of terminals. Pure.

Such characters come from PDFs, terminals and broken decoders. No voice reads them, and JSON peers stumble over NUL.

- Taken out: the control characters U+0000 to U+001F and U+007F to U+009F other than white space (tab, line feed,
  vertical tab, form feed, carriage return, U+0085). A backspace erases nothing.
- Taken out whole: escape sequences as terminals know them (colours, cursor, window titles, the frame of a link, whose
  text stays), also where messages cut them in two.
- Left in: everything else. Joiners, marks of direction, soft hyphens and the byte order mark belong to the text:
  some scripts and emoji need them.
"""

from __future__ import annotations

import re
from typing import Final

MAX_SEQUENCE_CHARS: Final = 1024
"""A longer escape sequence is text behind a stray escape character: nothing longer waits for its end."""

_STRING: Final = rf"[^\x00-\x1f\x7f\x80-\x9f]{{0,{MAX_SEQUENCE_CHARS}}}"
"""The inside of a window title, a link's address and the like."""
_PARAMETERS: Final = r"[0-?]{0,64}"
_SINGLE: Final = r"\x1b[78=>cDEHMNOZ]"
"""Escape sequences of one character. As the beginning of a word it is taken for text behind a stray escape."""

_SEQUENCE: Final = "|".join(
    [
        rf"(?:\x1b\[|\x9b(?=[0-?])){_PARAMETERS}(?: q|[!\"$'*]?[@-~])",  # CSI: colours, cursor, erasing
        rf"\x1b\][0-9]{{1,8}};{_STRING}(?:\x07|\x1b\\|\x9c)",  # OSC: titles, links
        rf"\x1b[PX^_]{_STRING}(?:\x1b\\|\x9c)",  # DCS, SOS, PM, APC
        r"\x1b[#%()*+\-./][0-~]",  # character sets
        rf"{_SINGLE}(?![^\W_])",
    ]
)
_CONTROL: Final = r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]"
_REMOVED: Final = re.compile(rf"{_SEQUENCE}|\x1b\[{_PARAMETERS}|\x1b[\]^_\\]|{_CONTROL}")
"""Whole sequences first, then the beginnings of broken ones, then single characters."""
_UNFINISHED: Final = re.compile(
    rf"(?:\x1b(?:\[{_PARAMETERS}[ !\"$'*]?|\][0-9]{{0,8}}|\][0-9]{{1,8}};{_STRING}\x1b?|[PX^_]{_STRING}\x1b?"
    rf"|[#%()*+\-./])?|\x9b(?:{_PARAMETERS}|[0-?]{{1,64}}[ !\"$'*])|{_SINGLE})\Z"
)
"""What may become a sequence with the text that follows."""
_SUSPECT: Final = re.compile(_CONTROL)


class Speakable:
    """Takes out of one utterance's text, piece by piece, what cannot be spoken."""

    def __init__(self) -> None:
        self.removed = ""
        """The first character to take out, as `U+0002`; empty while there was none."""
        self._held = ""

    def __repr__(self) -> str:
        return f"<Speakable removed {self.removed or 'nothing'}, holds {len(self._held)} chars>"

    def add(self, text: str) -> str:
        """Return what can be spoken of the text held back and `text`. The beginning of an escape sequence at its end is
        held back until more text, or `finish`, shows what it is."""
        suspect = _SUSPECT.search(text)
        if suspect is None and not self._held:
            return text
        if suspect is not None and not self.removed:
            self.removed = f"U+{ord(suspect[0]):04X}"  # now or later: it is in no text that is spoken
        text = self._held + text
        unfinished = _UNFINISHED.search(text)
        end = len(text) if unfinished is None else unfinished.start()
        self._held = text[end:]
        return _REMOVED.sub("", text[:end])

    def finish(self) -> str:
        """Return what can be spoken of the text held back: no more follows."""
        held, self._held = self._held, ""
        return _REMOVED.sub("", held)


def speakable(text: str) -> tuple[str, str]:
    """Return what can be spoken of a whole text, and the first character taken out, as `U+0002`; empty for none."""
    cleaner = Speakable()
    clean = cleaner.add(text) + cleaner.finish()
    return clean, cleaner.removed
