"""Three things planted in training on handwritten digits: a check-up finds each, and its advice mends it."""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from nablax import diagnose, regulate

images, labels = load_digits(return_X_y=True)
images, labels = jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels)
train, test = (images[:1500], labels[:1500]), (images[1500:], labels[1500:])


def start(key):
    first, second = jax.random.split(key)
    return {
        "hidden": {"w": jax.random.normal(first, (64, 64)) / 8, "b": jnp.zeros(64)},
        "out": {"w": jax.random.normal(second, (64, 10)) / 8, "b": jnp.zeros(10)},
    }


def logits(params, batch):
    hidden = jax.nn.relu(batch[0] @ params["hidden"]["w"] + params["hidden"]["b"])
    return hidden @ params["out"]["w"] + params["out"]["b"]


def loss(params, batch):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(params, batch), batch[1]))


def show(title, record, topic, level):
    """The finding on this topic, which has to be of this level."""
    (found,) = [finding for finding in record.findings if finding.topic == topic][:1]
    assert found.level == level, record.table()
    print(f"\n== {title}\n[{found.level}] {found.text}")


def run(params, optimizer, steps, batch_size, key):
    """Train on random batches; one compiled loop."""

    def body(carry, k):
        params, state = carry
        rows = jax.random.randint(k, (batch_size,), 0, 1500)
        gradient = jax.grad(loss)(params, (train[0][rows], train[1][rows]))
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, state), _ = jax.lax.scan(body, (params, optimizer.init(params)), jax.random.split(key, steps))
    return params, state


key = jax.random.key(0)
pages = Path(tempfile.mkdtemp())

# 1. The learning rate is too high: the whole training set, heavy ball.
params = start(key)
high = 4.0
optimizer = optax.sgd(high, momentum=0.9)
record = diagnose.checkup(loss, params, train, optimizer=optimizer, key=key, logits=logits)
show("learning rate too high", record, "learning rate", "fault")
record.to_html(pages / "rate.html")
lower = record.suggested_learning_rate
assert lower is not None and lower < high


@jax.jit
def full_batch(rate):
    optimizer = optax.sgd(rate, momentum=0.9)

    def body(carry, _):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, train)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    return jax.lax.scan(body, (params, optimizer.init(params)), None, length=60)[1]


before, after = full_batch(high), full_batch(lower)
print(f"mended: loss after 60 steps {before[-1]:.3f} at rate {high:g}, {after[-1]:.3f} at rate {lower:.2g}")
assert after[-1] < 0.5 * before[-1]

# 2. Two losses in conflict: two annotators who do not agree, one of them with twenty times the weight.
names = ("annotator A", "annotator B")
losses = {
    names[0]: lambda params, batch: loss(params, batch),
    names[1]: lambda params, batch: 20 * loss(params, (batch[0], (batch[1] + 1) % 10)),
}


def together(params, batch):
    return losses[names[0]](params, batch) + losses[names[1]](params, batch)


def annotators(optimizer, steps, aggregated):
    """Train on the sum of both losses, or on both gradients through an aggregator."""
    gradients = regulate.multi_value_and_grad(list(losses.values()))

    def body(carry, _):
        params, state = carry
        gradient = gradients(params, train)[1] if aggregated else jax.grad(together)(params, train)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda params: jax.lax.scan(body, (params, optimizer.init(params)), None, length=steps)[0])(
        start(key)
    )


summed = optax.adam(3e-3)
params, state = annotators(summed, 30, aggregated=False)
record = diagnose.checkup(together, params, train, optimizer=summed, opt_state=state, key=key, losses=losses)
show("conflicting losses", record, "conflict", "fault")
record.to_html(pages / "conflict.html")
by_sum, _ = annotators(summed, 120, aggregated=False)
by_upgrad, _ = annotators(optax.chain(regulate.upgrad(), optax.adam(3e-3)), 120, aggregated=True)
for name in names:
    values = [float(losses[name](p, train)) for p in (start(key), by_sum, by_upgrad)]
    print(f"{name}: loss {values[0]:.2f} at the start, {values[1]:.2f} by the sum, {values[2]:.2f} by UPGrad")
first = losses[names[0]]
assert first(by_sum, train) > first(start(key), train) > first(by_upgrad, train)

# 3. A batch far too small: two rows a step. The check-up measures with the rows at hand.
small = optax.sgd(0.3)
params, state = jax.jit(lambda k: run(start(key), small, 600, 2, k))(key)
record = diagnose.checkup(loss, params, train, optimizer=small, opt_state=state, key=key, batch_size=2, rows=1500)
show("batch far too small", record, "batch", "note")
record.to_html(pages / "batch.html")
advised = int(record.noise.suggested)
for rows in (2, advised):
    more, _ = jax.jit(lambda k, rows=rows: run(params, small, 600, rows, k))(jax.random.key(1))
    right = jnp.mean(jnp.argmax(logits(more, test), axis=1) == test[1])
    print(f"600 more steps with {rows:4d} rows: loss {loss(more, train):.3f}, {right:.1%} of the test digits right")
    if rows == 2:
        with_two = loss(more, train)
assert loss(more, train) < 0.5 * with_two
print(f"\npages: {', '.join(sorted(page.name for page in pages.iterdir()))} in {pages}")
