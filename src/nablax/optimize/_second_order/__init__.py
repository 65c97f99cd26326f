"""Rules that solve for the step with the loss's own curvature, from products or in the space of the batch."""
