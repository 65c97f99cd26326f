"""What is declared is checked, in words that name what was expected, what came and what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax._core import (
    check_callable,
    check_count,
    check_finite,
    check_floats,
    check_instance,
    check_key,
    check_like,
    check_loss,
    check_rows,
    check_shape,
    check_shape_of_one,
    known_finite,
)


def test_trees_of_other_shapes_or_structures_are_refused_even_where_they_would_broadcast():
    like = {"x": jnp.zeros((3, 2)), "y": jnp.zeros(())}
    check_like(jax.eval_shape(lambda: like), like, what="a field whose value", fix="Mend.")
    for value in ({"x": jnp.zeros((1, 2)), "y": 0.0}, {"x": jnp.zeros((3, 2))}, [1.0], {"x": jnp.zeros(2), "y": 0.0}):
        with pytest.raises(ValueError, match=r"expected a field whose value is shaped like .*f32\[3,2\].*got .*Mend\."):
            check_like(value, like, what="a field whose value", fix="Mend.")


def test_arrays_of_other_ranks_and_lengths_are_refused():
    assert check_shape(np.zeros((5, 2)), (None, 2), what="points", fix="Mend.").shape == (5, 2)
    assert check_shape(1.0, (), what="a time", fix="Mend.").shape == ()
    for value in (np.zeros(2), np.zeros((5, 1)), np.zeros((1, 5, 2)), [[1.0, 2.0]], "x", None):
        with pytest.raises(ValueError, match=r"expected points of shape \[…, 2\], got .*Mend\."):
            check_shape(value, (None, 2), what="points", fix="Mend.")

    @jax.jit
    def traced(x):
        return check_shape(x, (None, 2), what="points", fix="Mend.")

    assert traced(jnp.ones((3, 2))).shape == (3, 2)
    with pytest.raises(ValueError, match=r"got f32\[3,5\]"):
        traced(jnp.ones((3, 5)))


@pytest.mark.parametrize("tree", [jnp.arange(3), jnp.ones(2, bool), jnp.ones(2, complex), [], {"a": 1.0}, ["x"]])
def test_what_is_not_real_floats_is_refused(tree):
    with pytest.raises(ValueError, match="expected data of real floating-point numbers, got"):
        check_floats(tree, what="data", fix="Mend.")
    check_floats({"a": jnp.ones(2, jnp.bfloat16)}, what="data", fix="Mend.")


def test_counts_are_whole_and_large_enough():
    assert check_count(np.int64(3), what="steps") == 3 and check_count(0, what="rows", least=0) == 0
    for value in (40.0, "40", True, -1, 0, None, jnp.ones(2)):
        with pytest.raises(ValueError, match="expected steps as a whole number, at least 1, got"):
            check_count(value, what="steps")


def test_keys_of_both_kinds_pass_and_seeds_do_not():
    check_key(jax.random.key(0))
    check_key(jax.random.PRNGKey(0))
    check_key(jax.random.split(jax.random.key(0)))
    jax.jit(lambda k: check_key(k) or k)(jax.random.key(0))
    for value in (0, None, jnp.zeros(2), "key"):
        with pytest.raises(ValueError, match=r"a random key, got .*jax\.random\.key\(0\)"):
            check_key(value)


def test_what_cannot_be_called_is_refused():
    assert check_callable(len, what="the loss", fix="Mend.") is len
    with pytest.raises(ValueError, match="expected the loss, a function, got"):
        check_callable(1.0, what="the loss", fix="Mend.")


def test_a_count_that_is_traced_is_told_apart_from_a_wrong_one():
    with pytest.raises(ValueError, match=r"got an array i32\[\]\. Pass int\(steps\), known before"):
        jax.jit(lambda n: check_count(n, what="steps"))(3)


def test_leading_axes_are_those_of_the_rows():
    check_rows({"x": jnp.ones((3, 2)), "y": np.ones(3)}, 3, what="args", fix="Mend.")
    check_rows(None, 3, what="args", fix="Mend.")
    for tree in (jnp.ones((1, 2)), jnp.ones(2), jnp.ones(()), {"x": jnp.ones(3), "y": 1.0}, "abc"):
        with pytest.raises(ValueError, match=r"expected args with leading axis 3, got .*Mend\."):
            check_rows(tree, 3, what="args", fix="Mend.")


def test_classes_are_told_apart_from_their_instances():
    check_instance(1.0, (int, float), what="a number", fix="Mend.")
    with pytest.raises(ValueError, match=r"expected a number, got the class float\. Make one: float\(\.\.\.\)"):
        check_instance(float, float, what="a number", fix="Mend.")
    with pytest.raises(ValueError, match=r"expected a number, got 'x'\. Mend\."):
        check_instance("x", float, what="a number", fix="Mend.")


@pytest.mark.parametrize("kind", [jnp.asarray, np.asarray])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_row_that_is_not_finite_is_named(kind, dtype):
    values = kind(jnp.ones((4, 2), dtype))
    check_finite({"x": values, "n": kind(jnp.arange(4))}, what="rows", fix="Mend.")
    bad = kind(jnp.ones((4, 2), dtype).at[2, 1].set(jnp.nan))
    with pytest.raises(ValueError, match=r"expected finite rows, got NaN or infinity in row 2\. Mend\."):
        check_finite({"x": bad}, what="rows", fix="Mend.")
    with pytest.raises(ValueError, match="in row 0 and 3 more"):
        check_finite(kind(jnp.full((4,), jnp.inf, dtype)), what="rows", fix="Mend.")
    jax.jit(lambda x: check_finite(x, what="rows", fix="Mend."))(bad)  # unknown while traced


def test_the_shape_of_one_sample():
    assert check_shape_of_one(3) == check_shape_of_one((3,)) == check_shape_of_one([np.int64(3)]) == (3,)
    assert check_shape_of_one(()) == ()
    for shape in (0, -1, 2.0, "2", None, (2, 0), (2.0,), (True,)):
        with pytest.raises(ValueError, match=r"a tuple of positive integers, got .*Write \(2,\)"):
            check_shape_of_one(shape)


def test_one_real_number():
    one, half, two = jnp.ones(()), jax.ShapeDtypeStruct((), jnp.bfloat16), jnp.ones(2)
    assert check_loss(one) is one and check_loss(half) is half and check_loss(two, several=True) is two
    jax.jit(check_loss)(one)
    for value in (jnp.ones(1), jnp.ones((), int), jnp.ones((), complex), 1.0, (jnp.ones(()), 2), None, "x"):
        with pytest.raises(ValueError, match=r"expected a loss that returns one real number, got .*Mend\."):
            check_loss(value, what="a loss", fix="Mend.")


def test_numbers_that_are_known_are_looked_at_in_the_midst_of_a_trace():
    rows = jnp.ones((3, 2)).at[1, 0].set(jnp.nan)

    @jax.jit
    def traced(x):
        assert known_finite(x) is None and known_finite(rows) is False
        check_finite(x, what="rows", fix="Mend.")
        return x

    traced(rows)
    with pytest.raises(ValueError, match="NaN or infinity in row 1"):
        jax.jit(lambda x: check_finite(rows, what="rows", fix="Mend.") or x)(1.0)
