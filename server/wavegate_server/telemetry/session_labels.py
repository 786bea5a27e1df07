"""The labels of sessions that metrics carry: those whose keys the operator allows, and not too many of their values.

A caller writes what it likes into `labels`. Each combination of values is a series of its own in every metric, here and
in all that collects them, for as long as the process lives. So the operator names the keys (`--metric-labels`), and the
combinations are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from wavegate_server.telemetry import names

MAX_COMBINATIONS: Final = 100
"""So many combinations of values have series of their own, the first that come; further ones share one."""
OTHER: Final = "other"
"""The value of each label of the series that is shared."""
NONE: Final = ""
"""The value where a session does not have the label."""


def attribute_of(key: str) -> str:
    """The name of a session's label in OpenTelemetry, on spans and metrics alike."""
    return names.LABEL + key


def prometheus_name_of(label: str) -> str:
    """The name of any label in Prometheus, which takes letters, digits and underscores only."""
    return re.sub(r"[^A-Za-z0-9_]", "_", label)


class SessionLabels:
    """Chooses what of a session's labels metrics carry. One a process, used from its loop."""

    def __init__(self, keys: Sequence[str] = (), max_combinations: int = MAX_COMBINATIONS) -> None:
        """`keys`: those that the operator allows, in the order in which `values_of` gives their values."""
        self.keys: Final = tuple(keys)
        self._max_combinations = max_combinations
        self._seen: set[tuple[str, ...]] = set()

    def __repr__(self) -> str:
        return f"<SessionLabels {','.join(self.keys) or 'none'}: {len(self._seen)} combinations>"

    def values_of(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Return a value for each key: the session's, `NONE` without one, `OTHER` where there are too many already."""
        values = tuple(labels.get(key, NONE) for key in self.keys)
        if values in self._seen or not any(values):
            return values
        if len(self._seen) >= self._max_combinations:
            return (OTHER,) * len(values)
        self._seen.add(values)
        return values
