"""The optimiser of every training in this room."""

import optax


def recipe(steps: int, warm_up: int, peak: float, weight_decay: float) -> optax.GradientTransformation:
    """AdamW with clipped gradients, a warm-up, and a cosine to nearly nothing: the last steps only average.

    Args:
        steps: updates.
        warm_up: updates, at least one.
        peak: learning rate after the warm-up.
        weight_decay: of AdamW.

    Returns:
        The optimiser.
    """
    rate = optax.warmup_cosine_decay_schedule(0.0, peak, max(1, warm_up), max(2, steps), peak / 100)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=weight_decay))


__all__ = ["recipe"]
