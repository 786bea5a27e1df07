"""Every promise names what keeps it, and that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from benchmarks.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parent.parent
KEEPER = re.compile(r"`([\w/.-]+\.py)::(?:\w+::)?([\w-]+)`")
ROWS = [
    line
    for line in (ROOT / "docs" / "promises.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| promise |", "| --- |"))
]


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    members = [node for found in (tree, *classes) for node in found.body]
    return {node.name for node in members if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:60])
def test_what_keeps_a_promise_exists(row: str) -> None:
    keepers = KEEPER.findall(row.rsplit("|", 2)[1])
    assert keepers, "nothing keeps it"
    for name, what in keepers:
        if name == "benchmarks/scenarios.py":
            assert what in {scenario.name for scenario in SCENARIOS}
        else:
            assert what.startswith("test_")
            assert what in names_in(ROOT / name)
