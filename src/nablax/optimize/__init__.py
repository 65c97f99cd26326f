"""Gradient(s) in, update out, with a learning rate; problems with several objectives, players or levels.

What Optax has is not here: its rules, ours and `nablax.regulate`'s go into one ``optax.chain``. ``foo(learning_rate)``
is an optimiser, ``scale_by_foo()`` its rule without a rate. Unknown extra arguments are ignored; averages are kept in
single precision at least.

Chambers:

- ``_first_order``: rules of a gradient and its history, a few numbers a parameter.
- ``_games``: rules for several players, each with a loss of their own.
- ``_manifold``: rules whose steps follow the geometry of where parameters live, or of a potential of theirs.
- ``_nested``: solvers of two levels, of which the upper sets what the lower solves.
- ``_particles``: solvers that follow many states, or one for long.
- ``_preconditioned``: rules that turn the gradient into a metric of its own, whole matrices or a diagonal of the
  curvature.
- ``_second_order``: rules that make a model of the loss at each step, mostly of its own curvature, and solve it.
- ``_structured``: solvers of problems whose structure is known, which return a solution, not an update; a loss whose
  landscape is known.
"""

from ._first_order._adamomentum import AdaMomentumState, adamomentum, scale_by_adamomentum
from ._first_order._aegd import AegdState, aegd
from ._first_order._beta_normalised import BetaNormalisedState, beta_normalised, scale_by_beta_norm
from ._first_order._diffgrad import DiffGradState, diffgrad, scale_by_diffgrad
from ._first_order._entropy_sgd import EntropySgdState, entropy_sgd, scale_by_local_entropy
from ._first_order._gravity import GravityState, gravity, scale_by_gravity
from ._first_order._mars import MarsState, mars, scale_by_mars
from ._first_order._maximal_update import MaximalUpdateState, Widths, maximal_update, width_multipliers
from ._first_order._multi_momentum import MultiMomentumState, multi_momentum, scale_by_multi_momentum
from ._first_order._nag_gs import NagGsState, nag_gs
from ._first_order._spider import SpiderState, scale_by_spider, spider
from ._first_order._steepest import SteepestState, scale_by_steepest, steepest_descent
from ._first_order._triple_momentum import (
    MomentumCoefficients,
    triple_momentum,
    triple_momentum_coefficients,
    triple_momentum_eval_params,
)
from ._first_order._xgrad import XGradState, xgrad, xgrad_eval_params
from ._games._complex_momentum import ComplexMomentumState, complex_momentum, scale_by_complex_momentum
from ._games._extragradient import ExtragradientState, extragradient, two_timescale_extragradient
from ._manifold._mirror_descent import MirrorDescentState, Potential, mirror_descent, negative_entropy, p_norm
from ._manifold._riemannian_adagrad import RiemannianAdagradState, riemannian_adagrad
from ._manifold._riemannian_adam import RiemannianAdamState, riemannian_adam
from ._manifold._riemannian_sgd import RiemannianSgdState, riemannian_sgd
from ._nested._bo_rep import NormalisedBilevel, bo_rep
from ._nested._lv_hba import ConstrainedBilevel, lv_hba
from ._nested._maid import InexactBilevel, maid
from ._particles._consensus import Consensus, consensus
from ._particles._langevin import AveragedLangevin, averaged_langevin
from ._particles._mean_field import MixedStrategies, mean_field_descent_ascent
from ._preconditioned._hessian_fit import FittedPreconditioner, fit_preconditioner
from ._preconditioned._low_rank_fit import LowRankFit
from ._preconditioned._oasis import OasisState, oasis
from ._preconditioned._psgd import PsgdState, psgd, scale_by_psgd
from ._preconditioned._psgd_low_rank import PsgdLowRankState, psgd_low_rank, scale_by_psgd_low_rank
from ._preconditioned._shampoo import ShampooState, scale_by_shampoo, shampoo
from ._preconditioned._soap import SoapState, scale_by_soap, soap
from ._preconditioned._structured_ngd import StructuredNgdState, scale_by_structured_ngd, structured_ngd
from ._ridge_rider import Branches, local_exponents, ridge_rider
from ._second_order._exact_gauss_newton import GaussNewtonState, exact_gauss_newton, scale_by_gauss_newton
from ._second_order._gradient_normalised_newton import GradientNormalisedState, gradient_normalised_newton
from ._second_order._natural_gradient import NaturalGradientState, natural_gradient, scale_by_natural_gradient
from ._second_order._saddle_free_newton import SaddleFreeState, saddle_free_newton, scale_by_saddle_free_newton
from ._second_order._smb import SmbState, smb
from ._second_order._target_surrogate import TargetSurrogateState, target_surrogate
from ._second_order._thermodynamic import (
    ThermodynamicState,
    scale_by_thermodynamic_natural_gradient,
    thermodynamic_natural_gradient,
)
from ._structured._accelerated_gradient_sliding import accelerated_gradient_sliding
from ._structured._boosted_units import BoostedUnits, boosted_units
from ._structured._bures_wasserstein import bures_wasserstein_loss
from ._structured._convex_relu import ConvexRelu, convex_relu, relu_patterns
from ._structured._denominators import AbstractDenominator, SquaredFourNorm, TopSum
from ._structured._fractional_descent import FractionalDescent, fractional_descent
from ._structured._ginzburg_landau import GinzburgLandau, ginzburg_landau
from ._structured._gradient_sliding import gradient_sliding
from ._structured._landscape_learning import LandscapeLearning, landscape_learning
from ._structured._proxy_descent import ProxyDescent, proxy_descent
from ._structured._robust_relu import robust_relu
from ._structured._sliding import GradientSliding

__all__ = [
    "AbstractDenominator",
    "AdaMomentumState",
    "AegdState",
    "AveragedLangevin",
    "BetaNormalisedState",
    "BoostedUnits",
    "Branches",
    "ComplexMomentumState",
    "Consensus",
    "ConstrainedBilevel",
    "ConvexRelu",
    "DiffGradState",
    "EntropySgdState",
    "ExtragradientState",
    "FittedPreconditioner",
    "FractionalDescent",
    "GaussNewtonState",
    "GinzburgLandau",
    "GradientNormalisedState",
    "GradientSliding",
    "GravityState",
    "InexactBilevel",
    "LandscapeLearning",
    "LowRankFit",
    "MarsState",
    "MaximalUpdateState",
    "MirrorDescentState",
    "MixedStrategies",
    "MomentumCoefficients",
    "MultiMomentumState",
    "NagGsState",
    "NaturalGradientState",
    "NormalisedBilevel",
    "OasisState",
    "Potential",
    "ProxyDescent",
    "PsgdLowRankState",
    "PsgdState",
    "RiemannianAdagradState",
    "RiemannianAdamState",
    "RiemannianSgdState",
    "SaddleFreeState",
    "ShampooState",
    "SmbState",
    "SoapState",
    "SpiderState",
    "SquaredFourNorm",
    "SteepestState",
    "StructuredNgdState",
    "TargetSurrogateState",
    "ThermodynamicState",
    "TopSum",
    "Widths",
    "XGradState",
    "accelerated_gradient_sliding",
    "adamomentum",
    "aegd",
    "averaged_langevin",
    "beta_normalised",
    "bo_rep",
    "boosted_units",
    "bures_wasserstein_loss",
    "complex_momentum",
    "consensus",
    "convex_relu",
    "diffgrad",
    "entropy_sgd",
    "exact_gauss_newton",
    "extragradient",
    "fit_preconditioner",
    "fractional_descent",
    "ginzburg_landau",
    "gradient_normalised_newton",
    "gradient_sliding",
    "gravity",
    "landscape_learning",
    "local_exponents",
    "lv_hba",
    "maid",
    "mars",
    "maximal_update",
    "mean_field_descent_ascent",
    "mirror_descent",
    "multi_momentum",
    "nag_gs",
    "natural_gradient",
    "negative_entropy",
    "oasis",
    "p_norm",
    "proxy_descent",
    "psgd",
    "psgd_low_rank",
    "relu_patterns",
    "ridge_rider",
    "riemannian_adagrad",
    "riemannian_adam",
    "riemannian_sgd",
    "robust_relu",
    "saddle_free_newton",
    "scale_by_adamomentum",
    "scale_by_beta_norm",
    "scale_by_complex_momentum",
    "scale_by_diffgrad",
    "scale_by_gauss_newton",
    "scale_by_gravity",
    "scale_by_local_entropy",
    "scale_by_mars",
    "scale_by_multi_momentum",
    "scale_by_natural_gradient",
    "scale_by_psgd",
    "scale_by_psgd_low_rank",
    "scale_by_saddle_free_newton",
    "scale_by_shampoo",
    "scale_by_soap",
    "scale_by_spider",
    "scale_by_steepest",
    "scale_by_structured_ngd",
    "scale_by_thermodynamic_natural_gradient",
    "shampoo",
    "smb",
    "soap",
    "spider",
    "steepest_descent",
    "structured_ngd",
    "target_surrogate",
    "thermodynamic_natural_gradient",
    "triple_momentum",
    "triple_momentum_coefficients",
    "triple_momentum_eval_params",
    "two_timescale_extragradient",
    "width_multipliers",
    "xgrad",
    "xgrad_eval_params",
]
