"""The room's transformations, one row each, for the conformance suite."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from nablax import regulate

KEY = jax.random.key(7)


@dataclasses.dataclass(frozen=True)
class Row:
    """A transformation and what the suite has to know of it.

    Attributes:
        make: builds it.
        objectives: length of the leading axis that its input has; None for a regulator of one gradient.
        degree: the update grows like the input to this power; None where it is not homogeneous.
        extra: further arguments of ``update``, from the input.
        fill: makes of a fresh state one in which the transformation has something to do.
    """

    make: Callable[[], optax.GradientTransformationExtraArgs]
    objectives: int | None = 3
    degree: float | None = 1.0
    extra: Callable[[Any], dict[str, Any]] = lambda grads: {}
    fill: Callable[[Any], Any] = lambda state: state


def against(updates: Any) -> Any:
    """Two gradients, one of which the update goes up, with room left for a direction that goes up neither."""
    return jax.tree.map(lambda u: jax.numpy.stack([u + jax.numpy.roll(u, 1), jax.numpy.roll(u, 2)]), updates)


def protected(bases: Any) -> Any:
    """One direction protected of every layer that has more than one."""

    def one(basis: jax.Array) -> jax.Array | None:
        return jax.numpy.arange(1.0, len(basis) + 1)[None] if len(basis) > 1 else None

    return regulate.extend_bases(bases, jax.tree.map(one, bases))


def written_by_a_user() -> optax.GradientTransformationExtraArgs:
    """An aggregator with all parts: the second objective left out, equal lengths by average norms, a sum over steps."""

    def memory(params: Any) -> Any:
        return {"norms": jax.numpy.zeros(3), "sum": jax.tree.map(jax.numpy.zeros_like, params)}

    def prepare(grads: Any, memory: Any) -> tuple[Any, Any]:
        return jax.tree.map(lambda leaf: leaf.at[1].set(0), grads), memory

    def weigh(cosines: jax.Array, norms: jax.Array, memory: Any) -> tuple[regulate.Weights, Any]:
        average = (memory["norms"] + norms) / 2
        weights = jax.numpy.where(average > 0, jax.numpy.mean(average) / average, 0)
        return regulate.Weights(weights), memory | {"norms": average}

    def finish(vector: Any, memory: Any) -> tuple[Any, Any]:
        total = jax.tree.map(jax.numpy.add, memory["sum"], vector)
        return total, memory | {"sum": total}

    return regulate.aggregator(
        weigh,
        prepare=prepare,
        finish=finish,
        memory=memory,
        objectives=3,
    )


CONSTRUCTORS = {
    "aggregator": Row(written_by_a_user),
    "activity_control": Row(
        lambda: regulate.activity_control({"bias": 2.0, "weight": jax.numpy.array([0.5, 1.0, 0.0])}),
        objectives=None,
        degree=None,
    ),
    "aligned_mtl": Row(lambda: regulate.aligned_mtl(objectives=3)),
    "bloop": Row(lambda: regulate.bloop(0.5, objectives=3)),
    "cagrad": Row(lambda: regulate.cagrad(0.4, objectives=3)),
    "classp": Row(lambda: regulate.classp(0.1), objectives=None, degree=None),
    "conflict_free": Row(lambda: regulate.conflict_free(objectives=3)),
    "dual_ascent": Row(
        lambda: regulate.dual_ascent(0.1, jax.numpy.array([0.5, 2.0])),
        extra=lambda grads: {"values": jax.numpy.array([3.0, 1.0, 1.0], grads["bias"].dtype)},
        fill=lambda state: state._replace(multipliers=state.multipliers + 0.5),
    ),
    "dual_projection": Row(lambda: regulate.dual_projection(objectives=3)),
    "fairgrad": Row(lambda: regulate.fairgrad(2.0, objectives=3), degree=-1 / 3),
    "fish": Row(
        lambda: regulate.fish(0.1),
        objectives=None,
        extra=lambda grads: {
            "domain_grad": lambda params, index: jax.tree.map(lambda g: (index + 1) * g, grads),
            "order": jax.numpy.array([0, 2, 1]),
        },
    ),
    "flooding": Row(lambda: regulate.flooding(2.0), objectives=None, extra=lambda grads: {"value": 1.0}),
    "gcond": Row(lambda: regulate.gcond(objectives=3)),
    "ghost_step": Row(
        lambda: regulate.ghost_step(lambda params, x: x @ params["weight"] * params["bias"][0]),
        objectives=None,
        degree=None,
        extra=lambda updates: {"inputs": jax.numpy.ones((2, 2), updates["bias"].dtype)},
    ),
    "graddrop": Row(lambda: regulate.graddrop(key=KEY, objectives=3)),
    "gradient_norm": Row(
        lambda: regulate.gradient_norm(0.1, 0.05),
        objectives=None,
        degree=None,
        extra=lambda grads: {"grad_fn": lambda params: (0.0, jax.tree.map(lambda p: 3 * (p - 1), params))},
    ),
    "gradient_projection": Row(
        lambda: regulate.gradient_projection(),
        objectives=None,
        fill=lambda state: state._replace(bases=protected(state.bases)),
    ),
    "gradvac": Row(lambda: regulate.gradvac(objectives=3, key=KEY)),
    "guard": Row(lambda: regulate.guard(), objectives=None, extra=lambda updates: {"gradients": against(updates)}),
    "importance_sampling": Row(
        lambda: regulate.importance_sampling(4), extra=lambda grads: {"indices": jax.numpy.array([0, 1, 3])}
    ),
    "imtl_g": Row(lambda: regulate.imtl_g(objectives=3)),
    "krum": Row(lambda: regulate.krum(0, 2, objectives=3)),
    "learned_regulation": Row(
        lambda: regulate.learned_regulation(
            regulate.MetaRegulation(
                None, {"bias": -1.0, "weight": jax.numpy.ones((2, 3))}, {"bias": 0.0, "weight": 0.0}
            )
        ),
        objectives=None,
    ),
    "manifold_smoothness": Row(
        lambda: regulate.manifold_smoothness(
            lambda params: params["bias"], jax.numpy.eye(4)[::-1], level=0.5, dual_rate=0.1, loss_rate=0.1
        ),
        objectives=None,
        extra=lambda grads: {"value": 1.0},
    ),
    "mean": Row(lambda: regulate.mean(objectives=3)),
    "mgda": Row(lambda: regulate.mgda(objectives=3)),
    "modality_modulation": Row(
        lambda: regulate.modality_modulation(3),
        extra=lambda grads: {"scores": jax.numpy.array([0.5, 1.0, 2.0], grads["bias"].dtype)},
    ),
    "nash_mtl": Row(lambda: regulate.nash_mtl(objectives=3), degree=0.0),
    "pcgrad": Row(lambda: regulate.pcgrad(key=KEY, objectives=3)),
    "pixelwise_clip": Row(lambda: regulate.pixelwise_clip(1.0), objectives=None, degree=None),
    "relaxed_projection": Row(
        lambda: regulate.relaxed_projection(),
        objectives=None,
        fill=lambda state: state._replace(bases=protected(state.bases), relaxed=protected(state.relaxed)),
    ),
    "robust_projection": Row(
        lambda: regulate.robust_projection(),
        objectives=None,
        fill=lambda state: regulate.RobustProjectionState(*map(protected, state)),
    ),
    "safe_rate": Row(
        # Twenty times the rate that the curvature allows, so that there is something to hold.
        lambda: regulate.safe_rate(optax.sgd(1.0)),
        objectives=None,
        extra=lambda grads: {"product_fn": lambda vector: jax.tree.map(lambda leaf: 20 * leaf, vector)},
    ),
    "sam_gs": Row(lambda: regulate.sam_gs(objectives=3)),
    "spectral_decoupling": Row(
        # At the suite's parameters all logits are 3, where the penalty has its minimum.
        lambda: regulate.spectral_decoupling(
            lambda params, x: x @ params["weight"] + params["bias"][None, :1], 0.1, shift=3.0
        ),
        objectives=None,
        extra=lambda grads: {"inputs": jax.numpy.ones((2, 2), grads["bias"].dtype)},
    ),
    "sum": Row(lambda: regulate.sum(objectives=3)),
    "tract": Row(
        lambda: regulate.tract(lambda params: params["weight"], outputs_axis=0),
        objectives=None,
        extra=lambda grads: {"inputs": jax.numpy.arange(6.0, dtype=grads["bias"].dtype).reshape(2, 3)},
    ),
    "trimmed_mean": Row(lambda: regulate.trimmed_mean(1, objectives=3)),
    "upgrad": Row(lambda: regulate.upgrad(objectives=3)),
    "vanishing_gradient": Row(
        lambda: regulate.vanishing_gradient(lambda params, state, x: params["bias"][0] * state, 1.0),
        objectives=None,
        extra=lambda grads: {"unrolled": regulate.Unrolled(*[jax.numpy.ones((2, 1, 4), grads["bias"].dtype)] * 3)},
    ),
    "variational_binary": Row(
        # At the suite's parameters there is no pull: the prior is where they are.
        lambda: regulate.variational_binary(0.5),
        objectives=None,
        fill=lambda state: jax.tree.map(jax.numpy.ones_like, state),
    ),
}
