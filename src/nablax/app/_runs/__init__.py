"""A run: its configuration, its folder, and the learning that fills it."""
