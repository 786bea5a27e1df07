"""What the documents name exists: files, links, headings, verbs of make and their arguments, versions of Python."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
# What a path in a document may be relative to: a page names files as its subject has them.
BASES = [
    ROOT / base
    for base in (
        ".",
        "server",
        "server/wavegate_server",
        "server/wavegate_server/rpc",
        "server/wavegate_server/session",
        "server/wavegate_server/telemetry",
        "server/waves_local",
        "clients/python",
        "tests",
        "docs",
        "deploy",
        "protos",
    )
]
SUFFIXES = "cfg conf lock md mk proto py pyi sh toml txt yaml yml"
PATH = re.compile(
    rf"(?:[\w.-]+/)+[\w-]+\.(?:{SUFFIXES.replace(' ', '|')})|[\w-]+\.(?:{SUFFIXES.replace(' ', '|')})"
)
FOLDER = re.compile(r"(?:[a-z_][\w.-]*/)+")
# Names of a reader's own files, not of ours.
ELSEWHERE = {"bench.json", "slow_client.py"}


def prose_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def spans_of(page: Path) -> list[str]:
    """What stands in backticks, outside blocks of code."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", prose_of(page), flags=re.M | re.S))


def exists(path: str) -> bool:
    return any((base / path).exists() for base in BASES)


def named(pages: list[Path]) -> list[tuple[str, str]]:
    """(page, path) of each path in backticks. What begins with `/` is an address of the API or of a machine."""
    found = {
        (page.name, span.partition("::")[0])
        for page in pages
        for span in spans_of(page)
        if (PATH.fullmatch(span.partition("::")[0]) or FOLDER.fullmatch(span)) and span not in ELSEWHERE
    }
    return sorted(found)


@pytest.mark.parametrize(("page", "path"), named(DOCUMENTS))
def test_a_path_that_a_document_names_exists(page: str, path: str) -> None:
    assert exists(path), f"{page} names {path}"


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors_of(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose_of(page), re.M)}


LINKS = sorted(
    {
        (page, target)
        for page in DOCUMENTS
        for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page))
        if "://" not in target
    }
)


@pytest.mark.parametrize(("page", "target"), LINKS, ids=[f"{page.name}-{target}" for page, target in LINKS])
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    to = page.parent / path if path else page
    assert to.exists()
    if anchor:
        assert anchor in anchors_of(to)


def test_the_readme_leads_to_each_document_once() -> None:
    table = prose_of(ROOT / "README.md").partition("## Read on")[2]
    targets = re.findall(r"^\| \[[^]]+\]\(([^)]+)\)", table, re.M)
    assert sorted(targets) == sorted(
        {*(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")), "CONTRIBUTING.md"}
    )


# -- commands -----------------------------------------------------------------------------------------------------

VERBS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
COMMANDS = sorted(
    {
        (page.name, command)
        for page in [*DOCUMENTS, ROOT / ".ci" / "run"]
        for command in [
            *re.findall(r"`[^`\n]*?\bmake ([^`\n]+)`", prose_of(page)),
            *re.findall(r"^(?:[A-Z_]+=\S+ )*make ([^#\n]+)", prose_of(page), re.M),
        ]
    }
)


def verbs_in(command: str) -> list[str]:
    """The targets of what follows `make`; variables and options are none."""
    return [word for word in shlex.split(command.partition("|")[0]) if re.fullmatch(r"[a-z][a-z-]*", word)]


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_make_has_each_verb(page: str, command: str) -> None:
    assert set(verbs_in(command)) <= TARGETS, f"{page}: make {command}"


def test_each_verb_is_listed_by_make_help() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make (\S+)", shown, re.M)) == VERBS


def examples(*verbs: str) -> list[str]:
    """The ARGS of these verbs, as documents and the Makefile's help show them."""
    texts = [prose_of(page) for page in DOCUMENTS]
    found = {
        (verb, arguments)
        for text in texts
        for verb, arguments in re.findall(r'make ([a-z-]+) ARGS="([^"]*)"', text)
    }
    return sorted(arguments for verb, arguments in found if verb in verbs)


@pytest.mark.parametrize("arguments", examples("test", "test-unit", "test-e2e"))
def test_an_example_of_tests_finds_some(arguments: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "--quiet",
        "--no-cov",
        *shlex.split(arguments),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("verb", "module"), [("bench", "benchmarks"), ("soak", "benchmarks.soak")])
def test_an_example_of_a_benchmark_has_options_that_there_are(verb: str, module: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for arguments in examples(verb):
        for word in shlex.split(arguments):
            name = word.partition("=")[0]
            assert not name.startswith("--") or re.search(rf"{name}\b", shown), arguments


# -- what is said in several places ------------------------------------------------------------------------------


def test_all_say_the_same_oldest_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = project["requires-python"].removeprefix(">=")
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run", "scripts/find-python"):
        text = (ROOT / name).read_text()
        said = re.findall(r"Python (3\.\d+) or newer", text)
        assert said, name
        assert set(said) == {oldest}, name
    classified = {c.rpartition(" ")[2] for c in project["classifiers"] if re.search(r":: 3\.\d+$", c)}
    locks = (ROOT / "scripts" / "check_locks.py").read_text()
    checked = set(re.findall(r'"(3\.\d+)"', locks.partition("PYTHONS = ")[2].partition("\n")[0]))
    assert classified == checked
    assert oldest in classified


def test_the_cost_of_tracing_a_chunk_is_said_in_one_place() -> None:
    """With its conditions, in docs/benchmarks.md; docs/promises.md has the bound that is held."""
    saying = {
        page.name
        for page in DOCUMENTS
        for line in prose_of(page).splitlines()
        if re.search(r"\d µs (of CPU )?(a|each|per) ?chunk|\d µs each", line)
        or "Tracing a chunk costs" in line
    }
    assert saying - {"CHANGELOG.md"} == {"benchmarks.md", "promises.md"}
