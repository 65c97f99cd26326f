"""Gradients in words: what to change in a text so that what is made from it gets better."""
