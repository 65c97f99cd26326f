from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.transport import (
    Cosine,
    Linear,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
    denoising_score_matching,
    flow_matching,
)

PATHS = {
    "linear": Linear(),
    "cosine": Cosine(),
    "vp": VariancePreserving(0.5, 5.0, margin=0.05),
    "sub-vp": SubVariancePreserving(0.5, 5.0, margin=0.05),
    "ve": VarianceExploding(0.3, 3.0),
}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
MEAN, SPREAD = np.array([1.0, -0.5]), np.array([0.5, 2.0])  # of the data, coordinates independent


def losses_of(cases, batches=300, rows=128, batch=None):
    """The losses of many independent batches, one row for each case (loss, model)."""

    def one(key):
        data_key, loss_key = jax.random.split(key)
        data = MEAN[None] + SPREAD[None] * jax.random.normal(data_key, (rows, 2)) if batch is None else batch
        return jnp.stack([loss(model, data, key=loss_key) for loss, model in cases])

    return np.asarray(jax.jit(jax.vmap(one, out_axes=1))(jax.random.split(jax.random.key(7), batches)))


def posterior_means(path, t, y):
    """E[x0 | y] and E[x1 | y] by Gaussian conditioning."""
    a, b, _, _ = path.coefficients(t)
    residual = (y - a * MEAN) / (a**2 * SPREAD**2 + b**2)
    return b * residual, MEAN + a * SPREAD**2 * residual


def exact(path, view, slip=1.0):
    def field(t, y, args):
        a, b, da, db = path.coefficients(t)
        noise, data = posterior_means(path, t, y)
        return {"velocity": da * data + slip * db * noise, "noise": noise, "denoiser": data, "score": -noise / b}[view]

    return field


def mean_over_times(path, function):
    """Gauss–Legendre over the path's times, mean over coordinates."""
    first, last = path.times
    nodes, weights = np.polynomial.legendre.leggauss(200)
    ts = first + (last - first) * (nodes + 1) / 2
    values = np.stack([function(*(float(c) for c in path.coefficients(jnp.asarray(t)))).mean() for t in ts])
    return np.sum(weights / 2 * values)


def within(values, expected, widths=4.0):
    return abs(values.mean() - expected) < widths * values.std(ddof=1) / len(values) ** 0.5


@every_path
def test_expected_losses_are_the_closed_forms(x64, path):
    def zero_field(a, b, da, db):
        return da**2 * (MEAN**2 + SPREAD**2) + db**2

    def exact_field(view, a, b, da, db):
        # Var(p x1 + q x0 | a x1 + b x0) of independent normals is (p b − q a)² Var(x1) Var(x0) / Var(a x1 + b x0).
        p, q = {"velocity": (da, db), "noise": (0, 1), "denoiser": (1, 0), "score": (0, -1)}[view]
        return (p * b - q * a) ** 2 * SPREAD**2 / (a**2 * SPREAD**2 + b**2)

    velocity = flow_matching(path)
    cases = [(velocity, lambda t, y, args: jnp.zeros_like(y)), (velocity, exact(path, "velocity"))]
    expected = [mean_over_times(path, zero_field), mean_over_times(path, partial(exact_field, "velocity"))]
    for view in ("velocity", "noise", "denoiser", "score"):
        cases.append((denoising_score_matching(path, prediction=view), exact(path, view)))
        expected.append(mean_over_times(path, partial(exact_field, view)))
    for values, truth in zip(losses_of(cases), expected):
        assert within(values, truth)


@pytest.mark.parametrize("path", [PATHS["linear"], PATHS["vp"]], ids=["linear", "vp"])
def test_gradient_vanishes_at_the_conditional_mean_and_nowhere_near(x64, path):
    def directions(t, y):
        return jnp.stack([jnp.ones_like(y), y, t * y, jnp.sin(3 * y), jnp.cos(2 * t) * y**2])

    def gradients(field):
        def one(key):
            data_key, loss_key = jax.random.split(key)
            data = MEAN[None] + SPREAD[None] * jax.random.normal(data_key, (256, 2))

            def value(theta):
                moved = lambda t, y, args: field(t, y, args) + theta @ directions(t, y)  # noqa: E731
                return flow_matching(path)(moved, data, key=loss_key)

            return jax.grad(value)(jnp.zeros(5))

        values = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(3), 400)))
        return np.abs(values.mean(axis=0)) / (values.std(axis=0, ddof=1) / 400**0.5)

    assert gradients(exact(path, "velocity")).max() < 4.5
    assert gradients(exact(path, "velocity", slip=-1.0)).max() > 10


def test_times_are_uniform_and_evenly_spread(x64):
    # With data and noise at zero the loss is the mean square of what the model returns: any moment of the times.
    path = VariancePreserving(margin=0.2)
    batch = {"data": jnp.zeros((64, 1)), "noise": jnp.zeros((64, 1))}

    functions = [lambda t: t, lambda t: t**2, lambda t: (t < 0) | (t > 0.8)]
    functions += [lambda t, low=low: (t >= low) & (t < low + 0.1) for low in np.linspace(0.0, 0.7, 8)]
    models = [lambda t, y, args, f=f: jnp.sqrt(jnp.asarray(f(t), float)) * jnp.ones(1) for f in functions]
    first, second, outside, *shares = losses_of([(flow_matching(path), m) for m in models], 2000, batch=batch)
    for values, expected in ((first, 0.4), (second, 0.64 / 3)):
        assert within(values, expected)
        assert values.std() < 0.3 * 0.8 / 12**0.5 / 64**0.5  # far below that of independent times
    for share in shares:  # eight of the 64 rows each, but for rounding
        np.testing.assert_allclose(share, 1 / 8, atol=1 / 64 + 1e-12)
        np.testing.assert_allclose(share.mean(), 1 / 8, atol=1e-4)
    assert outside.max() == 0


def test_dropout_nulls_whole_conditions_of_the_right_share_of_rows(x64):
    condition = {"class": jnp.ones((50, 3)), "age": jnp.ones((50,))}
    batch = {"data": jnp.zeros((50, 1)), "noise": jnp.zeros((50, 1)), "condition": condition}

    def dropped(t, y, args):
        return jnp.asarray((args["class"] == 0).all() & (args["age"] == 0), float)[None]

    def torn(t, y, args):
        zeros = jnp.append(args["class"] == 0, args["age"] == 0)
        return jnp.asarray(zeros.any() & ~zeros.all(), float)[None]

    for make in (flow_matching, denoising_score_matching):
        dropping, never = make(Linear(), condition_dropout=0.3), make(Linear())
        shares, halves, none = losses_of([(dropping, dropped), (dropping, torn), (never, dropped)], 1000, batch=batch)
        assert within(shares, 0.3) and within(shares**2, 0.3**2 + 0.21 / 50)  # binomial: rows are independent
        assert halves.max() == 0 and none.max() == 0


def test_paired_noise_and_condition_are_used_row_by_row(x64, key):
    # Each row's noise is its data less its own shift, so that the shift is the velocity and the loss is nil.
    data, shift = jax.random.normal(key, (2, 32, 3))
    loss = flow_matching(Linear())
    batch = {"data": data, "noise": data - shift, "condition": shift}

    def told(t, y, args):
        return args

    assert loss(told, batch, key=key) < 1e-28
    for name in batch:
        assert loss(told, batch | {name: jnp.roll(batch[name], 1, axis=0)}, key=key) > 0.1


def test_every_prediction_has_its_own_target(x64, key):
    data, noise = jax.random.normal(key, (2, 16, 3))
    path = VariancePreserving()
    both = {"data": data, "noise": noise, "condition": jnp.stack([data, noise], axis=1)}

    def told(t, y, args):
        a, b, da, db = path.coefficients(t)
        x1, x0 = args
        return {"velocity": da * x1 + db * x0, "noise": x0, "denoiser": x1, "score": -x0 / b}

    for view in ("velocity", "noise", "denoiser", "score"):
        loss = denoising_score_matching(path, prediction=view)
        assert loss(lambda t, y, args, v=view: told(t, y, args)[v], both, key=key) < 1e-24
        assert loss(lambda t, y, args, v=view: told(t, y, args)[v] + 1, both, key=key) > 1e-3


def test_batches_are_arrays_or_dicts_and_noise_is_fresh():
    loss, model = flow_matching(Linear()), exact(Linear(), "velocity")
    data = jnp.ones((8, 2))
    first, second, other = (loss(model, data, key=jax.random.key(k)) for k in (0, 0, 1))
    assert first == second != other
    assert loss(model, {"data": data}, key=jax.random.key(0)) == first
    # Samples of any shape, one of them at a time.
    images = loss(lambda t, y, args: y[..., ::-1], jnp.ones((8, 4, 4, 3)), key=jax.random.key(0))
    assert images.shape == ()


def test_single_precision_is_kept_under_x64(x64, key):
    for loss in (flow_matching(Linear()), denoising_score_matching(VariancePreserving())):
        assert loss(lambda t, y, args: t * y, jnp.ones((4, 2), jnp.float32), key=key).dtype == jnp.float32


def test_errors_say_what_is_wrong():
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match="condition_dropout"):
            flow_matching(Linear(), condition_dropout=share)
    for make in (flow_matching, denoising_score_matching):  # nothing would be dropped, and guidance never learned
        with pytest.raises(ValueError, match=r'a "condition" in the batch, for condition_dropout=0\.1, got none'):
            make(Linear(), condition_dropout=0.1)(lambda t, y, args: y, jnp.ones((4, 2)), key=jax.random.key(0))
    with pytest.raises(ValueError, match="velocity, score, noise, denoiser"):
        denoising_score_matching(Linear(), prediction="epsilon")
