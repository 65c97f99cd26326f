"""Gradients through choices: binary and categorical draws, signs, spikes."""
