"""Benchmarks: what the node costs beside a straightforward one, in the same run, with the results checked."""
