"""Papers whose methods live in `nablax.regulate`."""
