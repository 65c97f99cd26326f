"""Backpropagation put together from parts: lenses, learners, circuits of bits."""
