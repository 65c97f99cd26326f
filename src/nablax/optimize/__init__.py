"""Gradient(s) in, update out, with a learning rate; problems with several objectives, players or levels.

What Optax has is not here: its rules, ours and `nablax.regulate`'s go into one ``optax.chain``. ``foo(learning_rate)``
is an optimiser, ``scale_by_foo()`` its rule without a rate. Unknown extra arguments are ignored; averages are kept in
single precision at least.

Chambers:

- ``_first_order``: rules of a gradient and its history, a few numbers a parameter.
- ``_manifold``: rules whose steps follow the geometry of where parameters live, or of a potential of theirs.
- ``_preconditioned``: rules that turn the gradient into a metric of its own, whole matrices or a diagonal of the
  curvature.
- ``_structured``: solvers of problems whose structure is known; a solution comes back, not an update.
"""

from ._first_order._adamomentum import AdaMomentumState, adamomentum, scale_by_adamomentum
from ._first_order._aegd import AegdState, aegd
from ._first_order._beta_normalised import BetaNormalisedState, beta_normalised, scale_by_beta_norm
from ._first_order._diffgrad import DiffGradState, diffgrad, scale_by_diffgrad
from ._first_order._gravity import GravityState, gravity, scale_by_gravity
from ._first_order._mars import MarsState, mars, scale_by_mars
from ._first_order._maximal_update import MaximalUpdateState, Widths, maximal_update, width_multipliers
from ._first_order._multi_momentum import MultiMomentumState, multi_momentum, scale_by_multi_momentum
from ._first_order._nag_gs import NagGsState, nag_gs
from ._first_order._spider import SpiderState, scale_by_spider, spider
from ._first_order._steepest import SteepestState, scale_by_steepest, steepest_descent
from ._first_order._xgrad import XGradState, xgrad, xgrad_eval_params
from ._manifold._mirror_descent import MirrorDescentState, Potential, mirror_descent, negative_entropy, p_norm
from ._manifold._riemannian_adagrad import RiemannianAdagradState, riemannian_adagrad
from ._manifold._riemannian_adam import RiemannianAdamState, riemannian_adam
from ._manifold._riemannian_sgd import RiemannianSgdState, riemannian_sgd
from ._preconditioned._oasis import OasisState, oasis
from ._preconditioned._psgd import PsgdState, psgd, scale_by_psgd
from ._preconditioned._psgd_low_rank import LowRankFit, PsgdLowRankState, psgd_low_rank, scale_by_psgd_low_rank
from ._preconditioned._shampoo import ShampooState, scale_by_shampoo, shampoo
from ._preconditioned._soap import SoapState, scale_by_soap, soap
from ._ridge_rider import Branches, local_exponents, ridge_rider
from ._structured._boosted_units import BoostedUnits, boosted_units
from ._structured._convex_relu import ConvexRelu, convex_relu, relu_patterns
from ._structured._ginzburg_landau import GinzburgLandau, ginzburg_landau
from ._structured._proxy_descent import ProxyDescent, proxy_descent

__all__ = [
    "AdaMomentumState",
    "AegdState",
    "BetaNormalisedState",
    "BoostedUnits",
    "Branches",
    "ConvexRelu",
    "DiffGradState",
    "GinzburgLandau",
    "GravityState",
    "LowRankFit",
    "MarsState",
    "MaximalUpdateState",
    "MirrorDescentState",
    "MultiMomentumState",
    "NagGsState",
    "OasisState",
    "Potential",
    "ProxyDescent",
    "PsgdLowRankState",
    "PsgdState",
    "RiemannianAdagradState",
    "RiemannianAdamState",
    "RiemannianSgdState",
    "ShampooState",
    "SoapState",
    "SpiderState",
    "SteepestState",
    "Widths",
    "XGradState",
    "adamomentum",
    "aegd",
    "beta_normalised",
    "boosted_units",
    "convex_relu",
    "diffgrad",
    "ginzburg_landau",
    "gravity",
    "local_exponents",
    "mars",
    "maximal_update",
    "mirror_descent",
    "multi_momentum",
    "nag_gs",
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
    "scale_by_adamomentum",
    "scale_by_beta_norm",
    "scale_by_diffgrad",
    "scale_by_gravity",
    "scale_by_mars",
    "scale_by_multi_momentum",
    "scale_by_psgd",
    "scale_by_psgd_low_rank",
    "scale_by_shampoo",
    "scale_by_soap",
    "scale_by_spider",
    "scale_by_steepest",
    "shampoo",
    "soap",
    "spider",
    "steepest_descent",
    "width_multipliers",
    "xgrad",
    "xgrad_eval_params",
]
