"""Flow matching with exact minibatch optimal transport: batch 256, in the plane."""

from pathlib import Path

import numpy as np

from . import _plane
from .flow_matching_step import train_peer

TITLE = "the same with exact minibatch OT, n=256"
PEER = "torchcfm 1.0.7 with POT 0.9.7"
UNIT = "steps/s"
TARGET = "2×"
BETTER = "higher"
STEPS = 2000


def _w2(samples: np.ndarray) -> float:
    from scipy.optimize import linear_sum_assignment

    truth = _plane.eight_gaussians(len(samples), 99)
    cost = np.square(samples[:, None] - truth[None]).sum(-1)
    rows, columns = linear_sum_assignment(cost)
    return float(np.sqrt(cost[rows, columns].mean()))


def ours(folder: Path) -> dict:
    import equinox as eqx
    import jax

    from nablax.spaces import Euclidean
    from nablax.transport import Linear, Normal, Transport, coupled_batches, optimal_coupling

    from .flow_matching_step import train_ours

    data = _plane.eight_gaussians(10_000, 0)
    source = coupled_batches(data, optimal_coupling, 256, key=jax.random.key(2))
    rate, first, done = train_ours(source, 256, STEPS)
    transport = Transport(done.model, Linear(), Normal((2,)), Euclidean((2,)), independent=False)
    samples = np.asarray(eqx.filter_jit(transport.sample)(1000, key=jax.random.key(3)))
    return {"values": [rate], "compile": first, "accuracy": f"W2 {_w2(samples):.3f}"}


def peer(folder: Path) -> dict:
    import torch
    from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher
    from torchdiffeq import odeint

    data = _plane.eight_gaussians(10_000, 0)
    matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)
    rate, first, model, _ = train_peer(data, 256, STEPS, matcher)
    with torch.no_grad():
        ends = odeint(
            lambda t, x: model(torch.cat([x, t.expand(len(x), 1)], dim=1)),
            torch.randn(1000, 2),
            torch.tensor([0.0, 1.0]),
            rtol=1e-4,
            atol=1e-4,
            method="dopri5",
        )
    return {"values": [rate], "compile": first, "accuracy": f"W2 {_w2(ends[-1].numpy()):.3f}"}
