"""Transports made from transports."""
