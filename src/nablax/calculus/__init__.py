"""Callable in, callable out: Jacobian and curvature products, divergences, curl, antisymmetry, Laplacian, spectra.

Most take a field ``field(t, y, args) -> dy`` (the Laplacian and the curvature products: a scalar function) and
return a function of one sample; ``y`` may be any pytree. Spectra are of a linear map ``product(v) -> Av`` on
pytrees, such as a curvature product at given parameters. What is estimated by random probes comes back as an
:class:`Estimate`, a value with its standard error.
"""

from .._core import Estimate
from ._antisymmetry import Antisymmetry, antisymmetry
from ._arnoldi import arnoldi, ritz_values
from ._curl import curl
from ._curvature_products import fisher_product, gauss_newton_product, hessian_product
from ._divergence import divergence, value_and_divergence
from ._eigenvalues import Eigenvalues, top_eigenvalues
from ._helmholtz import Helmholtz, helmholtz
from ._helmholtz_process import HelmholtzProcess
from ._lanczos import Lanczos, lanczos
from ._laplacian import laplacian
from ._matrix_square_root import MatrixRoot, matrix_square_root
from ._polynomial_operators import LocalPolynomial, polynomial_operators
from ._products import jvp, vjp
from ._softmax_radius import SoftmaxRadius, softmax_radius
from ._spectral_density import SpectralDensity, spectral_density
from ._stochastic_divergence import stochastic_divergence, value_and_stochastic_divergence
from ._taylor_coefficients import taylor_coefficients

__all__ = [
    "Antisymmetry",
    "Eigenvalues",
    "Estimate",
    "Helmholtz",
    "HelmholtzProcess",
    "Lanczos",
    "LocalPolynomial",
    "MatrixRoot",
    "SoftmaxRadius",
    "SpectralDensity",
    "antisymmetry",
    "arnoldi",
    "curl",
    "divergence",
    "fisher_product",
    "gauss_newton_product",
    "helmholtz",
    "hessian_product",
    "jvp",
    "lanczos",
    "laplacian",
    "matrix_square_root",
    "polynomial_operators",
    "ritz_values",
    "softmax_radius",
    "spectral_density",
    "stochastic_divergence",
    "taylor_coefficients",
    "top_eigenvalues",
    "value_and_divergence",
    "value_and_stochastic_divergence",
    "vjp",
]
