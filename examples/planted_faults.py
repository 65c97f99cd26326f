"""Four velocity fields between the same two clouds, three with a fault: which number sees which fault?"""

import sys
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from matplotlib.figure import Figure

from nablax import diagnose
from nablax.app import plot_field


def deviation(t):
    return 1 + t * jnp.array([1.0, -0.5])


class Flow(eqx.Module):
    """From N(0, I) to N(0, diag(4, 1/4)) along straight lines, the optimal way; each number plants a fault.

    Numbers in a module, and not four functions: every diagnostic is compiled once for all of them.
    """

    turn: Array  # within the cloud: every sample moves otherwise, the cloud does not
    delay: Array  # of the clock, a slip that is easily made with a schedule
    lean: Array  # strength above one, as guidance makes a field

    def __call__(self, t, y, args):
        straight = jnp.array([1.0, -0.5]) / deviation(t - self.delay) * y
        whitened = y / deviation(t)
        return self.lean * straight + self.turn * deviation(t) * jnp.array([-whitened[1], whitened[0]])


def log_density(t, y, args):
    return jnp.sum(jax.scipy.stats.norm.logpdf(y, 0.0, deviation(t)))


flows = {
    name: Flow(*map(jnp.asarray, numbers))
    for name, numbers in {
        "right": (0.0, 0.0, 1.0),
        "turning": (2.0, 0.0, 1.0),
        "late": (0.0, 0.2, 1.0),
        "leaning": (0.0, 0.0, 1.5),
    }.items()
}
key, noise_key = jax.random.split(jax.random.key(0))
noise = jax.random.normal(noise_key, (400, 2))
halfway = noise * deviation(0.5)
optimum = 1.25  # squared Wasserstein distance between the clouds: 1² + 0.5²
figure = Figure(figsize=(13, 3.4), layout="constrained")
axes = figure.subplots(1, 4)
print(f"{'':10}{'density residual':>18}{'antisymmetric':>15}{'path energy':>13}{'straightness':>14}{'Lipschitz':>11}")
for axis, (name, field) in zip(axes, flows.items()):
    residual = diagnose.continuity(field, log_density, 0.5, halfway)
    symmetry = diagnose.conservativity(field, 0.5, halfway, key=key)
    path = diagnose.path_geometry(field, noise, squared_wasserstein=optimum)
    stiff = diagnose.stiffness(field, noise[:64], key=key)
    numbers = (residual.relative, symmetry.antisymmetry, path.energy, path.straightness, stiff.largest_lipschitz)
    values = [round(float(getattr(number, "value", number)), 3) + 0.0 for number in numbers]
    print(f"{name:<10}{values[0]:18.3f}{values[1]:15.3f}{values[2]:13.2f}{values[3]:14.3f}{values[4]:11.2f}")
    plot_field(field, 0.5, ((-4, 4), (-3, 3)), axes=axis, points=12)
    axis.set_title(name)
picture = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "faults.png"
figure.savefig(picture, dpi=110)
print(f"\npicture: {picture}")
