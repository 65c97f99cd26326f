"""Parameters that lie on several devices get the updates that they get on one."""

import os
import subprocess
import sys
from pathlib import Path

# Of each way of working one: leaf by leaf, products of a leaf's matrices, a norm of all leaves, the tree as one vector.
RULES = ("xgrad", "soap", "mars shampoo", "steepest_descent", "exact_gauss_newton")
RUN = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import jax, jax.numpy as jnp, numpy as np, optax
from test_conformance import RATE, ROWS

mesh = jax.make_mesh((2,), ("parts",), axis_types=(jax.sharding.AxisType.Auto,))
axes = {{"scalar": (), "vector": ("parts",), "matrix": ("parts", None)}}
shapes = {{"scalar": (), "vector": (4,), "matrix": (2, 2)}}  # of full rank: its axes are unique

def tree(seed):
    random = np.random.default_rng(seed)
    return {{name: jnp.asarray(random.normal(size=shape), jnp.float32) for name, shape in shapes.items()}}

def spread(tree):
    where = {{name: jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*a)) for name, a in axes.items()}}
    return jax.device_put(tree, where)

for name in {RULES!r}:
    row = ROWS[name]
    rule = row.make(learning_rate=RATE)

    @jax.jit
    def two_steps(first, second, params):
        update, state = rule.update(first, rule.init(params), params, **row.extra(first, params))
        params = optax.apply_updates(params, update)
        return rule.update(second, state, params, **row.extra(second, params))[0]

    trees = tree(1), tree(2), tree(0)
    alone, apart = two_steps(*trees), two_steps(*map(spread, trees))
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(apart)):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6, err_msg=name)
    assert len(spread(trees[2])["matrix"].sharding.device_set) == 2
"""


def test_updates_do_not_depend_on_where_the_parameters_lie():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
