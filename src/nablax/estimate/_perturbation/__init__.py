"""Gradients from directions drawn at random: by forward mode, by differences, along guesses."""
