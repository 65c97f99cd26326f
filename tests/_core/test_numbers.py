"""One number within bounds, and a label for each row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax._core import check_labels, check_number


@pytest.mark.parametrize("value", [0.5, 0, np.float64(0.25), np.int32(0), jnp.float32(0.75), np.zeros(())])
def test_numbers_of_any_library_pass_within_their_bounds(value):
    check_number(value, what="share", least=0, below=1, fix="Pass 0.5.")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.0, "expected share, a finite number at least 0 and below 1, got 1. Pass 0.5"),
        (-0.1, "at least 0 and below 1, got -0.1"),
        (jnp.nan, "got nan"),
        (jnp.inf, "got inf"),
        (True, "got True"),
        (0.5 + 0j, r"expected share of shape \[\], got a complex"),
        (jnp.array(0.5j), r"a finite number .*, got c64\[\]"),
        ("0.5", r"expected share of shape \[\], got a str"),
        (None, "got a NoneType"),
        (jnp.zeros(1), r"expected share of shape \[\], got f32\[1\]"),
        (lambda step: 0.5, "got a function"),
    ],
)
def test_everything_else_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        check_number(value, what="share", least=0, below=1, fix="Pass 0.5.")


def test_bounds_are_in_or_out_as_said_and_traced_numbers_have_a_shape_alone():
    check_number(-1e30, what="level", fix="")
    with pytest.raises(ValueError, match="expected rate, a finite number above 0, got 0"):
        check_number(0.0, what="rate", above=0, fix="")

    @jax.jit
    def traced(x):
        check_number(x, what="rate", above=0, fix="")
        return x

    assert traced(-1.0) == -1
    with pytest.raises(ValueError, match=r"rate of shape \[\], got f32\[2\]"):
        traced(jnp.ones(2))
    # What is known in the midst of a trace is looked at.
    known = jnp.float32(-1)
    with pytest.raises(ValueError, match="expected rate, a finite number above 0, got -1"):
        jax.jit(lambda x: (check_number(known, what="rate", above=0, fix=""), x))(1.0)


def test_labels_are_whole_numbers_of_classes():
    assert check_labels(np.array([0, 2]), 2, classes=3).tolist() == [0, 2]
    assert check_labels(jnp.array([0, 7]), 2).tolist() == [0, 7]
    for wrong, message in (
        (jnp.array([0.0, 1.0]), r"labels of whole numbers, got f32\[2\]"),
        (jnp.array([True, False]), r"labels of whole numbers, got bool\[2\]"),
        (jnp.array([0]), r"labels of shape \[2\], got i32\[1\]"),
        ([0, 1], r"labels of shape \[2\], got a list"),
        (jnp.array([0, 3]), "labels from 0 to 2, got 3"),
        (jnp.array([-1, 0]), "labels from 0 to 2, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            check_labels(wrong, 2, classes=3)
    assert jax.jit(lambda labels: check_labels(labels, 2, classes=3))(jnp.array([0, 9])).tolist() == [0, 9]
