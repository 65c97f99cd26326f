"""An estimate prints its numbers, and every record that holds one does so too."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax._core import Estimate


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
    jax.jit(lambda estimate: printed.append(repr(estimate)) or estimate)(Estimate(jnp.ones(3), jnp.ones(3)))
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
