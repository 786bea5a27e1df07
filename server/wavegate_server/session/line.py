"""The utterances of one session in the order in which they are spoken, and the ids that are used up. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from wavegate_server.session.utterance import Utterance

REMEMBERED_IDS = 1024
"""Ended utterances whose late text is still recognised."""


class Line:
    """Utterances from their first text to their last event. The first one is being spoken."""

    def __init__(self) -> None:
        self.open: Utterance | None = None
        """The utterance that takes text; always the newest."""
        self.refused = ""
        """Id of the newest utterance, where it failed while it was open and the rest of its text may still come."""
        self.ended = 0
        """How many have left, in whichever way."""
        self._utterances: deque[Utterance] = deque()
        self._over: OrderedDict[str, None] = OrderedDict()
        self._counter = 0

    def __repr__(self) -> str:
        return f"<Line of {list(self._utterances)!r}>"

    def __len__(self) -> int:
        return len(self._utterances)

    def __iter__(self) -> Iterator[Utterance]:
        """The utterances, first to last; the line may change meanwhile."""
        return iter(list(self._utterances))

    @property
    def head(self) -> Utterance | None:
        """The utterance that is spoken, or will be next."""
        return self._utterances[0] if self._utterances else None

    @property
    def newest(self) -> Utterance | None:
        return self._utterances[-1] if self._utterances else None

    @property
    def waiting_chars(self) -> int:
        """Characters that were not sent upstream yet."""
        return sum(u.waiting_chars for u in self._utterances)

    def is_used(self, utterance_id: str) -> bool:
        """Whether an id is one of the line's, or was."""
        return utterance_id in self._over or any(u.utterance_id == utterance_id for u in self._utterances)

    def unused_id(self) -> str:
        """An id for an utterance whose caller gave none."""
        while True:
            self._counter += 1
            utterance_id = f"utterance-{self._counter}"
            if not self.is_used(utterance_id):
                return utterance_id

    def append(self, utterance: Utterance) -> None:
        """Add an utterance, which is the open one from now on."""
        self._utterances.append(utterance)
        self.open = utterance
        self.refused = ""

    def end_text(self, utterance: Utterance) -> None:
        """No more text comes for an utterance."""
        utterance.text_ended = True
        if self.open is utterance:
            self.open = None

    def remove(self, utterance: Utterance) -> None:
        """Take an utterance out, whatever became of it."""
        self.end_text(utterance)
        utterance.over = True
        self.ended += 1
        self._utterances.remove(utterance)
        self._over[utterance.utterance_id] = None
        while len(self._over) > REMEMBERED_IDS:
            self._over.popitem(last=False)
