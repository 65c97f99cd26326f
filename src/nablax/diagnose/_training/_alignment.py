"""How good an estimate of the gradient is: bias, variance and direction, per layer, and what it costs."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._core import (
    AbstractRecord,
    Estimate,
    Key,
    check_callable,
    check_count,
    check_key,
    fault,
    keyed,
    split,
    wide_dtype,
)


class EstimatorAlignment(AbstractRecord):
    r"""One estimator against the gradient g, over independent draws :math:`\hat g_k`, for the whole tree and by layer.

    Attributes:
        cosine: mean of :math:`\cos(\hat g_k, g)`, no unit.
        slope: mean of :math:`\hat g_k\cdot g/\lVert g\rVert^2`, 1 without bias along the gradient; no unit.
        relative_bias: :math:`\lVert\operatorname{E}\hat g-g\rVert^2/\lVert g\rVert^2`, the draws' noise taken out, so
            that it may come out negative; no unit.
        relative_variance: :math:`\operatorname{tr}\operatorname{cov}\hat g/\lVert g\rVert^2`, no unit; for m times as
            many probes divide it by m.
        layers: cosine, slope, bias and variance of each leaf, by its path.
        passes: time of one call over that of the loss alone, both compiled.
        seconds: of one compiled call, the least of all draws.
        bytes: of memory that one compiled call takes beside its arguments.
        draws: how many.
    """

    cosine: Estimate
    slope: Estimate
    relative_bias: Estimate
    relative_variance: Estimate
    layers: dict[str, tuple[Estimate, Estimate, Estimate, Estimate]]
    passes: float
    seconds: float
    bytes: int
    draws: int = eqx.field(static=True)


class Alignment(AbstractRecord):
    """Estimators side by side.

    Attributes:
        estimators: each one's numbers, by name.
        gradient_norm: length of the gradient, unit of the loss over that of the parameters.
    """

    estimators: dict[str, EstimatorAlignment]
    gradient_norm: Float[Array, ""]

    def table(self, *, layers: bool = False) -> str:
        """Lay the numbers out as a table in Markdown.

        Args:
            layers: a row for each layer below each estimator's.

        Returns:
            One row per estimator: cosine, slope, bias² and variance (over ‖g‖², no unit) with standard errors, none
            where all draws are one; cost in passes of the loss, time, memory, and the number of draws.
        """
        relative = ("cosine", "slope", "bias², ‖g‖²", "variance, ‖g‖²")
        head = ("estimator", *relative, "cost, passes", "time, ms", "memory, MB", "draws")
        lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        for name, one in self.estimators.items():
            measured = map(_shown, (one.cosine, one.slope, one.relative_bias, one.relative_variance))
            cost = [*map(_plain, (one.passes, 1e3 * one.seconds, one.bytes / 1e6)), str(one.draws)]
            lines.append("| " + " | ".join([name, *measured, *cost]) + " |")
            if layers:
                lines += [
                    "| " + " | ".join([f"· {path}", *map(_shown, numbers), "", "", "", ""]) + " |"
                    for path, numbers in one.layers.items()
                ]
        return "\n".join(lines)


def alignment(
    estimators: Mapping[str, Callable[..., Any]],
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    *args: Any,
    key: Key,
    draws: int = 32,
) -> Alignment:
    r"""Compare estimators of a gradient with the gradient, on one loss and one batch.

    Bias and variance are relative to the squared gradient. With draws :math:`\hat g_k=g+d_k`, the squared bias is the
    mean of :math:`d_j\cdot d_k` over pairs of different draws, unbiased, with the standard error of a mean of pairs.

    Args:
        estimators: by name, what makes ``(params, *args, key=key) -> (value, grads)`` of a loss: those of
            `nablax.estimate`, `jax.value_and_grad`, or your own. One whose function takes no ``key`` is drawn once.
        loss: ``loss(params, *args) -> scalar``, differentiable by `jax.grad`.
        params: any pytree; of its inexact leaves.
        *args: of the loss.
        key: of the draws.
        draws: independent draws, 32 by default, at least 4.

    Returns:
        An `Alignment`; ``.table()`` is what one would paste.

    Raises:
        ValueError: an argument makes no sense, the gradient is zero or not finite, or an estimator's answer is not
            shaped like it.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from nablax import diagnose, estimate
        >>> loss = lambda w: jnp.sum((w - 1.0) ** 2)
        >>> methods = {"forward": estimate.forward_gradient}
        >>> one = diagnose.alignment(methods, loss, jnp.zeros(8), key=jax.random.key(0)).estimators["forward"]
        >>> bool(abs(one.slope.value - 1) < 4 * one.slope.standard_error)
        True

    Cost:
        ``draws`` calls of each estimator, compiled once; memory of ``draws`` gradients.

    References:
        - The pairs' mean is a U-statistic; Hoeffding, "A Class of Statistics with Asymptotically Normal Distribution",
          1948, https://doi.org/10.1214/aoms/1177730196 (its standard error; the table is ours)
    """
    check_callable(loss, what="loss", fix="Pass loss(params, *args) -> scalar.")
    check_key(key)
    check_count(draws, what="draws", least=4)
    truth = split(jax.jit(lambda params, *args: _gradient(loss, params, *args))(params, *args))[0]
    length = float(np.sqrt(sum(float(jnp.vdot(g, g)) for g in _wide(truth))))
    if not 0 < length < np.inf:
        raise fault(
            expected="a gradient that is finite and not zero",
            got=f"one of length {length:g}",
            fix="Take another point.",
        )
    compiled = jax.jit(loss).lower(params, *args).compile()
    forward = min(_timed(compiled, params, *args)[1] for _ in range(draws))
    found = {}
    for name, make in estimators.items():
        check_callable(make, what=f"estimator '{name}'", fix="Pass nablax.estimate.spsa, for one, not yet called.")
        found[name] = _one(name, make(loss), truth, params, args, key, draws, forward)
    return Alignment(found, jnp.asarray(length))


def _gradient(loss: Callable[..., Array], params: PyTree, *args: Any) -> PyTree:
    trained, held = split(params)
    return jax.grad(lambda trained: loss(eqx.combine(trained, held), *args))(trained)


def _one(
    name: str,
    function: Callable[..., Any],
    truth: PyTree,
    params: PyTree,
    args: tuple,
    key: Key,
    draws: int,
    forward: float,
) -> EstimatorAlignment:
    def call(params: PyTree, args: tuple, key: Key) -> PyTree:
        _, grads = keyed(function, params, *args, key=key, what=f"the estimator '{name}'")
        return split(grads)[0]

    keys = jax.random.split(key, draws)
    compiled = jax.jit(call).lower(params, args, keys[0]).compile()
    got, wanted = (str(jax.tree.structure(tree)) for tree in (compiled.out_info, truth))
    if got != wanted:
        raise fault(
            expected=f"gradients of estimator '{name}' with the leaves of the parameters, {wanted}",
            got=got,
            fix="Return (value, grads) as jax.value_and_grad does.",
        )
    drawn, times = [], []
    for one in keys:
        grads, taken = _timed(compiled, params, args, one)
        times.append(taken)
        drawn.append([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(grads)])
    stacked = [np.stack(leaf) for leaf in zip(*drawn)]
    flat = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(truth)]
    paths = [jax.tree_util.keystr(path) or "parameters" for path, _ in jax.tree_util.tree_leaves_with_path(truth)]
    layers = {path: _numbers([rows], [g]) for path, rows, g in zip(paths, stacked, flat)}
    memory = compiled.memory_analysis()
    size = 0 if memory is None else memory.temp_size_in_bytes + memory.output_size_in_bytes
    return EstimatorAlignment(*_numbers(stacked, flat), layers, min(times) / forward, min(times), size, draws)


def _timed(compiled: Callable[..., PyTree], *args: Any) -> tuple[PyTree, float]:
    began = time.perf_counter()
    found = jax.block_until_ready(compiled(*args))
    return found, time.perf_counter() - began


def _numbers(rows: list[np.ndarray], truth: list[np.ndarray]) -> tuple[Estimate, Estimate, Estimate, Estimate]:
    """Cosine, slope, squared bias and variance of draws given in parts, from their inner products alone."""
    square = sum(float(g @ g) for g in truth)
    if square == 0:
        nothing = Estimate(jnp.asarray(jnp.nan), jnp.asarray(jnp.nan))
        return nothing, nothing, nothing, nothing
    products = np.sum([part @ g for part, g in zip(rows, truth)], axis=0)
    lengths = np.sqrt(np.sum([np.sum(part**2, axis=1) for part in rows], axis=0))
    cosines = products / np.where(lengths > 0, lengths, 1.0) / np.sqrt(square)
    apart = [part - g for part, g in zip(rows, truth)]
    gram = np.sum([part @ part.T for part in apart], axis=0) / square
    centred = [part - part.mean(axis=0) for part in rows]
    spread = np.sum([np.sum(part**2, axis=1) for part in centred], axis=0) / square
    count = len(products)
    if not any(np.ptp(part, axis=0).any() for part in rows):
        # Draws that are all one have no errors, and no noise that is to be taken out.
        exact = (cosines[0], products[0] / square, gram[0, 0], 0.0)
        cosine, slope, bias, variance = (Estimate(jnp.asarray(number), jnp.zeros(())) for number in exact)
        return cosine, slope, bias, variance
    variance = Estimate(
        jnp.asarray(spread.sum() / (count - 1)), jnp.asarray(spread.std(ddof=1) * np.sqrt(count) / (count - 1))
    )
    return _estimate(cosines), _estimate(products / square), _pairs(gram), variance


def _estimate(samples: np.ndarray) -> Estimate:
    return Estimate(jnp.asarray(samples.mean()), jnp.asarray(samples.std(ddof=1) / np.sqrt(len(samples))))


def _pairs(gram: np.ndarray) -> Estimate:
    """Mean of a kernel over pairs of different draws, with the standard error of a U-statistic of second order.

    With h(j) the mean over k of the pairs with j: 4 var h / n, where the pairs' own scatter, all that there is without
    a bias, is in var h already: of h(j) it makes var(pair)/(n - 1), and of the mean of pairs 2 var(pair)/(n (n - 1)).
    """
    count = len(gram)
    off = gram - np.diag(np.diag(gram))
    rows = off.sum(axis=1) / (count - 1)
    pairs = off[~np.eye(count, dtype=bool)].var() / (count - 1)
    square = 4 * max(rows.var(ddof=1) - pairs, 0.0) / count + 2 * pairs / count
    return Estimate(jnp.asarray(rows.mean()), jnp.asarray(np.sqrt(square)))


def _shown(estimate: Estimate) -> str:
    """Rounded to two digits of the error, both alike; three digits where there is none."""
    value, error = float(estimate.value), float(estimate.standard_error)
    if not error > 0:
        # What rounding leaves of a bias is none.
        return "0" if abs(value) < 1e-9 else f"{value:.3g}"
    places = 1 - math.floor(math.log10(error))
    return f"{round(value, places):.{max(places, 0)}f} ± {round(error, places):.{max(places, 0)}f}"


def _plain(number: float) -> str:
    """Two digits, and no powers of ten where there are more before the point."""
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def _wide(tree: PyTree) -> list[Array]:
    return [leaf.astype(wide_dtype(leaf)) for leaf in jax.tree.leaves(tree)]
