"""Anything in, numbers with units and standard errors out; nothing is changed.

Each diagnostic returns a record whose ``table()`` prints it.
"""

from ._advice import Finding
from ._checkup import Checkup, checkup
from ._conflicts import Conflicts, conflicts
from ._conservativity import Conservativity, conservativity
from ._continuity import Continuity, continuity
from ._deformation import deform
from ._discretisation_drift import DiscretisationDrift, discretisation_drift, modified_flow
from ._feature_shift import FeatureShift, feature_shift
from ._field import FieldHealth, field
from ._fixed_points import FixedPoints, fixed_points
from ._flow_sharpness import FlowSharpness, flow_sharpness
from ._gauge import Gauge, gauge
from ._generalisation_gap import GeneralisationGap, generalisation_gap
from ._intrinsic_dimension import IntrinsicDimension, intrinsic_dimension
from ._latent_field import LatentAttractors, latent_attractors, latent_field, trajectory_score
from ._layers import Layers, layers
from ._lyapunov import Lyapunov, lyapunov
from ._model_distance import ModelDistance, model_distance
from ._noether import Motion, Noether, learning_flow, noether, rescaling, scaling, translation
from ._noise_scale import NoiseScale, noise_scale
from ._normgrad import NormGrad, class_sensitivity, normgrad
from ._path_geometry import PathGeometry, path_geometry
from ._potential import Potential
from ._recurrence import UpdateRule
from ._rotation import Rotation, rotation
from ._sensitivity import Sensitivity, sensitivity
from ._sharpness import Sharpness, sharpness
from ._smoothgrad import SmoothGrad, smoothgrad
from ._spatial_certificate import SpatialCertificate, box_margins, spatial_certificate
from ._step import Step, step
from ._stiffness import Stiffness, stiffness
from ._subspace import Subspace, subspace
from ._update_rule import update_rule
from ._watch import Watch, watch

__all__ = [
    "Checkup",
    "Conflicts",
    "Conservativity",
    "Continuity",
    "DiscretisationDrift",
    "FeatureShift",
    "FieldHealth",
    "Finding",
    "FixedPoints",
    "FlowSharpness",
    "Gauge",
    "GeneralisationGap",
    "IntrinsicDimension",
    "LatentAttractors",
    "Layers",
    "Lyapunov",
    "ModelDistance",
    "Motion",
    "Noether",
    "NoiseScale",
    "NormGrad",
    "PathGeometry",
    "Potential",
    "Rotation",
    "Sensitivity",
    "Sharpness",
    "SmoothGrad",
    "SpatialCertificate",
    "Step",
    "Stiffness",
    "Subspace",
    "UpdateRule",
    "Watch",
    "box_margins",
    "checkup",
    "class_sensitivity",
    "conflicts",
    "conservativity",
    "continuity",
    "deform",
    "discretisation_drift",
    "feature_shift",
    "field",
    "fixed_points",
    "flow_sharpness",
    "gauge",
    "generalisation_gap",
    "intrinsic_dimension",
    "latent_attractors",
    "latent_field",
    "layers",
    "learning_flow",
    "lyapunov",
    "model_distance",
    "modified_flow",
    "noether",
    "noise_scale",
    "normgrad",
    "path_geometry",
    "rescaling",
    "rotation",
    "scaling",
    "sensitivity",
    "sharpness",
    "smoothgrad",
    "spatial_certificate",
    "step",
    "stiffness",
    "subspace",
    "trajectory_score",
    "translation",
    "update_rule",
    "watch",
]
