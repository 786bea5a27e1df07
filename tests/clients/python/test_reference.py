"""`make docs` writes a reference in which every setting and every method of a session is explained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_reference_has_a_page_for_each_module(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "scripts/python_reference.py", str(tmp_path)], cwd=ROOT, check=True)
    settings = (tmp_path / "wavegate" / "settings.html").read_text()
    assert "Speaking rate, 0.5 to 2.0" in settings
    client = (tmp_path / "wavegate.html").read_text()
    for name in ("AsyncClient", "SyncClient", "Utterance.wait", "Client.transcribe_once"):
        assert f'id="{name}"' in client, name
