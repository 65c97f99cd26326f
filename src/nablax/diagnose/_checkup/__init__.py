"""A training step before it is made: sharpness, noise, conflicts, and what to change."""
