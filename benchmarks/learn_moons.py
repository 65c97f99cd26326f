"""From a table of moons to a density of equal held-out likelihood, compilation included."""

import time
from pathlib import Path

import numpy as np

TITLE = "whole learn on 8k rows of moons to equal held-out nats"
PEER = "flowjax 19.1.2, rational-quadratic coupling flow"
UNIT = "s"
TARGET = "1×"
BETTER = "lower"
# Two residual blocks of 64 units: enough for a plane. The peer keeps its defaults: eight couplings, early stopping.
SETTINGS = {"width": 64, "depth": 2, "batch_size": 512, "learning_rate": 3e-3, "steps": 2500}


def prepare(folder: Path) -> dict:
    from sklearn.datasets import make_moons

    rows, _ = make_moons(10_000, noise=0.1, random_state=0)
    rows = ((rows - rows.mean(0)) / rows.std(0)).astype(np.float32)
    np.save(folder / "train.npy", rows[2000:])
    np.save(folder / "held_out.npy", rows[:2000])
    return {}


def ours(folder: Path) -> dict:
    from nablax.app import FlowDensity

    train, held_out = np.load(folder / "train.npy"), np.load(folder / "held_out.npy")
    start = time.perf_counter()
    density = FlowDensity(**SETTINGS, random_state=0).fit(train)
    seconds = time.perf_counter() - start
    return {"values": [seconds], "compile": 0.0, "accuracy": f"{density.score(held_out):.3f} nats"}


def peer(folder: Path) -> dict:
    import jax
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import coupling_flow
    from flowjax.train import fit_to_data

    train, held_out = np.load(folder / "train.npy"), np.load(folder / "held_out.npy")
    start = time.perf_counter()
    flow = coupling_flow(
        key=jax.random.key(0),
        base_dist=Normal(jax.numpy.zeros(2)),
        transformer=RationalQuadraticSpline(knots=8, interval=4),
    )
    flow, _ = fit_to_data(jax.random.key(1), flow, train, show_progress=False)
    seconds = time.perf_counter() - start
    nats = float(flow.log_prob(jax.numpy.asarray(held_out)).mean())
    return {"values": [seconds], "compile": 0.0, "accuracy": f"{nats:.3f} nats"}
