"""The set-up installs the locks as they are, whatever else the index has and however old the pip is."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

# Each makes environments, on machines that do other things too.
pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]

# The oldest pip that is supported, and runs on the oldest Python; newer Pythons bring a newer one, and need it.
OLDEST_PIP = "pip==23.0 --hash=sha256:b5f88adff801f5ef052bcdef3daa31b55eb67b0fccd6d0106c206fa248e0463c"
IS_OLDEST_PYTHON = sys.version_info[:2] == (3, 11)
LOCKED, NEWER = "1.0", "2.0"


def wheel(folder: Path, name: str, version: str, *requires: str, extras: tuple[str, ...] = ()) -> str:
    """Make a wheel with one empty module; return the hash of its file."""
    info = f"{name}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Provides-Extra: {extra}" for extra in extras]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(content)}\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name_, content in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(name_, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def old_pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The oldest pip that is supported, as an archive: 23.0, or the one of this environment where that does not run."""
    folder = tmp_path_factory.mktemp("pip")
    if not IS_OLDEST_PYTHON:
        own = distribution("pip")
        with zipfile.ZipFile(folder / "pip.zip", "w") as archive:
            for file in own.files or ():
                if ".." not in file.parts and file.suffix != ".pyc":
                    archive.write(own.locate_file(file), file)
        return folder / "pip.zip"
    wanted = folder / "pip.txt"
    wanted.write_text(OLDEST_PIP)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "-r",
            str(wanted),
        ],
        cwd=folder,
        check=True,
        timeout=300,
    )
    (found,) = folder.glob("pip-*.whl")
    return found


class Tree:
    """A checkout of which only the set-up is real: its lock is of made-up packages, and so is its index."""

    def __init__(self, folder: Path, pip: Path) -> None:
        self.folder = folder
        self.wheels = folder / "wheels"
        self.wheels.mkdir(parents=True)
        (folder / "scripts").mkdir()
        for name in ("Makefile", "scripts/find-python", "scripts/speech_engines.py", "scripts/tool_cache.py"):
            (folder / name).write_bytes((ROOT / name).read_bytes())
            (folder / name).chmod(0o755)
        (folder / "pyproject.toml").write_text("")
        self.python = folder / "python"
        as_it_is = f"exec '{sys.executable}' \"$@\"\n"
        # As if this Python brought that pip, and in a second instead of ten.
        with_pip = (
            "case \"$1 $2\" in '-m venv') ;; *) " + as_it_is + ";; esac\n"
            "for folder; do :; done\n"
            f"'{sys.executable}' -m venv --clear --without-pip \"$folder\" || exit\n"
            f"exec '{sys.executable}' -m zipfile -e '{pip}' \"$folder\"/lib/python3.*/site-packages\n"
        )
        self.python.write_text("#!/bin/sh\n" + with_pip)
        self.python.chmod(0o755)

    def lock(self, name: str, **hashes: str) -> None:
        lines = [f"{package}=={LOCKED} \\\n    --hash=sha256:{digest}" for package, digest in hashes.items()]
        (self.folder / name).write_text("\n".join(lines) + "\n")

    def _environment(self) -> dict[str, str]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE"))
        }
        environment |= {
            "PYTHON": str(self.python),
            "HOME": str(self.folder / "home"),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            # The environment that runs this test shall not be what is asked.
            "VIRTUAL_ENV": "",
        }
        return environment

    def make(self, target: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", target],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def install_engines(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """What `make setup` does after the rest; the stamp is `.venv/.speech`."""
        return subprocess.run(
            [".venv/bin/python", "scripts/speech_engines.py", "--stamp", ".venv/.speech"],
            cwd=self.folder,
            env=self._environment() | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    @property
    def stamp(self) -> Path:
        return self.folder / ".venv" / ".speech"

    def versions(self, environment: str) -> dict[str, str]:
        """Module → the version that is installed, of those that were made up."""
        found = {}
        for path in self.folder.glob(f"{environment}/lib/python3.*/site-packages/*.py"):
            if match := re.fullmatch(r"version = '(.*)'\n", path.read_text()):
                found[path.stem] = match[1]
        return found


@pytest.fixture
def tree(tmp_path: Path, old_pip: Path) -> Tree:
    """`reports` asks for `measures[toml]`, as pytest-cov does for coverage; of each there is a newer one."""
    made = Tree(tmp_path / "tree", old_pip)
    hashes = {}
    for version in (LOCKED, NEWER):
        for name, requires, extras in (
            ("measures", ("reads; extra == 'toml'",), ("toml",)),
            ("reads", (), ()),
            ("reports", ("measures[toml]>=1",), ()),
        ):
            digest = wheel(made.wheels, name, version, *requires, extras=extras)
            hashes.setdefault(name, digest)
    made.lock("requirements.lock", **hashes)
    made.lock("requirements-tools.lock", **hashes)
    return made


@pytest.mark.parametrize(
    ("target", "environment"), [(".venv/.locked", ".venv"), (".tools/.installed", ".tools")]
)
def test_what_was_published_since_makes_no_difference(tree: Tree, target: str, environment: str) -> None:
    made = tree.make(target)
    assert made.returncode == 0, made.stderr
    assert tree.versions(environment) == dict.fromkeys(("measures", "reads", "reports"), LOCKED)


@pytest.mark.skipif(not IS_OLDEST_PYTHON, reason="the pip of this Python is not one that trips")
def test_the_tree_shows_what_resolving_does(tree: Tree) -> None:
    """Without --no-deps, an old pip resolves again and trips over the newer version. So the test above can fail."""
    makefile = tree.folder / "Makefile"
    makefile.write_text(makefile.read_text().replace(" --no-deps", ""))
    made = tree.make(".venv/.locked")
    assert made.returncode != 0
    assert "must have their versions pinned" in made.stderr


def test_a_package_with_another_hash_is_refused(tree: Tree) -> None:
    wheel(tree.wheels, "reads", LOCKED, "something-else")
    made = tree.make(".venv/.locked")
    assert made.returncode != 0
    assert "DO NOT MATCH THE HASHES" in made.stderr
    assert not (tree.folder / ".venv" / ".locked").exists()


# -- the speech engines ---------------------------------------------------------------------------------------------

BACKEND = """
import zipfile

def build_wheel(folder, settings=None, metadata=None):
    import builds  # from the lock of the build tools
    with zipfile.ZipFile(f"{folder}/pocketsphinx-1.0-py3-none-any.whl", "w") as wheel:
        info = "pocketsphinx-1.0.dist-info"
        wheel.writestr("pocketsphinx.py", f"version = 'built by {builds.version}'\\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: pocketsphinx\\nVersion: 1.0\\n")
        kind = "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr(f"{info}/WHEEL", kind)
        wheel.writestr(f"{info}/RECORD", "")
    return "pocketsphinx-1.0-py3-none-any.whl"
"""


@pytest.fixture
def engines(tree: Tree) -> Tree:
    """The engine that speaks has a wheel, the one that listens has only its source; of each there is a newer wheel."""
    hashes = {
        "espeakng-loader": wheel(tree.wheels, "espeakng_loader", LOCKED),
        "pocketsphinx": source(tree.wheels),
    }
    builds = wheel(tree.wheels, "builds", LOCKED)
    for name in ("espeakng_loader", "pocketsphinx", "builds"):
        wheel(tree.wheels, name, NEWER)
    tree.lock("requirements-speech.lock", **hashes)
    tree.lock("requirements-speech-build.lock", builds=builds)
    subprocess.run([tree.python, "-m", "venv", "--clear", tree.folder / ".venv"], check=True, timeout=300)
    return tree


def source(folder: Path) -> str:
    """Make a source distribution of pocketsphinx that builds itself; return the hash of its file."""
    path = folder / f"pocketsphinx-{LOCKED}.tar.gz"
    project = (
        "[build-system]\nrequires = ['builds']\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        f"[project]\nname = 'pocketsphinx'\nversion = '{LOCKED}'\n"
    )
    files = {
        "pyproject.toml": project,
        "backend.py": BACKEND,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: pocketsphinx\nVersion: {LOCKED}\n",
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"pocketsphinx-{LOCKED}/{name}")
            entry.size = len(content.encode())
            archive.addfile(entry, io.BytesIO(content.encode()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_without_a_compiler_what_has_a_wheel_is_installed_and_the_rest_is_asked_for(engines: Tree) -> None:
    done = engines.install_engines(CC="no-such-compiler")
    assert done.returncode == 0
    assert engines.versions(".venv")["espeakng_loader"] == LOCKED
    assert "pocketsphinx" not in engines.versions(".venv")
    assert "a C compiler" in done.stderr
    assert "make speech" in done.stderr
    assert "speaks and cannot listen" in done.stderr
    assert engines.stamp.exists(), "nothing would change by trying again at each start"


def test_with_a_compiler_it_is_built_with_the_tools_of_the_lock(engines: Tree) -> None:
    done = engines.install_engines(CC="true")
    assert done.returncode == 0
    assert engines.versions(".venv")["pocketsphinx"] == f"built by {LOCKED}"
    assert "builds" not in engines.versions(".venv"), "the tools do not stay"
    assert engines.stamp.exists()
    assert engines.install_engines(CC="no-such-compiler").stderr == "", "what is there is left alone"


def test_an_index_that_cannot_be_reached_is_asked_again_the_next_time(engines: Tree) -> None:
    done = engines.install_engines(CC="true", PIP_FIND_LINKS=str(engines.folder / "nowhere"))
    assert done.returncode == 0
    assert "neither speaks nor listens" in done.stderr
    assert "the next `make setup` tries again" in done.stderr
    assert not engines.stamp.exists()


# -- every install ----------------------------------------------------------------------------------------------------

PIP_INSTALL = re.compile(r"pip\b[^\n|&;]*?\binstall\b(?:[^\n]|\\\n)*")


@pytest.mark.parametrize("name", ["Makefile", "Dockerfile", ".ci/run"])
def test_each_install_is_of_a_lock_or_of_the_project_itself(name: str) -> None:
    for command in PIP_INSTALL.findall((ROOT / name).read_text()):
        assert "--no-deps" in command, command
        of_the_project = "--no-build-isolation --editable ." in command or "/dist/*.whl" in command
        assert of_the_project or "--require-hashes" in command, command
