"""Helmholtz Gaussian process: fit of five parameters by maximum likelihood, then the posterior velocity on a grid."""

import time
from pathlib import Path

import numpy as np

TITLE = "Helmholtz process: fit to 100 velocities, posterior at 400 points, x64"
PEER = "GPJax 1.0.0 with the same kernel by automatic differentiation"
UNIT = "s"
TARGET = "1×"
BETTER = "lower"
COUNT, GRID, NOISE, REPEATS = 100, 20, 0.05, 5


def prepare(folder: Path) -> dict:
    """Double precision and the same start on both sides: covariances of smooth kernels need it."""
    random = np.random.default_rng(0)
    positions = random.uniform(-4, 4, (COUNT, 2))
    x, y = positions.T
    away = positions - [-3, 0]
    current = np.stack([y, x - 0.1 * x**3], axis=1) + away / (2.5 + np.sum(away**2, axis=1, keepdims=True))
    side = np.linspace(-4, 4, GRID)
    np.savez(
        folder / "data.npz",
        positions=positions,
        observed=current + NOISE * random.standard_normal(current.shape),
        grid=np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2),
    )
    return {}


def ours(folder: Path) -> dict:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from nablax.calculus import HelmholtzProcess

    jax.config.update("jax_enable_x64", True)
    positions, observed, grid = (jnp.asarray(a) for a in _load(folder))
    start = HelmholtzProcess.make(potential=(2.0, 4.0), stream=(2.0, 4.0), noise=0.3)

    @eqx.filter_jit
    def posterior(process):
        velocity = process.condition(positions, observed).velocity(grid)
        return velocity.mean, velocity.covariance

    def run():
        fit = start.fit(positions, observed)
        return fit.log_likelihood, jax.block_until_ready(posterior(fit.process))

    return _time(run)


def peer(folder: Path) -> dict:
    import gpjax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    positions, observed, grid = _load(folder)

    class Helmholtz(gpjax.kernels.base.AbstractKernel):
        """Inputs (x, y, component): mixed second derivatives of two squared-exponential kernels."""

        potential: gpjax.kernels.RBF
        stream: gpjax.kernels.RBF

        def __init__(self):
            super().__init__(n_dims=3)
            # Its variance is the square of our deviation.
            self.potential = gpjax.kernels.RBF(lengthscale=2.0, variance=16.0, active_dims=[0, 1])
            self.stream = gpjax.kernels.RBF(lengthscale=2.0, variance=16.0, active_dims=[0, 1])

        def __call__(self, a, b):
            i, j = a[2].astype(int), b[2].astype(int)
            sign = (-1) ** (i + j)
            left, right = a[:2], b[:2]
            potential = jnp.array(jax.hessian(self.potential)(left, right), dtype=jnp.float64)[i][j]
            stream = jnp.array(jax.hessian(self.stream)(left, right), dtype=jnp.float64)[1 - i][1 - j]
            return -potential - sign * stream

    def with_component(points):
        return jnp.concatenate([jnp.insert(jnp.asarray(points), 2, i, axis=1) for i in (0.0, 1.0)])

    data = gpjax.Dataset(X=with_component(positions), y=jnp.asarray(observed.T.reshape(-1, 1)))
    points = with_component(grid)
    likelihood = gpjax.likelihoods.Gaussian(obs_stddev=jnp.array(0.3))
    start = gpjax.gps.Prior(mean_function=gpjax.mean_functions.Zero(), kernel=Helmholtz()) * likelihood

    @jax.jit
    def fit():
        return gpjax.fit_lbfgs(
            model=start,
            objective=lambda model, data: -gpjax.objectives.conjugate_mll(model, data),
            train_data=data,
            max_iters=256,
            safe=False,
        )

    def run():
        model, loss = fit()
        latent = predict(model)
        return -loss, jax.block_until_ready(latent)

    @jax.jit
    def predict(model):
        latent = model.predict(points, data)
        return latent.mean, latent.covariance()

    return _time(run)


def _load(folder: Path) -> tuple:
    with np.load(folder / "data.npz") as data:
        return data["positions"], data["observed"], data["grid"]


def _time(run) -> dict:
    start = time.perf_counter()
    likelihood, _ = run()
    first, times = time.perf_counter() - start, []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return {"values": times, "compile": first, "accuracy": f"log-likelihood {float(likelihood):.3f} nats"}
