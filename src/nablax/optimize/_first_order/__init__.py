"""Rules of a gradient and its history, a few numbers a parameter."""
