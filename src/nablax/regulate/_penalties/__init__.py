"""Penalties and constraints, by the gradient of what they add to the loss."""
