"""Convolutions in one layout give what they gave, and are fast where they were not: in the body of a loop."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nablax._core import canonical_convolutions

# Shapes of image and kernel, and what else the convolution is told.
CASES = {
    "1d": ((2, 3, 9), (4, 3, 3), {"padding": "SAME"}),
    "2d": ((2, 3, 6, 5), (4, 3, 3, 2), {"padding": "SAME"}),
    "3d": ((2, 2, 5, 4, 3), (3, 2, 2, 2, 2), {"padding": "VALID"}),
    "strides": ((2, 3, 7, 6), (4, 3, 3, 3), {"window_strides": (2, 3), "padding": "SAME"}),
    "window 1, stride 2": ((2, 3, 6, 6), (4, 3, 1, 1), {"window_strides": (2, 2), "padding": "VALID"}),
    "uneven padding": ((2, 3, 5, 5), (4, 3, 3, 3), {"padding": ((0, 2), (3, -1))}),
    "dilated kernel": ((2, 3, 8, 8), (4, 3, 3, 2), {"rhs_dilation": (2, 3), "padding": "SAME"}),
    "dilated image": ((2, 3, 4, 4), (4, 3, 3, 3), {"lhs_dilation": (2, 3), "padding": ((1, 1), (2, 0))}),
    "groups of channels": ((2, 16, 5, 5), (32, 8, 3, 3), {"feature_group_count": 2, "padding": "SAME"}),
    "depthwise": ((2, 4, 5, 5), (8, 1, 3, 3), {"feature_group_count": 4, "padding": "SAME"}),
    "groups of the batch": ((6, 5, 5, 5), (21, 5, 3, 3), {"batch_group_count": 3, "padding": "SAME"}),
    "channels last": ((2, 6, 5, 3), (3, 2, 3, 4), {"padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NHWC")}),
    "odd order": ((6, 2, 3, 5), (3, 3, 4, 2), {"padding": "SAME", "dimension_numbers": ("HNCW", "HIOW", "WCHN")}),
}


def convolution(case):
    image, kernel, settings = CASES[case]
    settings = {"window_strides": (1,) * (len(image) - 2), **settings}
    random = np.random.default_rng(0)
    operands = [jnp.asarray(random.normal(size=shape)) for shape in (image, kernel)]
    return lambda x, w: lax.conv_general_dilated(x, w, **settings), operands


def is_fast(equation):
    """Whether it has the layout that XLA has fast kernels for."""
    rank = equation.outvars[0].aval.ndim
    rows = (0, rank - 1, *range(1, rank - 1))
    layout = equation.params["dimension_numbers"]
    return (
        layout.lhs_spec == layout.out_spec == rows
        and layout.rhs_spec == (rank - 1, rank - 2, *range(rank - 2))
        and equation.params["batch_group_count"] == 1
    )


def close(found, wanted, digits=1e-12):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=digits, atol=digits * float(jnp.max(jnp.abs(other))))


@pytest.mark.parametrize("case", CASES)
def test_value_gradients_and_hessian_product_are_those_of_the_native_convolution(x64, case):
    convolve, operands = convolution(case)
    directions = tuple(jnp.cos(7 * operand) for operand in operands)

    def loss(x, w):
        return jnp.sum(jnp.tanh(convolve(x, w)) ** 2)

    def all_of_it(x, w):
        gradient, second = jax.jvp(jax.grad(loss, (0, 1)), (x, w), directions)
        return convolve(x, w), gradient, second

    close(canonical_convolutions(all_of_it)(*operands), all_of_it(*operands))
    # Differentiated from without: the rewritten program is one like any other.
    rewritten = canonical_convolutions(loss)
    close(jax.grad(rewritten, (0, 1))(*operands), jax.grad(loss, (0, 1))(*operands))
    many = [jnp.stack([operand, -2 * operand]) for operand in operands]
    close(jax.vmap(canonical_convolutions(convolve))(*many), jax.vmap(convolve)(*many))


@pytest.mark.parametrize("case", [case for case in CASES if case != "depthwise"])
def test_no_convolution_of_a_derivative_is_left_in_another_layout(case, loop_convolutions):
    convolve, operands = convolution(case)

    def body(operands, _):
        step = jax.grad(lambda pair: jnp.sum(jnp.tanh(convolve(*pair))))(operands)
        return jax.tree.map(jnp.subtract, operands, step), None

    program = jax.make_jaxpr(lambda pair: lax.scan(canonical_convolutions(body), pair, length=2)[0])(operands)
    found = loop_convolutions(program)
    assert len(found) == 3
    slow = [equation for equation in found if not is_fast(equation)]
    # What is left to plain loops is small in every group.
    for equation in slow:
        outs, ins = (equation.invars[1].aval.shape[axis] for axis in equation.params["dimension_numbers"].rhs_spec[:2])
        groups = max(equation.params["feature_group_count"], equation.params["batch_group_count"])
        assert groups > 1 and ins * (outs // groups) < 32


def test_small_groups_of_channels_are_left_alone():
    convolve, operands = convolution("depthwise")
    assert str(jax.make_jaxpr(canonical_convolutions(convolve))(*operands)) == str(jax.make_jaxpr(convolve)(*operands))


def test_the_compiled_loop_asks_for_the_fast_kernel():
    convolve, operands = convolution("2d")

    def body(pair, _):
        step = jax.grad(lambda pair: jnp.sum(jnp.tanh(convolve(*pair))))(pair)
        return jax.tree.map(jnp.subtract, pair, step), None

    def layouts(body):
        text = jax.jit(lambda pair: lax.scan(body, pair, length=3)[0]).lower(operands).compile().as_text()
        return set(re.findall(r"convolution\(.*dim_labels=(\S+?)[,\s]", text))

    assert layouts(canonical_convolutions(body)) == {"b01f_01io->b01f"}
    # What XLA does by itself, which is why this is here; where it does better one day, all of this can go.
    assert layouts(body) != {"b01f_01io->b01f"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_and_precision_are_kept(dtype, loop_convolutions):
    x, w = jnp.ones((1, 2, 4, 4), dtype), jnp.full((3, 2, 3, 3), 0.5, dtype)

    def convolve(x, w):
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", precision="highest", preferred_element_type=jnp.float32)

    program = jax.make_jaxpr(lambda x, w: lax.map(lambda x: canonical_convolutions(convolve)(x, w), x[None]))(x, w)
    (equation,) = loop_convolutions(program)
    assert is_fast(equation) and equation.params["precision"] == (lax.Precision.HIGHEST,) * 2
    close(canonical_convolutions(convolve)(x, w), convolve(x, w), 1e-6)
    assert convolve(x, w).dtype == jnp.float32


def test_integers():
    x, w = jnp.arange(32).reshape(1, 2, 4, 4), jnp.arange(54).reshape(3, 2, 3, 3)

    def convolve(x, w):
        return lax.conv_general_dilated(x, w, (1, 1), "SAME")

    np.testing.assert_array_equal(canonical_convolutions(convolve)(x, w), convolve(x, w))


def test_inner_programs_are_rewritten_and_custom_derivatives_stay(loop_convolutions):
    x, w = (operand.astype(jnp.float32) for operand in convolution("2d")[1])

    @jax.custom_vjp
    def layer(x, w):
        return lax.conv_general_dilated(x, w, (1, 1), "SAME")

    # Not the derivative: told apart from it.
    layer.defvjp(lambda x, w: (layer(x, w), (x, w)), lambda kept, seed: (3 * kept[0], 5 * kept[1]))

    @jax.custom_jvp
    def other(x, w):
        return lax.conv_general_dilated(x, w, (1, 1), "SAME")

    @other.defjvp
    def _(primals, tangents):
        return other(*primals), 7 * other(tangents[0], primals[1])

    def loss(x, w):
        total = jnp.sum(layer(x, w)) + jnp.sum(jax.jit(other)(x, w))
        total += jnp.sum(jax.checkpoint(lambda x: jnp.tanh(convolution("2d")[0](x, w)))(x))
        total += lax.cond(x[0, 0, 0, 0] > 100, lambda: 0.0, lambda: jnp.sum(convolution("2d")[0](x, w)))
        total, _ = lax.scan(lambda c, s: (c + jnp.sum(convolution("2d")[0](s * x, w)), None), total, jnp.ones(2))
        return lax.while_loop(
            lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1] + jnp.sum(convolution("2d")[0](x, w))), (0, total)
        )[1]

    def no_loop(x, w):
        return jnp.sum(layer(x, w)) + jnp.sum(jax.checkpoint(lambda x: jax.jit(other)(x, w))(x))

    rewritten = canonical_convolutions(loss)
    close(rewritten(x, w), loss(x, w), 1e-6)
    program = jax.make_jaxpr(lambda xs: lax.map(lambda x: rewritten(x, w), xs))(x[None])
    found = loop_convolutions(program)
    assert len(found) == 6 and all(map(is_fast, found))
    close(jax.grad(canonical_convolutions(no_loop), (0, 1))(x, w), jax.grad(no_loop, (0, 1))(x, w), 1e-6)
    assert float(jnp.max(jnp.abs(jax.grad(no_loop, 1)(x, w) - 5 * w))) == 0  # the custom rules are in force


def test_a_layer_of_equinox():
    keys = jax.random.split(jax.random.key(0), 3)
    layers = [
        eqx.nn.Conv2d(1, 8, 3, padding=1, key=keys[0]),
        eqx.nn.ConvTranspose2d(8, 4, 3, stride=2, key=keys[1]),
        eqx.nn.Conv2d(4, 4, 3, groups=2, key=keys[2]),
    ]
    images = jax.random.normal(jax.random.key(1), (5, 1, 6, 6))

    @eqx.filter_grad
    def gradient(layers, images):
        def one(image):
            for layer in layers:
                image = jax.nn.relu(layer(image))
            return image

        return jnp.mean(jax.vmap(one)(images) ** 2)

    found, wanted = canonical_convolutions(gradient)(layers, images), gradient(layers, images)
    close(eqx.filter(found, eqx.is_array), eqx.filter(wanted, eqx.is_array), 1e-5)
    assert found[0].padding == wanted[0].padding  # what is no array comes back as it is


def test_without_convolutions_the_traced_program_is_what_runs():
    calls = []

    def step(x, rate, *, name):
        calls.append(name)
        return {"x": x - rate * jax.grad(lambda x: jnp.sum(jnp.cos(x)))(x), "name": name}

    x = jnp.arange(3.0)
    found = canonical_convolutions(step)(x, 0.5, name="a")
    assert calls == ["a"] and found["name"] == "a"
    np.testing.assert_array_equal(found["x"], step(x, 0.5, name="a")["x"])
    plain, rewritten = (jax.make_jaxpr(f)(x) for f in (jnp.cos, canonical_convolutions(jnp.cos)))
    assert str(plain) == str(rewritten)


def test_what_a_shard_does_is_left_alone():
    convolve, (x, w) = convolution("2d")
    mesh = jax.make_mesh((1,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, whole = jax.sharding.PartitionSpec("shards"), jax.sharding.PartitionSpec()

    def gradient(x, w):
        return jax.grad(lambda w: jnp.sum(convolve(x, w) ** 2))(w)

    sharded = jax.shard_map(gradient, mesh=mesh, in_specs=(rows, whole), out_specs=whole)
    wanted = jax.grad(lambda w: jnp.sum(convolve(x, w) ** 2))(w)
    close(jax.jit(canonical_convolutions(sharded))(x, w), wanted, 1e-5)


def test_elsewhere_than_on_a_cpu_the_function_is_called_as_it_is(monkeypatch):
    convolve, operands = convolution("2d")
    rewritten = canonical_convolutions(convolve)
    native = str(jax.make_jaxpr(convolve)(*operands))
    # A new function each time: JAX remembers what it traced.
    assert str(jax.make_jaxpr(lambda *pair: rewritten(*pair))(*operands)) != native
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert str(jax.make_jaxpr(lambda *pair: rewritten(*pair))(*operands)) == native


def test_decorating_starts_no_backend(monkeypatch):
    def started():
        raise AssertionError("a backend was started")

    monkeypatch.setattr(jax, "default_backend", started)
    canonical_convolutions(jnp.cos)
