"""Whether a transport's parts fit, which views of a field they define, whether its velocity is finite at both ends."""

import math

import jax
import jax.numpy as jnp

from .._core import Field, check_instance, checked_field, fault
from ..spaces import AbstractSpace
from ._paths._affine import AbstractAffinePath, View, affine, check_view
from ._paths._path import AbstractPath, check_path
from ._priors import Empirical, Normal, Prior


def check_parts(field: Field, path: AbstractPath, prior: Prior, space: AbstractSpace, prediction: View) -> None:
    """Refuse parts that are of another kind, or not of one shape.

    Raises:
        ValueError: one is.
    """
    checked_field(field)
    check_path(path)
    check_instance(prior, (Normal, Empirical), what="a prior", fix="Pass Normal(shape), for instance.")
    check_instance(space, AbstractSpace, what="a space", fix="Pass spaces.Euclidean(shape).")
    check_view(prediction)
    if prior.shape != space.shape:
        raise fault(
            expected=f"a prior over the space's shape {space.shape}",
            got=f"shape {prior.shape}",
            fix="Give both the shape of one sample.",
        )


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


__all__ = ["check_defined", "check_finite_ends", "check_parts"]
