"""Solvers of problems whose structure is known: they return a solution and what is known about it, not an update."""
