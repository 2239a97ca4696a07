"""Benchmarks: measures this project's speed claims side by side on one machine (`make bench`)."""
