"""Rules that make a model of the loss at each step, mostly of its own curvature, and solve it."""
