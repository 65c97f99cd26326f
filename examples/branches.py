"""Two solutions of one game from one start: find where learning branches, and follow both branches."""

import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from nablax.app import plot_field
from nablax.optimize import ridge_rider


def payoff(mine, other):
    """Of the stag hunt: together 4 each, alone on the hare 3, alone on the stag nothing; strategies in logits."""
    p, q = jax.nn.sigmoid(mine), jax.nn.sigmoid(other)
    return 4 * p * q + 3 * (1 - p)


def learning(t, y, args):
    """Each player climbs his own payoff."""
    return jnp.stack([jax.grad(payoff)(y[0], y[1]), jax.grad(payoff)(y[1], y[0])])


def learn(y):
    def step(y, _):
        return y + 0.5 * learning(0.0, y, None), y

    return jax.lax.scan(step, y, length=400)[1]


start = jnp.array([0.5, -0.5])
plain = np.asarray(jax.jit(learn)(start))
found = ridge_rider(learning, start, rate=0.5, horizon=30, offset=0.3, follow_steps=400, key=jax.random.key(0))
ends = jax.nn.sigmoid(found.ends)

print("probability to hunt the stag     first player  second player")
print(f"plain learning ends at           {jax.nn.sigmoid(plain[-1, 0]):12.2f}{jax.nn.sigmoid(plain[-1, 1]):15.2f}")
print(f"learning branches at             {jax.nn.sigmoid(found.start[0]):12.2f}{jax.nn.sigmoid(found.start[1]):15.2f}")
for number, end in enumerate(ends):
    print(f"branch {number} ends at                {end[0]:12.2f}{end[1]:15.2f}")
print(f"neighbours part there by a factor of {jnp.exp(found.exponents[0]):.3f} a step")
assert jnp.all(ends.min(axis=0) < 0.1) and jnp.all(ends.max(axis=0) > 0.9)

figure = Figure(figsize=(6, 4.4), layout="constrained")
axis = figure.subplots()
plot_field(learning, 0.0, ((-2.0, 5.0), (-2.0, 5.0)), axes=axis)
axis.plot(*plain.T, color="0.5", label="plain learning")
for sign in (1, -1):
    way = np.asarray(jax.jit(learn)(found.start + sign * 0.3 * found.directions[0]))
    axis.plot(*way.T, color="#E0762B", label="branches" if sign == 1 else None)
axis.plot(*start, "k.", label="start")
axis.plot(*found.start, "k*", label="branching point")
axis.set(xlabel="first player, logit", ylabel="second player, logit")
axis.legend(loc="lower right")
picture = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "branches.png"
figure.savefig(picture, dpi=110)
print(f"\npicture: {picture}")
