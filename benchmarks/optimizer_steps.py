"""A step of each first-order rule on 16 matrices of 256 by 256, for each array that it reads or writes, against Adam's."""

import time
from pathlib import Path

import numpy as np

from . import _one_thread

TITLE = "Step of the dearest first-order rule, 16 × (256²), for each array read or written"
PEER = "optax.adam"
UNIT = "ms of processor time an array, one thread"
TARGET = "1/1.5×"
BETTER = "lower"
LEAVES, SIDE, REPEATS = 16, 256, 40
RATE = 1e-3


def _rules() -> dict:
    """By name the rule, its extra arguments, and how many arrays of the parameters' size a step reads and writes."""
    from nablax import optimize

    return {
        "mars": (optimize.mars(RATE), {}, 8),  # gradient, two moments, last gradient; update and those again
        "mars lion": (optimize.mars(RATE, "lion"), {}, 6),
        "diffgrad": (optimize.diffgrad(RATE), {}, 8),
        "adamomentum": (optimize.adamomentum(RATE), {}, 6),
        "gravity": (optimize.gravity(RATE, alpha=0.0), {}, 5),  # the gradient twice, for its maximum
        "nag_gs": (optimize.nag_gs(RATE), {}, 5),
        "xgrad adam": (_xgrad(), {}, 10),  # what lies ahead, and the parameters
        "aegd": (optimize.aegd(RATE), {"value": 1.0}, 4),
    }


def _xgrad():
    import optax

    from nablax import optimize

    return optimize.xgrad(optax.adam(RATE))


def _times(rule, extra: dict) -> tuple[float, float]:
    """Seconds to the first result, and of the fastest of the later steps; the state is updated in place."""
    import jax
    import jax.numpy as jnp

    random = np.random.default_rng(0)

    def tree() -> dict:
        return {str(i): jnp.asarray(random.normal(size=(SIDE, SIDE)), jnp.float32) for i in range(LEAVES)}

    params, grads = tree(), tree()

    def update(grads, state, params):
        return rule.update(grads, state, params, **extra)

    step = jax.jit(update, donate_argnums=1)
    start = time.process_time()
    state = jax.jit(rule.init)(params)
    updates, state = jax.block_until_ready(step(grads, state, params))
    first = time.process_time() - start

    def once() -> None:
        nonlocal updates, state
        updates, state = jax.block_until_ready(step(grads, state, params))

    fastest = min(_one_thread.seconds(once, REPEATS))
    assert all(np.all(np.isfinite(leaf)) for leaf in updates.values())
    return first, fastest


def ours(folder: Path) -> dict:
    _one_thread.jax_alone()
    compiled, each, words = 0.0, {}, []
    for name, (rule, extra, arrays) in _rules().items():
        first, fastest = _times(rule, extra)
        compiled += first
        each[name] = 1e3 * fastest / arrays
        words.append(f"{name} {1e3 * fastest:.2f} ms, {arrays} arrays")
    dearest = max(each, key=each.__getitem__)
    return {
        "values": [each[dearest]],
        "compile": compiled,
        "accuracy": f"dearest: {dearest}; " + "; ".join(words),
    }


def peer(folder: Path) -> dict:
    _one_thread.jax_alone()
    import optax

    first, fastest = _times(optax.adam(RATE), {})
    return {"values": [1e3 * fastest / 6], "compile": first, "accuracy": f"{1e3 * fastest:.2f} ms, 6 arrays"}
