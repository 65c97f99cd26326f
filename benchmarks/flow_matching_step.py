"""One flow-matching step in the plane: batch 512, AdamW."""

import time
from pathlib import Path

from . import _plane

TITLE = "flow-matching step, 3×64 SELU, batch 512, 2-D"
PEER = "torchcfm 1.0.7"
UNIT = "steps/s"
TARGET = "2×"
BETTER = "higher"
STEPS = 6000


def _rate(marks: list[tuple[float, int]]) -> float:
    (first, a), (last, b) = marks[0], marks[-1]
    return (b - a) / (last - first)


def train_ours(data, batch_size: int, steps: int) -> tuple[float, float, object]:
    """Rate after compilation, seconds before the first report, and the fitted model."""
    import jax
    import optax

    from nablax.fields import MLP
    from nablax.follow import fit
    from nablax.transport import Linear, flow_matching

    marks: list[tuple[float, int]] = []
    start = time.perf_counter()
    done = fit(
        flow_matching(Linear()),
        MLP(2, width=64, depth=3, activation="selu", key=jax.random.key(0)),
        data,
        optimizer=optax.adamw(1e-3, weight_decay=1e-5),
        steps=steps,
        batch_size=batch_size,
        key=jax.random.key(1),
        progress=lambda state: marks.append((time.perf_counter(), state.step)),
    )
    return _rate(marks), marks[0][0] - start, done


def ours(folder: Path) -> dict:
    rate, first, done = train_ours(_plane.eight_gaussians(10_000, 0), 512, STEPS)
    # Forward, and twice that backward: two multiply-adds a weight and row.
    work = 3 * 2 * 512 * (3 * 64 + 2 * 64 * 64 + 64 * 2)
    share = rate * work / _plane.matrix_product_peak()
    loss = float(done.history.loss[-1000:].mean())
    return {"values": [rate], "compile": first, "accuracy": f"loss {loss:.3f}, {share:.0%} of the matrix-product peak"}


def train_peer(data, batch_size: int, steps: int, matcher) -> tuple[float, float, object, float]:
    import torch
    from torchcfm.models.models import MLP

    torch.manual_seed(0)
    data = torch.tensor(data)
    model = MLP(dim=2, time_varying=True, w=64)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-5)
    losses, launch = [], time.perf_counter()
    for step in range(steps):
        if step == steps // 10:
            first, start = time.perf_counter() - launch, time.perf_counter()
        optimizer.zero_grad()
        x1 = data[torch.randint(0, len(data), (batch_size,))]
        x0 = torch.randn_like(x1)
        t, xt, ut = matcher.sample_location_and_conditional_flow(x0, x1)
        loss = torch.mean((model(torch.cat([xt, t[:, None]], dim=-1)) - ut) ** 2)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    rate = (steps - steps // 10) / (time.perf_counter() - start)
    del first
    return rate, 0.0, model, float(torch.stack(losses[-1000:]).mean())


def peer(folder: Path) -> dict:
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

    rate, first, _, loss = train_peer(_plane.eight_gaussians(10_000, 0), 512, 3000, ConditionalFlowMatcher(sigma=0.0))
    return {"values": [rate], "compile": first, "accuracy": f"loss {loss:.3f}"}
