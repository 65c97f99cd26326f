"""Digits drawn on demand, the flow leaning on the label not at all, well, and too far: a picture, and what is read."""

import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from nablax.fields import MLP
from nablax.follow import Solver, fit
from nablax.spaces import Euclidean
from nablax.transport import Linear, Normal, Transport, flow_matching, guidance

images, labels = load_digits(return_X_y=True)
images = (images / 8 - 1).astype(np.float32)
one_hot = np.eye(10, dtype=np.float32)

# One flow for all ten digits; a tenth of the rows are shown without their label, or there is nothing to lean away from.
done = fit(
    flow_matching(Linear(), condition_dropout=0.1),
    MLP(64, condition=10, width=128, depth=3, time_features=16, residual=True, key=jax.random.key(0)),
    {"data": images, "condition": one_hot[labels]},
    optimizer=optax.adam(optax.cosine_decay_schedule(3e-3, 1200)),
    steps=1200,
    batch_size=128,
    key=jax.random.key(1),
)

# A reader that has never seen a drawn digit judges them.
reader = LogisticRegression(C=0.1, max_iter=200).fit(images, labels)
asked = np.tile(np.arange(10), 20)
figure = Figure(figsize=(7, 3), layout="constrained")
axes = figure.subplots(3, 10)
print("guidance   read as asked   how surely   spread within a digit (data: ", end="")
print(f"{np.mean([images[labels == d].std(axis=0).mean() for d in range(10)]):.2f})")
for row, scale in enumerate((1.0, 2.0, 4.0)):
    flow = Transport(guidance(done.model, scale), Linear(), Normal((64,)), Euclidean((64,)))
    drawn = np.asarray(
        flow.sample(200, key=jax.random.key(2), args=jnp.asarray(one_hot[asked]), solver=Solver(steps=20))
    )
    sure = reader.predict_proba(drawn)
    right = np.mean(sure.argmax(axis=1) == asked)
    spread = np.mean([drawn[asked == d].std(axis=0).mean() for d in range(10)])
    print(f"{scale:8g}{right:16.1%}{sure[np.arange(200), asked].mean():13.1%}{spread:16.2f}")
    for axis, picture in zip(axes[row], drawn):
        axis.imshow(picture.reshape(8, 8), cmap="gray_r", vmin=-1, vmax=1)
        axis.set_xticks([])
        axis.set_yticks([])
    axes[row, 0].set_ylabel(f"{scale:g}")
picture = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "digits.png"
figure.savefig(picture, dpi=110)
print(f"\npicture: {picture}")
