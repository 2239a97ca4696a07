"""Compiles a configuration into a package; imported only by `autoencoder compile`."""
