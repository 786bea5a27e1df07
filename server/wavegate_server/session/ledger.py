"""Settings of one session: what is in force, what is accepted and waits, and every ack on the way.

Pure: no clock, no loop. The session decides *when* a waiting delta is applied (an utterance's end, the end of
speech, a new connection); the ledger decides *whether*, and keeps the count:

- A revision is given out when a delta is accepted, so deltas form one line. `revision` and `settings` are in
  force, and so are those in an ack; `latest_revision` and `latest` are what the newest accepted delta will bring.
- `expected_revision` is compared with `latest_revision`: a writer that has not seen a waiting delta loses.
- A delta that changes neither what is in force nor what waits is APPLIED at once and takes no revision.
- A delta that falls out of the line (superseded, or refused by the upstream) leaves no gap in the count.
- Each delta gets at most one QUEUED and exactly one terminal ack. An `update_id` that comes again is not
  applied again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from wavegate_server import errors
from wavegate_server.errors import Violation
from wavegate_server.session.events import (
    AckState,
    ApplyPolicy,
    Mechanism,
    SettingsAcknowledged,
    UpdateSettings,
)
from wavegate_server.waves.settings import Field, Schema, Settings, canonical, check, merge

REMEMBERED_UPDATES = 1024
"""How many `update_id`s a session remembers; far more than it can have in flight."""


@dataclass(slots=True, eq=False)
class Pending:
    """An accepted delta that waits to be applied."""

    update: UpdateSettings
    settings: Settings
    revision: int
    fields: tuple[tuple[str, Mechanism], ...]
    accepted_at: float
    input_sequence: int
    """The newest input that still has the old settings."""

    @property
    def changed(self) -> frozenset[str]:
        return frozenset(name for name, how in self.fields if how is not Mechanism.NO_CHANGE)


class SettingsLedger:
    """The settings of one session."""

    def __init__(
        self,
        schema: Schema,
        settings: Settings,
        defaults: Settings,
        *,
        mechanism: Callable[[Field, Settings, Settings], Mechanism],
        max_buffer_delay_s: float = 5.0,
        require: Callable[[Settings, str], Iterable[Violation]] = lambda settings, path: (),
    ) -> None:
        """`mechanism(field, old, new)` says how a change of a field takes effect; `require` adds violations
        of the settings as a whole."""
        self.schema = schema
        self.defaults = defaults
        self.settings: Settings = settings
        self.revision = 1
        self.latest: Settings = settings
        self.latest_revision = 1
        self.pending: list[Pending] = []
        self._mechanism = mechanism
        self._max_buffer_delay_s = max_buffer_delay_s
        self._require = require
        self._acks: OrderedDict[str, SettingsAcknowledged | None] = OrderedDict()

    def seen(self, update_id: str) -> bool:
        """Whether a delta with this id came before."""
        return bool(update_id) and update_id in self._acks

    def terminal_ack(self, update_id: str) -> SettingsAcknowledged | None:
        """The terminal ack of an earlier delta; None while it waits."""
        return self._acks.get(update_id)

    def remember(self, update_id: str) -> None:
        """Note that a delta with this id has come."""
        if update_id:
            self._acks[update_id] = None
            while len(self._acks) > REMEMBERED_UPDATES:
                self._acks.popitem(last=False)

    def finish(self, ack: SettingsAcknowledged) -> SettingsAcknowledged:
        """Keep a terminal ack for repeats."""
        if ack.update_id in self._acks:
            self._acks[ack.update_id] = ack
        return ack

    def assess(
        self, update: UpdateSettings, now: float, input_sequence: int
    ) -> SettingsAcknowledged | Pending:
        """Check a delta: a terminal ack (REJECTED, VALIDATED or APPLIED without change), or what will apply."""
        update = replace(update, delta=canonical(self.schema, update.delta))
        violations = list(update.violations)
        names = self.schema.names()
        for name in update.reset:
            if name not in names:
                violations.append(Violation(update.reset_path, f"there is no setting {name!r}"))
            elif name in update.delta:
                violations.append(Violation(update.reset_path, f"{name} is both set and reset"))
        merged = merge(self.latest, update.delta, [n for n in update.reset if n in names], self.defaults)
        violations += check(
            self.schema,
            update.delta,
            update.path,
            effective=merged,
            max_buffer_delay_s=self._max_buffer_delay_s,
        )
        violations += self._require(merged, update.path)
        if violations:
            return self._rejected(update, errors.InvalidInput.of(violations))
        if update.expected_revision is not None and update.expected_revision != self.latest_revision:
            return self._rejected(
                update,
                errors.RevisionMismatch(
                    f"the session is at revision {self.latest_revision}, not {update.expected_revision}; "
                    "read the settings again and decide anew",
                    metadata={"settings_revision": str(self.latest_revision)},
                ),
            )
        fields = tuple(
            (f.name, self._how(f, merged))
            for f in self.schema.fields
            if f.name in update.delta or f.name in update.reset
        )
        mechanism = strongest(fields)
        if update.policy is ApplyPolicy.NO_RECONNECT and mechanism is Mechanism.RECONNECT:
            which = ", ".join(name for name, how in fields if how is Mechanism.RECONNECT)
            return self._rejected(
                update,
                errors.ReconnectRequired(
                    f"{which} can only change with a new upstream connection; allow it with another apply_policy"
                ),
                fields,
            )
        if update.validate_only:
            return self.finish(
                SettingsAcknowledged(
                    update.update_id,
                    AckState.VALIDATED,
                    mechanism,
                    fields,
                    settings_revision=self.revision,
                    settings=merged,
                )
            )
        pulls = update.policy is ApplyPolicy.IMMEDIATE and bool(self.pending)
        if mechanism is Mechanism.NO_CHANGE and not pulls:
            return self.finish(
                SettingsAcknowledged(
                    update.update_id,
                    AckState.APPLIED,
                    mechanism,
                    fields,
                    settings_revision=self.revision,
                    settings=self.settings,
                    applied_after_input_sequence=input_sequence,
                    apply_duration_s=0.0,
                )
            )
        return Pending(update, merged, self.latest_revision + 1, fields, now, input_sequence)

    def accept(self, pending: Pending) -> None:
        """Put an assessed delta in line."""
        self.latest = pending.settings
        self.latest_revision = pending.revision
        self.pending.append(pending)

    def queued(self, pending: Pending) -> SettingsAcknowledged:
        """The QUEUED ack of a delta in line."""
        return SettingsAcknowledged(
            pending.update.update_id,
            AckState.QUEUED,
            strongest(pending.fields),
            pending.fields,
            settings_revision=self.revision,
            settings=self.settings,
        )

    def apply(
        self,
        pending: Pending,
        now: float,
        *,
        first_utterance_id: str = "",
        audio_offset_s: float | None = None,
        input_sequence: int | None = None,
    ) -> SettingsAcknowledged:
        """Put a delta in force. It must be the first in line.

        `input_sequence` is the last input that the old settings governed; None: the newest one when it came.
        """
        if self.pending.pop(0) is not pending:
            raise AssertionError("deltas apply in the order in which they came")
        self.settings = pending.settings
        self.revision = pending.revision
        return self.finish(
            SettingsAcknowledged(
                pending.update.update_id,
                AckState.APPLIED,
                strongest(pending.fields),
                pending.fields,
                settings_revision=self.revision,
                settings=self.settings,
                first_utterance_id=first_utterance_id,
                applied_after_input_sequence=(
                    pending.input_sequence if input_sequence is None else input_sequence
                ),
                audio_offset_s=audio_offset_s,
                apply_duration_s=max(0.0, now - pending.accepted_at),
            )
        )

    def supersede(self, newer: Pending, eligible: Callable[[Pending], bool]) -> list[SettingsAcknowledged]:
        """Take out of the line what `newer` sets anew entirely, where `eligible` agrees. Call before `accept`."""
        anew = {*newer.update.delta, *newer.update.reset}
        out = [old for old in self.pending if old.changed <= anew and eligible(old)]
        self._without(out)
        newer.revision = self.latest_revision + 1
        return [self._fallen_out(old, AckState.SUPERSEDED) for old in out]

    def reject(self, pending: Pending, error: errors.WavegateError) -> list[SettingsAcknowledged]:
        """Take a delta back out of the line: the upstream refused it."""
        self._without([pending])
        return [self._rejected(pending.update, error, pending.fields)]

    def session_ended(self) -> list[SettingsAcknowledged]:
        """Terminal acks for all that still waits."""
        out = self.pending
        self._without(out)
        return [self._fallen_out(p, AckState.SESSION_ENDED) for p in out]

    def _without(self, out: list[Pending]) -> None:
        """Take deltas out of the line. Those behind them are folded anew, and take their places in the count."""
        self.pending = [p for p in self.pending if p not in out]
        self.latest, self.latest_revision = self.settings, self.revision
        for pending in self.pending:
            update = pending.update
            pending.settings = merge(self.latest, update.delta, update.reset, self.defaults)
            self.latest = pending.settings
            self.latest_revision += 1
            pending.revision = self.latest_revision

    def _fallen_out(self, pending: Pending, state: AckState) -> SettingsAcknowledged:
        return self.finish(
            SettingsAcknowledged(
                pending.update.update_id,
                state,
                strongest(pending.fields),
                pending.fields,
                settings_revision=self.revision,
                settings=self.settings,
            )
        )

    def _how(self, field: Field, merged: Settings) -> Mechanism:
        # What a waiting delta already brings is no change to the line, but it is one to what is in force.
        for before in (self.latest, self.settings):
            if before.get(field.name) != merged.get(field.name):
                return self._mechanism(field, before, merged)
        return Mechanism.NO_CHANGE

    def _rejected(
        self,
        update: UpdateSettings,
        error: errors.WavegateError,
        fields: tuple[tuple[str, Mechanism], ...] = (),
    ) -> SettingsAcknowledged:
        return self.finish(
            SettingsAcknowledged(
                update.update_id,
                AckState.REJECTED,
                strongest(fields),
                fields,
                settings_revision=self.revision,
                settings=self.settings,
                error=error,
            )
        )


def strongest(fields: Iterable[tuple[str, Mechanism]]) -> Mechanism:
    """The most disruptive mechanism of the fields; NO_CHANGE for none."""
    return max((how for _, how in fields), key=lambda how: how.value, default=Mechanism.NO_CHANGE)
