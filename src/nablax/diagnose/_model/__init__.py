"""A trained model: what it looks at, how far it moves, how it compares, what is certain of it."""
