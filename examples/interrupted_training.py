"""Training that is killed and goes on, ends as if it had never been: the same weights to the last bit."""

import sys
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes

from nablax.fields import MLP
from nablax.follow import fit

patients, progression = load_diabetes(return_X_y=True)
patients = (patients / patients.std(axis=0)).astype(np.float32)
progression = ((progression - progression.mean()) / progression.std()).astype(np.float32)
rows = {"x": patients[:342], "y": progression[:342]}
held_out = {"x": patients[342:], "y": progression[342:]}


def loss(model, batch, *, key):
    """Any loss of a model and a batch; the key is for those that draw noise."""
    read = jax.vmap(lambda x: model(0.0, x, None)[0])
    return jnp.mean((read(batch["x"]) - batch["y"]) ** 2)


def train(folder, progress=None):
    return fit(
        loss,
        MLP(10, width=64, depth=2, activation="tanh", key=jax.random.key(0)),
        rows,
        optimizer=optax.adamw(3e-4),
        steps=2000,
        batch_size=38,
        key=jax.random.key(1),
        validation=held_out,
        validate_every=20,
        patience=25,
        checkpoint=folder,
        checkpoint_every=100,
        progress=progress,
    )


def pull_the_plug(progress):
    if progress.step >= 300:
        raise KeyboardInterrupt


folder = Path(tempfile.mkdtemp())
whole = train(folder / "whole")
try:
    train(folder / "cut", pull_the_plug)
except KeyboardInterrupt:
    print("killed; what is there to go on from:", *sorted(path.name for path in (folder / "cut").iterdir()))
again = train(folder / "cut")  # the same call

same = bool(eqx.tree_equal((whole.model, whole.history.loss), (again.model, again.history.loss)))
print(f"{'':14}{'result':>16}{'steps':>8}{'best at':>10}{'validation':>12}")
for name, done in (("never killed", whole), ("killed once", again)):
    best = np.nanmin(done.history.validation)
    print(f"{name:<14}{done.result:>16}{done.step:8d}{done.best_step:10d}{best:12.4f}")
print("weights and history are the same to the last bit" if same else "they differ")
assert same

figure = Figure(figsize=(5.5, 3.4), layout="constrained")
axis = figure.subplots()
measured = np.isfinite(again.history.validation)
axis.plot(again.history.step, again.history.loss, color="0.75", lw=0.8, label="training batch")
axis.plot(again.history.step[measured], again.history.validation[measured], label="held-out rows")
axis.axvline(again.best_step, color="0.4", ls="--", label="weights that are kept")
axis.set(xlabel="step", ylabel="mean squared error", ylim=(0, 1.2))
axis.legend()
picture = Path(sys.argv[1]) if len(sys.argv) > 1 else folder / "training.png"
figure.savefig(picture, dpi=110)
print(f"\npicture: {picture}")
