"""Rules that are local in time or space: no pass back through a sequence, or through the layers."""
