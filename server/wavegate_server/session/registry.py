"""Live sessions by id, and the bounds on how many there may be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from wavegate_server import errors
from wavegate_server.session.base import Session

MAX_KEPT = 64
"""Ended sessions that are kept for callers who may have missed their last words. Each may hold what its caller missed,
so more would be much memory; the oldest go first."""


class Registry:
    """The sessions of this process. Used from one loop."""

    def __init__(self, max_sessions: int, max_sessions_per_caller: int) -> None:
        """Zero means no limit."""
        self.max_sessions = max_sessions
        self.max_sessions_per_caller = max_sessions_per_caller
        self.draining = False
        self._sessions: dict[str, Session] = {}
        self._per_caller: Counter[str] = Counter()
        self._reserved = 0
        self._kept: dict[str, Session] = {}

    def __repr__(self) -> str:
        return f"<Registry {len(self._sessions)} sessions>"

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def admit(self, caller: str) -> int:
        """Make room for one more session of `caller`; the number it then has.

        Raises `GatewayDraining`, `GatewayCapacity` or `CallerQuota`. Give it back with `leave`.
        """
        if self.draining:
            raise errors.GatewayDraining("the gateway is shutting down; open the session elsewhere")
        if self.max_sessions and self._reserved >= self.max_sessions:
            raise errors.GatewayCapacity(
                f"the gateway serves {self.max_sessions} sessions already", retry_after_s=1.0
            )
        if self.max_sessions_per_caller and self._per_caller[caller] >= self.max_sessions_per_caller:
            raise errors.CallerQuota(
                f"this caller has {self.max_sessions_per_caller} sessions already; end one first",
                retry_after_s=1.0,
                metadata={"limit": str(self.max_sessions_per_caller)},
            )
        self._reserved += 1
        self._per_caller[caller] += 1
        return self._per_caller[caller]

    def leave(self, caller: str) -> None:
        """Give back what `admit` took."""
        self._reserved -= 1
        self._per_caller[caller] -= 1
        if not self._per_caller[caller]:
            del self._per_caller[caller]

    def add(self, session: Session) -> None:
        self._sessions[session.session_id] = session

    def remove(self, session: Session) -> None:
        self._sessions.pop(session.session_id, None)
        self._kept.pop(session.session_id, None)

    def keep(self, session: Session) -> None:
        """Let an ended session wait for a caller that did not hear its end."""
        self._kept[session.session_id] = session
        if len(self._kept) > MAX_KEPT:
            oldest = next(iter(self._kept.values()))
            oldest.forget_caller()
            self.remove(oldest)

    def get(self, session_id: str, caller: str) -> Session:
        """A live session of `caller`. Raises `SessionNotFound`, the same for unknown, ended and another's."""
        session = self._sessions.get(session_id)
        if session is None or session.context.caller != caller or session.ended is not None:
            raise errors.SessionNotFound(f"there is no live session {session_id!r}")
        return session

    def resumable(self, session_id: str, caller: str, kind: str) -> Session:
        """A session of `caller` and of this kind that a call may take up, ended or not as long as somebody may still
        want to hear of it. Raises `SessionNotFound`."""
        session = self._sessions.get(session_id)
        if (
            session is None
            or session.context.caller != caller
            or session.kind != kind
            or not session.resume_window_s
        ):
            raise errors.SessionNotFound(f"there is no session {session_id!r} to resume")
        return session

    def of_caller(self, caller: str, labels: Mapping[str, str]) -> list[Session]:
        """The caller's live sessions that carry all of `labels`, oldest first."""
        return [
            s
            for s in self._sessions.values()
            if s.context.caller == caller
            and s.ended is None
            and all(s.context.labels.get(k) == v for k, v in labels.items())
        ]
