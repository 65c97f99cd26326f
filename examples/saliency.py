"""Which pixels does a classifier look at? A digit among scrambled ones, found by four saliency maps, as a picture."""

import sys
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from nablax.diagnose import normgrad, smoothgrad

digits, shown = load_digits(return_X_y=True)
digits = digits.reshape(-1, 8, 8) / 16


def scenes(generator, rows):
    """A digit in one quarter of 16 × 16 pixels, and digits with shuffled pixels in the others."""
    quarters = generator.permuted(
        digits[generator.integers(len(digits), size=(4, len(rows)))].reshape(4, -1, 64), axis=2
    )
    quarters = quarters.reshape(4, -1, 8, 8)
    where = generator.integers(4, size=len(rows))
    quarters[where, np.arange(len(rows))] = digits[rows]
    tops, bottoms = (np.concatenate([quarters[i], quarters[i + 1]], axis=2) for i in (0, 2))
    images = np.concatenate([tops, bottoms], axis=1)[:, None].astype(np.float32)
    mask = np.kron(np.eye(4, dtype=bool)[where].reshape(-1, 2, 2), np.ones((8, 8), bool))
    return jnp.asarray(images), jnp.asarray(shown[rows]), mask


class Classifier(eqx.Module):
    convolutions: list
    out: eqx.nn.Linear

    def __init__(self, key):
        *keys, last = jax.random.split(key, 4)
        widths = (1, 8, 16, 16)
        self.convolutions = [eqx.nn.Conv2d(a, b, 3, padding=1, key=k) for a, b, k in zip(widths, widths[1:], keys)]
        self.out = eqx.nn.Linear(16, 10, key=last)

    def features(self, image):
        """Up to the second convolution, one vector for every pixel."""
        for convolution in self.convolutions[:2]:
            image = jax.nn.relu(convolution(image))
        return image

    def head(self, features):
        """The rest: a convolution with a step of two, the greatest over places, and a linear layer."""
        pooled = jax.lax.reduce_window(features, -jnp.inf, jax.lax.max, (1, 2, 2), (1, 2, 2), "VALID")
        return self.out(jnp.max(jax.nn.relu(self.convolutions[2](pooled)), axis=(1, 2)))

    def __call__(self, image):
        return self.head(self.features(image))


@jax.jit
def train(arrays, images, labels, key):
    optimizer = optax.adam(3e-3)

    def step(carry, key):
        arrays, state = carry
        rows = jax.random.randint(key, (32,), 0, len(images))

        def loss(arrays):
            logits = jax.vmap(eqx.combine(arrays, rest))(images[rows])
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]))

        updates, state = optimizer.update(jax.grad(loss)(arrays), state)
        return (optax.apply_updates(arrays, updates), state), None

    return jax.lax.scan(step, (arrays, optimizer.init(arrays)), jax.random.split(key, 1000))[0][0]


generator = np.random.default_rng(0)
order = generator.permutation(len(digits))
images, labels, _ = scenes(generator, np.tile(order[:1500], 4))
test, truth, mask = scenes(generator, order[1500:1600])
arrays, rest = eqx.partition(Classifier(jax.random.key(0)), eqx.is_array)
model = eqx.combine(train(arrays, images, labels, jax.random.key(1)), rest)
right = jnp.argmax(jax.vmap(model)(test), axis=1) == truth
print(f"{jnp.mean(right):.1%} of the test scenes right")

smooth = smoothgrad(model, test, key=jax.random.key(2))
layer = normgrad(model.features, model.head, test, channels=0)
maps = {
    "gradient": jnp.abs(smooth.plain)[:, 0],
    "SmoothGrad": smooth.pictures(channels=0),
    "Grad-CAM": layer.grad_cam,
    "NormGrad": layer.maps,
}
print(smooth.table(), layer.table(), sep="\n\n")
print("\nshare of each map that lies on the digit (a quarter of the pixels)")
for name, each in maps.items():
    share = np.sum(np.where(mask, each, 0), axis=(1, 2)) / np.maximum(np.sum(each, axis=(1, 2)), 1e-12)
    print(f"  {name:<11} {share.mean():.2f} ± {share.std(ddof=1) / np.sqrt(len(share)):.2f}")

figure = Figure(figsize=(9, 5.6), layout="constrained")
axes = figure.subplots(3, 5)
for row, i in enumerate(np.flatnonzero(np.asarray(right))[:3]):
    for axis, (name, picture) in zip(axes[row], {f"a {truth[i]}": test[:, 0], **maps}.items()):
        axis.imshow(picture[i], cmap="gray_r" if name.startswith("a ") else "magma")
        axis.set_title(name if row == 0 or name.startswith("a ") else "", fontsize=10)
        axis.set_axis_off()
path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "saliency.png"
figure.savefig(path, dpi=110)
print(f"\npictures: {path}")
