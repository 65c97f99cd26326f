"""An estimate prints its numbers, and every record that holds one does so too."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import calculus, estimate, follow, optimize, transport
from nablax._core import Estimate, ratio_of_means, root_mean_square, scaled_estimate


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.2345, 0.0421, "1.234 ± 0.042"),
        (-0.55, 0.37, "-0.55 ± 0.37"),
        (1234.5678, 12.0, "1235 ± 12"),
        (0.2, 0.0, "0.2 ± 0"),
        (3.0, np.nan, "3 ± nan"),
        (np.nan, np.nan, "nan ± nan"),
        (2.0, np.inf, "2 ± inf"),
        (1.5e-9, 2.0e-10, "1.5e-09 ± 2e-10"),
        (3.0e20, 1.0e18, "3e+20 ± 1e+18"),
        (12345.0, 678.0, "1.234e+04 ± 6.8e+02"),
    ],
)
def test_the_value_is_printed_to_the_second_digit_of_its_error(x64, value, error, text):
    assert repr(Estimate(jnp.asarray(value), jnp.asarray(error))) == text


def test_a_few_are_printed_one_by_one_and_of_many_the_shape():
    few = Estimate(jnp.array([1.0, 20.0]), jnp.array([0.1, 3.0]))
    assert repr(few) == "[1.00 ± 0.10, 20.0 ± 3.0]"
    assert "f32[9]" in repr(Estimate(jnp.ones(9), jnp.ones(9))) and "f32[2,2]" in repr(
        Estimate(jnp.ones((2, 2)), jnp.ones((2, 2)))
    )
    assert repr(Estimate(jnp.ones((), jnp.bfloat16), jnp.zeros((), jnp.bfloat16))) == "1 ± 0"


def test_what_is_not_at_hand_is_printed_by_its_shape():
    printed = []
    jax.jit(lambda one: printed.append(repr(one)) or one)(Estimate(jnp.ones(3), jnp.ones(3)))
    assert printed == ["Estimate(value=f32[3], standard_error=f32[3])"]
    gone = jnp.ones(3) + 1
    gone.delete()
    for value in (jax.ShapeDtypeStruct((), jnp.float32), None, gone):
        assert repr(Estimate(value, value)).startswith("Estimate(")


def test_a_record_around_it_prints_the_numbers_in_equinoxs_form():
    class Record(eqx.Module):
        ratio: Estimate
        curve: jax.Array
        samples: int = eqx.field(static=True)

    record = Record(Estimate(jnp.array(0.512), jnp.array(0.021)), jnp.zeros((5, 2)), 60)
    assert "ratio=0.512 ± 0.021, curve=f32[5,2], samples=60" in repr(record)


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1.0, 1e15, 1e30])
def test_errors_by_the_delta_method_at_any_scale(scale):
    samples = np.random.default_rng(0).gamma(2.0, size=400).astype(np.float32)
    others = np.random.default_rng(1).gamma(3.0, size=400).astype(np.float32) + samples
    plain, scaled = (
        Estimate.from_samples(jnp.asarray(samples)),
        scaled_estimate(jnp.asarray(samples * np.float32(scale))),
    )
    np.testing.assert_allclose(scaled.value / scale, plain.value, rtol=1e-5)
    np.testing.assert_allclose(scaled.standard_error / scale, plain.standard_error, rtol=1e-5)
    root = root_mean_square(jnp.asarray(samples * np.float32(scale)))
    squares = samples.astype(np.float64) ** 2
    np.testing.assert_allclose(root.value / scale, np.sqrt(squares.mean()), rtol=1e-5)
    error = squares.std(ddof=1) / 20 / (2 * np.sqrt(squares.mean()))
    np.testing.assert_allclose(root.standard_error / scale, error, rtol=1e-4)
    ratio = ratio_of_means(jnp.asarray(samples * np.float32(scale)), jnp.asarray(others * np.float32(scale)))
    wanted = samples.mean() / others.mean()
    np.testing.assert_allclose(ratio.value, wanted, rtol=1e-5)
    error = (samples - wanted * others).std(ddof=1) / others.mean() / 20
    np.testing.assert_allclose(ratio.standard_error, error, rtol=1e-3)


def test_of_zeros_and_of_what_is_not_finite():
    zeros, missing = jnp.zeros(5), jnp.array([1.0, jnp.nan, 2.0])
    for found in (scaled_estimate(zeros), root_mean_square(zeros), ratio_of_means(zeros, zeros)):
        assert found.value == 0 and found.standard_error == 0
    for found in (scaled_estimate(missing), root_mean_square(missing), ratio_of_means(missing, missing)):
        assert jnp.isnan(found.value) and jnp.isnan(found.standard_error)


@pytest.mark.parametrize(
    "record",
    [
        *(calculus.Antisymmetry, calculus.Eigenvalues, calculus.Lanczos, calculus.MatrixRoot, calculus.SpectralDensity),
        *(estimate.HypergradientError, follow.Fit, follow.History, follow.Solution, optimize.Branches),
        *(transport.LogProb, transport.Plan, transport.Posterior, transport.Steering),
    ],
    ids=lambda record: record.__name__,
)
def test_what_the_rooms_return_prints_its_numbers(record):
    made = object.__new__(record)
    for field in dataclasses.fields(record):
        object.__setattr__(made, field.name, jnp.array([0.25, 3.0]))
    shown = [field.name for field in dataclasses.fields(record) if field.repr]
    assert shown and all(f"{name}=[0.25, 3]" in repr(made) for name in shown)
