"""Where data comes from: a source, its columns, and the code that turns cells into numbers and back."""
