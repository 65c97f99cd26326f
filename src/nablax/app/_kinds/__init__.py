"""Kinds of columns: how each is recognised, read, encoded as a state and a value, decoded, and spelled again."""
