"""Rules that turn the gradient into a metric of its own: whole matrices, or a diagonal of the curvature."""
