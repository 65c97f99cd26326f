"""Papers whose methods live in `nablax.diagnose`."""
