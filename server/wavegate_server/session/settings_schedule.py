"""When a settings delta of a synthesis session takes effect. Pure.

- With no utterance in line, a delta is applied at once.
- Otherwise it waits for the end of the newest utterance: all that began before it keep their settings. After
  `APPLY_WITHIN_S` it is in force for what begins from then on, however long that utterance still takes.
- An IMMEDIATE delta changes the utterances in line, too, from their next upstream message on: the open request is
  closed, and another follows under the same utterance. It pulls the deltas before it along.
- A delta that needs another endpoint is *tried* first: the session opens a connection there, and only then is the
  delta applied. Where that is refused, so is the delta, and everything stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable

from wavegate_server.errors import WavegateError
from wavegate_server.session.base import APPLY_WITHIN_S
from wavegate_server.session.events import ApplyPolicy, Mechanism, SettingsAcknowledged, UpdateSettings
from wavegate_server.session.ledger import Pending, SettingsLedger
from wavegate_server.session.line import Line
from wavegate_server.session.utterance import Utterance
from wavegate_server.waves.settings import SYNTHESIS, Place


class SettingsSchedule:
    """The deltas of one session that wait."""

    def __init__(
        self, ledger: SettingsLedger, line: Line, acknowledge: Callable[[SettingsAcknowledged], None]
    ) -> None:
        self.trial: Pending | None = None
        """The delta that waits for a connection to prove it; see `proven` and `refused`."""
        self._ledger = ledger
        self._line = line
        self._acknowledge = acknowledge
        self._barriers: dict[Pending, Utterance] = {}
        """Delta -> the last utterance that began before it."""
        self._proven: Pending | None = None

    def take(self, update: UpdateSettings, now: float, input_sequence: int) -> bool:
        """Assess a delta, and apply it or have it wait; whether it was accepted."""
        outcome = self._ledger.assess(update, now, input_sequence)
        if not isinstance(outcome, Pending):
            self._acknowledge(outcome)
            return False
        newest = self._line.newest

        def unseen(old: Pending) -> bool:
            """No utterance began between the two, so none would ever have had the old one."""
            return newest is not None and self._barriers.get(old) is newest and old is not self.trial

        for ack in self._ledger.supersede(outcome, unseen):
            self._acknowledge(ack)
        self._barriers = {p: u for p, u in self._barriers.items() if p in self._ledger.pending}
        self._ledger.accept(outcome)
        if newest is not None:
            self._barriers[outcome] = newest
        self.apply_due(now, input_sequence)
        # With nothing to wait for but a connection, the one ack says how that went.
        if outcome in self._ledger.pending and newest is not None:
            self._acknowledge(self._ledger.queued(outcome))
        return True

    def due(self) -> float | None:
        """When `apply_due` has to be called at the latest."""
        if self.trial is not None or not self._ledger.pending:
            return None
        return self._ledger.pending[0].accepted_at + APPLY_WITHIN_S

    def apply_due(self, now: float, input_sequence: int) -> None:
        """Apply the deltas whose time has come. `input_sequence`: the newest input that was processed."""
        while self._ledger.pending:
            pending = self._ledger.pending[0]
            pulled = any(p.update.policy is ApplyPolicy.IMMEDIATE for p in self._ledger.pending)
            barrier = self._barriers.get(pending)
            waits = barrier is not None and not barrier.over and now < pending.accepted_at + APPLY_WITHIN_S
            if waits and not pulled:
                return
            reconnects = any(how is Mechanism.RECONNECT for _, how in pending.fields)
            if reconnects and pending is not self._proven:
                self.trial = pending
                return
            self._barriers.pop(pending, None)
            if pulled:
                touched = self._change_line(pending)
                governed = input_sequence
            else:
                touched = [u for u in self._line if u.settings_revision >= pending.revision]
                governed = max(pending.input_sequence, barrier.last_input_sequence if barrier else 0)
            first = touched[0].utterance_id if touched else ""
            self._acknowledge(
                self._ledger.apply(pending, now, first_utterance_id=first, input_sequence=governed)
            )

    def proven(self, now: float, input_sequence: int) -> None:
        """There is a connection to the endpoint that the delta on trial needs."""
        self._proven, self.trial = self.trial, None
        self.apply_due(now, input_sequence)

    def refused(self, error: WavegateError, now: float, input_sequence: int) -> None:
        """The upstream refused the delta on trial: the utterances that were to have it get the ones before."""
        pending, self.trial = self.trial, None
        if pending is None or pending not in self._ledger.pending:
            return
        waiting = {p.revision: p for p in self._ledger.pending}
        self._barriers.pop(pending, None)
        for ack in self._ledger.reject(pending, error):
            self._acknowledge(ack)
        for utterance in self._line:
            governing = waiting.get(utterance.settings_revision)
            if governing is pending:
                utterance.settings = self._ledger.settings
                utterance.settings_revision = self._ledger.revision
            elif governing is not None:
                utterance.settings = governing.settings
                utterance.settings_revision = governing.revision
        self.apply_due(now, input_sequence)

    def _change_line(self, pending: Pending) -> list[Utterance]:
        """Give a delta to the utterances in line that still have something to send; they are returned."""
        fields = [f for name in pending.changed if (f := SYNTHESIS.field(name)) is not None]
        sent = any(f.place is Place.UPSTREAM for f in fields)
        touched = []
        for utterance in self._line:
            all_sent = utterance.newest_request is not None and utterance.text_ended and not utterance.pieces
            if all_sent or utterance.settings_revision >= pending.revision:
                continue
            utterance.settings = pending.settings
            utterance.settings_revision = pending.revision
            if sent:
                utterance.cut_before_waiting()
            touched.append(utterance)
        if any(u.started for u in touched):
            pending.fields = tuple(
                (name, Mechanism.IN_PLACE if how is Mechanism.NEXT_UTTERANCE else how)
                for name, how in pending.fields
            )
        return touched
