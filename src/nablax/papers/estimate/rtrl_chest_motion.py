"""Real-time recurrent learning ahead of breathing: a recurrent network that learns as it predicts, and linear rivals.

Breathing is synthetic, of three coordinates of one point: cycles of their own length and depth, a drift, and noise of
0.3 mm; the paper's scans of patients are not at hand. The horizon is one sample, 400 ms.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._core import Key
from ...estimate import real_time
from .._problems._tuning import Run, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="rtrl-chest-motion",
    title="Prediction of the motion of chest internal points using a recurrent neural network trained with real-time "
    "recurrent learning for latency compensation in lung cancer radiotherapy",
    year=2022,
    link="https://arxiv.org/abs/2207.05951",
    rooms=("estimate",),
    row=31,
    read="code",
)

_SECONDS, _NOISE = 0.4, 0.3  # of a sample; mm
_AXES = (1.0, 0.4, 0.2)  # how much of a breath goes along each coordinate
_GRIDS = {
    "recurrent network": (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),  # rate of descent
    "least mean squares": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 1.9),  # rate, over the squared length of the input
    "linear prediction": (1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6),  # strength of the ridge
}
_METRICS = {
    "rms": "root mean square error, mm",
    "largest": "largest error, mm",
    "jitter": "jitter of predictions, mm",
}


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Predict the position of a breathing point a sample ahead.

    Args:
        key: of all randomness.
        full: the authors' 30 units and 15 past samples, in place of 10 and 8, and four times the keys.

    Returns:
        Two checks.
    """
    units, past, keys = (30, 15, 16) if full else (10, 8, 4)
    methods = {name: _run(name, units, past) for name in _GRIDS}
    runs = tuned(methods, _GRIDS, "lower", key=key, keys=keys, tuning=4, of="tuning")
    return [
        Check(
            "A recurrent network that learns in real time predicts breathing with smaller errors than linear methods.",
            "largest error 1.51 mm, 16.1 % and 5.0 % below linear prediction and least mean squares",
            contrasts=[runs.contrast(_METRICS[name], "lower", of=name) for name in ("rms", "largest")],
            expected=False,
            tried="rates of descent from 0.005 to 0.5; the network is below least mean squares in root mean square, "
            "and above ridge regression on the first 80 s, which here knows the cycles' shape, the same in all",
        ),
        Check(
            "Its predictions jitter less.",
            "jitter in tables",
            contrasts=runs.contrast(_METRICS["jitter"], "lower", of="jitter"),
        ),
    ]


def _breathing(key: Key, samples: int) -> Float[Array, "samples 3"]:
    """Positions in mm."""
    cycle_key, depth_key, drift_key, noise_key = jax.random.split(key, 4)
    cycles = samples // 7  # more than enough: the shortest has 7.5 samples
    lengths = jax.random.uniform(cycle_key, (cycles,), minval=3.0, maxval=5.0)
    depths = jax.random.uniform(depth_key, (cycles,), minval=12.0, maxval=23.0)
    ends = jnp.cumsum(lengths)
    times = _SECONDS * jnp.arange(samples)
    now = jnp.searchsorted(ends, times)
    phase = (times - (ends - lengths)[now]) / lengths[now]
    # Each cycle begins and ends breathed out, where it joins the next.
    breath = -depths[now] * jnp.sin(jnp.pi * phase) ** 6
    drift = jnp.cumsum(0.05 * jax.random.normal(drift_key, (samples, 3)), axis=0)
    return breath[:, None] * jnp.array(_AXES)[None] + drift + _NOISE * jax.random.normal(noise_key, (samples, 3))


def _run(name: str, units: int, past: int) -> Run:
    """Errors over the last third of a record; over the second third, by which settings are chosen."""

    def run(setting: Float[Array, ""], key: Key) -> dict[str, Array]:
        data_key, net_key = jax.random.split(key)
        third = 200
        track = _breathing(data_key, past + 3 * third)
        # In units of what the first third showed.
        middle, spread = jnp.mean(track[:third], axis=0), jnp.std(track[:third], axis=0)
        scaled = (track - middle[None]) / spread[None]
        rows = jnp.arange(3 * third)[:, None] + jnp.arange(past)[None]
        inputs, wanted = scaled[rows].reshape(3 * third, -1), scaled[past:]
        if name == "recurrent network":
            predicted = _recurrent(setting, net_key, inputs, wanted, units)
        elif name == "least mean squares":
            predicted = _adaptive(setting, inputs, wanted)
        else:
            predicted = _fitted(setting, inputs, wanted, third)
        predicted, truth = (y * spread[None] + middle[None] for y in (predicted, wanted))
        errors = jnp.linalg.norm(predicted - truth, axis=1)
        late = errors[2 * third :]
        steps = jnp.linalg.norm(jnp.diff(predicted[2 * third :], axis=0), axis=1)
        return {
            "rms": jnp.sqrt(jnp.mean(late**2)),
            "largest": jnp.max(late),
            "jitter": jnp.mean(steps),
            "tuning": jnp.sqrt(jnp.mean(errors[third : 2 * third] ** 2)),
        }

    return run


def _recurrent(rate: Array, key: Key, inputs: Array, wanted: Array, units: int) -> Float[Array, "samples 3"]:
    def moved(params: PyTree, x: Array, u: Array) -> Array:
        return jnp.tanh(params["recurrent"] @ x + params["in"] @ jnp.append(u, 1.0))

    def missed(params: PyTree, x: Array, y: Array) -> Array:
        return 0.5 * jnp.sum((params["out"] @ x - y) ** 2)

    shapes = {"recurrent": (units, units), "in": (units, inputs.shape[1] + 1), "out": (wanted.shape[1], units)}
    keys = jax.random.split(key, 3)
    params = {name: 0.02 * jax.random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items())}
    learner = real_time(moved, missed)
    optimizer = optax.chain(optax.clip_by_global_norm(100.0), optax.sgd(rate))

    def step(carry: tuple, pair: tuple[Array, Array]) -> tuple[tuple, Array]:
        params, state, opt_state = carry
        predicted = params["out"] @ moved(params, state.x, pair[0])
        _, grads, state = learner.update(params, state, *pair)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), state, opt_state), predicted

    start = params, learner.init(params, jnp.zeros(units)), optimizer.init(params)
    # Own loop: the learner has a state of its own, and predicts each sample before it learns of it.
    return jax.lax.scan(step, start, (inputs, wanted))[1]


def _adaptive(rate: Array, inputs: Array, wanted: Array) -> Float[Array, "samples 3"]:
    """Normalised least mean squares, which goes on learning too."""

    def step(weight: Array, pair: tuple[Array, Array]) -> tuple[Array, Array]:
        u, y = jnp.append(pair[0], 1.0), pair[1]
        predicted = weight @ u
        return weight - rate * jnp.outer(predicted - y, u) / jnp.sum(u**2), predicted

    # Own loop: as above.
    return jax.lax.scan(step, jnp.zeros((wanted.shape[1], inputs.shape[1] + 1)), (inputs, wanted))[1]


def _fitted(strength: Array, inputs: Array, wanted: Array, third: int) -> Float[Array, "samples 3"]:
    """Ridge regression on the first third, as it stands from then on."""
    x = jnp.concatenate([inputs, jnp.ones((len(inputs), 1))], axis=1)
    seen, truth = x[:third], wanted[:third]
    weight = jnp.linalg.solve(seen.T @ seen + strength * jnp.eye(x.shape[1]), seen.T @ truth)
    return x @ weight


__all__ = ["PAPER", "checks"]
