"""Guards outside the program: the same values, the same words, no host callback, and none lost."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax._core import canonical_convolutions, guarded_jit


@pytest.fixture
def lowered(tmp_path):
    """What the programs of a call ask of others than the compiler."""

    def text(function, *args, **kwargs):
        jax.clear_caches()
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        jax.config.update("jax_dump_ir_to", str(folder))
        try:
            function(*args, **kwargs)
        finally:
            jax.config.update("jax_dump_ir_to", "")
        lines = (line for path in folder.iterdir() for line in path.read_text().splitlines())
        return "\n".join(line for line in lines if "custom_call" in line)

    return text


def guarded(x, limit=4.0):
    """Square root of each, twice guarded."""
    x = eqx.error_if(x, x < 0, "a negative number has no root")
    return eqx.error_if(jnp.sqrt(x), x.sum() > limit, "too large a sum")


def in_a_map(x):
    return jax.lax.map(guarded, x)


def in_a_scan(x):
    """A guard on the carry, that a later step would hide."""

    def step(total, row):
        total = eqx.error_if(total + row, total + row > 10, "more than ten on the way")
        return total, total * 2

    return jax.lax.scan(step, jnp.zeros(()), x, reverse=True)


def in_a_vmap(x):
    return jax.vmap(guarded)(x)


def in_a_jit(x):
    return eqx.filter_jit(guarded)(x) + jax.jit(guarded)(x)


def in_a_checkpointed_map_of_maps(x):
    return jax.lax.map(jax.vmap(lambda row: jax.jit(guarded)(row)), x[None], batch_size=2)


CASES = (
    (guarded, [1.0, 2.0], [1.0, -2.0], "a negative number has no root"),
    (guarded, [1.0, 2.0], [3.0, 2.0], "too large a sum"),
    (in_a_map, [1.0, 3.0, 2.0], [1.0, 5.0, 2.0], "too large a sum"),
    (in_a_scan, [-3.0, 4.0, 5.0], [-3.0, 6.0, 5.0], "more than ten on the way"),
    (in_a_vmap, [1.0, 3.0, 2.0], [1.0, 2.0, -2.0], "a negative number has no root"),
    (in_a_jit, [1.0, 2.0], [3.0, 2.0], "too large a sum"),
    (in_a_checkpointed_map_of_maps, [1.0, 2.0, 3.0], [3.0, -1.0, 2.0], "a negative number has no root"),
)


@pytest.mark.parametrize(("function", "fine", "faulty", "words"), CASES)
def test_values_words_and_no_callback(function, fine, faulty, words, lowered):
    ours, plain = guarded_jit(function), eqx.filter_jit(function)
    fine, faulty = jnp.array(fine), jnp.array(faulty)
    for got, wanted in zip(jax.tree.leaves(ours(fine)), jax.tree.leaves(plain(fine))):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
    said = []
    for compiled in (ours, plain):
        with pytest.raises(eqx.EquinoxRuntimeError) as error:
            compiled(faulty)
        said.append(next(line for line in str(error.value).splitlines() if "EquinoxRuntimeError" in line))
    assert words in said[0] and said[0] == said[1]
    assert "callback" not in lowered(ours, fine)
    assert "callback" in lowered(plain, fine)  # as filter_jit has it, or the line above says nothing


def test_after_a_guard_has_fired_the_program_goes_on_to_serve():
    ours = guarded_jit(guarded)
    with pytest.raises(eqx.EquinoxRuntimeError):
        ours(-jnp.ones(2))
    np.testing.assert_allclose(ours(jnp.ones(2)), 1.0)


def test_a_guard_in_a_solvers_loop_stays_in_the_program(lowered):
    """Its condition cannot be handed out of a loop of unknown length: the callback stays, and is not lost."""

    def countdown(x):
        def body(x):
            return eqx.error_if(x - 1, x == 3, "three is unlucky")

        return jax.lax.while_loop(lambda x: x > 0, body, x)

    ours = guarded_jit(countdown)
    assert int(ours(jnp.array(2))) == 0
    with pytest.raises(eqx.EquinoxRuntimeError, match="three is unlucky"):
        ours(jnp.array(5))
    assert "callback" in lowered(ours, jnp.array(2))


def test_a_guard_in_a_branch_stays_in_the_program():
    @guarded_jit
    def half(x):
        return jax.lax.cond(x > 0, lambda x: eqx.error_if(x, x > 9, "too high") / 2, lambda x: x, x)

    assert float(half(jnp.array(4.0))) == 2 and float(half(jnp.array(-4.0))) == -4
    with pytest.raises(eqx.EquinoxRuntimeError, match="too high"):
        half(jnp.array(10.0))


def test_a_branch_that_asks_the_host_for_a_value_gets_it():
    """It looks like a guard, and is none: what it returns is used."""

    @guarded_jit
    def asked(x):
        def host(x):
            return jax.pure_callback(lambda x: np.asarray(x) * 3, jax.ShapeDtypeStruct((), x.dtype), x)

        return jax.lax.cond(x > 0, host, lambda x: x, x) + 1

    assert float(asked(jnp.array(2.0))) == 7 and float(asked(jnp.array(-2.0))) == -1


def test_under_a_transformation_it_is_filter_jit():
    ours = guarded_jit(guarded)
    x = jnp.array([1.0, 2.0])
    np.testing.assert_allclose(jax.grad(lambda x: ours(x).sum())(x), 0.5 / jnp.sqrt(x), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(ours)(x[None])[0], jnp.sqrt(x), rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(ours, (x,), (x,))[1], jnp.sqrt(x) / 2, rtol=1e-6)
    for transformed in (eqx.filter_jit(lambda x: ours(x)), eqx.filter_jit(jax.vmap(ours))):
        with pytest.raises(eqx.EquinoxRuntimeError, match="no root"):
            transformed(-jnp.ones((1, 2)))
    scale = jnp.array(2.0)
    # The tracer is hidden from the arguments.
    slope = jax.grad(lambda scale: guarded_jit(lambda x: guarded(scale * x).sum())(x / 10))(scale)
    np.testing.assert_allclose(slope, (jnp.sqrt(x / 10) / (2 * jnp.sqrt(scale))).sum(), rtol=1e-6)


def test_one_trace_a_signature_and_what_is_static_comes_back():
    traced = []

    @guarded_jit
    def named(model, x, *, power=1, note="n"):
        traced.append(power)
        return {"value": guarded(model(x), limit=100.0) ** power, "note": note, "again": model}

    layer = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    layer = eqx.tree_at(lambda m: (m.weight, m.bias), layer, (jnp.eye(2), jnp.zeros(2)))
    for x in (jnp.ones(2), 4 * jnp.ones(2)):
        found = named(layer, x, power=2)
        np.testing.assert_allclose(found["value"], x, rtol=1e-6)
    assert found["note"] == "n" and traced == [2]
    np.testing.assert_array_equal(found["again"](jnp.arange(2.0)), jnp.arange(2.0))
    named(layer, jnp.ones(2), power=3)
    assert traced == [2, 3]


def test_methods_are_bound():
    class Shifted(eqx.Module):
        shift: jax.Array

        @guarded_jit
        def root(self, x):
            return guarded(x + self.shift)

    np.testing.assert_allclose(Shifted(jnp.array(1.0)).root(jnp.zeros(1)), 1.0)
    with pytest.raises(eqx.EquinoxRuntimeError, match="no root"):
        Shifted(jnp.array(-1.0)).root(jnp.zeros(1))


def test_shapes_that_stand_for_arrays_are_no_inputs():
    like = jax.ShapeDtypeStruct((2,), jnp.float32)
    double = guarded_jit(lambda like, x: eqx.error_if(2 * x, jnp.any(x < 0), "negative") + jnp.zeros(like.shape))
    assert double(like, jnp.ones(2)).tolist() == [2.0, 2.0]
    assert canonical_convolutions(lambda like, x: x + 1)(like, jnp.ones(2)).tolist() == [2.0, 2.0]


def test_a_first_import_in_the_midst_of_a_trace_takes_it_for_no_outside():
    code = (
        "import jax, nablax\n"
        "@jax.jit\n"
        "def draw(key):\n"
        "    t, s = nablax.transport, nablax.spaces\n"
        "    field = lambda t, y, args: -y\n"
        "    return t.Transport(field, t.Linear(), t.Normal((2,)), s.Euclidean((2,))).sample(3, key=key)\n"
        "print(draw(jax.random.key(0)).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "(3, 2)", done.stderr
