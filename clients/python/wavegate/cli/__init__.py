"""The command line: `wavegate`."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of `wavegate`."""
    try:
        from wavegate.cli.app import app  # noqa: PLC0415 - its libraries are an extra of the client alone
    except ModuleNotFoundError as exc:
        sys.exit(f"wavegate: the command line needs {exc.name}: pip install 'wavegate-client[cli]'")
    except KeyboardInterrupt:  # while the libraries load; later it is `app` that is interrupted
        sys.exit(130)
    app()
