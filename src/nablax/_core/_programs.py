"""What a traced program holds."""

from jax.extend.core import Jaxpr, jaxprs_in_params


def holds(program: Jaxpr, primitive: str) -> bool:
    """Whether an operation of this name is in a program, or in one that it calls, loops over or may branch to."""
    return any(
        equation.primitive.name == primitive
        or any(holds(inner, primitive) for inner in jaxprs_in_params(equation.params))
        for equation in program.eqns
    )
