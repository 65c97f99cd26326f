"""Papers whose methods live in `nablax.optimize`."""
