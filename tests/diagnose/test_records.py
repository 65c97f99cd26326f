"""Every record of a diagnostic prints its numbers, wherever it stands."""

import dataclasses
import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import diagnose
from nablax.calculus import Estimate

RECORDS = sorted(
    name
    for name in diagnose.__all__
    if inspect.isclass(getattr(diagnose, name))
    and issubclass(getattr(diagnose, name), eqx.Module)
    and hasattr(getattr(diagnose, name), "table")
)


def filled(name, number):
    """A record whose every field is a number of its own, told apart by its place."""
    record = object.__new__(getattr(diagnose, name))
    for place, field in enumerate(dataclasses.fields(record)):
        object.__setattr__(record, field.name, number(place))
    return record


def test_there_are_as_many_records_as_diagnostics():
    assert len(RECORDS) >= 24


@pytest.mark.parametrize("name", [*RECORDS, "UpdateRule"])
@pytest.mark.parametrize("number", [jnp.float32, np.float32, lambda n: jnp.asarray(n + 0.5, jnp.bfloat16)])
def test_plain_numbers_are_printed(name, number):
    record = filled(name, lambda place: number(place + 0.25))
    printed = repr(record)
    assert "f32[" not in printed and "bf16[" not in printed
    for place, field in enumerate(dataclasses.fields(record)):
        if field.repr:
            assert f"{field.name}={float(number(place + 0.25)):.6g}" in printed


def test_numbers_of_every_kind_and_of_records_within():
    values = [jnp.array(True), jnp.array(3), jnp.arange(3.0), jnp.zeros(9), jnp.zeros((2, 2)), jax.random.key(0), None]
    inner = filled("Rotation", lambda place: Estimate(jnp.array(0.5), jnp.array(0.25)))
    record = filled("StepQuality", lambda place: [*values, {"in": inner, "x": jnp.array(1e-9)}, "word", 2][place % 10])
    printed = " ".join(repr(record).split())
    fields = [field.name for field in dataclasses.fields(record)]
    shown = ("True", "3", "[0, 1, 2]", "f32[9]", "f32[2,2]")
    assert all(f"{name}={text}" in printed for name, text in zip(fields, shown))
    assert "share=0.50 ± 0.25" in printed and "'x': 1e-09" in printed and "'word'" in printed


def test_what_is_traced_is_printed_by_its_shape():
    printed = []

    def look(x):
        printed.append(repr(filled("Rotation", lambda place: x)))
        return x

    jax.jit(look)(jnp.ones(()))
    assert printed == ["Rotation(share=f32[], jacobian=f32[])"]
