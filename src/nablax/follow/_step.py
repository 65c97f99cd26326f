"""One step of training as a pure function: the one place where a gradient becomes an update."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from .._core import (
    ExtraArguments,
    Key,
    check_callable,
    check_key,
    check_like,
    check_loss,
    check_loss_and_aux,
    check_optimizer,
    check_pair,
    described,
    fault,
    keyed,
    push_forward,
)

Loss = Callable[..., Any]
Extra = Callable[[PyTree, PyTree, PyTree], Mapping[str, Any]]
# Folded into a step's key for the draws of an estimator; the loss has the key itself.
_ESTIMATE = 0xFFFFFFFD


def train_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    value_and_grad: Callable[..., Any] = jax.value_and_grad,
    extra: Extra | None = None,
    has_aux: bool = False,
) -> Callable[..., tuple[PyTree, ...]]:
    r"""Make one step of training: a pure function, to be jitted, vmapped or scanned as it is.

    $$
    g = \mathrm{value\_and\_grad}(\ell)(\theta, B),\qquad \theta \leftarrow \theta + \mathrm{optimizer}(g)
    $$

    A rule of the optimiser that asks for more than the gradient is given it, computed only where it is used: ``value``,
    ``value_fn(params)``, ``grad``, ``grad_fn(params) -> (value, grads)`` and ``product_fn(vector)``, a product with the
    loss's Hessian, all of the present batch and noise; where there are several losses or gradients also the vector
    ``values`` and the stack ``gradients``, of which ``value`` and ``grad`` are then the means.

    Args:
        loss: ``loss(params, batch, *, key) -> scalar``, or without ``key`` where it has no randomness.
        optimizer: any Optax transformation. Where gradients come as a stack an aggregator is the first link of its
            chain.
        value_and_grad: what takes the gradient: ``value_and_grad(loss)(params, batch) -> (value, grads)``, called with
            ``has_aux=True`` where ``has_aux`` is. `jax.value_and_grad` by default;
            `nablax.regulate.multi_value_and_grad` for a loss that returns K of them; any estimator. Where the function
            that it makes has an argument ``key``, that is passed as well, a key other than the loss's.
        extra: ``extra(params, batch, grads) -> dict`` of more extra arguments for the optimiser, such as
            ``{"inputs": batch["x"]}``; of the same name, they go before those above.
        has_aux: whether the loss returns ``(scalar, aux)``.

    Returns:
        ``step(params, opt_state, batch, *, key=None) -> (params, opt_state, value)``, with ``aux`` as fourth where
        ``has_aux``. The floating arrays of ``params`` are trained; ``opt_state`` is at first
        ``optimizer.init(params)``, of an Equinox model ``optimizer.init(eqx.filter(model, eqx.is_inexact_array))``.
        ``value`` is what the loss was before the update, a vector where it returns one. Nothing is checked at run time:
        a loss that is not finite is passed on.

    Raises:
        ValueError: an argument makes no sense; when traced, the loss returns something else, a key is missing, or the
            update is not shaped like the parameters.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from nablax.follow import train_step
        >>> x = jnp.linspace(-1.0, 1.0, 64)
        >>> optimizer = optax.adam(0.1)
        >>> step = train_step(lambda slope, batch: jnp.mean((slope * batch - 3.0 * batch) ** 2), optimizer)
        >>> def body(carry, _):
        ...     slope, state, value = step(*carry, x)
        ...     return (slope, state), value
        >>> start = jnp.array(0.0)
        >>> (slope, _), values = jax.lax.scan(body, (start, optimizer.init(start)), length=300)
        >>> round(float(slope), 2), values.shape
        (3.0, (300,))

    Cost: one value and gradient, and one update.
    """
    check_callable(loss, what="loss", fix="Pass loss(params, batch, *, key) -> scalar.")
    check_callable(value_and_grad, what="value_and_grad", fix="Pass jax.value_and_grad, or what is called like it.")
    if extra is not None:
        check_callable(extra, what="extra", fix="Pass extra(params, batch, grads) -> dict.")
    optimizer = check_optimizer(optimizer)

    def step(params: PyTree, opt_state: PyTree, batch: PyTree, *, key: Key | None = None) -> tuple[PyTree, ...]:
        if key is not None:
            check_key(key)
        trained, frozen = eqx.partition(params, eqx.is_inexact_array)
        here = differentiated(loss, frozen, batch, key, value_and_grad=value_and_grad, has_aux=has_aux)
        value, aux, grads = here.value_and_grad(trained)
        arguments: dict[str, Any] = {**_arguments(here, trained, value, grads)}
        if extra is not None:
            more = extra(params, batch, grads)
            if not isinstance(more, Mapping):
                raise fault(
                    expected="an extra that returns a dict of arguments by name",
                    got=described(more),
                    fix="Return {'inputs': batch['x']}, for one.",
                )
            arguments |= more
        if arguments["value_fn"] is here.value_fn:
            arguments["value_fn"] = _naming(here.value_fn, arguments)
        updates, opt_state = _update(optimizer, grads, opt_state, trained, arguments)
        check_like(
            updates,
            trained,
            what="an update that",
            fix="Where gradients come as a stack, combine them first: optax.chain(nablax.regulate.upgrad(), ...).",
        )
        params = eqx.combine(optax.apply_updates(trained, updates), frozen)
        return (params, opt_state, value, aux) if has_aux else (params, opt_state, value)

    return step


class Differentiated(NamedTuple):
    """A loss on one batch.

    Attributes:
        value_fn: ``value_fn(params)``, one number, the mean of several.
        value_and_grad: ``value_and_grad(params) -> (value, aux, grads)``, as they come.
    """

    value_fn: Callable[[PyTree], Float[Array, ""]]
    value_and_grad: Callable[[PyTree], tuple[Array, PyTree, PyTree]]


def differentiated(
    loss: Loss,
    frozen: PyTree,
    batch: PyTree,
    key: Key | None,
    *,
    value_and_grad: Callable[..., Any] = jax.value_and_grad,
    has_aux: bool = False,
) -> Differentiated:
    """A loss on one batch, as a function of what is trained; arguments as in `train_step`.

    Args:
        loss: of the model and the batch.
        frozen: what of the model is not trained.
        batch: any pytree.
        key: of the loss, or None.
        value_and_grad: what takes the gradient.
        has_aux: whether the loss returns more than the value.
    """
    several = value_and_grad is not jax.value_and_grad  # which takes the gradient of one number

    def objective(trained: PyTree, batch: PyTree) -> Any:
        # A copy, for an `equinox.nn.State` is spent by being used, and a line search looks at the loss again.
        batch = jax.tree.map(lambda leaf: leaf, batch)
        found = keyed(loss, eqx.combine(trained, frozen), batch, key=key, what="the loss")
        if not has_aux:
            return check_loss(found, several=several)
        return check_loss_and_aux(found, several=several)

    function = value_and_grad(objective, has_aux=True) if has_aux else value_and_grad(objective)
    draws = None if key is None else jax.random.fold_in(key, jnp.uint32(_ESTIMATE))

    def gradient(trained: PyTree) -> tuple[Array, PyTree, PyTree]:
        pair = keyed(function, trained, batch, key=draws, what="the estimator")
        found, grads = check_pair(
            pair,
            expected="a value_and_grad whose function returns (value, grads)",
            fix="Pass jax.value_and_grad, for one, in place of jax.grad.",
        )
        value, aux = found if has_aux else (found, None)
        return value, aux, grads

    def value_fn(trained: PyTree) -> Float[Array, ""]:
        found = objective(trained, batch)
        return jnp.mean(found[0] if has_aux else found)

    return Differentiated(value_fn, gradient)


def _arguments(here: Differentiated, trained: PyTree, value: Array, grads: PyTree) -> ExtraArguments:
    """What optimisers may ask for, of the present batch."""

    def grad_fn(params: PyTree) -> tuple[Array, PyTree]:
        value, _, grads = here.value_and_grad(params)
        return value, grads

    def product_fn(vector: PyTree) -> PyTree:
        return push_forward(jax.grad(here.value_fn), trained, vector)[1]

    found = ExtraArguments(value_fn=here.value_fn, grad_fn=grad_fn, product_fn=product_fn, value=value, grad=grads)
    if jnp.ndim(value) > 0:
        found["values"], found["value"] = value, jnp.mean(value)
    if [x.ndim - 1 for x in jax.tree.leaves(grads)] == [x.ndim for x in jax.tree.leaves(trained)]:
        found["gradients"], found["grad"] = grads, jax.tree.map(lambda g: jnp.mean(g, axis=0), grads)
    return found


def _naming(value_fn: Callable[[PyTree], Array], arguments: Mapping[str, Any]) -> Callable[..., Array]:
    """The same function with the other extra arguments named, for Optax's line searches refuse those that it lacks."""

    def named(params: PyTree, **others: Any) -> Array:
        return value_fn(params)

    kind = inspect.Parameter
    keywords = [kind(name, kind.KEYWORD_ONLY, default=None) for name in arguments]
    parameters = [kind("params", kind.POSITIONAL_OR_KEYWORD), *keywords]
    named.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return named


def _update(
    optimizer: optax.GradientTransformationExtraArgs,
    grads: PyTree,
    state: PyTree,
    params: PyTree,
    arguments: dict[str, Any],
) -> tuple[PyTree, PyTree]:
    """One update, with those extra arguments that the optimiser takes."""
    parameters = inspect.signature(optimizer.update).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        # `optax.contrib.sam` names what it takes and refuses the rest.
        arguments = {name: value for name, value in arguments.items() if name in parameters}
    updates, state = optimizer.update(grads, state, params, **arguments)
    return updates, state
