import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.diagnose import noise_scale

OFFSET = np.array([0.5, -0.2, 0.1])
RATES = np.array([1.0, 4.0, 0.25])


def squared(params, batch):
    x, y = batch
    return jnp.mean((x @ params - y) ** 2) / 2


def draw(key, rows, noise=1.5):
    """Of x ~ N(0, I), y = ε: at p = δ rows' gradients have mean δ and covariance (|δ|² + σ²) I + δδᵀ."""
    a, b = jax.random.split(key)
    return jax.random.normal(a, (rows, 3)), noise * jax.random.normal(b, (rows,))


def truth(rates, noise=1.5):
    length = OFFSET @ OFFSET
    return ((length + noise**2) * np.sum(rates) + OFFSET @ (rates * OFFSET)) / (OFFSET @ (rates * OFFSET))


def test_linear_model_has_its_closed_form(x64, key):
    batch = draw(key, 40_000)
    record = noise_scale(squared, jnp.asarray(OFFSET), batch, rates=jnp.asarray(RATES), key=key)
    for estimate, expected in (
        (record.simple, truth(np.ones(3))),
        (record.preconditioned, truth(RATES)),
        (record.curved, truth(np.ones(3))),  # the Hessian is the identity
    ):
        assert abs(estimate.value - expected) < 4 * estimate.standard_error
        assert estimate.standard_error < 0.5 * expected
    assert record.resolved and record.suggested == 2 ** np.ceil(np.log2(record.preconditioned.value))


def test_numbers_are_those_of_dense_gradients(x64, key):
    x, y = draw(key, 21)
    params = jnp.asarray(OFFSET)
    record = noise_scale(squared, params, (x, y), rates=jnp.asarray(RATES), key=key)
    gradients = np.asarray(x * (x @ params - y)[:, None])
    mean, covariance = gradients.mean(axis=0), np.cov(gradients.T)
    signal = mean @ mean - np.trace(covariance) / 21
    np.testing.assert_allclose(record.simple.value, np.trace(covariance) / signal, rtol=1e-10)
    weighted = mean @ (RATES * mean) - np.sum(RATES * np.diag(covariance)) / 21
    np.testing.assert_allclose(record.unit, np.abs(gradients).max(), rtol=1e-12)
    square = record.unit**2
    np.testing.assert_allclose(square * record.noise.value, np.sum(RATES * np.diag(covariance)), rtol=1e-10)
    np.testing.assert_allclose(square * record.signal.value, weighted, rtol=1e-10)

    def leave_out(i):
        rest = np.delete(gradients, i, axis=0)
        noise = np.trace(np.cov(rest.T))
        return noise / (rest.mean(axis=0) @ rest.mean(axis=0) - noise / 20)

    each = np.array([leave_out(i) for i in range(21)])
    expected = np.sqrt(20 * np.mean((each - each.mean()) ** 2))
    np.testing.assert_allclose(record.simple.standard_error, expected, rtol=1e-8)


def test_signed_groups_give_the_trace_against_the_hessian(x64, key):
    x, y = draw(key, 64)
    x = x * jnp.array([[3.0, 1.0, 0.3]])
    params = 2 * jnp.asarray(OFFSET)

    @jax.jit
    def curved(k):
        return noise_scale(squared, params, (x, y), key=k).curved

    found = jax.lax.map(curved, jax.random.split(key, 400))
    gradients = np.asarray(x * (x @ params - y)[:, None])
    hessian, mean, covariance = np.asarray(x.T @ x / 64), gradients.mean(axis=0), np.cov(gradients.T)
    noise = np.trace(hessian @ covariance)
    # The ratio is not linear in what was estimated: the median, not the mean, is where the exact one is.
    expected = noise / (mean @ hessian @ mean - noise / 64)
    assert abs(np.median(found.value) - expected) < 0.1 * expected


def test_two_standard_errors_cover(key):
    @jax.jit
    def one(k):
        record = noise_scale(squared, jnp.asarray(OFFSET), draw(k, 1024), curved=False, key=k)
        return jax.tree.map(lambda x: record.unit**2 * x, record.noise)

    found = jax.vmap(one)(jax.random.split(key, 300))
    expected = 3 * (OFFSET @ OFFSET + 1.5**2) + OFFSET @ OFFSET
    covered = np.abs(found.value - expected) < 2 * found.standard_error
    assert 0.9 < covered.mean() < 0.985


def test_a_gradient_lost_in_noise_is_said_to_be(key):
    record = noise_scale(squared, 1e-3 * jnp.asarray(OFFSET), draw(key, 64), curved=False, key=key)
    assert not record.resolved and record.suggested >= 8 and "at least" in record.table()
    # What is only a lower bound is rounded down, and the ratio of noise to noise is not shown as a scale.
    signal = max(record.signal.value, 0) + 2 * record.signal.standard_error
    assert record.suggested <= record.noise.value / signal
    assert f"{record.simple.value:.4g}" not in record.table()


def test_rows_that_see_one_another_have_no_scale(key):
    x, _ = draw(key, 64)

    def contrastive(weights, x):
        return -jnp.diagonal(jax.nn.log_softmax((x * weights[None]) @ x.T))

    loss = lambda weights, x: jnp.mean(contrastive(weights, x))  # noqa: E731
    record = noise_scale(loss, jnp.ones(3), x, losses=contrastive, rows=32, key=key)
    assert record.coupled and np.isnan(record.simple.value) and np.isnan(record.noise.value)
    assert not noise_scale(squared, jnp.asarray(OFFSET), draw(key, 64), rows=32, key=key).coupled


def test_chunks_and_own_row_losses_change_nothing(key, monkeypatch):
    batch = draw(key, 50)
    whole = noise_scale(squared, jnp.asarray(OFFSET), batch, key=key)
    monkeypatch.setattr("nablax.diagnose._checkup._row_gradients.NUMBERS", {"cpu": 3 * 12})
    losses = lambda params, batch: (batch[0] @ params - batch[1]) ** 2 / 2  # noqa: E731
    pieces = noise_scale(squared, jnp.asarray(OFFSET), batch, losses=losses, key=key)
    assert whole.rows == 50 and pieces.rows == 50
    np.testing.assert_allclose(pieces.simple.value, whole.simple.value, rtol=1e-5)
    np.testing.assert_allclose(pieces.mean_loss, whole.mean_loss, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-20, 1e-12, 1e12, 1e20])
def test_no_scale_of_the_loss_changes_a_noise_scale_in_single_precision(key, scale):
    batch, rates = draw(key, 32), jnp.asarray(RATES, jnp.float32)
    found, unit = (
        noise_scale(lambda p, b, c=c: c * squared(p, b), jnp.asarray(OFFSET), batch, rates=rates, key=key)
        for c in (scale, 1.0)
    )
    for part in ("simple", "preconditioned", "curved", "noise", "signal"):
        one, other = getattr(found, part), getattr(unit, part)
        np.testing.assert_allclose(one.value, other.value, rtol=2e-3)
        np.testing.assert_allclose(one.standard_error, other.standard_error, rtol=2e-3)
    np.testing.assert_allclose(found.unit / scale, unit.unit, rtol=1e-5)
    assert (found.resolved, found.suggested) == (unit.resolved, unit.suggested) and not found.coupled


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_rows_that_see_one_another_are_noticed_at_every_scale(key, scale):
    def centred(params, batch):
        errors = batch[0] @ params - batch[1]
        return scale * (errors - errors.mean()) ** 2

    record = noise_scale(
        lambda p, b: jnp.mean(centred(p, b)), jnp.asarray(OFFSET), draw(key, 32), losses=centred, key=key
    )
    assert record.coupled and np.isnan(record.simple.value)


def test_a_batch_without_rows_is_refused(key):
    for batch in ((jnp.ones((3, 3)), jnp.ones(3)), (jnp.ones((8, 3)), jnp.ones(7))):
        with pytest.raises(ValueError, match="four rows"):
            noise_scale(squared, jnp.ones(3), batch, key=key)
