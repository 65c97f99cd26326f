"""PyTorch's optimisers, with their state, as Optax's: what they do to a gradient is read from these."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ..._core import fault
from ._optimizer_state import with_moments

# What Optax's do as PyTorch's: options of a group that are read, and those that have to be off.
_READ = {
    "SGD": ("momentum", "nesterov"),
    "Adam": ("betas", "eps"),
    "AdamW": ("betas", "eps"),
    "RMSprop": ("alpha", "eps"),
}
_OFF = ("dampening", "maximize", "amsgrad", "centered")


def as_optax(
    torch: Any, optimizer: Any, trained: dict[str, Any], params: dict[str, Array]
) -> tuple[optax.GradientTransformation, PyTree]:
    """The same optimiser in Optax, and its state before the next step.

    Args:
        torch: the module.
        optimizer: of PyTorch.
        trained: the parameters by name.
        params: the same as arrays.

    Returns:
        One object for each kind of settings but the rates, which are in the state.

    Raises:
        ValueError: it is none that Optax has, or holds not all of these parameters.
    """
    kind = type(optimizer).__name__
    if not isinstance(optimizer, torch.optim.Optimizer) or kind not in _READ:
        raise fault(
            expected=f"an optimiser of torch.optim, one of {', '.join(_READ)}",
            got=kind,
            fix="Leave it out, with learning_rate= for the rate of plain gradient descent.",
        )
    labels: dict[str, str] = {}
    settings, rates, decays = [], [], []
    names = {id(leaf): name for name, leaf in trained.items()}
    for index, group in enumerate(optimizer.param_groups):
        if used := [name for name in _OFF if group.get(name)]:
            raise fault(
                expected="an optimiser that does as Optax's does", got=", ".join(used), fix="Leave optimizer out."
            )
        if kind == "RMSprop" and group["momentum"]:
            raise fault(expected="RMSprop without momentum", got=group["momentum"], fix="Leave optimizer out.")
        labels |= {names[id(leaf)]: str(index) for leaf in group["params"] if id(leaf) in names}
        settings.append(tuple((name, group[name]) for name in _READ[kind]))
        rates.append(float(group["lr"]))
        decays.append(float(group["weight_decay"]))
    if missing := sorted(trained.keys() - labels.keys()):
        raise fault(
            expected="an optimiser of all parameters that require a gradient",
            got=f"none of {', '.join(missing[:4])}",
            fix="Add them to it, or freeze them: parameter.requires_grad_(False).",
        )
    transform = _transform(kind, tuple(settings), tuple(labels[name] for name in trained), tuple(trained))
    state = transform.init(params)
    for index, (rate, decay) in enumerate(zip(rates, decays)):
        state = _with_numbers(state, str(index), rate, decay)
    return transform, _with_state(kind, optimizer, state, trained, params)


@lru_cache(maxsize=8)
def _transform(
    kind: str, settings: tuple[Any, ...], groups: tuple[str, ...], names: tuple[str, ...]
) -> optax.GradientTransformation:
    def of_group(options: tuple[tuple[str, Any], ...]) -> optax.GradientTransformation:
        given = dict(options)

        def chain(learning_rate: float, decay: float) -> optax.GradientTransformation:
            decayed, scaled = optax.add_decayed_weights(decay), optax.scale_by_learning_rate(learning_rate)
            core = _CORES[kind](given)
            return optax.chain(core, decayed, scaled) if kind == "AdamW" else optax.chain(decayed, core, scaled)

        return optax.inject_hyperparams(chain)(learning_rate=0.0, decay=0.0)

    parts = {str(index): of_group(options) for index, options in enumerate(settings)}
    return optax.multi_transform(parts, dict(zip(names, groups)))


def _descent(given: dict[str, Any]) -> optax.GradientTransformation:
    return optax.trace(given["momentum"], nesterov=given["nesterov"]) if given["momentum"] else optax.identity()


def _adam(given: dict[str, Any]) -> optax.GradientTransformation:
    return optax.scale_by_adam(*given["betas"], eps=given["eps"])


_CORES: dict[str, Callable[[dict[str, Any]], optax.GradientTransformation]] = {
    "SGD": _descent,
    "Adam": _adam,
    "AdamW": _adam,
    "RMSprop": lambda given: optax.scale_by_rms(given["alpha"], eps=given["eps"], eps_in_sqrt=False),
}


def _with_numbers(state: Any, group: str, rate: float, decay: float) -> Any:
    """The state with a group's rate and decay."""
    masked = state.inner_states[group]
    inner = masked.inner_state
    now = {"learning_rate": rate, "decay": decay}
    numbers = {name: jnp.asarray(value, inner.hyperparams[name].dtype) for name, value in now.items()}
    inner = inner._replace(hyperparams={**inner.hyperparams, **numbers})
    return state._replace(inner_states={**state.inner_states, group: masked._replace(inner_state=inner)})


def _with_state(kind: str, optimizer: Any, state: Any, trained: dict[str, Any], params: dict[str, Array]) -> Any:
    """The state with PyTorch's moments, zero for what has made no step."""

    def moments(name: str) -> dict[str, Array]:
        found = {}
        for key, leaf in trained.items():
            held = optimizer.state.get(leaf, {}).get(name)
            zeros = jnp.zeros_like(params[key])
            found[key] = zeros if held is None else jnp.asarray(held.detach().cpu().float().numpy(), zeros.dtype)
        return found

    if kind == "SGD":
        return with_moments(state, trace=moments("momentum_buffer")) if _has_momentum(optimizer) else state
    if kind == "RMSprop":
        return with_moments(state, nu=moments("square_avg"))
    counts = {int(optimizer.state.get(leaf, {}).get("step", 0)) for leaf in trained.values()}
    if len(counts) > 1:
        raise fault(
            expected="parameters that have made the same number of steps", got=str(sorted(counts)), fix="Leave it out."
        )
    return with_moments(state, mu=moments("exp_avg"), nu=moments("exp_avg_sq"), count=jnp.asarray(counts.pop()))


def _has_momentum(optimizer: Any) -> bool:
    momenta = {bool(group["momentum"]) for group in optimizer.param_groups}
    if len(momenta) > 1:
        raise fault(expected="momentum in all groups, or in none", got="in some", fix="Leave optimizer out.")
    return momenta.pop()
