"""Landscape learning: a curved valley of two numbers, and a small decoder, inverted for targets that were held out.

Descents have ten steps of one rate, from one start. Maps and encoders are trained with as many gradients of the loss.
At first the valley's points were normal: those far out drove every method away at rates that served the others.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._core import Key
from ...optimize import landscape_learning
from .._problems._training import trained
from .._problems._tuning import Runs, tuned
from .._records import Check, Paper

PAPER = Paper(
    slug="landscape-learning",
    title="Landscape Learning for Neural Network Inversion",
    year=2022,
    link="https://arxiv.org/abs/2206.09027",
    rooms=("optimize",),
    row=117,
    read="abstract",
)

_STEPS, _ROUNDS, _UPDATES, _BATCH, _TARGETS, _HELD = 10, 300, 4, 32, 1024, 256
_PACE = 3e-3
_LEARNED, _DESCENT, _ADAM = "descent in the learned landscape", "descent", "Adam"
_ENCODER, _GENERATOR = "an encoder's guess, refined by descent", "descent in an autoencoder's space"


class _Problem(NamedTuple):
    """A model to be inverted, targets to train with, and others."""

    model: Callable[[Float[Array, " dim"]], Float[Array, " outputs"]]
    dim: int
    outputs: int
    targets: Float[Array, "targets outputs"]
    held: Float[Array, "held outputs"]

    def loss(self, x: Array, target: Array) -> Array:
        return jnp.sum((self.model(x) - target) ** 2) / 2


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Compare losses of held-out targets after ten steps, each method at the best of nine rates.

    Args:
        key: of the decoder, the targets and all weights.
        full: ten times the rounds. Networks that make images, and poses, are at neither scale.

    Returns:
        Four checks.
    """
    rounds = 10 * _ROUNDS if full else _ROUNDS
    valley = _runs(_valley, {_LEARNED: _learned, _DESCENT: _descent, _ADAM: _adam}, rounds, key)
    decoder = _runs(
        _decoder,
        {_LEARNED: _learned, _DESCENT: _descent, _ADAM: _adam, _ENCODER: _encoder, _GENERATOR: _generator},
        rounds,
        jax.random.fold_in(key, 1),
    )
    return [
        Check(
            "In a curved valley ten steps in the learned landscape leave at most half of what ten of descent or "
            "Adam do.",
            "massive improvement and acceleration of the inversion, in words",
            moved_from="the same of points drawn from a normal, of which those far out drove every method away",
            **_contrast(valley, (_DESCENT, _ADAM), ratio=0.5),
        ),
        Check(
            "So they do where a decoder is inverted.",
            "massive improvement and acceleration of the inversion, in words",
            **_contrast(decoder, (_DESCENT, _ADAM), ratio=0.5),
        ),
        Check(
            "There they leave less than ten steps in the space of an autoencoder, not trained along descents.",
            "a landscape where descent is efficient, in words",
            **_contrast(decoder, (_GENERATOR,)),
        ),
        Check(
            "They leave less than an encoder's guess and ten steps of descent from it.",
            "not claimed in the abstract; what one would use here where targets to train with are at hand",
            expected=False,
            tried="rates up to 16 over the start's curvature: descent, but not the encoder, is left behind",
            **_contrast(decoder, (_ENCODER,)),
        ),
    ]


def _runs(problem: Callable[[Key], _Problem], methods: dict[str, Callable], rounds: int, key: Key) -> Runs:
    def on(method: Callable) -> Callable:
        def run(rate: Array, key: Key) -> dict[str, Array]:
            problem_key, own_key = jax.random.split(key)
            drawn = problem(problem_key)
            values = method(drawn, rate, rounds, own_key)
            # What a rate that is too large has driven away counts as ten times what all begin with.
            most = 10 * jnp.mean(jax.vmap(drawn.loss)(_start(drawn), drawn.held))
            values = jnp.minimum(jnp.where(jnp.isfinite(values), values, most), most)
            return {"left": values[-1], "course": values}

        return run

    # In units of one over the greatest curvature.
    grid = {name: (2.0 ** (np.arange(-8, 1) if name == _ADAM else np.arange(-4, 5))).tolist() for name in methods}
    return tuned(
        {name: on(method) for name, method in methods.items()}, grid, "lower", key=key, keys=3, tuning=4, of="left"
    )


def _contrast(runs: Runs, against: tuple[str, ...], **decides: Any) -> dict[str, Any]:
    """The numbers of a check, and its picture."""
    courses = {name: runs.results[name]["course"] for name in (_LEARNED, *against)}
    contrast = runs.contrast("loss after ten steps", "lower", of="left", against=against, **decides)
    return {"contrasts": contrast, "figure": partial(_draw, courses)}


def _draw(courses: dict[str, np.ndarray], axes: Any) -> None:
    """The loss by steps, of each key and on the geometric average."""
    for place, (name, values) in enumerate(courses.items()):
        axes.semilogy(values.T, color=f"C{place}", alpha=0.3, lw=0.8)
        axes.semilogy(np.exp(np.mean(np.log(values), axis=0)), color=f"C{place}", label=name)
    axes.set(xlabel="steps", ylabel="loss of held-out targets")
    axes.legend()


def _valley(key: Key) -> _Problem:
    """Rosenbrock's map, whose squares are his function: x₁, and three times how far x₂ is from x₁²."""

    def model(x: Array) -> Array:
        return jnp.stack([x[0], 3 * (x[1] - x[0] ** 2)])

    return _drawn(model, 2, 2, lambda key, shape: jax.random.uniform(key, shape, minval=-1.5, maxval=1.5), key)


def _decoder(key: Key) -> _Problem:
    """Four numbers to twelve, through a layer of sixteen; some directions are seen much better than others."""
    first_key, second_key, own_key = jax.random.split(key, 3)
    first = jax.random.normal(first_key, (16, 4)) * jnp.geomspace(1.0, 0.1, 4)[None]
    second = jax.random.normal(second_key, (12, 16)) / 4
    return _drawn(lambda x: second @ jnp.tanh(first @ x), 4, 12, jax.random.normal, own_key)


def _drawn(model: Callable, dim: int, outputs: int, draw: Callable, key: Key) -> _Problem:
    made = jax.vmap(model)(draw(key, (_TARGETS + _HELD, dim)))
    return _Problem(model, dim, outputs, made[:_TARGETS], made[_TARGETS:])


def _curvature(problem: _Problem) -> Array:
    """Of the loss at the start, the greatest."""
    slope = jax.jacobian(problem.model)(jnp.zeros(problem.dim))
    return jnp.linalg.eigvalsh(slope.T @ slope)[-1]


def _course(problem: _Problem, mapping: Callable, start: Array, rule: optax.GradientTransformation) -> Array:
    """The mean loss of the held-out targets before each step and at the end, of a start for each."""

    def loss(z: Array, _: tuple) -> Array:
        return jnp.sum(jax.vmap(lambda z, y: problem.loss(mapping(z), y))(z, problem.held))

    _, values = trained(
        loss,
        start,
        rule,
        lambda step, key: (),
        _STEPS + 1,
        key=jax.random.key(0),
        record=lambda z, state, value: value / _HELD,
    )
    return values


def _start(problem: _Problem) -> Array:
    return jnp.zeros((_HELD, problem.dim))


def _descent(problem: _Problem, rate: Array, rounds: int, key: Key) -> Array:
    return _course(problem, lambda x: x, _start(problem), optax.sgd(rate / _curvature(problem)))


def _adam(problem: _Problem, rate: Array, rounds: int, key: Key) -> Array:
    return _course(problem, lambda x: x, _start(problem), optax.adam(rate))


class _Shift(eqx.Module):
    """z and a network of it."""

    net: eqx.nn.MLP

    def __call__(self, z: Array) -> Array:
        return z + self.net(z) / 10


def _learned(problem: _Problem, rate: Array, rounds: int, key: Key) -> Array:
    net_key, own_key = jax.random.split(key)
    begin, rest = eqx.partition(
        _Shift(eqx.nn.MLP(problem.dim, problem.dim, 32, 1, jnp.tanh, key=net_key)), eqx.is_array
    )
    step = rate / _curvature(problem)
    found = landscape_learning(
        problem.loss,
        lambda params, z: eqx.combine(params, rest)(z),
        begin,
        jnp.zeros(problem.dim),
        problem.targets,
        rate=step,
        steps=rounds,
        inner_steps=_STEPS,
        updates=_UPDATES,
        batch_size=_BATCH,
        optimizer=optax.adam(_PACE),
        key=own_key,
        throw=False,
    )
    return _course(problem, eqx.combine(found.params, rest), _start(problem), optax.sgd(step))


def _fitted(problem: _Problem, nets: Any, read: Callable, rounds: int, key: Key) -> Any:
    """Networks that read a target and give an x, by the loss, with as many gradients of it as the landscape has."""
    begin, rest = eqx.partition(nets, eqx.is_array)

    def loss(params: Any, batch: Array) -> Array:
        return jnp.mean(jax.vmap(lambda y: problem.loss(read(eqx.combine(params, rest), y), y))(batch))

    steps = rounds * (_STEPS + 1) * (1 + _UPDATES) // 8
    end, _ = trained(
        loss,
        begin,
        optax.adam(_PACE),
        lambda step, key: problem.targets[jax.random.randint(key, (8 * _BATCH,), 0, _TARGETS)],
        steps,
        key=key,
    )
    return eqx.combine(end, rest)


def _encoder(problem: _Problem, rate: Array, rounds: int, key: Key) -> Array:
    net_key, own_key = jax.random.split(key)
    net = eqx.nn.MLP(problem.outputs, problem.dim, 32, 1, jnp.tanh, key=net_key)
    encoder = _fitted(problem, net, lambda net, y: net(y), rounds, own_key)
    return _course(problem, lambda x: x, jax.vmap(encoder)(problem.held), optax.sgd(rate / _curvature(problem)))


def _generator(problem: _Problem, rate: Array, rounds: int, key: Key) -> Array:
    encoder_key, net_key, own_key = jax.random.split(key, 3)
    nets = (
        eqx.nn.MLP(problem.outputs, problem.dim, 32, 1, jnp.tanh, key=encoder_key),
        _Shift(eqx.nn.MLP(problem.dim, problem.dim, 32, 1, jnp.tanh, key=net_key)),
    )
    _, generator = _fitted(problem, nets, lambda nets, y: nets[1](nets[0](y)), rounds, own_key)
    return _course(problem, generator, _start(problem), optax.sgd(rate / _curvature(problem)))


__all__ = ["PAPER", "checks"]
