"""The line of utterances and the ids that are used up."""

from __future__ import annotations

import pytest
from wavegate_server.audio import DEFAULT_SYNTHESIS_FORMAT
from wavegate_server.session.encode import make_encoder
from wavegate_server.session.line import REMEMBERED_IDS, Line
from wavegate_server.session.utterance import Metrics, Utterance


def utterance(name: str, text: str = "") -> Utterance:
    made = Utterance(name, {}, 1, 1, Metrics(0.0), make_encoder(DEFAULT_SYNTHESIS_FORMAT), 24_000)
    made.add(text)
    return made


def test_the_newest_is_open_and_the_oldest_is_spoken() -> None:
    line = Line()
    assert (line.head, line.newest, line.open, len(line)) == (None, None, None, 0)
    one, two = utterance("one"), utterance("two")
    line.append(one)
    assert line.open is one
    line.end_text(one)
    assert one.text_ended
    assert line.open is None
    line.append(two)
    assert (line.head, line.newest, line.open) == (one, two, two)
    assert list(line) == [one, two]


def test_who_leaves_is_over_and_counted() -> None:
    line = Line()
    one, two = utterance("one"), utterance("two")
    line.append(one)
    line.append(two)
    line.remove(two)
    assert (two.over, two.text_ended, line.open, line.ended) == (True, True, None, 1)
    assert list(line) == [one]
    with pytest.raises(ValueError, match="not in"):
        line.remove(two)


def test_the_line_may_change_while_it_is_walked() -> None:
    line = Line()
    for name in ("one", "two", "three"):
        line.append(utterance(name))
    for walked in line:
        line.remove(walked)
    assert len(line) == 0


def test_ids_are_used_up() -> None:
    line = Line()
    line.append(utterance("mine"))
    assert line.is_used("mine")
    line.remove(next(iter(line)))
    assert line.is_used("mine")
    assert not line.is_used("other")
    assert not line.is_used("")


def test_ids_made_here_are_nobody_elses() -> None:
    line = Line()
    line.append(utterance("utterance-1"))
    assert line.unused_id() == "utterance-2"
    assert line.unused_id() == "utterance-3"


def test_only_so_many_ids_are_remembered() -> None:
    line = Line()
    for number in range(REMEMBERED_IDS + 1):
        line.append(utterance(f"u{number}"))
        line.remove(next(iter(line)))
    assert not line.is_used("u0")
    assert line.is_used("u1")


def test_waiting_characters_are_code_points() -> None:
    line = Line()
    line.append(utterance("one", "Grüße 🙂"))
    line.append(utterance("two", "abc"))
    assert line.waiting_chars == 10
