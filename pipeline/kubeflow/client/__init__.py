"""Submits and schedules packages through the kfp client."""
