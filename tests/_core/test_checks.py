"""What is declared is checked, in words that name what was expected, what came and what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax._core import check_callable, check_count, check_floats, check_key, check_like, check_shape


def test_trees_of_other_shapes_or_structures_are_refused_even_where_they_would_broadcast():
    like = {"x": jnp.zeros((3, 2)), "y": jnp.zeros(())}
    check_like(jax.eval_shape(lambda: like), like, what="a field whose value", mend="Mend.")
    for value in ({"x": jnp.zeros((1, 2)), "y": 0.0}, {"x": jnp.zeros((3, 2))}, [1.0], {"x": jnp.zeros(2), "y": 0.0}):
        with pytest.raises(ValueError, match=r"expected a field whose value is shaped like .*f32\[3,2\].*got .*Mend\."):
            check_like(value, like, what="a field whose value", mend="Mend.")


def test_arrays_of_other_ranks_and_lengths_are_refused():
    assert check_shape(np.zeros((5, 2)), (None, 2), what="points", mend="Mend.").shape == (5, 2)
    assert check_shape(1.0, (), what="a time", mend="Mend.").shape == ()
    for value in (np.zeros(2), np.zeros((5, 1)), np.zeros((1, 5, 2)), [[1.0, 2.0]], "x", None):
        with pytest.raises(ValueError, match=r"expected points of shape \[…, 2\], got .*Mend\."):
            check_shape(value, (None, 2), what="points", mend="Mend.")

    @jax.jit
    def traced(x):
        return check_shape(x, (None, 2), what="points", mend="Mend.")

    assert traced(jnp.ones((3, 2))).shape == (3, 2)
    with pytest.raises(ValueError, match=r"got f32\[3,5\]"):
        traced(jnp.ones((3, 5)))


@pytest.mark.parametrize("tree", [jnp.arange(3), jnp.ones(2, bool), jnp.ones(2, complex), [], {"a": 1.0}, ["x"]])
def test_what_is_not_real_floats_is_refused(tree):
    with pytest.raises(ValueError, match="expected data of real floating-point numbers, got"):
        check_floats(tree, what="data", mend="Mend.")
    check_floats({"a": jnp.ones(2, jnp.bfloat16)}, what="data", mend="Mend.")


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
    assert check_callable(len, what="the loss", mend="Mend.") is len
    with pytest.raises(ValueError, match="expected the loss, a function, got"):
        check_callable(1.0, what="the loss", mend="Mend.")
