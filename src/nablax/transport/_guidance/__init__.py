"""Samples steered: by a class, a cost, an observation."""
