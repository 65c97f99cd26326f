"""Data → sampler: paths, couplings, objectives, guidance, likelihood.

Chambers:

- ``_couplings``: which noise goes with which datum.
- ``_guidance``: samples steered: by a class, a cost, an observation.
- ``_likelihood``: how likely a point is under a transport.
- ``_maps``: transports made from transports.
- ``_paths``: paths from noise to data, and the conversions among velocity, score, noise and denoiser.
"""

from ._couplings._couplings import (
    Coupling,
    class_aware_coupling,
    coupled_batches,
    independent_coupling,
    optimal_coupling,
)
from ._couplings._sinkhorn import Plan, SinkhornCoupling
from ._couplings._stable import heuristic_coupling, stable_coupling
from ._guidance._constant_step import constant_step_guidance
from ._guidance._guidance import guidance
from ._guidance._inverse_problems import (
    colourisation,
    inpainting,
    solve_inverse,
    super_resolution,
)
from ._guidance._posterior_guidance import posterior_guidance, pseudoinverse_guidance
from ._guidance._posterior_sampling import complete, sample_posterior
from ._guidance._steering import Bounds, Steering, steer
from ._guidance._twisted import Posterior
from ._likelihood._log_prob import LogProb
from ._maps._reflow import reflow
from ._march import Moment, march
from ._matching import denoising_score_matching, flow_matching
from ._paths._affine import AbstractAffinePath, Cosine, Linear, View
from ._paths._diffusion import SubVariancePreserving, VarianceExploding, VariancePreserving
from ._paths._path import AbstractPath
from ._priors import Empirical, Normal
from ._samplers import predictor_corrector, sample_sde
from ._transport import Transport

__all__ = [
    "AbstractAffinePath",
    "AbstractPath",
    "Bounds",
    "Cosine",
    "Coupling",
    "Empirical",
    "Linear",
    "LogProb",
    "Moment",
    "Normal",
    "Plan",
    "Posterior",
    "SinkhornCoupling",
    "Steering",
    "SubVariancePreserving",
    "Transport",
    "VarianceExploding",
    "VariancePreserving",
    "View",
    "class_aware_coupling",
    "colourisation",
    "complete",
    "constant_step_guidance",
    "coupled_batches",
    "denoising_score_matching",
    "flow_matching",
    "guidance",
    "heuristic_coupling",
    "independent_coupling",
    "inpainting",
    "march",
    "optimal_coupling",
    "posterior_guidance",
    "predictor_corrector",
    "pseudoinverse_guidance",
    "reflow",
    "sample_posterior",
    "sample_sde",
    "solve_inverse",
    "stable_coupling",
    "steer",
    "super_resolution",
]
