"""Check that the subject of every commit has the form `area: imperative`, in 72 characters at most.

The commits from the one that added this file on are looked at: the form is younger than the history. Needs git, and
nothing but what the clone holds. A tree without a history of its own (an exported one) passes, and a sentence says so.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MARKER: Final = "scripts/check_commits.py"
LONGEST: Final = 72
# One area or several (`docs, port files`), lower case; then a verb, lower case too, and no full stop.
FORM: Final = re.compile(
    r"[a-z0-9](?:[a-z0-9._/-]|,? (?=[a-z0-9]))*: (?P<verb>[a-z][\w'-]*)(?:[ ,].*)?(?<![.\s])"
)
# `added`, `adding`. Verbs that only look like it: `need`, `feed`, `bring`.
NO_IMPERATIVE: Final = re.compile(r".*[^e]ed|.*ing")
IMPERATIVE: Final = frozenset(
    ("embed", "shed", "shred", "wed", "bring", "cling", "ping", "ring", "string", "swing")
)
UNFINISHED: Final = ("fixup!", "squash!", "amend!")


class NoHistory(Exception):
    """Raised where there is no history to look at; the sentence says why."""


class GitError(Exception):
    """Raised where git does not do what it was asked; the sentence is git's own."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: its abbreviated name, the number of its parents, and its first paragraph as one line."""

    name: str
    parents: int
    subject: str


def problem_of(commit: Commit) -> str | None:
    """Return what is wrong with the form of a commit, or None where nothing is."""
    subject = commit.subject
    if commit.parents > 1:
        return "is a merge: rebase onto the branch instead"
    if subject.startswith(UNFINISHED):
        return "is unfinished: squash it into the commit that it mends (git rebase --autosquash)"
    if len(subject) > LONGEST:
        return f"has {len(subject)} characters in its subject, and {LONGEST} are the most"
    form = FORM.fullmatch(subject)
    if form is None:
        return "is not of the form `area: imperative` (lower case, no full stop at the end)"
    verb = form["verb"]
    if NO_IMPERATIVE.fullmatch(verb) and verb not in IMPERATIVE:
        return f"does not say it as a command: `{verb}` is no imperative"
    return None


def git(folder: Path, *arguments: str) -> str:
    """Return what git prints. Raises `GitError` where it fails and `NoHistory` where there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603, S607 - the arguments are this file's own; git is the one on the PATH
    except FileNotFoundError:
        raise NoHistory("there is no git on the PATH") from None
    if done.returncode != 0:
        raise GitError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def commits(folder: Path) -> list[Commit]:
    """Return the commits from the one that added this file on, the oldest first.

    The adding commit is left out where it is the first of all: then it is an import of the whole tree. The edge of a
    shallow clone shows every file as added, and is no older than the check. Raises `NoHistory` and `GitError`.
    """
    # Any git of the environment (a hook's GIT_DIR) is honoured; an outer repository is not this one's history.
    try:
        top = git(folder, "rev-parse", "--show-toplevel").strip()
    except GitError as exc:
        if "not a git repository" in str(exc):
            raise NoHistory("this tree has no git history") from None
        raise
    if Path(top).resolve() != folder.resolve():
        raise NoHistory("this tree has no git history of its own")
    try:
        git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    except GitError:
        raise NoHistory("nothing is committed yet") from None
    # Without --topo-order, commits of one second could come in any order.
    log = ("log", "--topo-order", "--reverse", "--format=%h%x09%P%x09%s")
    added = git(folder, *log, "--diff-filter=A", "--no-renames", "--full-history", "--", MARKER).splitlines()
    if not added:
        raise NoHistory(f"{MARKER} is not committed yet")
    first = _commit(added[0])
    since = [_commit(line) for line in git(folder, *log, f"{first.name}..HEAD").splitlines()]
    return [first, *since] if first.parents or is_shallow(folder) else since


def is_shallow(folder: Path) -> bool:
    """True where the clone holds only the newest part of the history."""
    return git(folder, "rev-parse", "--is-shallow-repository").strip() == "true"


def _commit(line: str) -> Commit:
    name, parents, subject = line.split("\t", 2)
    return Commit(name, len(parents.split()), subject)


def main(folder: Path) -> int:
    """Check the repository in `folder`; return the exit code."""
    try:
        looked_at = commits(folder)
        shallow = is_shallow(folder)
    except NoHistory as exc:
        print(f"commits: not checked, {exc}")
        return 0
    except GitError as exc:
        print(f"commits: not checked. {exc}", file=sys.stderr)
        return 1
    found = [(commit, problem) for commit in looked_at if (problem := problem_of(commit))]
    for commit, problem in found:
        print(f"{commit.name} {problem}: {commit.subject}", file=sys.stderr)
    if found:
        print("Say them again (git rebase --interactive): see Commits in CONTRIBUTING.md", file=sys.stderr)
        return 1
    note = ", all that this shallow clone holds" if shallow else ""
    print(f"commits: {len(looked_at)} subjects in form{note}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent))
