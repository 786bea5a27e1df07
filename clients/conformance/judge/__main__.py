"""`python -m clients.conformance.judge`: the conformance suite.

    python -m clients.conformance.judge                          the clients of this repository
    python -m clients.conformance.judge --client mine='./driver' one of somebody else's
    python -m clients.conformance.judge --only 'resume/*' --only cancel

Run it in the folder of the repository. Its exit code is 1 where a cell is red.
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from clients.conformance import scenarios
from clients.conformance.judge.clients import CLIENTS, build, missing
from clients.conformance.judge.matrix import as_markdown, as_text
from clients.conformance.judge.runner import Cell, judge
from clients.conformance.judge.script import ALL, Scenario
from clients.conformance.judge.world import World

assert scenarios is not None  # it fills `ALL`


def chosen(patterns: Sequence[str]) -> list[Scenario]:
    """The scenarios whose names match one of the patterns, or hold it; all without patterns."""
    return [
        found
        for name, found in ALL.items()
        if not patterns or any(fnmatch.fnmatch(name, p) or p in name for p in patterns)
    ]


def _command(text: str) -> tuple[str, list[str] | None]:
    name, equals, command = text.partition("=")
    if not equals:
        if name not in CLIENTS:
            raise argparse.ArgumentTypeError(f"NAME=COMMAND, or one of {', '.join(CLIENTS)}")
        return name, None
    return name, shlex.split(command)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m clients.conformance.judge",
        description="Judge clients of wavegate by their drivers; see clients/conformance/README.md.",
    )
    parser.add_argument(
        "--client",
        action="append",
        type=_command,
        metavar="NAME[=COMMAND]",
        help="a client and the command of its driver; of a client of this repository the name is enough. "
        "Repeatable. None: all of this repository that this machine can build",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only scenarios whose names match (as file names do), or hold it. Repeatable",
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many scenarios run at once (default: 2)")
    parser.add_argument("--list", action="store_true", help="print the scenarios and what each is about")
    parser.add_argument("--matrix", action="store_true", help="print the table scenario x client at the end")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write that table as Markdown")
    parser.add_argument("--times", action="store_true", help="print how long each took")
    return parser.parse_args()


def _build(name: str) -> list[str] | None:
    """Build the driver of a client of this repository; its command, or None where that cannot be done here."""
    if why := missing(name):
        print(f"left out: {name}: {why}", flush=True)
        return None
    try:
        return build(name)
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"{shlex.join(error.cmd)}\n{error.stdout}{error.stderr}\nthe driver of {name} cannot be built"
        )


async def _main(arguments: argparse.Namespace) -> int:
    wanted = chosen(arguments.only)
    if arguments.list:
        for scenario in wanted:
            print(f"{scenario.name}\n    {scenario.what}")
        return 0
    if not wanted:
        print("no scenario has such a name", file=sys.stderr)
        return 2
    clients = []
    for name, given in arguments.client or [(name, None) for name in CLIENTS]:
        if (command := given or _build(name)) is not None:
            clients.append((name, command))
    cells: list[Cell] = []

    def tell(cell: Cell) -> None:
        took = f" ({cell.seconds:.1f} s)" if arguments.times else ""
        state = {"pass": "PASS", "FAIL": "FAIL"}.get(cell.state, cell.state)
        print(f"{state} {cell.client} {cell.scenario}{took}", flush=True)
        if cell.what:
            print("    " + cell.what.replace("\n", "\n    "), flush=True)

    async with World() as world:
        for name, command in clients:
            cells += await judge(name, command, wanted, world, jobs=arguments.jobs, tell=tell)
    if arguments.matrix:
        print("\n" + as_text(cells))
    if arguments.markdown is not None:
        arguments.markdown.write_text(as_markdown(cells))
    red = [cell for cell in cells if cell.state == "FAIL"]
    print(f"\n{len(cells)} cells, {len(red)} red")
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(_arguments())))
