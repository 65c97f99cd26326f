"""Gradient(s) in, gradient out, and no learning rate: aggregators of several objectives, regulators of one.

Every aggregator and regulator is an ``optax.GradientTransformationExtraArgs``. An aggregator takes gradients whose
leaves have a leading axis of K objectives and returns them without it, so that it is the first link of
``optax.chain``; a regulator takes one gradient and returns one. Unknown extra arguments are ignored by both. Gradients
are real.

Chambers:

- ``_aggregators``: gradients of several objectives in, one direction out.
- ``_gramian``: inner products of many gradients, without the gradients.
- ``_penalties``: penalties and constraints, by the gradient of what they add to the loss.
- ``_projections``: a gradient kept off what earlier tasks need.
- ``_sources``: gradients of several domains, draws or tasks, combined or sampled.
- ``_steps``: one gradient in, one out: rescaled, clipped, gated, kept inside a radius.
"""

from ._aggregators._aggregator import aggregator
from ._aggregators._aligned_mtl import aligned_mtl, aligned_mtl_weights
from ._aggregators._averages import mean, sum
from ._aggregators._bloop import bloop
from ._aggregators._cagrad import cagrad, cagrad_weights
from ._aggregators._equal_angles import (
    conflict_free,
    conflict_free_weights,
    imtl_g,
    imtl_g_weights,
)
from ._aggregators._fairness import (
    fairgrad,
    fairgrad_weights,
    nash_mtl,
    nash_mtl_weights,
)
from ._aggregators._gcond import gcond
from ._aggregators._graddrop import graddrop
from ._aggregators._guard import GuardState, guard
from ._aggregators._mgda import mgda, mgda_weights
from ._aggregators._objectives import multi_value_and_grad
from ._aggregators._pcgrad import gradvac, pcgrad, pcgrad_weights
from ._aggregators._robust import krum, krum_weights, trimmed_mean
from ._aggregators._sam_gs import sam_gs
from ._aggregators._state import AggregatorState, Weights
from ._aggregators._upgrad import (
    dual_projection,
    dual_projection_weights,
    upgrad,
    upgrad_weights,
)
from ._gramian._gramian import gramian
from ._penalties._dual_ascent import DualAscentState, dual_ascent
from ._penalties._gradient_norm import flooding, gradient_norm
from ._penalties._manifold_smoothness import ManifoldSmoothnessState, manifold_affinity, manifold_smoothness
from ._penalties._recurrent import (
    Unrolled,
    VanishingGradientState,
    unrolled_value_and_grad,
    vanishing_gradient,
)
from ._penalties._spectral_decoupling import SpectralDecouplingState, spectral_decoupling
from ._projections._gradient_projection import GradientProjectionState, extend_bases, gradient_projection
from ._projections._relaxed_projection import RelaxedProjectionState, relax_bases, relaxed_projection
from ._projections._robust_projection import RobustProjectionState, robust_projection
from ._sources._fish import fish
from ._sources._importance_sampling import (
    ImportanceSamplingState,
    classification_norms,
    importance_draw,
    importance_sampling,
)
from ._sources._meta_regulation import (
    MetaRegulation,
    learned_regulation,
    meta_adapt,
    meta_loss,
    meta_regulation,
)
from ._steps._activity_control import ActivityControlState, activity_control
from ._steps._classp import ClasspState, classp
from ._steps._ghost_step import GhostStepState, ghost_step
from ._steps._modality_modulation import (
    ModalityModulationState,
    modality_competition,
    modality_modulation,
    modality_responses,
    modality_value_and_grad,
)
from ._steps._pixelwise_clip import pixelwise_clip
from ._steps._safe_rate import SafeRateState, safe_rate
from ._steps._tract import tract
from ._steps._variational_binary import (
    VariationalBinaryState,
    binary_divergence,
    binary_preactivation,
    variational_binary,
)
from ._steps._weight_conditioning import weight_conditioning

__all__ = [
    "ActivityControlState",
    "AggregatorState",
    "ClasspState",
    "DualAscentState",
    "GhostStepState",
    "GradientProjectionState",
    "GuardState",
    "ImportanceSamplingState",
    "ManifoldSmoothnessState",
    "MetaRegulation",
    "ModalityModulationState",
    "RelaxedProjectionState",
    "RobustProjectionState",
    "SafeRateState",
    "SpectralDecouplingState",
    "Unrolled",
    "VanishingGradientState",
    "VariationalBinaryState",
    "Weights",
    "activity_control",
    "aggregator",
    "aligned_mtl",
    "aligned_mtl_weights",
    "binary_divergence",
    "binary_preactivation",
    "bloop",
    "cagrad",
    "cagrad_weights",
    "classification_norms",
    "classp",
    "conflict_free",
    "conflict_free_weights",
    "dual_ascent",
    "dual_projection",
    "dual_projection_weights",
    "extend_bases",
    "fairgrad",
    "fairgrad_weights",
    "fish",
    "flooding",
    "gcond",
    "ghost_step",
    "graddrop",
    "gradient_norm",
    "gradient_projection",
    "gradvac",
    "gramian",
    "guard",
    "importance_draw",
    "importance_sampling",
    "imtl_g",
    "imtl_g_weights",
    "krum",
    "krum_weights",
    "learned_regulation",
    "manifold_affinity",
    "manifold_smoothness",
    "mean",
    "meta_adapt",
    "meta_loss",
    "meta_regulation",
    "mgda",
    "mgda_weights",
    "modality_competition",
    "modality_modulation",
    "modality_responses",
    "modality_value_and_grad",
    "multi_value_and_grad",
    "nash_mtl",
    "nash_mtl_weights",
    "pcgrad",
    "pcgrad_weights",
    "pixelwise_clip",
    "relax_bases",
    "relaxed_projection",
    "robust_projection",
    "safe_rate",
    "sam_gs",
    "spectral_decoupling",
    "sum",
    "tract",
    "trimmed_mean",
    "unrolled_value_and_grad",
    "upgrad",
    "upgrad_weights",
    "vanishing_gradient",
    "variational_binary",
    "weight_conditioning",
]
