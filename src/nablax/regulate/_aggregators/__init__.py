"""Gradients of several objectives in, one direction out."""
