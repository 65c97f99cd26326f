"""Which views of a field a transport defines, and whether its velocity is finite at both ends of the path."""

import math

import jax
import jax.numpy as jnp

from .._core import fault
from ._paths._affine import AbstractAffinePath, View, affine
from ._paths._path import AbstractPath
from ._priors import Normal, Prior


def check_defined(view: View, path: AbstractPath, prior: Prior, *, independent: bool) -> AbstractAffinePath:
    """The path, where it and the pairing define a view other than the one that the field was trained on.

    Raises:
        ValueError: they do not.
    """
    path = affine(path, what=f"the {view}")
    if view == "velocity":
        return path
    if not (independent and isinstance(prior, Normal)):
        raise fault(
            expected=f"normal noise paired independently with the data, for the {view}",
            got=f"prior {type(prior).__name__}, independent={independent}",
            fix="Only the velocity is defined here; train with an independent coupling to have the other views.",
        )
    if view == "score" and not math.isclose(prior.scale, path.prior_scale, rel_tol=1e-3):
        raise fault(
            expected=f"a prior of the path's own scale {path.prior_scale}, for the score",
            got=f"scale {prior.scale}",
            fix="The score is minus the noise over b only for standard normal noise; use Normal(shape, scale="
            "path.prior_scale), or ask for the noise.",
        )
    return path


def check_finite_ends(prediction: View, path: AbstractAffinePath) -> None:
    """Refuse a path at an end of which the velocity that follows from a prediction would be 0/0.

    Raises:
        ValueError: there is one.
    """
    # The velocity needs the pair (noise, denoiser); where a or b is zero the state says nothing of one of them.
    with jax.ensure_compile_time_eval():
        start, _, _, _ = path.coefficients(jnp.asarray(path.times[0]))
        _, end, _, _ = path.coefficients(jnp.asarray(path.times[1]))
        singular = float(end if prediction == "denoiser" else start) < 1e-6
    if singular:
        raise fault(
            expected=f"a path that keeps clear of its {'last' if prediction == 'denoiser' else 'first'} time",
            got=f"{type(path).__name__} with times {path.times} and prediction={prediction!r}",
            fix=f"The velocity is 0/0 there: use {type(path).__name__}(margin=1e-3).",
        )


__all__ = ["check_defined", "check_finite_ends"]
