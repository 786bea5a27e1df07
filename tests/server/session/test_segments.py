"""Segment ids, revisions, stable prefixes."""

from __future__ import annotations

from wavegate_server.session.segments import Segments, common_prefix


def test_partials_rewrite_a_segment_until_a_final_closes_it() -> None:
    segments = Segments()
    segments.saw("a")
    assert segments.show() == ("segment-1", 1)
    segments.saw("a b")
    assert segments.show() == ("segment-1", 2)
    assert segments.close("a b.") == ("segment-1", 3)
    assert not segments.is_open
    assert segments.close("c") == ("segment-2", 1)
    assert segments.full_text == "a b. c"


def test_partials_that_were_not_shown_do_not_count() -> None:
    segments = Segments()
    segments.saw("a")
    segments.saw("a b")
    assert segments.text == "a b"
    assert segments.close("a b") == ("segment-1", 1)


def test_an_empty_final_beside_the_open_segment_leaves_it_open() -> None:
    segments = Segments()
    segments.saw("a")
    segments.show()
    assert segments.aside() == ("segment-2", 1)
    segments.saw("a b")
    assert segments.show() == ("segment-1", 2)


def test_an_empty_final_is_no_part_of_the_full_text() -> None:
    segments = Segments()
    segments.close("a")
    segments.close("")
    segments.close("b")
    assert segments.full_text == "a b"


def test_a_prefix_is_stable_when_three_versions_agree_on_it() -> None:
    segments = Segments()
    assert segments.saw("I s") == 0
    assert segments.saw("I scream") == 0
    assert segments.saw("I scream for") == 3
    assert segments.saw("I scream four") == 8
    assert segments.saw("Ice cream four") == 1
    segments.close("Ice cream four")
    assert segments.saw("Ice") == 0


def test_characters_are_code_points() -> None:
    assert common_prefix(["नमस्ते 🎤 x", "नमस्ते 🎤 y", "नमस्ते 🎤"]) == len("नमस्ते 🎤")
    assert common_prefix(["", "a"]) == 0
