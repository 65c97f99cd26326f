"""Strengths of decay tuned on validation data by the gradient through the fit.

A logistic fit of breast-cancer records has thirty weights: means, errors and worst values of ten measures. Each group
gets its own strength, and then each weight. Newton's method finds the fit, and `estimate.implicit` gives its derivative
in all strengths at the price of one linear solve. More of them fit the validation rows better, and then only those.

    python examples/hyperparameters_by_implicit_differentiation.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_breast_cancer

from nablax import estimate

data = load_breast_cancer()
x = (data.data - data.data.mean(0)) / data.data.std(0)
order = np.random.default_rng(0).permutation(len(x))
parts = [order[:60], order[60:260], order[260:]]
train, validation, test = ((jnp.asarray(x[p], jnp.float32), jnp.asarray(data.target[p])) for p in parts)


def misfit(w, part):
    return jnp.mean(optax.sigmoid_binary_cross_entropy(part[0] @ w, part[1]))


def objective(w, log_strength):
    return misfit(w, train) + 0.5 * jnp.sum(jnp.exp(log_strength) * w**2)


def newton(w, log_strength):
    def one(w, _):
        step = jnp.linalg.solve(jax.hessian(objective)(w, log_strength), jax.grad(objective)(w, log_strength))
        return w - step / jnp.maximum(1, jnp.linalg.norm(step)), None

    return jax.lax.scan(one, w, length=25)[0]


fit = estimate.implicit(newton, jax.grad(objective), symmetric=True)


def tune(spread, start, steps=150):
    """Descend the validation misfit in the strengths; `spread` lays them out over the weights."""
    optimizer = optax.adam(0.1)

    def step(carry, _):
        strengths, state = carry
        value, slope = jax.value_and_grad(lambda s: misfit(fit(jnp.zeros(30), spread(s)), validation))(strengths)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(strengths, updates), state), value

    run = jax.jit(lambda start: jax.lax.scan(step, (start, optimizer.init(start)), length=steps)[0][0])
    return spread(run(start))


grid = jnp.linspace(-7.0, 1.0, 17)
single = jax.jit(jax.vmap(lambda s: misfit(fit(jnp.zeros(30), jnp.full(30, s)), validation)))(grid)
best = grid[jnp.argmin(single)]
choices = {
    "one strength, best of a grid of 17": jnp.full(30, best),
    "three strengths, by their gradient": tune(lambda s: jnp.repeat(s, 10), jnp.full(3, best)),
    "thirty strengths, by their gradient": tune(lambda s: s, jnp.full(30, best)),
}
print(f"{'decay':36} {'validation':>10} {'test':>7} {'accuracy':>9}")
for name, strengths in choices.items():
    w = fit(jnp.zeros(30), strengths)
    accuracy = jnp.mean((test[0] @ w > 0) == (test[1] > 0))
    print(f"{name:36} {float(misfit(w, validation)):10.4f} {float(misfit(w, test)):7.4f} {float(accuracy):9.1%}")
groups = dict(zip(("means", "errors", "worst values"), choices["three strengths, by their gradient"][::10]))
print("decay of", ", ".join(f"{name} {float(jnp.exp(value)):.2g}" for name, value in groups.items()))
