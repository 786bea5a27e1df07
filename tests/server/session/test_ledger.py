"""The settings of one session: what is accepted, what is in force, and every ack on the way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wavegate_server import errors
from wavegate_server.errors import Violation, WavegateError
from wavegate_server.session.events import (
    AckState,
    ApplyPolicy,
    Mechanism,
    SettingsAcknowledged,
    UpdateSettings,
)
from wavegate_server.session.ledger import REMEMBERED_UPDATES, Pending, SettingsLedger, strongest
from wavegate_server.session.synthesis import require_voice
from wavegate_server.waves.settings import SYNTHESIS, Field, Settings, merge

NO_CHANGE, IN_PLACE = Mechanism.NO_CHANGE, Mechanism.IN_PLACE
NEXT, RECONNECT = Mechanism.NEXT_UTTERANCE, Mechanism.RECONNECT

START = {"voice_id": "magnus", "speed": 1.0}


def mechanism(field: Field, old: Settings, new: Settings) -> Mechanism:
    if field.name == "max_chunk_bytes":
        return IN_PLACE
    return RECONNECT if field.name == "model" else NEXT


def ledger(settings: Settings = START, defaults: Settings | None = None, **options: Any) -> SettingsLedger:
    return SettingsLedger(SYNTHESIS, settings, defaults or {}, mechanism=mechanism, **options)


def delta(update_id: str = "", /, *, reset: tuple[str, ...] = (), **fields: Any) -> UpdateSettings:
    """A delta; names of `UpdateSettings` are options, all others are settings."""
    options = {k: fields.pop(k) for k in list(fields) if k in UpdateSettings.__dataclass_fields__}
    return UpdateSettings(update_id, fields, reset=reset, **options)


def accept(settings: SettingsLedger, update: UpdateSettings, now: float = 0.0, sequence: int = 0) -> Pending:
    """Assess a delta that must be good, and put it in line."""
    outcome = settings.assess(update, now, sequence)
    assert isinstance(outcome, Pending), outcome
    settings.accept(outcome)
    return outcome


def answer(settings: SettingsLedger, update: UpdateSettings) -> SettingsAcknowledged:
    """Assess a delta that must be answered at once."""
    outcome = settings.assess(update, 0.0, 7)
    assert isinstance(outcome, SettingsAcknowledged), outcome
    return outcome


def refusal(settings: SettingsLedger, update: UpdateSettings) -> WavegateError:
    """Assess a delta that must be rejected, and change nothing."""
    before = (settings.settings, settings.revision, settings.latest, settings.latest_revision)
    ack = answer(settings, update)
    assert ack.state is AckState.REJECTED
    assert ack.error is not None
    assert (ack.settings, ack.settings_revision) == (settings.settings, settings.revision)
    assert (settings.settings, settings.revision, settings.latest, settings.latest_revision) == before
    return ack.error


# -- one delta ---------------------------------------------------------------------------------------------------


def test_a_delta_waits_and_is_applied() -> None:
    book = ledger()
    pending = accept(book, delta("d1", speed=1.5, math_notation=True), now=10.0, sequence=3)
    queued = book.queued(pending)
    assert (queued.state, queued.mechanism) == (AckState.QUEUED, NEXT)
    assert (queued.settings_revision, queued.settings) == (1, START), "those in force still"
    assert (book.revision, book.latest_revision) == (1, 2)
    applied = book.apply(pending, 12.5, first_utterance_id="u2")
    assert applied == SettingsAcknowledged(
        "d1",
        AckState.APPLIED,
        NEXT,
        (("speed", NEXT), ("math_notation", NEXT)),
        settings_revision=2,
        settings={"voice_id": "magnus", "speed": 1.5, "math_notation": True},
        first_utterance_id="u2",
        applied_after_input_sequence=3,
        apply_duration_s=2.5,
    )
    assert (book.revision, book.settings) == (2, applied.settings)


def test_fields_that_are_not_set_stay_as_they_are() -> None:
    book = ledger({"voice_id": "a", "speed": 1.5, "word_timings": True})
    accept(book, delta(speed=0.5))
    assert book.latest == {"voice_id": "a", "speed": 0.5, "word_timings": True}


def test_reset_returns_fields_to_their_defaults_or_to_nothing() -> None:
    book = ledger(
        {"voice_id": "a", "speed": 1.5, "math_notation": True}, {"voice_id": "house", "speed": 1.25}
    )
    pending = accept(book, delta(reset=("speed", "math_notation", "voice_id")))
    assert pending.settings == {"voice_id": "house", "speed": 1.25}
    assert dict(pending.fields) == {"voice_id": NEXT, "speed": NEXT, "math_notation": NEXT}


def test_reset_of_what_was_never_set_changes_nothing() -> None:
    ack = answer(ledger(), delta("d1", reset=("math_notation",)))
    assert (ack.state, ack.mechanism, ack.fields) == (
        AckState.APPLIED,
        NO_CHANGE,
        (("math_notation", NO_CHANGE),),
    )


def test_a_delta_that_changes_nothing_is_applied_at_once_and_takes_no_revision() -> None:
    book = ledger()
    ack = answer(book, delta("d1", speed=1.0))
    assert ack.state is AckState.APPLIED
    assert (ack.mechanism, ack.settings_revision, ack.settings) == (NO_CHANGE, 1, START)
    assert ack.apply_duration_s == 0
    assert ack.applied_after_input_sequence == 7
    assert answer(book, delta("d2")).mechanism is NO_CHANGE
    assert book.latest_revision == 1


def test_the_mechanism_of_a_delta_is_the_most_disruptive_of_its_fields() -> None:
    pending = accept(ledger(), delta(speed=1.0, math_notation=True, max_chunk_bytes=9, model="lightning-v2"))
    assert dict(pending.fields) == {
        "speed": NO_CHANGE,
        "math_notation": NEXT,
        "max_chunk_bytes": IN_PLACE,
        "model": RECONNECT,
    }
    assert strongest(pending.fields) is RECONNECT
    assert pending.changed == {"math_notation", "max_chunk_bytes", "model"}
    assert strongest(()) is NO_CHANGE


def test_the_model_is_spelt_as_the_upstream_does() -> None:
    assert accept(ledger(), delta(model="Lightning-v3.1")).settings["model"] == "lightning_v3.1"


# -- whole or not at all -----------------------------------------------------------------------------------------


def test_every_violation_at_once_with_its_path() -> None:
    update = delta(
        "d1",
        reset=("nonsense", "voice_id"),
        speed=9.0,
        voice_id="",
        consistency=0.5,
        violations=(Violation("update_settings.settings.content_filter", "is wrong in its own way"),),
    )
    error = refusal(ledger(), update)
    assert isinstance(error, errors.InvalidInput)
    assert sorted(v.field for v in error.violations) == [
        "update_settings.reset_mask",
        "update_settings.reset_mask",
        "update_settings.settings.consistency",
        "update_settings.settings.content_filter",
        "update_settings.settings.speed",
        "update_settings.settings.voice_id",
    ]


def test_the_paths_of_an_out_of_band_delta() -> None:
    update = delta("d1", reset=("nonsense",), speed=9.0, path="synthesis", reset_path="reset_mask")
    error = refusal(ledger(), update)
    assert sorted(v.field for v in error.violations) == ["reset_mask", "synthesis.speed"]


def test_what_the_session_requires_is_required_of_the_outcome() -> None:
    book = ledger(require=require_voice)
    error = refusal(book, delta(reset=("voice_id",)))
    assert [v.field for v in error.violations] == ["update_settings.settings.voice_id"]
    error = refusal(book, delta(voice_id=""))
    assert [v.field for v in error.violations] == ["update_settings.settings.voice_id"]
    assert accept(book, delta(voice_id="other"))


def test_a_field_of_one_model_is_judged_by_the_model_that_would_be() -> None:
    book = ledger({**START, "model": "lightning_v3.1"})
    assert refusal(book, delta(consistency=0.5)).violations[0].field.endswith("consistency")
    accept(book, delta(model="lightning-v2", consistency=0.5))
    accept(book, delta(consistency=0.75))
    assert refusal(book, delta(model="lightning_v3.1")).violations[0].field.endswith("model")
    assert refusal(book, delta(reset=("model",))).violations[0].field.endswith("model")
    assert accept(book, delta(model="lightning_v3.1", reset=("consistency",)))


def test_expected_revision_is_that_of_the_newest_accepted_delta() -> None:
    book = ledger()
    accept(book, delta("d1", speed=1.5, expected_revision=1))
    error = refusal(book, delta("d2", speed=0.5, expected_revision=1))
    assert isinstance(error, errors.RevisionMismatch)
    assert error.metadata == {"settings_revision": "2"}
    accept(book, delta("d3", speed=0.5, expected_revision=2))


def test_a_mismatch_is_said_even_where_nothing_would_change() -> None:
    assert isinstance(refusal(ledger(), delta(speed=1.0, expected_revision=5)), errors.RevisionMismatch)


def test_no_reconnect_refuses_what_needs_one_and_nothing_else() -> None:
    book = ledger()
    error = refusal(book, delta(model="lightning-v2", policy=ApplyPolicy.NO_RECONNECT))
    assert isinstance(error, errors.ReconnectRequired)
    assert "model" in error.message
    accept(book, delta(speed=1.5, policy=ApplyPolicy.NO_RECONNECT))
    accept(book, delta(model="lightning-v2"))


def test_validate_only_says_what_would_be_and_changes_nothing() -> None:
    book = ledger()
    ack = answer(book, delta("d1", speed=1.5, validate_only=True))
    assert (ack.state, ack.mechanism) == (AckState.VALIDATED, NEXT)
    assert ack.settings == {**START, "speed": 1.5}
    assert ack.settings_revision == 1
    assert (book.settings, book.latest_revision, book.pending) == (START, 1, [])
    assert isinstance(refusal(book, delta(speed=9.0, validate_only=True)), errors.InvalidInput)


# -- several deltas ----------------------------------------------------------------------------------------------


def test_deltas_build_on_each_other_and_apply_in_order() -> None:
    book = ledger()
    first = accept(book, delta("d1", speed=1.5))
    second = accept(book, delta("d2", math_notation=True))
    assert (first.revision, second.revision) == (2, 3)
    assert second.settings == {**START, "speed": 1.5, "math_notation": True}
    with pytest.raises(AssertionError, match="in the order"):
        book.apply(second, 0.0)
    book = ledger()
    first, second = accept(book, delta(speed=1.5)), accept(book, delta(math_notation=True))
    assert book.apply(first, 0.0).settings_revision == 2
    assert book.apply(second, 0.0).settings_revision == 3


def test_what_a_waiting_delta_brings_is_still_a_change_to_what_is_in_force() -> None:
    book = ledger()
    accept(book, delta("d1", speed=1.5))
    again = accept(book, delta("d2", speed=1.5))
    assert again.fields == (("speed", NEXT),)


def test_an_immediate_delta_without_change_pulls_along_what_waits() -> None:
    book = ledger()
    accept(book, delta("d1", speed=1.5))
    assert answer(book, delta("d2", voice_id="magnus")).state is AckState.APPLIED
    pulls = accept(book, delta("d3", voice_id="magnus", policy=ApplyPolicy.IMMEDIATE))
    assert pulls.fields == (("voice_id", NO_CHANGE),)


def test_a_delta_is_superseded_when_all_its_fields_are_set_anew() -> None:
    book = ledger()
    accept(book, delta("d1", speed=1.5))
    accept(book, delta("d2", speed=1.25, math_notation=True))
    accept(book, delta("d3", word_timings=True))
    newer = book.assess(delta("d4", speed=0.5), 0.0, 0)
    assert isinstance(newer, Pending)
    acks = book.supersede(newer, lambda old: True)
    assert [(a.update_id, a.state) for a in acks] == [("d1", AckState.SUPERSEDED)]
    assert (acks[0].settings, acks[0].settings_revision) == (START, 1), "those in force"
    book.accept(newer)
    states = [book.apply(p, 0.0) for p in list(book.pending)]
    assert [(a.update_id, a.settings_revision) for a in states] == [("d2", 2), ("d3", 3), ("d4", 4)]
    assert all(a.settings is not None and a.settings["speed"] != 1.5 for a in states), "d1 was never in force"
    assert book.settings == {**START, "speed": 0.5, "math_notation": True, "word_timings": True}


def test_a_reset_supersedes_too_and_who_is_not_eligible_stays() -> None:
    book = ledger()
    accept(book, delta("d1", speed=1.5))
    newer = book.assess(delta("d2", reset=("speed",)), 0.0, 0)
    assert isinstance(newer, Pending)
    assert book.supersede(newer, lambda old: False) == []
    assert [a.update_id for a in book.supersede(newer, lambda old: True)] == ["d1"]
    book.accept(newer)
    assert book.latest_revision == 2


def test_a_delta_that_the_upstream_refuses_leaves_no_trace() -> None:
    book = ledger()
    first = accept(book, delta("d1", speed=1.5))
    second = accept(book, delta("d2", math_notation=True))
    error = errors.UpstreamRejected("no")
    (ack,) = book.reject(first, error)
    assert (ack.update_id, ack.state, ack.error) == ("d1", AckState.REJECTED, error)
    assert (ack.settings, ack.settings_revision) == (START, 1)
    assert book.latest == {**START, "math_notation": True}
    assert book.apply(second, 0.0).settings_revision == 2


def test_what_waits_at_the_end_is_told_so() -> None:
    book = ledger()
    accept(book, delta("d1", speed=1.5))
    accept(book, delta("d2", math_notation=True))
    acks = book.session_ended()
    assert [(a.update_id, a.state) for a in acks] == [
        ("d1", AckState.SESSION_ENDED),
        ("d2", AckState.SESSION_ENDED),
    ]
    assert all((a.settings, a.settings_revision) == (START, 1) for a in acks)
    assert book.session_ended() == []


# -- repeats -----------------------------------------------------------------------------------------------------


def test_an_update_id_is_known_from_its_first_use_on() -> None:
    book = ledger()
    assert not book.seen("d1")
    book.remember("d1")
    assert book.seen("d1")
    assert book.terminal_ack("d1") is None
    ack = book.apply(accept(book, delta("d1", speed=1.5)), 0.0)
    assert book.terminal_ack("d1") is ack
    assert not book.seen("")
    book.remember("")
    assert not book.seen(""), "deltas without an id are never the same"


def test_rejected_ones_are_known_too() -> None:
    book = ledger()
    book.remember("d1")
    ack = answer(book, delta("d1", speed=9.0))
    assert book.terminal_ack("d1") is ack


def test_only_so_many_are_remembered() -> None:
    book = ledger()
    for number in range(REMEMBERED_UPDATES + 1):
        book.remember(f"d{number}")
    assert not book.seen("d0")
    assert book.seen("d1")


# -- in any order ------------------------------------------------------------------------------------------------

fields = st.dictionaries(
    st.sampled_from(["speed", "math_notation", "voice_id", "max_chunk_bytes"]),
    st.sampled_from([1]),
    max_size=3,
).flatmap(
    lambda names: st.fixed_dictionaries(
        {
            name: {
                "speed": st.sampled_from([0.5, 1.0, 1.5, 9.0]),
                "math_notation": st.booleans(),
                "voice_id": st.sampled_from(["a", "b", ""]),
                "max_chunk_bytes": st.sampled_from([1, 100]),
            }[name]
            for name in names
        }
    )
)
scripts = st.lists(
    st.one_of(
        st.tuples(
            st.just("delta"),
            fields,
            st.lists(st.sampled_from(["speed", "math_notation", "voice_id"]), max_size=2),
            st.sampled_from(list(ApplyPolicy)),
        ),
        st.just(("apply",)),
        st.just(("reject",)),
        st.just(("supersede",)),
    ),
    max_size=25,
)


@given(scripts)
def test_every_delta_gets_one_terminal_ack_and_revisions_have_no_gap(script: list[Any]) -> None:
    defaults = {"voice_id": "house"}
    book = ledger(START, defaults)
    acks: list[SettingsAcknowledged] = []
    given_ids: list[str] = []
    supersede = False
    for step in script:
        match step:
            case ("delta", values, reset, policy):
                update_id = f"d{len(given_ids)}"
                given_ids.append(update_id)
                update = UpdateSettings(update_id, values, reset=tuple(dict.fromkeys(reset)), policy=policy)
                outcome = book.assess(update, 0.0, 0)
                if isinstance(outcome, Pending):
                    if supersede:
                        acks += book.supersede(outcome, lambda old: True)
                    book.accept(outcome)
                else:
                    acks.append(outcome)
            case ("apply",) if book.pending:
                before = book.revision
                pending = book.pending[0]
                acks.append(book.apply(pending, 0.0))
                assert book.revision == before + 1
                assert pending.update.delta.items() <= book.settings.items()
            case ("reject",) if book.pending:
                acks += book.reject(book.pending[-1], errors.UpstreamRejected("no"))
            case ("supersede",):
                supersede = not supersede
        assert book.latest_revision == book.revision + len(book.pending)
        assert [p.revision for p in book.pending] == [book.revision + 1 + i for i in range(len(book.pending))]
        expected: Settings = book.settings
        for pending in book.pending:
            expected = merge(expected, pending.update.delta, pending.update.reset, defaults)
            assert pending.settings == expected
        assert book.latest == expected
    acks += book.session_ended()
    assert sorted(a.update_id for a in acks) == sorted(given_ids)
