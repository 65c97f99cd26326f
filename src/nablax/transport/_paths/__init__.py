"""Paths from noise to data, and the conversions among velocity, score, noise and denoiser."""
