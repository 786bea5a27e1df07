"""Measures the gateway from outside: an open-loop load generator and a cheap upstream, each in a process of its own.

    make bench                                  the whole of it, within three minutes
    make bench ARGS="--only tts-realtime"       one scenario
    make bench ARGS="--versus-tree ../other"    this checkout and another one, in turn

`docs/benchmarks.md` says what is measured and how to read it. `wire` is what generator and upstream share, `upstream`
and `load` are the two processes, `gateway` starts the real gateway with a probe in it, `processes` runs and weighs
them, `scenarios` says what is run, `report` what is printed.
"""
