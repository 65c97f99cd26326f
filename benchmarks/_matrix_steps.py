"""A step of a rule on several square matrices, ours and a peer's: eight trees of gradients in turn, one thread each."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from . import _one_thread

UNIT = "ms of processor time, one thread"
TREES, STEPS, REPEATS = 8, 40, 3


def mars() -> Any:
    from nablax import optimize

    return optimize.mars(1e-4)


def peers_mars(weights: list) -> Any:
    import pytorch_optimizer

    return pytorch_optimizer.MARS(weights, lr=1e-4)


def soap() -> Any:
    from nablax import optimize

    return optimize.soap(1e-4, weight_decay=0.0)


def peers_soap(weights: list) -> Any:
    import pytorch_optimizer

    return pytorch_optimizer.SOAP(weights, lr=1e-4, weight_decay=0.0)


def psgd() -> Any:
    """With this key the metric is fitted at 4 of the 40 steps that are timed: the peer's is at every tenth."""
    import jax

    from nablax import optimize

    return optimize.psgd(1e-4, probability=0.1, momentum=0.9, key=jax.random.key(7))


def peers_psgd(weights: list) -> Any:
    import pytorch_optimizer

    return pytorch_optimizer.Kron(weights, lr=1e-4, pre_conditioner_update_probability=0.1)


def _drawn(leaves: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Parameters [leaves, side, side], and gradients [trees, leaves, side, side] of singular values from 1 to 0.01."""
    random = np.random.default_rng(0)
    scales = np.logspace(0, -2, side)[:, None]
    shape = (leaves, side, side)
    return random.normal(size=shape).astype(np.float32), (scales * random.normal(size=(TREES, *shape))).astype(
        np.float32
    )


def ours(make: Callable[[], Any], leaves: int, side: int) -> dict:
    """Of all steps under one jit, whatever they hold: refreshes of a basis are in the mean."""
    _one_thread.jax_alone()
    import jax
    import jax.numpy as jnp
    import optax

    rule = make()
    params, grads = _drawn(leaves, side)
    tree = {str(i): jnp.asarray(params[i]) for i in range(leaves)}
    turns = {str(i): jnp.asarray(grads[:, i]) for i in range(leaves)}

    @jax.jit
    def walk(params, state):
        def one(carry, number):
            params, state = carry
            update, state = rule.update(jax.tree.map(lambda leaf: leaf[number % TREES], turns), state, params)
            return (optax.apply_updates(params, update), state), None

        return jax.lax.scan(one, (params, state), jnp.arange(STEPS))[0]

    begun = time.process_time()
    found = jax.block_until_ready(walk(tree, jax.jit(rule.init)(tree)))
    compiled = time.process_time() - begun
    walked = np.stack([np.asarray(found[0][str(i)]) for i in range(leaves)])
    seconds = _one_thread.seconds(lambda: jax.block_until_ready(walk(*found)), REPEATS)
    return _said(seconds, compiled, walked - params)


def peer(make: Callable[[list], Any], leaves: int, side: int) -> dict:
    """Of as many steps from Python, which is how it is called."""
    _one_thread.torch_alone()
    import torch

    params, grads = _drawn(leaves, side)
    weights = [torch.nn.Parameter(torch.tensor(leaf)) for leaf in params]
    turns = torch.tensor(grads)
    rule = make(weights)

    def walk() -> None:
        for number in range(STEPS):
            for weight, grad in zip(weights, turns[number % TREES]):
                weight.grad = grad.clone()
            rule.step()

    (first,) = _one_thread.seconds(walk, 1)
    walked = np.stack([weight.detach().numpy() for weight in weights])
    return _said(_one_thread.seconds(walk, REPEATS), first, walked - params)


def _said(seconds: list[float], first: float, walked: np.ndarray) -> dict:
    length = float(np.sqrt(np.mean(walked**2)))
    return {
        "values": [1e3 * min(seconds) / STEPS],
        "compile": first,
        "accuracy": f"weights moved by {length:.4f} each, root mean square, in {STEPS} steps",
    }
