"""Benchmarks on one machine: speed (`make bench`), and how well defects are found (`make bench-detection`)."""
