import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nablax.fields import MLP, Transformer

FORMS = {
    "plain": {"shape": 3, "width": 16, "depth": 3, "activation": "selu"},
    "plain with features": {"shape": 3, "width": 16, "depth": 2, "time_features": 8, "condition": 2},
    "residual": {"shape": 3, "width": 16, "depth": 2, "residual": True},
    "residual with features": {
        "shape": (2, 2),
        "width": 16,
        "depth": 2,
        "residual": True,
        "time_features": 8,
        "condition": 2,
    },
}


def count(model):
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array)))


def make(name, key):
    return MLP(**FORMS[name], key=key)


def inputs(model, key, dtype=jnp.float32):
    condition = jnp.ones((model.condition,), dtype) if model.condition else None
    return jnp.asarray(0.3, dtype), jax.random.normal(key, model.shape, dtype), condition


def train(model, loss, steps, learning_rate=1e-2):
    """Adam on a deterministic function of the step number."""
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


def test_plain_form_equals_the_written_out_network(key):
    """Numpy, from the weights: inputs (y, t), three hidden layers of 64 SELU units, a linear output."""
    model = MLP(2, width=64, depth=3, activation="selu", key=key)
    y = np.array([0.7, -1.3])
    h = np.concatenate([y, [0.25]])
    for layer in (model.inlet, *model.layers):
        z = np.asarray(layer.weight, np.float64) @ h + np.asarray(layer.bias, np.float64)
        h = 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * np.expm1(z))
    expected = np.asarray(model.outlet.weight, np.float64) @ h + np.asarray(model.outlet.bias, np.float64)
    assert np.allclose(model(jnp.asarray(0.25), jnp.asarray(y, jnp.float32), None), expected, atol=1e-5)
    assert count(model) == (3 * 64 + 64) + 2 * (64 * 64 + 64) + (64 * 2 + 2)


@pytest.mark.parametrize("dim, condition, width, depth, features", [(2, 0, 64, 3, 0), (5, 4, 32, 1, 6)])
def test_parameter_count_plain(dim, condition, width, depth, features, key):
    model = MLP(dim, condition=condition, width=width, depth=depth, time_features=features, key=key)
    inlet = (dim + max(features, 1) + condition + 1) * width
    assert count(model) == inlet + (depth - 1) * (width + 1) * width + (width + 1) * dim


@pytest.mark.parametrize("dim, condition, width, depth, features", [(2, 0, 64, 3, 0), (5, 4, 32, 1, 6)])
def test_parameter_count_residual(dim, condition, width, depth, features, key):
    model = MLP(dim, condition=condition, width=width, depth=depth, time_features=features, residual=True, key=key)
    context = (max(features, 1) + condition + 1) * width + (width + 1) * width
    block = (width + 1) * 2 * width + 2 * (width + 1) * width
    assert count(model) == context + (dim + 1) * width + depth * block + (width + 1) * dim


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shape_and_dtype(name, dtype, key, x64):
    model = make(name, key)
    t, y, condition = inputs(model, key, dtype)
    out = model(t, y, condition)
    assert out.shape == model.shape
    assert out.dtype == dtype


def test_float32_weights_and_state_stay_float32(key):
    model = make("residual with features", key)
    t, y, condition = inputs(model, key)
    assert model(t, y, condition).dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", FORMS)
def test_jit_equals_eager_and_vmap_equals_loop(name, key):
    model = perturb(make(name, key))
    t, y, condition = inputs(model, key)
    compiled = eqx.filter_jit(model)
    assert jnp.allclose(compiled(t, y, condition), model(t, y, condition), atol=1e-5)
    ys = jax.random.normal(key, (4, *model.shape))
    ts = jnp.linspace(0.0, 1.0, 4)
    batched = eqx.filter_jit(jax.vmap(model, (0, 0, None)))(ts, ys, condition)
    looped = jnp.stack([compiled(t, y, condition) for t, y in zip(ts, ys)])
    assert jnp.allclose(batched, looped, atol=1e-5)
    assert jnp.abs(batched).max() > 1e-2


@eqx.filter_jit
def perturb(model):
    """Move every weight, so that a zero start does not hide what a test looks at."""
    keys = iter(jax.random.split(jax.random.key(7), 100))
    return jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape) if eqx.is_array(leaf) else leaf, model
    )


@pytest.mark.parametrize("name", ["residual", "residual with features"])
def test_a_new_residual_field_is_zero(name, key):
    model = make(name, key)
    t, y, condition = inputs(model, key)
    assert (model(t, y, condition) == 0).all()


@pytest.mark.parametrize("name", FORMS)
def test_no_dead_leaf_after_one_step(name, key):
    model = make(name, key)
    _, _, condition = inputs(model, key)

    def loss(model, key):
        t = jax.random.uniform(key, (8,))
        y = jax.random.normal(key, (8, *model.shape))
        return jnp.mean((jax.vmap(model, (0, 0, None))(t, y, condition) - 1.0 - y) ** 2)

    gradient = eqx.filter_jit(eqx.filter_grad(loss))
    stepped = eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, gradient(model, jax.random.key(2))))
    gradients = gradient(stepped, jax.random.key(3))
    norms = [float(jnp.linalg.norm(leaf)) for leaf in jax.tree.leaves(gradients)]
    assert min(norms) > 0


@pytest.mark.parametrize("name", ["plain with features", "residual with features"])
def test_condition_is_heard_and_has_to_be_given(name, key):
    model = make(name, key)
    t, y, _ = inputs(model, key)

    def loss(model, key):
        y = jax.random.normal(key, (16, *model.shape))
        given = jax.vmap(model, (None, 0, None))(t, y, jnp.array([1.0, 0.0])) - 1.0
        null = jax.vmap(model, (None, 0, None))(t, y, jnp.zeros(2)) + 1.0
        return jnp.mean(given**2) + jnp.mean(null**2)

    trained = train(model, loss, steps=200)
    given, null = trained(t, y, jnp.array([1.0, 0.0])), trained(t, y, jnp.zeros(2))
    assert jnp.abs(given - 1.0).max() < 0.2
    assert jnp.abs(null + 1.0).max() < 0.2
    assert (trained(t, y, jnp.zeros(2, int)) == null).all()
    with pytest.raises(ValueError, match=r"a condition of shape \(2,\), got args=None.*jnp\.zeros\(2\)"):
        trained(t, y)
    with pytest.raises(ValueError, match=r"got shape \(\)\. .*one_hot\(label, 2\)"):
        trained(t, y, jnp.array(1))


@pytest.mark.parametrize(
    "activation, residual",
    [(name, False) for name in ("elu", "gelu", "relu", "selu", "silu", "softplus", "tanh")] + [("silu", True)],
)
def test_every_activation_fits_a_rotation(activation, residual, key):
    """v(y) = (−y₂, y₁): the mean squared error against a field of mean square 2."""
    model = MLP(2, width=32, depth=2, activation=activation, residual=residual, key=key)

    def loss(model, key):
        y = jax.random.normal(key, (128, 2))
        v = jax.vmap(model, (None, 0))(jnp.asarray(0.5), y)
        return jnp.mean(jnp.sum((v - jnp.stack([-y[:, 1], y[:, 0]], axis=1)) ** 2, axis=1))

    fitted = train(model, loss, steps=400)
    measure = eqx.filter_jit(loss)
    assert measure(model, key) > 1.0
    assert measure(fitted, key) < 0.02


def test_time_is_heard(key):
    """v(t) = cos 6t needs the features to be more than a constant."""
    model = MLP(1, width=32, depth=2, time_features=8, residual=True, key=key)

    def loss(model, key):
        t = jax.random.uniform(key, (128,))
        v = jax.vmap(model, (0, None))(t, jnp.zeros(1))
        return jnp.mean((v[:, 0] - jnp.cos(6 * t)) ** 2)

    assert loss(train(model, loss, steps=400), key) < 0.005


def test_faults_are_told(key):
    with pytest.raises(ValueError, match=r"selu.*swish"):
        MLP(2, activation="swish", key=key)
    with pytest.raises(ValueError, match="even"):
        MLP(2, time_features=3, key=key)
    with pytest.raises(ValueError, match="at least 1"):
        MLP(2, depth=0, key=key)
    for make in (lambda: MLP(2, key=0), lambda: Transformer((4, 4, 1), key=0)):
        with pytest.raises(ValueError, match=r"a random key, got 0\. Pass jax\.random\.key\(0\)"):
            make()
    model = MLP(2, key=key)
    with pytest.raises(ValueError, match="vmap"):
        model(jnp.asarray(0.5), jnp.ones((5, 2)), None)
    with pytest.raises(ValueError, match="args=None"):
        model(jnp.asarray(0.5), jnp.ones(2), jnp.ones(3))
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        MLP(2, condition=4, key=key)(jnp.asarray(0.5), jnp.ones(2), jnp.ones(3))


def test_whole_numbers_and_several_times_are_refused(key):
    model = MLP(2, key=key)
    with pytest.raises(ValueError, match="a state of real floating-point numbers"):
        model(jnp.asarray(0.5), jnp.ones(2, int))
    for t in (jnp.ones(2), jnp.ones(1)):
        with pytest.raises(ValueError, match=r"one time of shape \[\], got .*jax\.vmap"):
            model(t, jnp.ones(2))
