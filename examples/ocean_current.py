"""A current from forty drifting buoys: where it turns and where water wells up, each with its uncertainty."""

import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from nablax.app import plot_field
from nablax.calculus import HelmholtzProcess, divergence

jax.config.update("jax_enable_x64", True)  # covariances of near neighbours are nearly singular


def current(t, y, args):
    """An eddy in the west, and in the east a place where water comes up and spreads."""
    eddy, source = y - jnp.array([-1.0, 0.0]), y - jnp.array([1.2, 0.3])
    turn = jnp.array([-eddy[1], eddy[0]]) * jnp.exp(-jnp.sum(eddy**2))
    return turn + 0.5 * source * jnp.exp(-jnp.sum(source**2))


def turning(y):
    jacobian = jax.jacfwd(current, 1)(0.0, y, None)
    return jacobian[1, 0] - jacobian[0, 1]


place_key, noise_key = jax.random.split(jax.random.key(0))
buoys = jax.random.uniform(place_key, (40, 2), minval=jnp.array([-2.2, -1.5]), maxval=jnp.array([2.4, 1.5]))
seen = jax.vmap(current, (None, 0, None))(0.0, buoys, None) + 0.03 * jax.random.normal(noise_key, (40, 2))

# A prior on the two parts of a field apart, its strengths and scales found from the buoys themselves.
guess = HelmholtzProcess.make(potential=(1.0, 0.3), stream=(1.0, 0.3), noise=0.1)
fitted = guess.fit(buoys, seen)
posterior = fitted.process.condition(buoys, seen)
print(f"noise of a buoy: found {fitted.process.noise:.3f}, planted 0.030")

places = {"eddy": [-1.0, 0.0], "upwelling": [1.2, 0.3], "in between": [0.0, -0.5], "far outside": [5.0, 5.0]}
points = jnp.array(list(places.values()))
turns, spreads = posterior.vorticity(points), posterior.divergence(points)
print(f"\n{'':14}{'vorticity':>16}{'truth':>8}{'divergence':>18}{'truth':>8}")
for i, name in enumerate(places):
    print(
        f"{name:<14}{turns.mean[i]:8.2f} ± {turns.deviation[i]:.2f}{turning(points[i]):10.2f}"
        f"{spreads.mean[i]:10.2f} ± {spreads.deviation[i]:.2f}{divergence(current)(0.0, points[i]):10.2f}"
    )

figure = Figure(figsize=(9, 3.8), layout="constrained")
limits = ((-2.4, 2.6), (-1.7, 1.7))
fields = {"truth": current, "from the buoys": lambda t, y, args: posterior.velocity(y[None]).mean[0]}
for axis, (name, field) in zip(figure.subplots(1, 2), fields.items()):
    plot_field(field, 0.0, limits, axes=axis)
    axis.plot(*buoys.T, "k.", markersize=4)
    axis.set_title(name)
picture = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "current.png"
figure.savefig(picture, dpi=110)
print(f"\npicture: {picture}")
