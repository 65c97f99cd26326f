"""A field is called by its contract, and whatever breaks it is said when it is traced."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax._core import checked_field


def decay(t, y, args):
    return jax.tree.map(jnp.negative, y)


def test_a_field_that_keeps_the_contract_is_the_same_field():
    field = checked_field(decay)
    y = {"a": jnp.ones(2), "b": jnp.ones(())}
    assert jax.tree.all(jax.tree.map(jnp.array_equal, field(0.0, y, None), decay(0.0, y, None)))
    # Equal fields are equal, so that a program compiled for one serves the other; and nothing is wrapped twice.
    assert eqx.tree_equal(field, checked_field(decay)) and checked_field(field) is field
    assert str(jax.make_jaxpr(field)(0.0, y, None)) == str(jax.make_jaxpr(decay)(0.0, y, None))


def test_differentiation_in_all_ways_goes_through():
    field = checked_field(lambda t, y, args: args * y**2)
    y, args = jnp.array([1.0, 2.0]), jnp.array(3.0)
    np.testing.assert_allclose(jax.jacfwd(field, 1)(0.0, y, args), np.diag([6.0, 12.0]))
    np.testing.assert_allclose(jax.jacrev(field, 2)(0.0, y, args), [1.0, 4.0])
    np.testing.assert_allclose(jax.vmap(field, (None, 0, None))(0.0, jnp.stack([y, 2 * y]), args)[1], [12.0, 48.0])


def test_a_value_of_fewer_digits_is_widened_and_of_more_is_left(x64):
    y = jnp.ones(2, jnp.float32)
    for dtype, expected in (
        ("bfloat16", "float32"),
        ("int8", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
    ):
        field = checked_field(lambda t, y, args, dtype=dtype: jnp.ones(2, dtype))
        assert field(0.0, y, None).dtype == expected
    assert checked_field(lambda t, y, args: 0.0)(0.0, jnp.array(1.0), None).shape == ()


ARRAYS = {
    "column": lambda t, y, args: y[:, None],
    "row": lambda t, y, args: y[None],
    "number": lambda t, y, args: jnp.sum(y),
    "python's number": lambda t, y, args: 0.0,
    "longer": lambda t, y, args: jnp.ones(3),
    "tuple": lambda t, y, args: (y, y),
    "nothing": lambda t, y, args: None,
    "word": lambda t, y, args: "y",
}


@pytest.mark.parametrize("field", ARRAYS.values(), ids=ARRAYS)
def test_a_value_of_another_shape_is_refused(field):
    for call in (checked_field(field), jax.jit(checked_field(field)) if field(0, jnp.ones(2), 0) != "y" else None):
        if call is not None:
            with pytest.raises(ValueError, match=r"a field whose value is shaped like its state, f32\[2\], got "):
                call(0.0, jnp.ones(2), None)


def test_arguments_in_another_order_or_number_are_named():
    y = jnp.ones(2)
    for field, message in (
        (lambda y, t, args: -y, r"got one of \(y, t, args\): \(y, t, args\)\. Write it as field\(t, y, args\)"),
        (lambda x, time, c=None: jnp.stack([x[1], -x[0]]), r"got one of \(y, t, args\): \(x, time, c=None\)"),
        (lambda t, y: -y, r"three arguments, \(t, y, args\), got \(t, y\)"),
        (lambda y: -y, r"three arguments, \(t, y, args\), got \(y\)"),
        (lambda t, y, args, key: -y, r"three arguments, \(t, y, args\), got \(t, y, args, key\)"),
    ):
        with pytest.raises(ValueError, match=message):
            checked_field(field)(0.0, y, None)
    # Not a matter of order: time is first here, and the value is plainly of another shape.
    with pytest.raises(ValueError, match=r"got f32\[\]"):
        checked_field(lambda t, y, args: jnp.cos(t))(0.0, y, None)


def test_errors_of_the_fields_own_pass_unchanged():
    def broken(t, y, args):
        return y @ jnp.ones((5, 5))

    with pytest.raises(TypeError, match="dot_general"):
        checked_field(broken)(0.0, jnp.ones(2), None)


def test_what_is_no_field_is_refused():
    class Field(eqx.Module):
        def __call__(self, t, y, args):
            return y

    assert checked_field(Field())(0.0, jnp.ones(2), None).shape == (2,)
    with pytest.raises(ValueError, match=r"got the class Field\. Make one first: Field\(\.\.\.\)"):
        checked_field(Field)
    with pytest.raises(ValueError, match=r"expected a field, a function, got 3\.0"):
        checked_field(3.0)


def test_complex_values_of_a_real_state_are_refused():
    state = jnp.ones(2)
    with pytest.raises(ValueError, match=r"a field of real numbers, as its state f32\[2\], got c64\[2\]"):
        checked_field(lambda t, y, args: 1j * y)(0.0, state, None)
    turned = checked_field(lambda t, y, args: 1j * y)(0.0, state.astype(complex), None)
    assert jnp.iscomplexobj(turned)
