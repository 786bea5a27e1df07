"""Live sessions by id, and how many there may be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from wavegate_server import errors
from wavegate_server.session.base import Session
from wavegate_server.session.registry import MAX_KEPT, Registry


def session(name: str, caller: str = "alice", **labels: str) -> Session:
    """As much of a session as a registry looks at."""
    context = SimpleNamespace(caller=caller, labels=labels)
    return cast(Session, SimpleNamespace(session_id=name, context=context, ended=None))


class Ended(SimpleNamespace):
    """An ended session that waits for its caller."""

    waits = True

    def forget_caller(self) -> None:
        self.waits = False


def names(sessions: list[Session]) -> list[str]:
    return [s.session_id for s in sessions]


@pytest.mark.parametrize(
    ("caller", "kind", "window_s", "found"),
    [
        ("alice", "tts", 30.0, True),
        ("bob", "tts", 30.0, False),
        ("alice", "stt", 30.0, False),
        ("alice", "tts", 0.0, False),
    ],
)
def test_who_may_resume_a_session(caller: str, kind: str, window_s: float, found: bool) -> None:
    """Its caller, by the same kind of call, where it was granted."""
    registry = Registry(0, 0)
    live = session("s-1")
    live.kind, live.resume_window_s = "tts", window_s
    registry.add(live)
    if found:
        assert registry.resumable("s-1", caller, kind) is live
    else:
        with pytest.raises(errors.SessionNotFound):
            registry.resumable("s-1", caller, kind)


def test_no_limit_is_zero() -> None:
    registry = Registry(0, 0)
    assert [registry.admit("alice") for _ in range(100)][-1] == 100


def test_the_gateways_own_limit() -> None:
    registry = Registry(2, 0)
    registry.admit("alice")
    registry.admit("bob")
    with pytest.raises(errors.GatewayCapacity) as caught:
        registry.admit("carol")
    assert caught.value.retry_after_s is not None
    registry.leave("bob")
    assert registry.admit("carol") == 1


def test_a_callers_limit() -> None:
    registry = Registry(0, 2)
    assert registry.admit("alice") == 1
    assert registry.admit("alice") == 2
    with pytest.raises(errors.CallerQuota) as caught:
        registry.admit("alice")
    assert caught.value.metadata == {"limit": "2"}
    assert registry.admit("bob") == 1
    registry.leave("alice")
    assert registry.admit("alice") == 2


def test_who_was_refused_takes_no_room() -> None:
    registry = Registry(2, 1)
    registry.admit("alice")
    for _ in range(5):
        with pytest.raises(errors.CallerQuota):
            registry.admit("alice")
    assert registry.admit("bob") == 1


def test_nobody_comes_in_while_it_drains() -> None:
    registry = Registry(0, 0)
    registry.draining = True
    with pytest.raises(errors.GatewayDraining):
        registry.admit("alice")


def test_callers_that_have_left_are_forgotten() -> None:
    registry = Registry(0, 5)
    for number in range(1000):
        registry.admit(f"caller-{number}")
        registry.leave(f"caller-{number}")
    assert not registry._per_caller


def test_a_session_is_found_by_its_caller_alone() -> None:
    registry = Registry(0, 0)
    mine = session("s-1")
    registry.add(mine)
    assert registry.get("s-1", "alice") is mine
    seen = []
    for session_id, caller in (("s-1", "bob"), ("s-2", "alice")):
        with pytest.raises(errors.SessionNotFound) as caught:
            registry.get(session_id, caller)
        seen.append(caught.value.message.replace(session_id, "…"))
    mine.ended = cast(Any, object())
    with pytest.raises(errors.SessionNotFound) as caught:
        registry.get("s-1", "alice")
    seen.append(caught.value.message.replace("s-1", "…"))
    assert len(set(seen)) == 1, "another's, an unknown and an ended one look the same"


def test_a_callers_sessions_the_oldest_first() -> None:
    registry = Registry(0, 0)
    for name, caller, labels in (
        ("s-1", "alice", {"team": "a"}),
        ("s-2", "bob", {"team": "a"}),
        ("s-3", "alice", {"team": "b", "env": "test"}),
        ("s-4", "alice", {"team": "a", "env": "test"}),
    ):
        registry.add(session(name, caller, **labels))
    assert names(registry.of_caller("alice", {})) == ["s-1", "s-3", "s-4"]
    assert names(registry.of_caller("alice", {"team": "a"})) == ["s-1", "s-4"]
    assert names(registry.of_caller("alice", {"team": "a", "env": "test"})) == ["s-4"]
    assert names(registry.of_caller("alice", {"team": ""})) == []
    assert names(registry.of_caller("bob", {})) == ["s-2"]


def test_ended_and_removed_sessions_are_not_listed() -> None:
    registry = Registry(0, 0)
    one, two = session("s-1"), session("s-2")
    registry.add(one)
    registry.add(two)
    one.ended = cast(Any, object())
    assert names(registry.of_caller("alice", {})) == ["s-2"]
    registry.remove(two)
    registry.remove(two)
    assert len(registry) == 1
    for found in registry:
        registry.remove(found)
    assert len(registry) == 0


def test_of_ended_sessions_only_so_many_are_kept() -> None:
    registry = Registry(0, 0)
    ended = [Ended(session_id=f"s-{n}") for n in range(MAX_KEPT + 3)]
    for each in ended:
        registry.add(cast(Session, each))
        registry.keep(cast(Session, each))
    assert [e.session_id for e in ended if not e.waits] == ["s-0", "s-1", "s-2"]
    assert len(registry) == MAX_KEPT
    registry.remove(cast(Session, ended[3]))
    late = Ended(session_id="late")
    registry.keep(cast(Session, late))
    assert ended[4].waits, "what was removed counts no more"
