"""Solvers of two levels: the parameters of the upper one set the problem that the lower one solves."""
