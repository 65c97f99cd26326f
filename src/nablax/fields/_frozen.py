"""A field of which some coordinates are given: they stand still, and the others move as the network says."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .._core import Field, check_callable, checked_field, fault

FrozenArgs = tuple[Bool[Array, "*shape"], Float[Array, "*shape"], PyTree]


class Frozen(eqx.Module):
    r"""A field that moves the free coordinates only, and sees the given ones at their given values.

    $$
    v_i(t, y) = m_i\, f_i\big(t,\; m \odot y + (1 - m) \odot g,\; c\big)
    $$

    with a mark $m_i \in \{0, 1\}$ for each coordinate, 1 where it is free, the given values $g$, and the wrapped
    field's own ``args`` $c$. Whatever stands in a frozen coordinate of the state does not matter: no free coordinate
    depends on it, its own velocity is 0, and so it adds nothing to the divergence. Marks and values are arguments,
    one a sample, so that one network trained on random marks answers for every subset: as a transport's field it
    draws, and scores, the free coordinates given the frozen ones.

    - Training: with `nablax.transport.flow_matching`, give the data as the noise of the frozen coordinates; their
      residual is then zero.
    - Likelihood: `nablax.transport.Transport.log_prob` adds the prior's density of the frozen coordinates; with zeros
      there that is a constant, $-\tfrac12\log 2\pi$ each under a standard normal prior, to be taken off.
    - Samples: `nablax.transport.Transport.sample` leaves noise in the frozen coordinates; put the given values there.

    Args:
        field: ``field(t, y, c) -> dy``, of the whole state. It is told which coordinates are free only by what is put
            into ``c``.

    Raises:
        ValueError: ``field`` is not callable; when called, ``args`` is no triple, or marks or values are not shaped
            like the state.

    Example:
        >>> import jax.numpy as jnp
        >>> from nablax.fields import Frozen
        >>> total = Frozen(lambda t, y, c: jnp.full_like(y, y.sum()))
        >>> free, given = jnp.array([True, False]), jnp.array([0.0, 10.0])
        >>> total(jnp.asarray(0.5), jnp.array([1.0, 99.0]), (free, given, None)).tolist()
        [11.0, 0.0]

    Cost: that of the field.

    References:
        The masks are those of O. Ivanov, M. Figurnov, D. Vetrov, "Variational Autoencoder with Arbitrary
        Conditioning", 2019, https://arxiv.org/abs/1806.02382, put on a velocity; that nothing else is needed for
        sample and density is derived here.
    """

    field: Field

    def __check_init__(self) -> None:
        check_callable(self.field, what="field", fix="Pass field(t, y, args) -> dy.")

    def __call__(self, t: Float[Array, ""], y: Float[Array, "*shape"], args: FrozenArgs) -> Float[Array, "*shape"]:
        """Evaluate the field for one sample.

        Args:
            t: time, scalar.
            y: the state.
            args: ``(free, given, c)``: booleans and values shaped like the state, and the field's own ``args``.

        Returns:
            The velocity, 0 where the coordinate is frozen.
        """
        if not (isinstance(args, tuple) and len(args) == 3):
            raise fault(
                expected="args = (free, given, the field's own args)",
                got=repr(args)[:60],
                fix="Pass booleans and values shaped like the state, and None where the field takes no args.",
            )
        free, given, own = args
        for part, what in ((free, "marks"), (given, "given values")):
            if jnp.shape(part) != y.shape:
                raise fault(
                    expected=f"{what} of shape {y.shape}",
                    got=f"shape {jnp.shape(part)}",
                    fix="One for each coordinate of the state; for a batch use jax.vmap.",
                )
        velocity = checked_field(self.field)(t, jnp.where(free, y, jnp.asarray(given, y.dtype)), own)
        return jnp.where(free, velocity, jnp.zeros_like(velocity))
