"""A model laid out as one vector is the same model, and has the same gradient."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from nablax.app._runs._flat import Flat


def test_a_flat_model_comes_back_whole_and_its_gradient_is_the_models_end_to_end():
    model = {"net": eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0)), "count": jnp.arange(3), "word": "kept"}
    flat = Flat.of(model)
    back = flat.whole()
    assert back["word"] == "kept" and jax.tree.structure(back) == jax.tree.structure(model)
    assert eqx.tree_equal(
        jax.tree.map(jnp.asarray, eqx.filter(back, eqx.is_array_like)), eqx.filter(model, eqx.is_array)
    )

    def loss(model):
        return jnp.sum(jnp.square(model["net"](jnp.ones(3))))

    of_model = eqx.filter_jit(eqx.filter_grad(loss))(model)
    of_flat = eqx.filter_jit(eqx.filter_grad(lambda flat: loss(flat.whole())))(flat)
    np.testing.assert_array_equal(of_flat.vector, np.concatenate([np.ravel(x) for x in jax.tree.leaves(of_model)]))
