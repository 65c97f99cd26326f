"""Anything in, numbers with units and standard errors out; nothing is changed.

Each diagnostic returns a record whose ``table()`` prints it.

Chambers:

- ``_checkup``: a training step before it is made: sharpness, noise, conflicts, and what to change.
- ``_field``: a learned vector field: is it a gradient, is it stiff, where does it rest?
- ``_model``: a trained model: what it looks at, how far it moves, how it compares, what is certain of it.
- ``_training``: a whole training: what discretisation, symmetry and noise leave of its course.
"""

from .._core import Finding, OptimizerProbe, UpdateRule, register_rule
from ._checkup._checkup import checkup
from ._checkup._conflicts import Conflicts, conflicts
from ._checkup._layers import LayerHealth, layer_health
from ._checkup._noise_scale import NoiseScale, noise_scale
from ._checkup._record import Checkup
from ._checkup._rehearsal import Rehearsal
from ._checkup._repeats import Repeats
from ._checkup._rotation import Rotation, rotation
from ._checkup._sharpness import Sharpness, sharpness
from ._checkup._signs import Signs
from ._checkup._step import StepQuality, step_quality
from ._checkup._subspace import Subspace, subspace
from ._checkup._through_time import ThroughTime
from ._checkup._torch import checkup_torch
from ._checkup._update_rule import update_rule
from ._checkup._verdict import Thresholds
from ._checkup._watch import FaultFound, Watch, watch
from ._field._conservativity import Conservativity, conservativity
from ._field._continuity import Continuity, continuity
from ._field._field import FieldHealth, field_health
from ._field._fixed_points import FixedPoints, fixed_points
from ._field._gauge import Gauge, gauge
from ._field._intrinsic_dimension import IntrinsicDimension, intrinsic_dimension
from ._field._lyapunov import Lyapunov, lyapunov
from ._field._path_geometry import PathGeometry, path_geometry
from ._field._potential import Potential
from ._field._stiffness import Stiffness, stiffness
from ._model._deformation import deform
from ._model._feature_shift import FeatureShift, feature_shift
from ._model._latent_field import (
    LatentAttractors,
    latent_attractors,
    latent_field,
    trajectory_score,
)
from ._model._model_distance import ModelDistance, distinguishing_samples, model_distance
from ._model._normgrad import NormGrad, class_sensitivity, normgrad
from ._model._sensitivity import Sensitivity, sensitivity
from ._model._smoothgrad import SmoothGrad, smoothgrad
from ._model._spatial_certificate import SpatialCertificate, box_margins, spatial_certificate
from ._training._alignment import Alignment, EstimatorAlignment, alignment
from ._training._discretisation_drift import DiscretisationDrift, discretisation_drift, modified_flow
from ._training._flow_sharpness import FlowSharpness, flow_sharpness
from ._training._generalisation_gap import GeneralisationGap, generalisation_gap
from ._training._metasmoothness import metasmoothness
from ._training._noether import (
    Noether,
    Symmetry,
    learning_flow,
    noether,
    rescaling_symmetry,
    scaling_symmetry,
    translation_symmetry,
)

__all__ = [
    "Alignment",
    "Checkup",
    "Conflicts",
    "Conservativity",
    "Continuity",
    "DiscretisationDrift",
    "EstimatorAlignment",
    "FaultFound",
    "FeatureShift",
    "FieldHealth",
    "Finding",
    "FixedPoints",
    "FlowSharpness",
    "Gauge",
    "GeneralisationGap",
    "IntrinsicDimension",
    "LatentAttractors",
    "LayerHealth",
    "Lyapunov",
    "ModelDistance",
    "Noether",
    "NoiseScale",
    "NormGrad",
    "OptimizerProbe",
    "PathGeometry",
    "Potential",
    "Rehearsal",
    "Repeats",
    "Rotation",
    "Sensitivity",
    "Sharpness",
    "Signs",
    "SmoothGrad",
    "SpatialCertificate",
    "StepQuality",
    "Stiffness",
    "Subspace",
    "Symmetry",
    "Thresholds",
    "ThroughTime",
    "UpdateRule",
    "Watch",
    "alignment",
    "box_margins",
    "checkup",
    "checkup_torch",
    "class_sensitivity",
    "conflicts",
    "conservativity",
    "continuity",
    "deform",
    "discretisation_drift",
    "distinguishing_samples",
    "feature_shift",
    "field_health",
    "fixed_points",
    "flow_sharpness",
    "gauge",
    "generalisation_gap",
    "intrinsic_dimension",
    "latent_attractors",
    "latent_field",
    "layer_health",
    "learning_flow",
    "lyapunov",
    "metasmoothness",
    "model_distance",
    "modified_flow",
    "noether",
    "noise_scale",
    "normgrad",
    "path_geometry",
    "register_rule",
    "rescaling_symmetry",
    "rotation",
    "scaling_symmetry",
    "sensitivity",
    "sharpness",
    "smoothgrad",
    "spatial_certificate",
    "step_quality",
    "stiffness",
    "subspace",
    "trajectory_score",
    "translation_symmetry",
    "update_rule",
    "watch",
]
