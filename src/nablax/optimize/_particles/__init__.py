"""Solvers that follow many states, or one for long: they find what the last state of a single descent does not."""
