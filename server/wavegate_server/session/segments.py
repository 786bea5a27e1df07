"""The segments of a transcript: which id a text goes under, how often it changed, how much of it is stable. Pure.

There is one open segment at most. Partials rewrite it, over whichever connection they come; a final closes it,
and the next text opens another.
"""

from __future__ import annotations

from collections.abc import Sequence

STABLE_VERSIONS = 3
"""A prefix that so many versions in a row agree on counts as stable: two agree on most of any text."""


class Segments:
    """Ids, revisions and the full text of one session."""

    def __init__(self) -> None:
        self._count = 0
        self._open = ""
        self._revision = 0
        self._versions: list[str] = []
        self._finals: list[str] = []

    def __repr__(self) -> str:
        return f"<Segments {self._count} open={self._open or None}>"

    @property
    def is_open(self) -> bool:
        """Whether a partial was seen that no final has replaced."""
        return bool(self._versions)

    @property
    def text(self) -> str:
        """The open segment's text; empty where none is open."""
        return self._versions[-1] if self._versions else ""

    @property
    def full_text(self) -> str:
        """All finals, joined by a blank."""
        return " ".join(self._finals)

    def saw(self, text: str) -> int:
        """A partial was heard, shown or not; how many characters from its beginning are stable."""
        self._versions = [*self._versions[-(STABLE_VERSIONS - 1) :], text]
        if len(self._versions) < STABLE_VERSIONS:
            return 0
        return common_prefix(self._versions)

    def show(self) -> tuple[str, int]:
        """Id and revision for showing the open segment."""
        if not self._open:
            self._count += 1
            self._open = f"segment-{self._count}"
            self._revision = 0
        self._revision += 1
        return self._open, self._revision

    def close(self, text: str) -> tuple[str, int]:
        """The open segment is final with this text; id and revision to show it under."""
        shown = self.show()
        self._open = ""
        self._versions = []
        if text:
            self._finals.append(text)
        return shown

    def aside(self) -> tuple[str, int]:
        """Id and revision of an empty final beside the open segment, which stays open."""
        self._count += 1
        return f"segment-{self._count}", 1


def common_prefix(texts: Sequence[str]) -> int:
    """Length of the longest beginning that all texts share, in characters."""
    low, high = min(texts), max(texts)
    if high.startswith(low):
        return len(low)
    known, wrong = 0, len(low)
    while wrong - known > 1:
        middle = (known + wrong) // 2
        if high.startswith(low[:middle]):
            known = middle
        else:
            wrong = middle
    return known
