"""One gradient in, one out: rescaled, clipped, gated, kept inside a radius."""
