"""What one asks of a run: samples, guided samples, scores, completions, a density."""
