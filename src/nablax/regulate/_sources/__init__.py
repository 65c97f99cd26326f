"""Gradients of several domains, draws or tasks, combined or sampled."""
