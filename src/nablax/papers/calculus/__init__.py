"""Papers whose methods live in `nablax.calculus`."""
