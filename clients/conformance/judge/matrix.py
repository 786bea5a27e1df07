"""Scenario × client, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clients.conformance.judge.runner import Cell, State

_TEXT: dict[State, str] = {"pass": "pass", "FAIL": "FAIL", "not implemented": "-", "not applicable": "n/a"}
_MARKDOWN: dict[State, str] = {
    "pass": "✓",
    "FAIL": "**✗**",
    "not implemented": "–",
    "not applicable": "n/a",
}


def _rows(cells: Iterable[Cell], marks: dict[State, str]) -> tuple[list[str], list[list[str]]]:
    found: dict[str, dict[str, str]] = {}
    clients: list[str] = []
    for cell in cells:
        if cell.client not in clients:
            clients.append(cell.client)
        found.setdefault(cell.scenario, {})[cell.client] = marks[cell.state]
    return clients, [[name, *(found[name].get(c, "") for c in clients)] for name in sorted(found)]


def as_text(cells: Iterable[Cell]) -> str:
    """The table for a terminal."""
    clients, rows = _rows(cells, _TEXT)
    table = [["scenario", *clients], *rows]
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


def as_markdown(cells: Iterable[Cell]) -> str:
    """The table for a page."""
    clients, rows = _rows(cells, _MARKDOWN)

    def line(row: Sequence[str]) -> str:
        return f"| {' | '.join(row)} |"

    head = [line(["scenario", *clients]), line(["---", *("---" for _ in clients)])]
    return "\n".join([*head, *(line([f"`{row[0]}`", *row[1:]]) for row in rows)]) + "\n"
