"""Digests tell apart what changes the numbers of a run, and nothing else, in every process alike."""

import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.follow import _fingerprint
from nablax.follow._fingerprint import data_digest, programs
from nablax.follow._train import Setup, State

DATA = {"x": jnp.ones((8, 3)), "y": jnp.ones(8)}
CONSTANT = np.linspace(0.0, 1.0, 2000, dtype=np.float32)


def plan_of(loss, optimizer=None, frozen=None):
    frozen = {"w": None} if frozen is None else frozen
    return Setup(
        loss, optax.with_extra_args_support(optimizer or optax.adam(0.1)), None, frozen, jax.random.key(0), 8, None
    )


def digests(loss=None, optimizer=None, weights=1.0, shape=(3,)):
    plan = plan_of(loss or base, optimizer)
    params = {"w": jnp.full(shape, weights)}
    zero = jnp.zeros((), jnp.int32)
    state = State(params, None, plan.optimizer.init(params), None, None, jnp.array(jnp.inf), zero, zero)
    return programs(plan, state, DATA)


def base(model, batch, *, key):
    return jnp.mean((jnp.tanh(batch["x"] @ model["w"]) - batch["y"]) ** 2) * 0.1 + jnp.sum(CONSTANT[:10])


def another_name(network, rows, *, key):
    scale = 0.1
    return jnp.mean((jnp.tanh(rows["x"] @ network["w"]) - rows["y"]) ** 2) * scale + jnp.sum(CONSTANT[:10])


def with_constant(constant, what=jnp.asarray):
    return lambda model, batch, *, key: base(model, batch, key=key) + jnp.sum(what(constant) * model["w"][0])


def with_rule(factor):
    """The same values; gradients alone differ."""

    @jax.custom_vjp
    def straight(x):
        return jnp.round(x)

    straight.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (factor * g,))
    return lambda model, batch, *, key: jnp.sum(straight(model["w"]))


nudged = CONSTANT.copy()
nudged[1234] = np.nextafter(nudged[1234], 2)
ONE_BIT = np.nextafter(np.float32(0.1), np.float32(1))

LOSSES = {
    "base": base,
    "another activation": lambda m, b, *, key: jnp.mean((jax.nn.relu(b["x"] @ m["w"]) - b["y"]) ** 2) * 0.1,
    "another factor by one bit": lambda m, b, *, key: jnp.mean((jnp.tanh(b["x"] @ m["w"]) - b["y"]) ** 2) * ONE_BIT
    + jnp.sum(CONSTANT[:10]),
    "noise": lambda m, b, *, key: base(m, b, key=key) + 0 * jax.random.normal(key),
    "a large constant": with_constant(CONSTANT),
    "it nudged": with_constant(nudged),
    "it on the host": with_constant(CONSTANT, np.asarray),
    "a scan": lambda m, b, *, key: jax.lax.scan(lambda c, x: (c * 0.9 + x @ m["w"], None), 0.0, b["x"])[0],
    "a scan with another factor": lambda m, b, *, key: jax.lax.scan(
        lambda c, x: (c * 0.8 + x @ m["w"], None), 0.0, b["x"]
    )[0],
    "a rule": with_rule(1.0),
    "another rule": with_rule(0.5),
    "a rule that meets data alone": lambda m, b, *, key: base(m, b, key=key) + jnp.sum(jax.nn.relu(b["x"])),
    "a branch": lambda m, b, *, key: jax.lax.cond(b["y"][0] > 0, jnp.sum, jnp.max, m["w"]),
    "its other branch": lambda m, b, *, key: jax.lax.cond(b["y"][0] > 0, jnp.sum, jnp.min, m["w"]),
    "rematerialised": lambda m, b, *, key: jax.checkpoint(lambda w: base({"w": w}, b, key=key))(m["w"]),
}  # fmt: skip

OPTIMIZERS = {
    "adam": optax.adam(0.1),
    "a rate nearby": optax.adam(float(ONE_BIT)),
    "β₁": optax.adam(0.1, b1=0.8),
    "ε": optax.adam(0.1, eps=1e-7),
    "a schedule": optax.adam(optax.cosine_decay_schedule(0.1, 100)),
    "a longer one": optax.adam(optax.cosine_decay_schedule(0.1, 101)),
    "injected": optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "injected otherwise": optax.inject_hyperparams(optax.adam)(learning_rate=0.2),
    "noise": optax.chain(optax.add_noise(0.1, 0.5, key=jax.random.key(0)), optax.sgd(0.1)),
    "another seed": optax.chain(optax.add_noise(0.1, 0.5, key=jax.random.key(1)), optax.sgd(0.1)),
    "a mask": optax.masked(optax.sgd(0.1), {"w": True}),
    "another mask": optax.masked(optax.sgd(0.1), {"w": False}),
    "a search": optax.lbfgs(memory_size=3),
    "a longer memory": optax.lbfgs(memory_size=4),
    "a shorter search": optax.lbfgs(memory_size=3, linesearch=optax.scale_by_zoom_linesearch(3)),
    "accumulated": optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    "longer": optax.MultiSteps(optax.adam(0.1), 3).gradient_transformation(),
}


def all_digests():
    found = {f"loss: {name}": digests(loss=loss)["loss"] for name, loss in LOSSES.items()}
    return found | {f"optimizer: {name}": digests(optimizer=o)["optimizer"] for name, o in OPTIMIZERS.items()}


@pytest.fixture(scope="module")
def found():
    return all_digests()


def test_everything_that_changes_numbers_has_a_digest_of_its_own(found):
    # On the host or on the device, a constant is the same constant.
    assert found["loss: it on the host"] == found["loss: a large constant"]
    assert len(set(found.values())) == len(found) - 1


def test_names_and_values_of_weights_do_not_count(found):
    assert digests(another_name, weights=5.0)["loss"] == found["loss: base"]
    assert digests(weights=5.0)["optimizer"] == found["optimizer: adam"]
    assert digests(shape=(3,), optimizer=optax.adam(0.1)) == digests()


def test_what_is_frozen_in_a_model_counts():
    def loss(model, batch, *, key):
        return jnp.sum(model["w"] * model["mask"])

    zero = jnp.zeros((), jnp.int32)
    seen = set()
    for mask in ([0, 1, 1], [1, 0, 1]):
        params, frozen = eqx.partition({"w": jnp.ones(3), "mask": jnp.array(mask)}, eqx.is_inexact_array)
        plan = plan_of(loss, frozen=frozen)
        state = State(params, None, plan.optimizer.init(params), None, None, jnp.array(jnp.inf), zero, zero)
        seen.add(programs(plan, state, DATA)["loss"])
    assert len(seen) == 2


@pytest.mark.parametrize("seed", ["1", "2"])
def test_another_process_finds_the_same(seed, found):
    # Addresses and the order of sets differ there.
    code = "import sys; sys.path.insert(0, 'tests/follow'); import test_fingerprint as t; print(t.all_digests())"
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert eval(done.stdout) == found


def test_versions_are_those_of_what_traces():
    assert digests()["versions"]["jax"] == jax.__version__
    assert set(digests()["versions"]) == {"nablax", "jax", "equinox", "optax", "device"}


def test_data_is_told_by_shapes_types_and_every_value_of_small_arrays():
    x = np.arange(12.0, dtype=np.float32).reshape(4, 3)
    changed = x.copy()
    changed[3, 2] = np.nextafter(changed[3, 2], 100)
    others = [x, changed, x.reshape(3, 4), x.astype(np.float16), {"x": x}, {"y": x}, x[::-1], x.view(np.int32), (x, x)]
    assert len({data_digest(other) for other in others}) == len(others)
    assert data_digest(jnp.asarray(x)) == data_digest(x) == data_digest(np.asfortranarray(x))
    keys = jax.random.split(jax.random.key(0), 4)
    assert data_digest(keys) != data_digest(jax.random.split(jax.random.key(1), 4))


def test_of_large_arrays_rows_at_even_distances_are_looked_at(monkeypatch):
    monkeypatch.setattr(_fingerprint, "_LOOKED_AT", 1000)
    x = np.zeros((1000, 4), np.float32)  # 16 kB: every sixteenth row
    seen, between = x.copy(), x.copy()
    seen[160], between[161] = 1.0, 1.0
    assert data_digest(seen) != data_digest(x) == data_digest(between)
    assert data_digest(x[:-1]) != data_digest(x)
    assert data_digest(jnp.asarray(seen)) == data_digest(seen)


def test_data_count_as_they_are_trained_on():
    rows = np.linspace(0, 1, 64)
    assert data_digest(rows) == data_digest(jnp.asarray(rows))
    assert data_digest(np.arange(9)) == data_digest(jnp.arange(9))
    assert data_digest(rows) != data_digest(rows + 1e-3)
