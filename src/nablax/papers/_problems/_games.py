"""Games of two players whose best replies are known: quadratic ones, and how near a rule comes to their solution."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._core import Key

Players = tuple[Float[Array, " dim"], Float[Array, " dim"]]


class Game(NamedTuple):
    r"""The first descends, the second ascends :math:`\tfrac12x^\top Ax+x^\top By-\tfrac12y^\top Cy`; zero solves it."""

    a: Float[Array, "dim dim"]
    b: Float[Array, "dim dim"]
    c: Float[Array, "dim dim"]

    def value(self, players: Players) -> Float[Array, ""]:
        """What the first pays to the second."""
        x, y = players
        return x @ self.a @ x / 2 + x @ self.b @ y - y @ self.c @ y / 2


def turned(game: Game, key: Key) -> Game:
    """The same game in coordinates of each player's own, turned at random."""
    left, right = (jnp.linalg.qr(jax.random.normal(k, game.b.shape))[0] for k in jax.random.split(key))
    return Game(left @ game.a @ left.T, left @ game.b @ right.T, right @ game.c @ right.T)


def decades(
    rule: optax.GradientTransformation, game: Game, key: Key, *, gradients: int, a_step: int = 1
) -> Float[Array, ""]:
    """Distance to the solution over the first one, as a decimal logarithm, from -12 to 6, from a random start.

    Args:
        rule: of the gradients of the game's value; it knows itself who ascends.
        game: to play.
        key: of the start.
        gradients: that are paid for.
        a_step: so many of them for a step.
    """
    rule, dim = optax.with_extra_args_support(rule), len(game.a)
    whole = jax.random.normal(key, (2 * dim,))
    players = (whole[:dim], whole[dim:])
    gradient = jax.value_and_grad(game.value)

    def step(_: int, carry: tuple) -> tuple:
        players, state = carry
        updates, state = rule.update(gradient(players)[1], state, players, grad_fn=gradient)
        return optax.apply_updates(players, updates), state

    (x, y), _ = jax.lax.fori_loop(0, gradients // a_step, step, (players, rule.init(players)))
    ratio = jnp.log10(jnp.linalg.norm(jnp.concatenate([x, y])) / jnp.linalg.norm(whole))
    return jnp.clip(jnp.where(jnp.isnan(ratio), 6.0, ratio), -12.0, 6.0)


def field(rule: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """A rule that descends, for two players of whom the second ascends."""
    return optax.chain(optax.masked(optax.scale(-1.0), (False, True)), rule)


__all__ = ["Game", "Players", "decades", "field", "turned"]
