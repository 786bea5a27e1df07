"""The form of commit subjects is held, from the commit that brought the check on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from scripts.check_commits import LONGEST, MARKER, Commit, commits, main, problem_of


class Repository:
    """A git repository of the test's own; the user's settings and hooks have no part in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        environment |= {
            f"GIT_{who}_{what}": "t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        return subprocess.run(
            ["git", *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, check=True
        ).stdout

    def commit(self, message: str) -> None:
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def add_check(self, message: str) -> None:
        (self.folder / MARKER).parent.mkdir(exist_ok=True)
        (self.folder / MARKER).write_text("here\n")
        self.git("add", MARKER)
        self.commit(message)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A history that is older than the form, then the check."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    made = Repository(tmp_path / "tree")
    made.commit("Everything. And more of it; as measured")
    made.add_check("check: hold the form of subjects")
    return made


@pytest.mark.parametrize(
    "subject",
    [
        "transcription: keep settings of audio already sent",
        "rpc/convert: refuse a naive time",
        "docs, setup: name the Pythons",
        "port files: let them appear whole",
        "e2e: feed `hello.wav` twice, and once more",
        "cli: bring back the id",
        "soak: pause, stop and go on",
        "x: " + "y" * (LONGEST - 3),
    ],
)
def test_a_subject_in_form_passes(subject: str) -> None:
    assert problem_of(Commit("abc", 1, subject)) is None


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ("Keep settings of audio already sent", "form"),
        ("transcription: Keep settings", "form"),
        ("Transcription: keep settings", "form"),
        ("transcription: keep settings.", "form"),
        ("transcription:keep settings", "form"),
        ("transcription : keep settings", "form"),
        ("docs,setup: keep settings", "form"),
        ("transcription: ", "form"),
        ("", "form"),
        ("Merge branch 'x'", "form"),
        ('Revert "cli: keep settings"', "form"),
        ("cli: added an option", "`added`"),
        ("cli: adding an option", "`adding`"),
        ("fixup! cli: keep the id", "squash"),
        ("squash! cli: keep the id", "squash"),
        ("x: " + "y" * (LONGEST - 2), f"{LONGEST + 1} characters"),
    ],
)
def test_a_subject_out_of_form_is_refused_with_the_reason(subject: str, said: str) -> None:
    assert said in (problem_of(Commit("abc", 1, subject)) or "")


def test_a_merge_is_refused_however_it_is_named() -> None:
    assert "rebase" in (problem_of(Commit("abc", 2, "cli: keep the id")) or "")


def test_what_is_older_than_the_check_is_left_alone(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.commit("cli: keep the id\n\nIt was cut off.")
    assert [commit.subject for commit in commits(repository.folder)] == [
        "check: hold the form of subjects",
        "cli: keep the id",
    ]
    assert main(repository.folder) == 0
    assert capsys.readouterr().out == "commits: 2 subjects in form\n"


def test_a_commit_out_of_form_fails_and_is_named(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.commit("The id is whole")
    repository.commit("cli: keep the id")
    assert main(repository.folder) == 1
    said = capsys.readouterr().err
    assert f"{repository.git('rev-parse', '--short', 'HEAD^').strip()} is not of the form" in said
    assert said.count("\n") == 2


def test_a_second_line_counts_as_the_subject(repository: Repository) -> None:
    repository.commit("cli: keep the id\n" + "of every session " * 5)
    assert main(repository.folder) == 1


def test_the_commit_that_brings_the_check_is_looked_at(tmp_path: Path, repository: Repository) -> None:
    made = Repository(tmp_path / "other")
    made.commit("Everything")
    made.add_check("The check")
    assert main(made.folder) == 1


def test_a_merge_in_the_history_is_refused(repository: Repository) -> None:
    repository.git("checkout", "--quiet", "-b", "side")
    repository.commit("cli: keep the id")
    repository.git("checkout", "--quiet", "main")
    repository.git("merge", "--quiet", "--no-ff", "--message", "cli: take the side", "side")
    assert main(repository.folder) == 1


def test_the_check_coming_twice_counts_from_the_first_time(repository: Repository) -> None:
    repository.git("rm", "--quiet", MARKER)
    repository.commit("Away with it")
    repository.add_check("check: hold the form again")
    assert main(repository.folder) == 1


def test_a_shallow_clone_is_checked_as_far_as_it_goes(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.commit("The id is whole")
    repository.commit("cli: keep the id")
    repository.commit("cli: keep the name")
    clone = tmp_path / "clone"
    repository.git("clone", "--quiet", "--depth=2", f"file://{repository.folder}", str(clone))
    assert main(clone) == 0
    assert capsys.readouterr().out == "commits: 2 subjects in form, all that this shallow clone holds\n"
    repository.git("clone", "--quiet", "--depth=3", f"file://{repository.folder}", str(tmp_path / "deeper"))
    assert main(tmp_path / "deeper") == 1


def test_a_tree_without_a_history_passes_and_says_so(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported, inner = tmp_path / "exported", repository.folder / "vendored"
    for folder in (exported, inner):
        folder.mkdir()
        assert main(folder) == 0
    assert capsys.readouterr().out.splitlines() == [
        "commits: not checked, this tree has no git history",
        "commits: not checked, this tree has no git history of its own",
    ]


def test_an_imported_tree_is_checked_from_its_second_commit_on(
    tmp_path: Path, repository: Repository
) -> None:
    made = Repository(tmp_path / "imported")
    made.add_check("Everything, in one piece")
    assert main(made.folder) == 0
    made.commit("And more")
    assert main(made.folder) == 1


def test_without_git_it_says_so(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert main(repository.folder) == 0
    assert capsys.readouterr().out == "commits: not checked, there is no git on the PATH\n"


def test_a_git_that_refuses_is_a_failure(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    (repository.folder / ".git" / "config").write_text("[core\n")
    assert main(repository.folder) == 1
    assert "git rev-parse:" in capsys.readouterr().err
