"""`python -m wavegate.cli`."""

from wavegate.cli import main

main()
