"""What an optimiser may ask for beside a gradient: one glossary of extra arguments, one name for one thing."""

from collections.abc import Callable
from typing import Any, TypedDict, TypeVar

from jaxtyping import Array, Float, Int, PyTree

from ._errors import fault

Argument = TypeVar("Argument")


class ExtraArguments(TypedDict, total=False):
    """Keywords of ``optimizer.update(grads, state, params, ...)``; a rule takes those that it names.

    The loop gives, at the present parameters, batch and noise (`nablax.follow.train_step`, `nablax.follow.fit`):

    Attributes:
        value: the loss, one number; of several objectives or rows their mean.
        values: the losses of several objectives or rows, in units of the loss.
        value_fn: ``value_fn(params) -> value`` on the same batch.
        grad: the gradient of ``value``; of a stack of gradients the mean.
        gradients: the stack of gradients as it came, one for each objective or row, on a leading axis.
        grad_fn: ``grad_fn(params) -> (value, grads)`` on the same batch, as the loop's own gradient is taken.
        product_fn: ``product_fn(vector) -> product``, the Hessian of ``value`` times a tree like the parameters.

    The user gives, by ``extra`` of the loop:

    Attributes:
        inputs: of the batch, rows on the leading axis, as the model takes them.
        cluster: number of the group that each row of the batch belongs to.
        indices: number of the item that each gradient of the stack belongs to.
        domain_grad: ``domain_grad(params, index) -> grads``, the gradient of one domain.
        order: of the domains, each once, that of the gradient first.
        norms: the gradient's norm, or what stands for it, of each item of ``indices``.
        scores: one number for each gradient of the stack, larger for what is learned better.
        unrolled: states, inputs and pulled-back gradients of a recurrent net along time.
    """

    value: Float[Array, ""]
    values: Float[Array, " K"]
    value_fn: Callable[[PyTree], Float[Array, ""]]
    grad: PyTree
    gradients: PyTree
    grad_fn: Callable[[PyTree], tuple[Array, PyTree]]
    product_fn: Callable[[PyTree], PyTree]
    inputs: PyTree
    cluster: Int[Array, " rows"]
    indices: Int[Array, " K"]
    domain_grad: Callable[[PyTree, Int[Array, ""]], PyTree]
    order: Int[Array, " K"]
    norms: Float[Array, "K ..."]
    scores: Float[Array, " K"]
    unrolled: Any


# How each is come by, where one writes the call of `update` oneself.
_FIX = {
    "params": "Pass the parameters: update(grads, state, params).",
    "value": "Pass value=loss, the loss of the batch whose gradient this is; follow.fit does.",
    "values": "Pass values=, the losses that regulate.multi_value_and_grad returns; follow.fit does.",
    "value_fn": "Pass value_fn=lambda params: loss(params, batch); follow.fit does.",
    "grad": "Pass grad=grads, the gradient of the loss itself; follow.fit does.",
    "gradients": "Pass gradients=, the stack of gradients that was combined; follow.fit does.",
    "grad_fn": "Pass grad_fn=lambda params: jax.value_and_grad(loss)(params, batch); follow.fit does.",
    "product_fn": "Pass product_fn=lambda vector: jax.jvp(jax.grad(value_fn), (params,), (vector,))[1]; follow.fit and "
    "follow.train_step do.",
    "inputs": "Pass inputs=, the rows of the batch, in follow.fit by extra=lambda params, batch, grads: "
    "{'inputs': batch['x']}.",
    "cluster": "Pass cluster=, the number of each row's group, in follow.fit by extra=.",
    "indices": "Pass indices=, what importance_draw returned, in follow.fit by extra=.",
    "domain_grad": "Pass domain_grad=lambda params, i: jax.grad(loss)(params, inputs[i], labels[i]), in follow.fit by "
    "extra=.",
    "order": "Pass order=, the domains in a random order, that of the gradient first, in follow.fit by extra=.",
    "norms": "Pass norms=, one for each of the indices, in follow.fit by extra=.",
    "scores": "Pass scores=, which modality_value_and_grad returns beside the gradients.",
    "unrolled": "Pass unrolled=, which unrolled_value_and_grad returns beside the gradient.",
}


def required(value: Argument | None, name: str, *, by: str) -> Argument:
    """An argument that a rule cannot do without.

    Args:
        value: what came, None where nothing did.
        name: of the argument, ``"params"`` or one of `ExtraArguments`.
        by: the rule's public name.

    Returns:
        The value.

    Raises:
        ValueError: there is none; the message says which argument of which rule, and where it comes from.
    """
    if value is None:
        raise fault(expected=f"{name}=... at the update of {by}", got="none", fix=_FIX[name])
    return value
