import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

from nablax.fields import Transformer


def make(key, shape=(8, 8, 1), **options):
    return Transformer(
        shape, **({"condition": 3, "width": 16, "depth": 1, "heads": 2, "time_features": 4} | options), key=key
    )


@eqx.filter_jit
def evaluate(model, y, condition):
    return model(jnp.asarray(0.5, y.dtype), y, condition)


@eqx.filter_jit
def jacobian(model, y):
    return jax.jacfwd(lambda y: model(jnp.asarray(0.5, y.dtype), y, jnp.zeros(3, y.dtype)))(y)


@eqx.filter_jit
def perturb(model):
    """Move every weight, so that a zero start does not hide what a test looks at."""
    keys = iter(jax.random.split(jax.random.key(7), 200))
    return jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape) if eqx.is_array(leaf) else leaf, model
    )


def train(model, loss, steps, learning_rate=3e-3):
    optimizer = optax.adam(learning_rate)
    params, static = eqx.partition(model, eqx.is_array)

    @jax.jit
    def run(params):
        def body(carry, step):
            params, state = carry
            gradients = jax.grad(lambda p: loss(eqx.combine(p, static), jax.random.key(step)))(params)
            updates, state = optimizer.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, optimizer.init(params)), jnp.arange(steps))[0][0]

    return eqx.combine(run(params), static)


@pytest.mark.parametrize("shape, patch", [((4, 12, 3), 4), ((3, 2, 2), 1)])
def test_shape_zero_start_and_parameter_count(shape, patch, key):
    width, depth, features, condition = 16, 2, 4, 3
    options = {"depth": depth, "patch": patch}
    model = make(key, shape, **options)
    assert (evaluate(model, jnp.ones(shape), jnp.ones(3)) == 0).all()
    assert evaluate(perturb(model), jnp.ones(shape), jnp.ones(3)).shape == shape
    patches, pixels = shape[0] * shape[1] // patch**2, patch**2 * shape[2]
    context = (features + condition + 1) * width + (width + 1) * width
    modulation, attention = (width + 1) * 4 * width, 4 * width**2
    block = modulation + attention + (width + 1) * 2 * width + (2 * width + 1) * width
    expected = context + (pixels + 1) * width + patches * width + depth * block + 2 * width + (width + 1) * pixels
    assert sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array))) == expected


def test_patches_go_back_where_they_came_from(key):
    """Without blocks' mixing of places, pixel (i, j) of the output depends on its own patch alone."""
    model = eqx.tree_at(lambda m: m.blocks, perturb(make(key)), ())
    y = jax.random.normal(key, (8, 8, 1))
    depends = (jnp.abs(jacobian(model, y)) > 0).any(axis=(2, 5))
    row, column = jnp.arange(8) // 2, jnp.arange(8) // 2
    same_row = row[:, None, None, None] == row[None, None, :, None]
    same_column = column[None, :, None, None] == column[None, None, None, :]
    assert (depends == (same_row & same_column)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(dtype, key, x64):
    model = perturb(make(key))
    assert evaluate(model, jnp.ones((8, 8, 1), dtype), jnp.zeros(3, dtype)).dtype == dtype


def test_jit_equals_eager_and_vmap_equals_loop(key):
    model = perturb(make(key))
    ys = jax.random.normal(key, (2, 8, 8, 1))
    ts = jnp.linspace(0.0, 1.0, 2)
    looped = jnp.stack([model(t, y, jnp.ones(3)) for t, y in zip(ts, ys)])
    batched = eqx.filter_jit(eqx.filter_vmap(model, in_axes=(0, 0, None)))(ts, ys, jnp.ones(3))
    assert jnp.allclose(batched, looped, atol=1e-4)
    assert jnp.abs(looped).max() > 1e-2


def test_every_pixel_reaches_every_other(key):
    model = perturb(make(key))
    assert (jnp.abs(jacobian(model, jax.random.normal(key, (8, 8, 1)))) > 0).all()


def test_no_dead_leaf_after_one_step(key):
    model = make(key)

    def loss(model, key):
        t, y = jax.random.uniform(key, (4,)), jax.random.normal(key, (4, 8, 8, 1))
        return jnp.mean((jax.vmap(model, (0, 0, None))(t, y, jnp.ones(3)) - y - 1.0) ** 2)

    gradient = eqx.filter_jit(eqx.filter_grad(loss))
    stepped = eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, gradient(model, jax.random.key(2))))
    gradients = gradient(stepped, jax.random.key(3))
    norms = [float(jnp.linalg.norm(leaf)) for leaf in jax.tree.leaves(gradients)]
    assert min(norms) > 0


def test_learns_a_field_of_position_neighbours_and_condition(key):
    """v = c₁·(vertical difference of neighbours) + ramp across the image; the null condition has the ramp only."""
    model = make(key, condition=1)
    ramp = jnp.broadcast_to(jnp.linspace(-1.0, 1.0, 8)[None, :, None], (8, 8, 1))

    def truth(y, condition):
        return condition[0] * (jnp.roll(y, 1, axis=0) - y) + ramp

    def loss(model, key):
        y = jax.random.normal(key, (16, 8, 8, 1))
        conditions = jnp.tile(jnp.array([[0.0], [1.0]]), (8, 1))
        v = jax.vmap(model, (None, 0, 0))(jnp.asarray(0.5), y, conditions)
        return jnp.mean((v - jax.vmap(truth)(y, conditions)) ** 2)

    fitted = train(model, loss, 600, learning_rate=5e-3)
    measure = eqx.filter_jit(loss)
    assert measure(model, key) > 1.0
    assert measure(fitted, key) < 0.2  # blind to the other patches, it could not go below 0.25
    y = jax.random.normal(key, (8, 8, 1))
    given, null = evaluate(fitted, y, jnp.ones(1)), evaluate(fitted, y, jnp.zeros(1))
    assert jnp.mean((null - ramp) ** 2) < 0.1
    assert jnp.mean((given - null) ** 2) > 1.0


def test_faults_are_told(key):
    with pytest.raises(ValueError, match="divisible by patch=4"):
        Transformer((8, 6, 1), patch=4, key=key)
    with pytest.raises(ValueError, match="height, width, colours"):
        Transformer((8, 8), key=key)
    with pytest.raises(ValueError, match="multiple of heads"):
        Transformer((8, 8, 1), width=6, key=key)
    with pytest.raises(ValueError, match="silu"):
        Transformer((8, 8, 1), activation="swish", key=key)
    with pytest.raises(ValueError, match="even"):
        Transformer((8, 8, 1), time_features=5, key=key)
    model = make(key)
    with pytest.raises(ValueError, match="vmap"):
        model(jnp.asarray(0.5), jnp.ones((2, 8, 8, 1)), None)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        model(jnp.asarray(0.5), jnp.ones((8, 8, 1)), jnp.ones(4))


def test_whole_numbers_and_several_times_are_refused(key):
    model = make(key)
    with pytest.raises(ValueError, match="a state of real floating-point numbers"):
        model(jnp.asarray(0.5), jnp.ones((8, 8, 1), int))
    for t in (jnp.ones(2), jnp.ones(1)):
        with pytest.raises(ValueError, match=r"one time of shape \[\], got .*jax\.vmap"):
            model(t, jnp.ones((8, 8, 1)))
