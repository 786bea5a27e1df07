"""`python -m wavegate_server` is `wavegate-server`."""

from wavegate_server.cli import main

main()
