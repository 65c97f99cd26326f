"""Training without a gradient: a point is sought that satisfies the network, its data and its labels."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._core import check_count, check_floats, check_instance, check_rows, check_shape, described, fault
from ._projections import approach_label, project_product, project_unit, reflect

Layers = tuple[eqx.nn.Linear, ...]


class Sought(NamedTuple):
    """Copies that constraints hold of a dense layer's variables, each constraint its own; all share leading ``rows``.

    Attributes:
        weight: ``[rows, outputs, inputs]``, those of each row's products.
        lower: ``[rows, outputs, inputs]``, the inputs as each product has them.
        product: ``[rows, outputs]``.
        bias: ``[rows, outputs]``, of each row's unit; None in a layer without.
    """

    weight: Array
    lower: Array
    product: Array
    bias: Array | None


def feasibility(
    activation: Literal["relu", "sign"] = "relu",
    *,
    method: Literal["douglas-rachford", "alternating"] = "douglas-rachford",
    steps: int = 50,
    relaxation: float = 0.5,
    strength: float | Float[Array, ""] = 5.0,
    level: float = 1.0,
) -> Callable[[Sequence[eqx.nn.Linear], Float[Array, "rows inputs"], Int[Array, " rows"]], tuple[Layers, Array]]:
    r"""Train a classifier of dense layers by projections onto its parts, each of them local; no gradient is taken.

    Every product :math:`z=w\cdot a` of a row and a unit is a constraint (A), with its own copies of w and a. So is (B)
    every unit, :math:`h=\varphi(z+b)` with the copies of h that the next layer holds, that the copies of a parameter
    agree, that the input is the data, and that logits come nearer to the label, by the proximal point of cross-entropy.
    Within A and within B no variable is shared, so that each is projected onto at once, and

    .. math:: x \leftarrow (1-\lambda)\,x + \lambda\,R_BR_A\,x,\qquad R = 2P-I

    (Douglas–Rachford), or :math:`x\leftarrow P_BP_A\,x` (alternating), from the network's own values on the batch. The
    new parameters are the means of their copies. What an activation's derivative is does not matter: a network of signs
    is trained as one of rectified units is.

    Args:
        activation: of the hidden layers, "relu" by default, or "sign".
        method: "douglas-rachford" by default, or "alternating", which stalls where constraints bend away.
        steps: on each batch, 50 by default (the authors').
        relaxation: λ, 0.5 by default (the authors'), above 0 and at most 1.
        strength: of the step towards the label, 5 by default (the authors').
        level: hidden units of signs are ±level, 1 by default. A unit changes its sign when its copies have gone as far
            as 0, which large weights above and small levels make easy.

    Returns:
        ``update(layers, inputs, labels) -> (layers, gap)``: dense layers, the last one's outputs the logits, after the
        batch, and the mean squared distance between the last two points, zero where all constraints are met.

    Raises:
        ValueError: an argument makes no sense; when called: layers that are not dense or do not fit, rows that do not
            match.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from nablax import estimate
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> layers = [eqx.nn.Linear(2, 8, key=keys[0]), eqx.nn.Linear(8, 2, key=keys[1])]
        >>> x = jax.random.normal(keys[2], (64, 2))
        >>> y = (x[:, 0] > 0).astype(int)
        >>> update = jax.jit(estimate.feasibility())
        >>> for _ in range(5):
        ...     layers, gap = update(layers, x, y)
        >>> logits = jax.vmap(layers[1])(jax.nn.relu(jax.vmap(layers[0])(x)))
        >>> bool(jnp.mean(jnp.argmax(logits, axis=1) == y) > 0.9)
        True

    Cost: a step takes some twenty passes over rows × outputs × inputs numbers of each layer, which are held twice.

    References:
        - Bergmeister, Lal, Jegelka and Sra, "A projection-based framework for gradient-free and parallel learning",
          2025, https://arxiv.org/abs/2506.05878, and its code PJAX (constraints, method, defaults; there outputs with
          several consumers count once, here each copy does, which makes projections orthogonal, and the equation of a
          product is solved without a bracket)
    """
    if activation not in ("relu", "sign"):
        raise fault(expected='activation "relu" or "sign"', got=repr(activation), fix="Choose one of them.")
    if method not in ("douglas-rachford", "alternating"):
        raise fault(expected='method "douglas-rachford" or "alternating"', got=repr(method), fix="Choose one of them.")
    check_count(steps, what="steps")
    if not 0 < relaxation <= 1:
        raise fault(expected="a relaxation above 0 and at most 1", got=relaxation, fix="Pass relaxation=0.5.")
    if not isinstance(strength, jax.core.Tracer) and not strength > 0:  # what is traced cannot be looked at
        raise fault(expected="a strength above 0", got=strength, fix="Pass strength=5.0.")
    if not level > 0:
        raise fault(expected="a level above 0", got=level, fix="Pass level=1.0.")

    def update(layers: Sequence[eqx.nn.Linear], inputs: Array, labels: Array) -> tuple[Layers, Array]:
        layers = _checked(layers, inputs, labels)
        target = jax.nn.one_hot(labels, layers[-1].weight.shape[0], dtype=inputs.dtype)

        def onto_units(x: tuple[Sought, ...]) -> tuple[Sought, ...]:
            return _onto_units(x, inputs, target, activation, strength, level)

        def step(x: tuple[Sought, ...], _: None) -> tuple[tuple[Sought, ...], Array]:
            if method == "alternating":
                new = onto_units(_onto_products(x))
            else:
                reflected = reflect(onto_units, reflect(_onto_products, x))
                new = jax.tree.map(lambda here, there: (1 - relaxation) * here + relaxation * there, x, reflected)
            moved = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), x, new)
            return new, sum(jax.tree.leaves(moved)) / sum(leaf.size for leaf in jax.tree.leaves(x))

        found, gaps = jax.lax.scan(step, _values(layers, inputs, activation, level), length=steps)
        agreed = onto_units(found)
        return tuple(_put(layer, copies) for layer, copies in zip(layers, agreed)), gaps[-1]

    return update


def _values(layers: Layers, inputs: Array, activation: str, level: float = 1.0) -> tuple[Sought, ...]:
    """The copies that agree with the network on a batch: a point of all constraints but the labels'."""
    rows, found, lower = len(inputs), [], inputs
    for layer in layers:
        product = lower @ layer.weight.T
        bias = None if layer.bias is None else jnp.broadcast_to(layer.bias, product.shape)
        copies = (rows, *layer.weight.shape)
        found.append(
            Sought(jnp.broadcast_to(layer.weight, copies), jnp.broadcast_to(lower[:, None], copies), product, bias)
        )
        drive = product if bias is None else product + bias
        lower = jax.nn.relu(drive) if activation == "relu" else jnp.where(drive > 0, level, -level).astype(drive.dtype)
    return tuple(found)


def _onto_products(x: tuple[Sought, ...]) -> tuple[Sought, ...]:
    """A: each product by itself; the biases' copies agree, which is a constraint of no product's variables."""
    found = []
    for part in x:
        weight, lower, product = project_product(part.weight, part.lower, part.product)
        found.append(Sought(weight, lower, product, None if part.bias is None else _agreed(part.bias)))
    return tuple(found)


def _onto_units(
    x: tuple[Sought, ...], inputs: Array, target: Array, activation: str, strength: float | Array, level: float = 1.0
) -> tuple[Sought, ...]:
    """B: each unit by itself, the data, the labels, and the weights' copies agree."""
    found: list[Sought] = []
    lowers = [jnp.broadcast_to(inputs[:, None], x[0].lower.shape)]
    for part, above in zip(x, (*x[1:], None)):
        drive = part.product[..., None]
        drive = drive if part.bias is None else jnp.stack([part.product, part.bias], axis=-1)
        if above is None:
            # The proximal point of a sum of k inputs, which moves k times as far as each.
            count = drive.shape[-1]
            logits = jnp.sum(drive, axis=-1)
            move = (approach_label(logits, target, count * strength) - logits) / count
            drive = drive + move[..., None]
        else:
            drive, copies = project_unit(drive, jnp.swapaxes(above.lower, 1, 2), activation, level)
            lowers.append(jnp.swapaxes(copies, 1, 2))
        bias = None if part.bias is None else drive[..., 1]
        found.append(Sought(_agreed(part.weight), lowers[len(found)], drive[..., 0], bias))
    return tuple(found)


def _agreed(copies: Array) -> Array:
    return jnp.broadcast_to(jnp.mean(copies, axis=0, keepdims=True), copies.shape)


def _put(layer: eqx.nn.Linear, copies: Sought) -> eqx.nn.Linear:
    layer = eqx.tree_at(lambda layer: layer.weight, layer, copies.weight[0])
    if copies.bias is None:
        return layer
    return eqx.tree_at(lambda layer: layer.bias, layer, jnp.mean(copies.bias, axis=0))


def _checked(layers: Sequence[eqx.nn.Linear], inputs: Array, labels: Array) -> Layers:
    layers = tuple(layers)
    if not layers:
        raise fault(expected="one dense layer at least", got="none", fix="Pass [equinox.nn.Linear(...), ...].")
    for layer in layers:
        check_instance(layer, eqx.nn.Linear, what="an equinox.nn.Linear", fix="Other layers have no projection here.")
    check_floats(inputs, what="inputs [rows, inputs]", fix="Pass an array of floats.")
    check_shape(inputs, (None, layers[0].weight.shape[1]), what="inputs", fix="Give one row an example.")
    check_rows(labels, len(inputs), what="labels", fix="Give one class a row.")
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.ndim != 1:
        raise fault(expected="labels [rows] of whole numbers", got=described(labels), fix="Give each row's class.")
    for lower, upper in zip(layers, layers[1:]):
        if upper.weight.shape[1] != lower.weight.shape[0]:
            raise fault(
                expected=f"a layer of {lower.weight.shape[0]} inputs",
                got=f"one of {upper.weight.shape[1]}",
                fix="Each layer takes what the one below gives.",
            )
    return layers


__all__ = ["feasibility"]
