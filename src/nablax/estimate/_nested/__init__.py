"""Gradients through what a program solves for: by its optimality condition, not by its iterations."""
