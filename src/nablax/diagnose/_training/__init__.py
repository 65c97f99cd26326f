"""A whole training: what discretisation, symmetry and noise leave of its course."""
