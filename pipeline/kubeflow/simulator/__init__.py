"""Simulates Kubeflow's driver and launcher for `autoencoder rehearse`; no other code imports it."""
