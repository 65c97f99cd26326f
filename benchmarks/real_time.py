"""Real-time recurrent learning along a sequence, and the same gradient by forward mode through the scan, by hand."""

from pathlib import Path

import numpy as np

from . import _one_thread

TITLE = "real-time recurrent learning, 30 units, 136 inputs, a step"
PEER = "jax.jacfwd through the scan, a JVP for each weight, by hand"
UNIT = "ms of processor time, one thread"
TARGET = "1×, same gradient to 1e-6"
BETTER = "lower"
UNITS, INPUTS, OUTPUTS, STEPS, REPEATS = 30, 136, 9, 100, 5


def prepare(folder: Path) -> dict:
    random = np.random.default_rng(0)
    arrays = {
        "recurrent": random.standard_normal((UNITS, UNITS)) / np.sqrt(UNITS),
        "in": random.standard_normal((UNITS, INPUTS)) / np.sqrt(INPUTS),
        "out": random.standard_normal((OUTPUTS, UNITS)) / np.sqrt(UNITS),
        "inputs": random.standard_normal((STEPS, INPUTS)),
        "targets": random.standard_normal((STEPS, OUTPUTS)),
    }
    np.savez(folder / "case.npz", **{name: value.astype(np.float32) for name, value in arrays.items()})
    return {}


def _problem(folder: Path):
    _one_thread.jax_alone()
    import jax.numpy as jnp

    arrays = {name: jnp.asarray(value) for name, value in np.load(folder / "case.npz").items()}
    pairs = arrays.pop("inputs"), arrays.pop("targets")

    def moved(params, x, u):
        return jnp.tanh(params["recurrent"] @ x + params["in"] @ u)

    def missed(params, x, y):
        return 0.5 * jnp.sum((params["out"] @ x - y) ** 2)

    return arrays, pairs, moved, missed


def _side(run, params, pairs, exact) -> tuple[float, list[float], float]:
    import jax

    compiled: list = []
    (compiling,) = _one_thread.seconds(lambda: compiled.append(jax.jit(run).lower(params, pairs).compile()), 1)
    found = jax.block_until_ready(compiled[0](params, pairs))
    times = _one_thread.seconds(lambda: jax.block_until_ready(compiled[0](params, pairs)), REPEATS)
    apart = max(
        float(np.linalg.norm(found[name] - exact[name]) / np.linalg.norm(exact[name])) for name in ("recurrent", "in")
    )
    return compiling, [1e3 * min(times) / STEPS], apart


def _through_time(params, pairs, moved, missed):
    """The same sum over the sequence by reverse mode, which both sides are held to."""
    import jax
    import jax.numpy as jnp

    def total(params):
        def one(x, pair):
            x = moved(params, x, pair[0])
            return x, missed(params, x, pair[1])

        return jnp.sum(jax.lax.scan(one, jnp.zeros(UNITS), pairs)[1])

    return jax.jit(jax.grad(total))(params)


def ours(folder: Path) -> dict:
    params, pairs, moved, missed = _problem(folder)
    import jax
    import jax.numpy as jnp

    from nablax import estimate

    learner = estimate.real_time(moved, missed)

    def run(params, pairs):
        def one(carry, pair):
            state, total = carry
            _, grads, state = learner.update(params, state, *pair)
            return (state, jax.tree.map(jnp.add, total, grads)), None

        start = learner.init(params, jnp.zeros(UNITS)), jax.tree.map(jnp.zeros_like, params)
        return jax.lax.scan(one, start, pairs)[0][1]

    compiling, times, apart = _side(run, params, pairs, _through_time(params, pairs, moved, missed))
    return {"values": times, "compile": compiling, "accuracy": f"{apart:.0e} from backpropagation through time"}


def peer(folder: Path) -> dict:
    params, pairs, moved, missed = _problem(folder)
    import jax
    import jax.numpy as jnp

    exact = _through_time(params, pairs, moved, missed)
    trained = {name: params[name] for name in ("recurrent", "in")}

    def forward(params, pairs):
        def total(trained):
            def one(x, pair):
                x = moved(trained, x, pair[0])
                return x, missed(params, x, pair[1])

            return jnp.sum(jax.lax.scan(one, jnp.zeros(UNITS), pairs)[1])

        return jax.jacfwd(total)(trained)

    def closed(params, pairs):
        """The recursion written out for this network: what each weight does to its own unit is an input."""

        def one(carry, pair):
            x, into, through, total = carry
            u, y = pair
            after = moved(params, x, u)
            slope = 1 - after**2
            into = jnp.tensordot(params["recurrent"], into, 1) + jnp.eye(UNITS)[:, :, None] * u[None, None]
            through = jnp.tensordot(params["recurrent"], through, 1) + jnp.eye(UNITS)[:, :, None] * x[None, None]
            into, through = slope[:, None, None] * into, slope[:, None, None] * through
            back = params["out"].T @ (params["out"] @ after - y)
            grads = {"in": jnp.tensordot(back, into, 1), "recurrent": jnp.tensordot(back, through, 1)}
            return (after, into, through, jax.tree.map(jnp.add, total, grads)), None

        zeros = jnp.zeros((UNITS, UNITS, INPUTS)), jnp.zeros((UNITS, UNITS, UNITS))
        start = jnp.zeros(UNITS), *zeros, jax.tree.map(jnp.zeros_like, trained)
        return jax.lax.scan(one, start, pairs)[0][3]

    compiling, times, apart = _side(forward, params, pairs, exact)
    _, written, other = _side(closed, params, pairs, exact)
    words = f"{apart:.0e}; the recursion written out for this network takes {written[0]:.2f} ms, {other:.0e}"
    return {"values": times, "compile": compiling, "accuracy": words}
