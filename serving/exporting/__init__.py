"""Exports a pushed model to one file for another runtime, and replays images there to prove it."""
