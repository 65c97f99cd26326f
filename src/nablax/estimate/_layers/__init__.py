"""Layers and losses whose backward pass is another than their forward pass's own."""
