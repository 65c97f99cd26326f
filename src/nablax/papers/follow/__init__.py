"""Papers whose methods live in `nablax.follow`."""
