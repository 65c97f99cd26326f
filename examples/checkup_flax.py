"""A check-up of a Flax model with batch normalisation, dropout and an `nnx.Optimizer`, before a step of its loop."""

import sys

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from nablax import diagnose

try:
    from flax import nnx
except ImportError:
    print("Flax is not installed: pip install flax")
    sys.exit()

images, labels = load_digits(return_X_y=True)
batch = (jnp.asarray(images[:256] / 16, jnp.float32), jnp.asarray(labels[:256]))


class Model(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 64, rngs=rngs)
        self.norm = nnx.BatchNorm(64, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.out = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(jax.nn.relu(self.norm(self.hidden(x)))))


def loss(model, batch):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(model(batch[0]), batch[1]))


@nnx.jit
def step(model, optimizer, batch):
    value, grads = nnx.value_and_grad(loss)(model, batch)
    optimizer.update(model, grads)
    return value


def looked_at(model, optimizer, batch):
    """A check-up of the step to come: the model taken apart into what is trained and what is not."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    rest = nnx.as_pure(
        rest
    )  # running statistics and dropout's counts as they are now, so that the loss is one function

    def of_params(params, batch):
        return loss(nnx.merge(graph, params, rest), batch)

    return diagnose.checkup(
        of_params,
        nnx.as_pure(params),
        batch,
        optimizer=optimizer.tx,
        opt_state=nnx.as_pure(optimizer.opt_state),
        rows=0,  # batch normalisation makes a row's loss depend on the others
        key=jax.random.key(1),
    )


for rate in (1e-2, 1.0):
    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(rate, momentum=0.9), wrt=nnx.Param)
    values = [float(step(model, optimizer, batch)) for _ in range(5)]
    record = looked_at(model, optimizer, batch)
    print(f"rate {rate:g}: loss {values[0]:.2f} → {values[-1]:.2f}; {record.sharpness.rule.name()}")
    print(f"  [{record.findings[0].level}] {record.findings[0].text}")
    assert bool(record.sharpness.rule.known)
