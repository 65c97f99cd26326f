"""Data → sampler: paths, couplings, objectives, guidance, likelihood."""

from ._couplings import Coupling, class_aware_coupling, coupled_batches, independent_coupling, optimal_coupling
from ._diffusion_paths import SubVariancePreserving, VarianceExploding, VariancePreserving
from ._guidance import guidance
from ._inverse_problems import colourisation, inpainting, solve_inverse, super_resolution
from ._likelihood import LogProb
from ._matching import denoising_score_matching, flow_matching
from ._paths import AbstractPath, Cosine, Linear
from ._posterior_guidance import posterior_guidance, pseudoinverse_guidance
from ._posterior_sampling import complete, sample_posterior
from ._priors import Empirical, Normal
from ._reflow import reflow
from ._samplers import predictor_corrector, sample_sde
from ._sinkhorn import Plan, SinkhornCoupling
from ._steering import Bounds, Steering, steer
from ._transport import Transport
from ._twisted import Posterior

__all__ = [
    "AbstractPath",
    "Bounds",
    "Cosine",
    "Coupling",
    "Empirical",
    "Linear",
    "LogProb",
    "Normal",
    "Plan",
    "Posterior",
    "SinkhornCoupling",
    "Steering",
    "SubVariancePreserving",
    "Transport",
    "VarianceExploding",
    "VariancePreserving",
    "class_aware_coupling",
    "colourisation",
    "complete",
    "coupled_batches",
    "denoising_score_matching",
    "flow_matching",
    "guidance",
    "independent_coupling",
    "inpainting",
    "optimal_coupling",
    "posterior_guidance",
    "predictor_corrector",
    "pseudoinverse_guidance",
    "reflow",
    "sample_posterior",
    "sample_sde",
    "solve_inverse",
    "steer",
    "super_resolution",
]
