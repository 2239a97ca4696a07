"""Runs the pipeline on open-source Kubeflow Pipelines 2: compiles it, submits it, and simulates it on one machine."""
