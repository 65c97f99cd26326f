"""What makes no sense is refused by what was expected, what came and what to do, before anything is compiled."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.diagnose import (
    checkup,
    conflicts,
    layer_health,
    noise_scale,
    rotation,
    sharpness,
    step_quality,
    subspace,
    update_rule,
    watch,
)
from nablax.regulate import upgrad

X = jnp.ones((8, 3)) * jnp.arange(1.0, 9.0)[:, None]
P = jnp.ones(3)
KEY = jax.random.key(0)
ADAM, SGD = optax.adam(0.1), optax.sgd(0.1)


def loss(params, batch):
    return jnp.mean((batch @ params - 1.0) ** 2)


def rows(params, batch):
    return (batch @ params - 1.0) ** 2


def named(message, got, fix):
    """Everything that a fault says, in its order."""
    return re.compile(f".*expected {message}.*, got {got}.*\\. {fix}", re.DOTALL)


# Losses that are none, by what is said of them; every part of the check-up says the same.
NO_LOSS = {
    "a vector": (rows, named("a loss that returns one real number", r"f32\[8\]", "Take the mean over the batch")),
    "with auxiliary values": (lambda p, b: (loss(p, b), b), named("a loss that returns", r"\(f32\[\], f32", "Return the loss alone")),
    "complex": (lambda p, b: loss(p, b) * 1j, named("a loss that returns", r"c64\[\]", "Return its real part")),
    "an integer": (lambda p, b: jnp.sum(p > 0), named("a loss that returns", r"i32\[\]", "Return a floating-point number")),
    "of Python": (lambda p, b: 1.0, named("a loss that returns", "1.0", "Compute it from the parameters by jax.numpy")),
    "of NumPy": (lambda p, b: np.float32(1), named("a loss that returns", ".*1", "Compute it from the parameters")),
    "nothing": (lambda p, b: None, named("a loss that returns", "None", "Compute it from the parameters")),
    "no function": (3.0, named("loss, a function", "3.0", r"Pass loss\(params")),
    "without a batch": (lambda p: jnp.sum(p), named("loss of 2 arguments", r"one of \(p\)", r"Pass loss\(params")),
    "of a key too": (lambda p, b, key: jnp.sum(p), named("loss of 2 arguments", r"one of \(p, b, key\)", r"Pass loss\(params")),
}  # fmt: skip
ONE_A_ROW = named("losses of the rows, a vector of ", r"f32\[\]", "Return the loss of each row")
SEED = named("key: a random key", "0", r"Pass jax.random.key\(0\)")
STATE = "Pass the state that this optimiser made"

CHECKUP = {
    "whole parameters": ({"params": jnp.arange(3)}, named("a tree with real floating-point leaves", "none", "Pass arrays")),
    "no parameters": ({"params": {}}, named("a tree with real floating-point leaves", "none", "Pass arrays")),
    "complex parameters": ({"params": P * 1j}, named("a tree with real floating-point", "complex64", "Pass arrays")),
    "lookahead": (
        {"params": optax.LookaheadParams(P, P), "optimizer": optax.lookahead(optax.sgd(0.1), 5, 0.5)},
        named("the parameters that the loss is taken at", "optax.LookaheadParams", "Pass params.fast"),
    ),
    "uncalled": ({"optimizer": optax.adam}, named("optimizer, a transformation", "the function adam", r"Call it: optimizer=optax.adam\(")),
    "a rate for an optimiser": ({"optimizer": 0.1}, named("optimizer, a transformation", "0.1", r"Pass optimizer=optax.adam\(1e-3\)")),
    "a name for an optimiser": ({"optimizer": "adam"}, named("optimizer, a transformation", "'adam'", "Pass optimizer")),
    "another's state": ({"optimizer": ADAM, "opt_state": SGD.init(P)}, named("opt_state is shaped like", ".*EmptyState", STATE)),
    "state of other parameters": (
        {"optimizer": ADAM, "opt_state": ADAM.init(jnp.ones(4))}, named("opt_state is shaped like", r".*f32\[4\]", STATE)
    ),
    "state of sgd's momentum": (
        {"optimizer": SGD, "opt_state": optax.sgd(0.1, momentum=0.9).init(P)}, named("opt_state is", ".*TraceState", STATE)
    ),
    "an aggregator of one loss": (
        {"optimizer": optax.chain(upgrad(), ADAM)},
        named("losses= for an optimizer that begins with an aggregator", "one loss", "Pass those whose gradients"),
    ),
    "an aggregator of no loss": (
        {"optimizer": optax.chain(upgrad(), ADAM), "losses": []}, named("at least one loss", "none", "Pass a mapping")
    ),
    "rows behind an aggregator": (
        {"optimizer": optax.chain(upgrad(), ADAM), "losses": [loss, loss], "example_losses": lambda p, b: (b @ p) ** 2},
        named("no example_losses for an optimizer that begins with an aggregator", "example_losses beside losses", "Leave it out"),
    ),
    "a schedule": (
        {"learning_rate": optax.constant_schedule(0.1)},
        named("learning_rate, a number", "the function .*", r"Pass the schedule's value at this step: learning_rate=schedule\(step\)"),
    ),
    "a negative rate": ({"learning_rate": -0.1}, named("learning_rate above 0 and finite", "-0.1", "At other rates")),
    "a rate of zero": ({"learning_rate": 0.0}, named("learning_rate above 0", "0.0", "At other rates")),
    "a rate that is none": ({"learning_rate": float("nan")}, named("learning_rate above 0", "nan", "At other rates")),
    "an infinite rate": ({"learning_rate": jnp.inf}, named("learning_rate above 0", "inf", "At other rates")),
    "a rate in words": ({"learning_rate": "0.1"}, named("learning_rate of shape", "a str", "Pass learning_rate=1e-3")),
    "several rates": ({"learning_rate": jnp.ones(3)}, named("learning_rate of shape", r"f32\[3\]", "Pass learning_rate=1e-3")),
    "momentum of one": ({"learning_rate": 0.1, "momentum": 1.0}, named(r"momentum in \[0, 1\)", "1.0", "At 1 and beyond")),
    "negative momentum": ({"learning_rate": 0.1, "momentum": -0.1}, named("momentum in", "-0.1", "At 1 and beyond")),
    "momentum that is none": ({"learning_rate": 0.1, "momentum": jnp.nan}, named("momentum in", "nan", "At 1 and beyond")),
    "momentum in words": ({"learning_rate": 0.1, "momentum": "much"}, named("momentum of shape", "a str", "Pass momentum=0.9")),
    "no chance": ({"chance": 0.0}, named("chance above 0 and finite", "0.0", "Of a loss that is no size")),
    "a chance that is none": ({"chance": float("nan")}, named("chance above 0", "nan", "Of a loss that is no size")),
    "chances": ({"chance": jnp.ones(2)}, named("chance of shape", r"f32\[2\]", "Pass the loss of a model that knows nothing")),
    "negative rows": ({"rows": -3}, named("rows as a whole number, at least 0", "-3", "Pass rows=0 or more")),
    "half a row": ({"rows": 12.5}, named("rows as a whole number", "12.5", "Pass rows=0 or more")),
    "no steps": ({"steps": 0}, named("steps as a whole number, at least 1", "0", "Pass steps=1 or more")),
    "no eigenvalues": ({"count": 0}, named("count as a whole number, at least 1", "0", "Pass count=1 or more")),
    "no batch size": ({"batch_size": 0}, named("batch_size as a whole number, at least 1", "0", "Pass batch_size=1")),
    "a seed": ({"key": 0}, SEED),
    "no key": ({"key": None}, named("key: a random key", "None", "Pass jax.random.key")),
    "an empty batch": ({"batch": X[:0]}, named("a batch with rows", r"f32\[0,3\]", "Leave empty batches out")),
    "an update of another shape": ({"update": jnp.ones(4)}, named("an update with the inexact leaves", ".*4", "Build it")),
    "a mean for rows": ({"example_losses": loss}, ONE_A_ROW),
    "rows that are too many": (
        {"example_losses": lambda p, b: jnp.ones(5) * p[0]}, named("losses of the rows, a vector of 1", r"f32\[5\]", "Return")
    ),
    "no losses to compare": ({"losses": {}}, named("at least one loss", "none", "Pass a mapping")),
    "a number to compare": ({"losses": {"a": 3.0}}, named("each of the losses, a function", "3.0", "Pass loss")),
    "a vector to compare": ({"losses": {"a": rows}}, named(r"a loss \(a\) that returns one real number", r"f32\[8\]", "Take")),
    "losses without a batch": ({"losses": {"a": lambda p: 1.0}}, named("each of the losses of 2 arguments", r"one of \(p\)", "Pass")),
    "a vector without a batch": ({"losses": lambda p: p}, named("losses of 2 arguments", r"one of \(p\)", "Pass losses")),
    "logits without a batch": ({"logits": lambda p: p}, named("logits of 2 arguments", r"one of \(p\)", r"Pass logits\(params")),
    "a field without a batch": ({"field": lambda p: p}, named("field of 2 arguments", r"one of \(p\)", r"Pass field\(params")),
    "rows that are no function": ({"example_losses": 3.0}, named("example_losses, a function", "3.0", "Pass example_losses")),
    "a field of another shape": ({"field": lambda p, b: jnp.ones(4)}, named("a field with the inexact leaves", ".*4", "Build it")),
    "one class": ({"logits": lambda p, b: b @ p[:, None], "learning_rate": 0.1}, named("logits with at least two classes", ".*1", "For one logit")),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_LOSS)
def test_checkup_refuses_what_is_no_loss(case):
    bad, message = NO_LOSS[case]
    with pytest.raises(ValueError, match=message):
        checkup(bad, P, X, key=KEY)


@pytest.mark.parametrize("case", CHECKUP)
def test_checkup_refuses_what_makes_no_sense(case):
    change, message = CHECKUP[case]
    call = {"params": P, "batch": X, "key": KEY, **change}
    with pytest.raises(ValueError, match=message):
        checkup(loss, call.pop("params"), call.pop("batch"), **call)


RULE = update_rule(SGD, SGD.init(P), P, P)
PARTS = {
    "sharpness": lambda **c: sharpness(c.pop("loss", loss), P, X, **{"rule": RULE, "key": KEY, **c}),
    "noise_scale": lambda **c: noise_scale(c.pop("loss", loss), P, c.pop("batch", X), **{"key": KEY, **c}),
    "step": lambda **c: step_quality(c.pop("loss", loss), P, c.pop("update", -0.1 * P), X, **c),
    "subspace": lambda **c: subspace(c.pop("loss", loss), P, X, **{"key": KEY, **c}),
    "conflicts": lambda **c: conflicts(c.pop("losses"), P, X, **c),
    "rotation": lambda **c: rotation(c.pop("field", jax.grad(loss)), P, X, **{"key": KEY, **c}),
    "layers": lambda **c: layer_health(c.pop("params", P), c.pop("gradient", P), **c),
    "watch": lambda **c: watch(c.pop("loss", loss), **{"key": KEY, **c}),
}

PART = [
    *((part, {"key": 0}, SEED) for part in ("sharpness", "noise_scale", "subspace", "rotation", "watch")),
    ("sharpness", {"rule": SGD}, named("rule, an UpdateRule", "a GradientTransformation", "Pass rule=update_rule")),
    ("sharpness", {"steps": 0}, named("steps as a whole number", "0", "Pass steps=1")),
    ("sharpness", {"losses": loss}, ONE_A_ROW),
    ("noise_scale", {"rows": -3}, named("rows as a whole number, at least 4", "-3", "Pass rows=4 or more")),
    ("noise_scale", {"rows": 2}, named("rows as a whole number, at least 4", "2", "Pass rows=4 or more")),
    ("noise_scale", {"losses": loss}, ONE_A_ROW),
    ("noise_scale", {"batch": X[:0]}, named("a batch of at least four rows", r"f32\[0,3\]", "Put one example a row")),
    ("noise_scale", {"rates": jnp.ones(4)}, named("rates with the inexact leaves", ".*4", "Build it")),
    ("step", {"update": jnp.ones(4)}, named("an update with the inexact leaves", ".*4", "Build it")),
    ("step", {"losses": loss}, ONE_A_ROW),
    ("step", {"multiples": (0.0, 1.0)}, named("positive, ascending multiples", r"\(0.0, 1.0\)", "Leave")),
    ("subspace", {"count": 0}, named("count as a whole number", "0", "Pass count=1")),
    ("subspace", {"steps": 2.0}, named("steps as a whole number", "2.0", "Pass steps=1")),
    ("conflicts", {"losses": []}, named("at least one loss", "none", "Pass a mapping")),
    ("conflicts", {"losses": 3.0}, named("losses by name, in a sequence", "3.0", "Pass {'data'")),
    ("conflicts", {"losses": {"a": loss, "b": lambda p, b: 1.0}}, named(r"a loss \(b\) that returns", "1.0", "Compute")),
    ("conflicts", {"losses": [rows]}, named(r"a loss \(loss 0\) that returns", r"f32\[8\]", "Take")),
    ("conflicts", {"losses": lambda p, b: jnp.arange(2)}, named("losses of real floating-point", r"i32\[2\]", "Return")),
    ("conflicts", {"losses": loss}, named("losses that are scalars each, or a vector", r"f32\[\]", "Take")),
    ("rotation", {"field": 3.0}, named("field, a function", "3.0", r"Pass field\(params")),
    ("rotation", {"field": lambda p, b: p[:2]}, named("a field with the inexact leaves", ".*2", "Build it")),
    ("rotation", {"field": lambda p: p}, named("field of 2 arguments", r"one of \(p\)", r"Pass field\(params")),
    ("rotation", {"probes": 0}, named("probes as a whole number", "0", "Pass probes=1")),
    ("layers", {"params": jnp.arange(3)}, named("parameters of real floating-point numbers", "None", "Pass arrays")),
    ("layers", {"gradient": jnp.ones(4)}, named("a gradient with the inexact leaves", ".*4", "Build it")),
    ("watch", {"every": 0}, named("every as a whole number, at least 1", "0", "Pass every=1")),
    ("watch", {"every": 2.5}, named("every as a whole number", "2.5", "Pass every=1")),
    ("watch", {"loss": 3.0}, named("loss, a function", "3.0", "Pass loss")),
    ("watch", {"optimizer": optax.adam}, named("optimizer, a transformation", "the function adam", "Call it")),
    ("watch", {"row": 3}, named("options of checkup, .*rows", "row", "Mind")),
]  # fmt: skip


@pytest.mark.parametrize(("part", "change", "message"), PART, ids=[f"{p}-{'-'.join(map(str, c))}-{i}" for i, (p, c, _) in enumerate(PART)])  # fmt: skip
def test_parts_refuse_what_makes_no_sense(part, change, message):
    with pytest.raises(ValueError, match=message):
        PARTS[part](**change)


@pytest.mark.parametrize("case", NO_LOSS)
@pytest.mark.parametrize("part", ["sharpness", "noise_scale", "step", "subspace"])
def test_parts_refuse_what_is_no_loss(part, case):
    bad, message = NO_LOSS[case]
    with pytest.raises(ValueError, match=message):
        PARTS[part](loss=bad)


def test_an_optimiser_is_read_only_if_it_is_one():
    with pytest.raises(ValueError, match=r"the function adam\. Call it"):
        update_rule(optax.adam, None, P, P)
