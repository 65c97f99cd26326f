"""Training as the search for a point that all constraints share, by projections onto graphs of functions."""
