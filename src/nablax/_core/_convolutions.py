"""Convolutions of a program in the layout of XLA's fast kernels for CPUs, inside loops as well as outside."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun
from jaxtyping import Array, PyTree

Result = TypeVar("Result")

# Channels in times channels out of a group from which the fast kernel is faster than the plain loops (measured with
# jaxlib 0.10; one channel in and one out, a depthwise convolution, takes it 15 times as long).
_WORTH = 32


def canonical_convolutions(function: Callable[..., Result]) -> Callable[..., Result]:
    """The same function with its convolutions written in one layout: batch first, channels last.

    XLA's fast convolutions for CPUs know that layout alone. It brings others there by itself, but in the outermost
    computation of a program only, not in the body of a loop: a convolution with channels first, and whatever
    differentiation makes of any, runs in a loop 10 to 80 times slower than outside of one. Here the function is traced
    and written anew with every convolution in that layout between two transpositions, also those of inner calls, loops
    and branches. It is then the very convolution that would run outside, to the last bit but where groups of the batch
    become groups of channels. Small groups of channels are left to the plain loops, which are faster there.

    What matters is the program that runs: apply it after differentiation and ``jax.vmap``, to the body of a loop or to
    what holds the loop. Custom derivatives stay what they are. Left as they are: convolutions within
    ``jax.shard_map``, whose types carry the mesh, and those out of the trace's sight, as in the closure of a linear
    operator.

    Args:
        function: of arrays in any trees, traced once a call; other arguments and results are left alone.

    Returns:
        A function with the same arguments and results; where JAX's default backend is no CPU it only calls the first.
    """

    @functools.wraps(function)
    def canonical(*args: Any, **keywords: Any) -> Result:
        # Asked at the call: at decoration it would start JAX's backends while modules are imported.
        if jax.default_backend() != "cpu":
            return function(*args, **keywords)
        # By hand, for `filter_make_jaxpr` would also take shapes that stand for arrays as inputs.
        arrays, rest = eqx.partition((args, keywords), eqx.is_array)

        def of_arrays(arrays: PyTree) -> Result:
            args, keywords = eqx.combine(arrays, rest)
            return function(*args, **keywords)

        program, shapes, others = eqx.filter_make_jaxpr(of_arrays)(arrays)
        inputs = jax.tree.leaves(arrays)
        # The traced program runs, not the function again: tracing is paid once.
        outputs = jaxpr_as_fun(program.replace(jaxpr=_program(program.jaxpr)))(*inputs)
        result: Result = eqx.combine(jax.tree.unflatten(jax.tree.structure(shapes), outputs), others)
        return result

    return canonical


def _program(program: Jaxpr) -> Jaxpr:
    """A program with its convolutions rewritten; the very same one where there are none."""
    equations = [_equation(equation) for equation in program.eqns]
    unchanged = all(new is old for new, old in zip(equations, program.eqns, strict=True))
    return program if unchanged else program.replace(eqns=equations)


def _equation(equation: JaxprEqn) -> JaxprEqn:
    if equation.primitive.name == "conv_general_dilated":
        operands: list[Any] = [variable.aval for variable in equation.invars]
        if 0 in (*operands[0].shape, *operands[1].shape) or not _gains(operands[1].shape, **equation.params):
            return equation
        convolve = functools.partial(_convolve, parameters=tuple(sorted(equation.params.items())))
        (call,) = jax.make_jaxpr(convolve)(*operands).eqns
        return equation.replace(primitive=call.primitive, params=call.params)
    if equation.primitive.name == "shard_map":
        return equation
    parameters = {name: _inner(value) for name, value in equation.params.items()}
    unchanged = all(new is equation.params[name] for name, new in parameters.items())
    return equation if unchanged else equation.replace(params=parameters)


def _inner(value: Any) -> Any:
    """A parameter of an operation, the programs in it rewritten: one, or those of several branches."""
    if isinstance(value, Jaxpr):
        return _program(value)
    if isinstance(value, ClosedJaxpr):
        program = _program(value.jaxpr)
        return value if program is value.jaxpr else value.replace(jaxpr=program)
    if type(value) is tuple:
        parts = tuple(_inner(part) for part in value)
        return value if all(new is old for new, old in zip(parts, value, strict=True)) else parts
    return value


def _layout(rank: int) -> lax.ConvDimensionNumbers:
    """Batch, positions, channels; of the kernel positions, channels in, channels out."""
    places = range(1, rank - 1)
    return lax.ConvDimensionNumbers(
        (0, rank - 1, *places), (rank - 1, rank - 2, *range(rank - 2)), (0, rank - 1, *places)
    )


def _gains(
    kernel: tuple[int, ...],
    *,
    dimension_numbers: lax.ConvDimensionNumbers,
    feature_group_count: int,
    batch_group_count: int,
    **others: Any,
) -> bool:
    """Whether a convolution is faster for being rewritten."""
    groups = max(feature_group_count, batch_group_count)
    outs, ins = (kernel[axis] for axis in dimension_numbers.rhs_spec[:2])
    already = dimension_numbers == _layout(len(kernel)) and batch_group_count == 1
    return not already and (groups == 1 or ins * (outs // groups) >= _WORTH)


@functools.partial(jax.jit, static_argnames="parameters")
def _convolve(image: Array, kernel: Array, *, parameters: tuple[tuple[str, Any], ...]) -> Array:
    """One convolution, rewritten."""
    others = dict(parameters)
    given, rank = others.pop("dimension_numbers"), image.ndim
    image = image.transpose(given.lhs_spec[0], *given.lhs_spec[2:], given.lhs_spec[1])
    kernel = kernel.transpose(*given.rhs_spec[2:], given.rhs_spec[1], given.rhs_spec[0])
    if (groups := others["batch_group_count"]) > 1:
        # The fast kernel knows groups of channels only; group by group the one is the other.
        image = jnp.moveaxis(image.reshape(groups, -1, *image.shape[1:]), 0, -2)
        image = image.reshape(*image.shape[:-2], -1)
        others |= {"batch_group_count": 1, "feature_group_count": groups}
    layout = _layout(rank)
    result = lax.conv_general_dilated(image, kernel, dimension_numbers=layout, **others)
    source = dict(zip(given.out_spec, layout.out_spec, strict=True))
    return result.transpose([source[axis] for axis in range(rank)])
