"""Blocks that learn to denoise a label, each at its own level of noise, with no pass from one to another."""

import math
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._core import Key, canonical_convolutions, check_callable, check_count, check_key, check_shape, fault

Mode = Literal["discrete", "continuous", "flow"]


class NoProp(eqx.Module):
    r"""A classifier of blocks that never see one another while they learn.

    A label y has an embedding :math:`u_y`, and each block learns to guess it from a noisy version and the input x:

    .. math:: z_t = \sqrt{\bar\alpha_t}\,u_y + \sqrt{1-\bar\alpha_t}\,\varepsilon, \qquad
        \hat u_t = \operatorname{softmax}\big(f_t(z_{t-1},x)\big)U

    .. math:: \ell = -\log\hat p(y\mid z_T) + \mathrm{KL}\big(q(z_0\mid y)\,\Vert\,N(0,I)\big)
        + \frac\eta2\sum_{t=1}^{T}(\mathrm{SNR}_t-\mathrm{SNR}_{t-1})\lVert\hat u_t-u_y\rVert^2, \qquad
        \mathrm{SNR} = \frac{\bar\alpha}{1-\bar\alpha}

    Nothing in the loss goes through two blocks; used one after another they lead from noise to the label, by the step
    that Bayes' rule has for it,

    .. math:: z_t = a_t\hat u_t + b_tz_{t-1} + \sqrt{c_t}\,\varepsilon, \quad
        a_t=\tfrac{\sqrt{\bar\alpha_t}(1-\alpha_{t-1})}{1-\bar\alpha_{t-1}}, \;
        b_t=\tfrac{\sqrt{\alpha_{t-1}}(1-\bar\alpha_t)}{1-\bar\alpha_{t-1}}, \;
        c_t=\tfrac{(1-\bar\alpha_t)(1-\alpha_{t-1})}{1-\bar\alpha_{t-1}}, \;
        \alpha_{t-1}=\tfrac{\bar\alpha_{t-1}}{\bar\alpha_t}

    Modes:

    - "discrete": as above, T blocks ``block(z, x) -> logits``.
    - "continuous": one block ``block(t, z, x) -> logits`` for every t in [0, 1], drawn anew for each example, with the
      derivative of SNR as weight; used without noise, the guess held for a step of the flow that keeps the marginals.
    - "flow": one block ``block(t, z, x) -> v`` of the embedding's length; :math:`z_t=(1-t)z_0+tu_y`, loss
      :math:`\lVert v-(u_y-z_0)\rVert^2-\log\hat p(y\mid z_t+(1-t)v)`, whose second part, with a gradient to the
      block, keeps embeddings from falling into one; used by steps of Euler's.

    Args:
        blocks: a tuple of T of them, or the one.
        embedding: where labels lie at first ``[classes, dim]``, such as ``jnp.eye(classes)``; trained.
        mode: which.
        eta: weight η of denoising, 0.1 by default, the authors'.
        steps: of a prediction, where there is one block; 10 by default. With T blocks it is T.
        key: of the last layer's weights.

    Raises:
        ValueError: an argument makes no sense, or, when called, a block's answer has another length.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> class Block(eqx.Module):
        ...     net: eqx.nn.MLP
        ...     def __call__(self, z, x):
        ...         return self.net(jnp.concatenate([z, x]))
        >>> keys = jax.random.split(jax.random.key(0), 5)
        >>> blocks = tuple(Block(eqx.nn.MLP(3 + 4, 3, 16, 1, key=key)) for key in keys[:4])
        >>> model = estimate.NoProp(blocks, jnp.eye(3), key=keys[4])
        >>> value, grads = eqx.filter_value_and_grad(lambda m: m.loss(jnp.ones(4), 2, key=keys[0]))(model)
        >>> model(jnp.ones(4), key=keys[0]).shape
        (3,)

    Cost: of the loss, each block once, T of them side by side; of a prediction, the same one after another.

    References:
        - Li, Teh and Pascanu, "NoProp: Training Neural Networks without Back-propagation or Forward-propagation",
          2025, https://arxiv.org/abs/2503.24322 (after the abstract and the code of others; the step is derived here
          and tested. Ours: every block in each step, where the authors take them in turn; the schedule
          :math:`\bar\alpha_t=\sin^2\frac{\pi}{2}\frac{t+1}{T+2}`, whose ends need no clipping, in continuous time
          with T = 10, where the authors learn one; the flow's step)
        - in discrete time, https://github.com/Tai225999/NoProp---Pytorch-Implementation: the same three parts of the
          loss, but that the mean is taken over an embedding's entries and that SNR is clipped at 100, and the same
          step, but for an :math:`\alpha_{t-1}` that is one place late
        - in continuous time, https://github.com/yhgon/NoProp and https://github.com/DanielHalachev/NoProp: the same
          weight, with the schedule learned; the last layer sees what the block makes of :math:`z_1`, and a prediction
          goes by Euler's or Heun's steps of :math:`\dot z=(\hat u-z)/(1-\bar\alpha)`
    """

    blocks: Any
    embedding: Float[Array, "classes dim"]
    head: eqx.nn.Linear
    mode: str = eqx.field(static=True)
    eta: float = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def __init__(
        self,
        blocks: Any,
        embedding: Float[Array, "classes dim"],
        *,
        mode: Mode = "discrete",
        eta: float = 0.1,
        steps: int = 10,
        key: Key,
    ):
        check_key(key)
        if mode not in ("discrete", "continuous", "flow"):
            raise fault(expected='mode "discrete", "continuous" or "flow"', got=repr(mode), fix="Choose one of them.")
        if mode == "discrete" and not (isinstance(blocks, tuple) and blocks):
            raise fault(
                expected="a tuple of blocks, for discrete times",
                got=f"a {type(blocks).__name__}",
                fix='Pass (block, ...), or one block(t, z, x) and mode="continuous".',
            )
        for block in blocks if mode == "discrete" else (blocks,):
            check_callable(block, what="a block", fix="Pass block(z, x) or, for continuous times, block(t, z, x).")
        if not eta > 0:
            raise fault(expected="eta above 0", got=eta, fix="Pass eta=0.1, for one.")
        embedding = check_shape(embedding, (None, None), what="embedding", fix="Give a row for each class.")
        self.blocks, self.embedding, self.mode, self.eta = blocks, embedding, mode, float(eta)
        self.steps = len(blocks) if mode == "discrete" else check_count(steps, what="steps")
        classes, dim = embedding.shape
        self.head = eqx.nn.Linear(dim, classes, dtype=embedding.dtype, key=key)

    def loss(self, x: PyTree, label: Int[Array, ""], *, key: Key) -> Float[Array, ""]:
        """The loss of one example; vmap it over a batch, with a key for each.

        Args:
            x: the input, as the blocks take it.
            label: its class, a whole number.
            key: of the noise.

        Returns:
            One number, nats.
        """
        check_key(key)
        time_key, noise_key, last_key = jax.random.split(key, 3)
        u = self.embedding[label]
        if self.mode == "flow":
            t, z0 = jax.random.uniform(time_key, (), u.dtype), jax.random.normal(noise_key, u.shape, u.dtype)
            z = (1 - t) * z0 + t * u
            v = self._answer(self.blocks, u.shape, t, z, x)
            return jnp.sum((v - (u - z0)) ** 2) + self._surprise(z + (1 - t) * v, label)
        kept, last = _share(jnp.asarray(0.0, u.dtype)), _share(jnp.asarray(1.0, u.dtype))
        if self.mode == "continuous":
            t = jax.random.uniform(time_key, (), u.dtype)
            weight = jax.grad(lambda t: _snr(_share(t)))(t)
            denoising = weight * self._error(self.blocks, _noised(u, _share(t), noise_key), u, x, t)
        else:
            shares = self._shares(u.dtype)
            kept, last = shares[0], shares[-1]
            denoising = jnp.zeros((), u.dtype)
            for number, block in enumerate(self.blocks):
                noised = _noised(u, shares[number], jax.random.fold_in(noise_key, number))
                weight = _snr(shares[number + 1]) - _snr(shares[number])
                denoising = denoising + weight * self._error(block, noised, u, x)
        first = 0.5 * (kept * jnp.sum(u**2) - u.size * (kept + jnp.log1p(-kept)))
        return self._surprise(_noised(u, last, last_key), label) + first + 0.5 * self.eta * denoising

    def __call__(self, x: PyTree, *, key: Key) -> Float[Array, " classes"]:
        """What the blocks, one after another, make of noise and an input.

        Args:
            x: one input.
            key: of the noise.

        Returns:
            Logits of the classes.
        """
        check_key(key)
        start_key, key = jax.random.split(key)
        z = jax.random.normal(start_key, self.embedding.shape[1:], self.embedding.dtype)
        if self.mode == "discrete":
            shares = self._shares(z.dtype)
            for number, block in enumerate(self.blocks):
                noise = jax.random.normal(jax.random.fold_in(key, number), z.shape, z.dtype)
                a, b, c = _bayes(shares[number], shares[number + 1])
                z = a * self._guess(block, z, x) + b * z + jnp.sqrt(c) * noise
            return self.head(z)

        @canonical_convolutions
        def step(z: Array, number: Array) -> tuple[Array, None]:
            t, after = (jnp.asarray(n / self.steps, z.dtype) for n in (number, number + 1))
            if self.mode == "flow":
                return z + (after - t) * self._answer(self.blocks, z.shape, t, z, x), None
            guess = self._guess(self.blocks, z, x, t)
            old, new = _share(t), _share(after)
            return jnp.sqrt(new) * guess + jnp.sqrt((1 - new) / (1 - old)) * (z - jnp.sqrt(old) * guess), None

        return self.head(jax.lax.scan(step, z, jnp.arange(self.steps))[0])

    def _shares(self, dtype: Any) -> Float[Array, " levels"]:
        return jnp.asarray([_discrete_share(t, self.steps) for t in range(self.steps + 1)], dtype)

    def _answer(self, block: Callable[..., Array], shape: tuple[int, ...], *args: Any) -> Array:
        return check_shape(block(*args), shape, what="a block's answer", fix="Give its last layer so many outputs.")

    def _guess(self, block: Callable[..., Array], z: Array, x: PyTree, *time: Array) -> Float[Array, " dim"]:
        logits = self._answer(block, self.embedding.shape[:1], *time, z, x)
        return jax.nn.softmax(logits) @ self.embedding

    def _error(self, block: Callable[..., Array], z: Array, u: Array, x: PyTree, *time: Array) -> Float[Array, ""]:
        return jnp.sum((self._guess(block, z, x, *time) - u) ** 2)

    def _surprise(self, z: Float[Array, " dim"], label: Int[Array, ""]) -> Float[Array, ""]:
        return optax.softmax_cross_entropy_with_integer_labels(self.head(z), label)


def _discrete_share(t: float, steps: int) -> float:
    return math.sin(0.5 * math.pi * (t + 1) / (steps + 2)) ** 2


def _share(t: Float[Array, ""]) -> Float[Array, ""]:
    """Share of the label in the noised embedding, squared: the discrete schedule of ten steps, in between as well."""
    return jnp.sin(0.5 * math.pi * (10 * t + 1) / 12) ** 2


def _snr(share: Float[Array, ""]) -> Float[Array, ""]:
    return share / (1 - share)


def _noised(u: Float[Array, " dim"], share: Float[Array, ""], key: Key) -> Float[Array, " dim"]:
    return jnp.sqrt(share) * u + jnp.sqrt(1 - share) * jax.random.normal(key, u.shape, u.dtype)


def _bayes(before: Array, after: Array) -> tuple[Array, Array, Array]:
    """Weights of the guess and of the state, and the variance, of a step to less noise."""
    ratio = before / after
    a = jnp.sqrt(after) * (1 - ratio) / (1 - before)
    b = jnp.sqrt(ratio) * (1 - after) / (1 - before)
    return a, b, (1 - after) * (1 - ratio) / (1 - before)


__all__ = ["NoProp"]
