"""The benchmark of meldfs: tests/bench/run.sh runs it."""
