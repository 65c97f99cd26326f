"""Papers whose methods live in `nablax.transport`."""
