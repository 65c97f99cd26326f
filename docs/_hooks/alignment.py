"""The guide's table of gradients: every family of `nablax.estimate` against the exact gradient, on one net.

``python docs/_hooks/alignment.py`` measures it anew and writes it into the guide.
"""

import functools
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree
from sklearn.datasets import load_digits

from nablax import diagnose, estimate, follow

GUIDE = Path(__file__).parents[1] / "guides/estimate.md"
BEGIN, END = "<!-- alignment: python docs/_hooks/alignment.py -->\n", "<!-- end of alignment -->\n"
ROWS, UNITS, DRAWS, SEED = 64, 12, 64, 0
WIDTHS = (64, UNITS, UNITS, 10)


class Setting(NamedTuple):
    """A loss of the net's weights, and the estimators of its gradient.

    Attributes:
        title: what the exact gradient is of.
        loss: ``loss(params, x, y) -> scalar``, differentiable.
        params: the weights, or what a training is run with.
        estimators: as `nablax.diagnose.alignment` takes them.
    """

    title: str
    loss: Callable[..., Array]
    params: PyTree
    estimators: dict[str, Callable[..., Any]]


# What the room exports beside the rows' names, and why it has none.
ABSENT = {
    "answers with no gradient of these weights": """feasibility knowledge_accumulation textual_gradient textual_descent
        TextualDescent TextVariable chat_engine boolean_lens Knowledge""",
    "asks for a net or a loss of its own": """NoProp single_forward single_forward_classes virtual_nodes VirtualNodes
        metric_loss reparametrised_gradient""",
    "is part of another, or what one returns": """Equilibrium HypergradientError ImplicitError KnowledgeState
        KnowledgeStep LocationScale Learner Lens Quantised RealTime RealTimeState SeededGradient Smoothness Surrogate
        TextualDescentState asymmetry_penalty equilibrium_state goodness identity_lens implicit_vjp
        init_direct_feedback init_feedback learner rectified_order""",
}


def digits() -> tuple[Array, Array]:
    """Take the batch: images of digits as rows of 64 numbers, and their labels."""
    found = load_digits()
    return jnp.asarray(found.data[:ROWS] / 16.0, jnp.float32), jnp.asarray(found.target[:ROWS])


@functools.cache
def net() -> eqx.nn.MLP:
    """Make the net, 64-12-12-10 with tanh, and train it by 30 steps of Adam, to about half a nat."""
    weights, rest = eqx.partition(
        eqx.nn.MLP(64, 10, UNITS, depth=2, activation=jnp.tanh, key=jax.random.key(SEED)), eqx.is_inexact_array
    )
    optimizer = optax.adam(1e-2)

    def loss(weights: PyTree, batch: tuple[Array, Array]) -> Array:
        return surprise(jax.vmap(eqx.combine(weights, rest))(batch[0]), batch[1])

    step = jax.jit(follow.train_step(loss, optimizer))
    state = optimizer.init(weights)
    for _ in range(30):
        weights, state, _ = step(weights, state, digits())
    return eqx.combine(weights, rest)


def surprise(logits: Array, y: Array) -> Array:
    """Cross-entropy, nats, averaged."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))


def plain() -> Setting:
    """Backpropagation's gradient: directions, other ways back, layers that learn alone, sketches, codes."""
    weights, rest = eqx.partition(net(), eqx.is_inexact_array)
    x, _ = digits()
    keys = jax.random.split(jax.random.key(SEED + 1), 5)

    def loss(weights: PyTree, x: Array, y: Array) -> Array:
        return surprise(jax.vmap(eqx.combine(weights, rest))(x), y)

    def through(way: Callable[[eqx.nn.MLP], Callable[[Array], Array]]) -> Callable[..., Any]:
        def made(_: Any) -> Callable[..., Any]:
            return jax.value_and_grad(lambda w, x, y: surprise(jax.vmap(way(eqx.combine(w, rest)))(x), y))

        return made

    def replayed(loss: Callable[..., Array]) -> Callable[..., Any]:
        estimator = estimate.seed_replay(loss, step=1e-2)

        def value_and_grad(weights: PyTree, x: Array, y: Array, *, key: Array) -> tuple[Array, PyTree]:
            value, seeded = estimator(weights, x, y, key=key)
            return value, seeded.tree(weights)

        return value_and_grad

    def last_rows(weights: PyTree, x: Array, y: Array, *, key: Array) -> PyTree:
        rows = jax.random.choice(key, len(x), (8,), replace=False)
        return jax.grad(loss)(weights, x[rows], y[rows])

    def flipped(loss: Callable[..., Array]) -> Callable[..., Any]:
        def signs(weight: Array) -> Array:
            tenth = jnp.where(jnp.arange(weight.shape[-1]) % 10 == 0, -1.0, 1.0)
            return jnp.broadcast_to(tenth, weight.shape) if weight.ndim == 2 else jnp.ones_like(weight)

        return estimate.rule_flipped(loss, jax.tree.map(signs, weights))

    def reversed_lens(loss: Callable[..., Array]) -> Callable[..., Any]:
        def value_and_grad(weights: PyTree, x: Array, y: Array) -> tuple[Array, PyTree]:
            lens = estimate.reverse_lens(lambda weights: loss(weights, x, y))
            return lens.get(weights), lens.put(weights, jnp.ones(()))

        return value_and_grad

    def kolen_pollack(_: Any) -> Callable[..., Any]:
        far = estimate.init_feedback(net(), key=keys[0])
        linear = tuple(layer.weight for layer in net().layers)
        near = tuple(w + 0.05 * (b - w) for w, b in zip(linear, far))
        return through(lambda net: estimate.kolen_pollack(net, near))(None)

    def sketched(_: Any) -> Callable[..., Any]:
        def value_and_grad(weights: PyTree, x: Array, y: Array, *, key: Array) -> tuple[Array, PyTree]:
            def loss(weights: PyTree) -> Array:
                h, layers = x, eqx.combine(weights, rest).layers
                for number, layer in enumerate(layers):
                    drawn = estimate.RandomisedLinear(*layer.weight.shape[::-1], share=0.25, key=keys[1])
                    drawn = eqx.tree_at(lambda d: (d.weight, d.bias), drawn, (layer.weight, layer.bias))
                    h = drawn(h, key=jax.random.fold_in(key, number))
                    h = jnp.tanh(h) if number < len(layers) - 1 else h
                return surprise(h, y)

            return jax.value_and_grad(loss)(weights)

        return value_and_grad

    def coded(_: Any) -> Callable[..., Any]:
        first, second, last = net().layers
        hidden = lambda first, second, x: jnp.tanh(jax.vmap(second)(jnp.tanh(jax.vmap(first)(x))))  # noqa: E731
        quantiser = estimate.VectorQuantiser(UNITS, 32, key=keys[2])
        quantiser = quantiser.revived(hidden(first, second, x), jnp.zeros(32, bool), key=keys[3])

        def loss(weights: PyTree, x: Array, y: Array) -> Array:
            first, second, last = eqx.combine(weights, rest).layers
            return surprise(jax.vmap(last)(quantiser(hidden(first, second, x)).output), y)

        return jax.value_and_grad(loss)

    def told(x: Array, y: Array) -> Array:
        return jnp.concatenate([jax.nn.one_hot(y, 10), x[:, 10:]], axis=1)

    def forward_forward(_: Any) -> Callable[..., Any]:
        def loss(weights: PyTree, x: Array, y: Array) -> Array:
            layers = [
                jax.tree_util.Partial(lambda layer, h: jnp.tanh(h @ layer.weight.T + layer.bias[None]), layer)
                for layer in eqx.combine(weights, rest).layers
            ]
            return estimate.forward_forward(layers, told(x, y), told(x, (y + 1) % 10))

        return jax.value_and_grad(loss)

    def bidirectional(_: Any) -> Callable[..., Any]:
        def loss(weights: PyTree, x: Array, y: Array) -> Array:
            both = estimate.Bidirectional(eqx.combine(weights, rest))
            drawn = jax.vmap(both.back)(jax.nn.one_hot(y, 10))
            return surprise(jax.vmap(both)(x), y) + jnp.mean(optax.sigmoid_binary_cross_entropy(drawn, x))

        return jax.value_and_grad(loss)

    feedback = estimate.init_feedback(net(), key=keys[0])
    direct = estimate.init_direct_feedback(net(), x[0], key=keys[4])
    forward = estimate.forward_gradient
    return Setting(
        "backpropagation's, of the cross-entropy",
        loss,
        weights,
        {
            "`forward_gradient`": forward,
            "`forward_gradient`, 64 signs": functools.partial(forward, directions="rademacher", probes=64),
            "`forward_gradient`, 64 orthogonal": functools.partial(forward, directions="orthogonal", probes=64),
            "`guessed_gradient`, of 8 rows": functools.partial(estimate.guessed_gradient, guess=last_rows),
            "`spsa`": functools.partial(estimate.spsa, step=1e-2),
            "`gaussian_smoothing`": functools.partial(estimate.gaussian_smoothing, step=1e-2),
            "`average` of 64 `spsa`": lambda loss: estimate.average(estimate.spsa(loss, step=1e-2), probes=64),
            "`seed_replay`": replayed,
            "`feedback_alignment`, fresh feedback": through(lambda net: estimate.feedback_alignment(net, feedback)),
            "`kolen_pollack`, 5 % from the weights": kolen_pollack,
            "`direct_feedback_alignment`, fresh feedback": through(
                lambda net: estimate.direct_feedback_alignment(net, direct)
            ),
            "`rule_flipped`, a unit in ten": flipped,
            "`Bidirectional`, both losses": bidirectional,
            "`forward_forward`, its own loss": forward_forward,
            "`RandomisedLinear`, a quarter": sketched,
            "`VectorQuantiser`, 32 codes": coded,
            "`reverse_lens`": reversed_lens,
        },
    )


def binary() -> Setting:
    """Expected loss over binary units in place of the second hidden layer's, all 4,096 cases of them added up."""
    weights, rest = eqx.partition(net(), eqx.is_inexact_array)
    cases = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=UNITS)))

    def potentials(weights: PyTree, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        first, second, last = eqx.combine(weights, rest).layers
        return jax.vmap(second)(jnp.tanh(jax.vmap(first)(x))), lambda h: h @ last.weight.T + last.bias[None]

    def loss(weights: PyTree, x: Array, y: Array) -> Array:
        found, top = potentials(weights, x)
        chances = jax.nn.log_sigmoid(found) @ cases.T + jax.nn.log_sigmoid(-found) @ (1 - cases).T
        surprises = -jax.nn.log_softmax(top(cases))[:, y].T
        return jnp.mean(jnp.sum(jnp.exp(chances) * surprises, axis=1))

    def by(unit: Callable[[Array, Array], Array]) -> Callable[..., Any]:
        def made(_: Any) -> Callable[..., Any]:
            def drawn(weights: PyTree, x: Array, y: Array, *, key: Array) -> Array:
                found, top = potentials(weights, x)
                return surprise(top(unit(found, key)), y)

            return jax.value_and_grad(drawn)

        return made

    def scored(baseline: str) -> Callable[..., Any]:
        def made(_: Any) -> Callable[..., Any]:
            def drawn(weights: PyTree, x: Array, y: Array, *, key: Array) -> Array:
                found, top = potentials(weights, x)

                def one(logits: Array, label: Array, key: Array) -> Array:
                    of = lambda h: surprise(top(h[None]), label[None])  # noqa: E731
                    return estimate.score_function(of, logits, key=key, draws=8, baseline=baseline)

                return jnp.mean(jax.vmap(one)(found, y, jax.random.split(key, len(x))))

            return jax.value_and_grad(drawn)

        return made

    def noisy(found: Array, key: Array) -> Array:
        # Above the threshold as often as a binary unit is one.
        return found + jax.random.logistic(key, found.shape)

    one = estimate.straight_through
    return Setting(
        "of the expected cross-entropy over binary hidden units",
        loss,
        weights,
        {
            "`straight_through`": by(lambda a, key: one(a, key=key)),
            "`straight_through`, sigmoid": by(lambda a, key: one(a, key=key, derivative="sigmoid")),
            "`smooth_times_stochastic`": by(lambda a, key: estimate.smooth_times_stochastic(a, key=key)),
            "`spike`, noisy": by(lambda a, key: estimate.spike(noisy(a, key))),
            "`rectified_straight_through`, noisy": by(
                lambda a, key: 0.5 + 0.5 * estimate.rectified_straight_through(noisy(a, key), 2.0)
            ),
            "`score_function`, 8 draws, no baseline": scored("none"),
            "`score_function`, 8 draws, mean": scored("mean"),
            "`score_function`, 8 draws, best": scored("best"),
        },
    )


def categorical() -> Setting:
    """Expected loss over three draws of one in four in place of the second hidden layer, all 64 cases added up."""
    weights, rest = eqx.partition(net(), eqx.is_inexact_array)
    choices = jnp.asarray(list(itertools.product(range(4), repeat=3)))
    cases = jax.nn.one_hot(choices, 4)

    def potentials(weights: PyTree, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        first, second, last = eqx.combine(weights, rest).layers
        found = jax.vmap(second)(jnp.tanh(jax.vmap(first)(x))).reshape(len(x), 3, 4)
        return found, lambda h: h.reshape(-1, UNITS) @ last.weight.T + last.bias[None]

    def loss(weights: PyTree, x: Array, y: Array) -> Array:
        found, top = potentials(weights, x)
        chances = jnp.einsum("rgk,cgk->rc", jax.nn.log_softmax(found), cases)
        return jnp.mean(jnp.sum(jnp.exp(chances) * -jax.nn.log_softmax(top(cases))[:, y].T, axis=1))

    def by(unit: Callable[..., Array]) -> Callable[..., Any]:
        def made(_: Any) -> Callable[..., Any]:
            def drawn(weights: PyTree, x: Array, y: Array, *, key: Array) -> Array:
                found, top = potentials(weights, x)
                return surprise(top(unit(found, key=key)), y)

            return jax.value_and_grad(drawn)

        return made

    return Setting(
        "of the expected cross-entropy over draws of one unit in four",
        loss,
        weights,
        {
            "`categorical_straight_through`": by(estimate.categorical_straight_through),
            "`gumbel`": by(estimate.gumbel),
            "`reinmax`": by(estimate.reinmax),
        },
    )


def resting() -> Setting:
    """The net with its layers driving one another in both directions, its cross-entropy at rest."""
    *layers, readout = net().layers
    weights, rest = eqx.partition(estimate.Equilibrium(layers, readout), eqx.is_inexact_array)

    def loss(weights: PyTree, x: Array, y: Array) -> Array:
        return surprise(eqx.combine(weights, rest)(x), y)

    def nudged(points: int, nudge: float) -> Callable[..., Any]:
        def made(_: Any) -> Callable[..., Any]:
            def cost(network: estimate.Equilibrium, batch: tuple[Array, Array]) -> Array:
                shares = jax.nn.log_softmax(network(batch[0]))
                return -jnp.mean(jnp.take_along_axis(shares, batch[1][:, None], axis=1))

            estimator = estimate.equilibrium_gradient(cost, points=points, nudge=nudge)
            return lambda weights, x, y: estimator(eqx.combine(weights, rest), (x, y))

        return made

    return Setting(
        "of the cross-entropy of the net at rest, by the condition of rest",
        loss,
        weights,
        {
            f"`equilibrium_gradient`, {words}, β = {nudge}": nudged(points, nudge)
            for points, words, nudge in (
                (1, "one point", 0.05),
                (2, "2 points", 0.5),
                (2, "2 points", 0.05),
                (4, "4 points", 0.05),
            )
        },
    )


def recurrent() -> Setting:
    """The images row by row into twelve units that drive one another; the cross-entropy summed over the rows."""
    keys = jax.random.split(jax.random.key(SEED + 2), 3)
    weights = {
        "bias": jnp.zeros(UNITS),
        "inner": jax.random.normal(keys[0], (UNITS, UNITS)) / UNITS**0.5,
        "inputs": jax.random.normal(keys[1], (UNITS, 8)) / 8**0.5,
        "readout": jax.random.normal(keys[2], (10, UNITS)) / UNITS**0.5,
    }

    def step(weights: PyTree, h: Array, u: Array) -> Array:
        return jnp.tanh(weights["inner"] @ h + weights["inputs"] @ u + weights["bias"])

    def cost(weights: PyTree, h: Array, label: Array) -> Array:
        return -jax.nn.log_softmax(weights["readout"] @ h)[label]

    def loss(weights: PyTree, x: Array, y: Array) -> Array:
        def one(image: Array, label: Array) -> Array:
            def body(h: Array, u: Array) -> tuple[Array, Array]:
                h = step(weights, h, u)
                return h, cost(weights, h, label)

            return jnp.sum(jax.lax.scan(body, jnp.zeros(UNITS), image.reshape(8, 8))[1])

        return jnp.mean(jax.vmap(one)(x, y))

    def along(mode: str) -> Callable[..., Any]:
        learner = estimate.real_time(step, cost, mode=mode, window=4)

        def made(_: Any) -> Callable[..., Any]:
            def value_and_grad(weights: PyTree, x: Array, y: Array, *, key: Array) -> tuple[Array, PyTree]:
                def one(image: Array, label: Array, key: Array) -> tuple[Array, PyTree]:
                    def body(state: estimate.RealTimeState, u: Array) -> tuple[estimate.RealTimeState, PyTree]:
                        value, grads, state = learner.update(weights, state, u, label)
                        return state, (value, grads)

                    start = learner.init(weights, jnp.zeros(UNITS), key=key, u=jnp.zeros(8))
                    found = jax.lax.scan(body, start, image.reshape(8, 8))[1]
                    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), found)

                found = jax.vmap(one)(x, y, jax.random.split(key, len(x)))
                return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), found)

            return value_and_grad

        return made

    return Setting(
        "backpropagation's through time, the image read row by row by twelve recurrent units",
        loss,
        weights,
        {f"`real_time`, {mode}": along(mode) for mode in ("exact", "sparse", "rank one")}
        | {"`real_time`, truncated to 4 of 8": along("truncated")},
    )


def fitted() -> Setting:
    """The last layer fitted to half of the images; the other half's loss in the decay of each unit's weights."""
    first, second, _ = net().layers
    decays = jnp.full(UNITS, -3.0)

    def hidden(x: Array) -> Array:
        return jnp.tanh(jax.vmap(second)(jnp.tanh(jax.vmap(first)(x))))

    def upper(top: Array, decays: Array, x: Array, y: Array) -> Array:
        return surprise(hidden(x[1::2]) @ top, y[1::2])

    def lower(top: Array, decays: Array, x: Array, y: Array) -> Array:
        return surprise(hidden(x[::2]) @ top, y[::2]) + 0.5 * jnp.sum(jnp.exp(decays)[:, None] * top**2)

    def solved(start: Array, decays: Array, x: Array, y: Array) -> Array:
        def newton(top: Array, _: None) -> tuple[Array, None]:
            flat = lambda v: lower(v.reshape(top.shape), decays, x, y)  # noqa: E731
            v = top.ravel()
            return top - jnp.linalg.solve(jax.hessian(flat)(v), jax.grad(flat)(v)).reshape(top.shape), None

        return jax.lax.scan(newton, start, None, length=8)[0]

    def loss(decays: Array, x: Array, y: Array) -> Array:
        return upper(solved(jnp.zeros((UNITS, 10)), decays, x, y), decays, x, y)

    def implicit(_: Any) -> Callable[..., Any]:
        top = estimate.implicit(solved, jax.grad(lower), symmetric=True)
        return jax.value_and_grad(lambda decays, x, y: upper(top(jnp.zeros((UNITS, 10)), decays, x, y), decays, x, y))

    def by(**options: Any) -> Callable[..., Any]:
        def made(_: Any) -> Callable[..., Any]:
            estimator = estimate.hypergradient(upper, lower, **options)

            def value_and_grad(decays: Array, x: Array, y: Array) -> tuple[Array, Array]:
                return estimator(decays, solved(jnp.zeros((UNITS, 10)), decays, x, y), x, y)

            return value_and_grad

        return made

    return Setting(
        "of the other half's cross-entropy after fitting the last layer, in the decay of its units",
        loss,
        decays,
        {
            "`implicit`": implicit,
            "`hypergradient`, conjugate gradients": by(),
            "`hypergradient`, 20 terms": by(method="neumann", steps=20, rate=0.5),
            "`hypergradient`, 20 steps unrolled": by(method="unrolled", steps=20, rate=0.5),
        },
    )


def trained() -> Setting:
    """The net after 64 steps of descent; its loss in the rate of each step."""
    weights, rest = eqx.partition(net(), eqx.is_inexact_array)
    rates = jnp.full(64, 0.3)

    def cost(weights: PyTree, x: Array, y: Array) -> Array:
        return surprise(jax.vmap(eqx.combine(weights, rest))(x), y)

    def update(weights: PyTree, rates: Array, step: Array, x: Array, y: Array) -> PyTree:
        slopes = jax.grad(cost)(weights, x[::2], y[::2])
        return jax.tree.map(lambda w, g: w - rates[step] * g, weights, slopes)

    def loss(rates: Array, x: Array, y: Array) -> Array:
        def body(weights: PyTree, step: Array) -> tuple[PyTree, None]:
            return update(weights, rates, step, x, y), None

        return cost(jax.lax.scan(body, weights, jnp.arange(len(rates)))[0], x[1::2], y[1::2])

    def replayed(_: Any) -> Callable[..., Any]:
        metric = lambda weights, rates, x, y: cost(weights, x[1::2], y[1::2])  # noqa: E731
        estimator = estimate.metagradient(update, metric, steps=len(rates))
        return lambda rates, x, y: estimator(rates, weights, x, y)

    return Setting(
        "of the other half's cross-entropy after 64 steps, in the rate of each",
        loss,
        rates,
        {"`metagradient`": replayed},
    )


SETTINGS = (plain, binary, categorical, resting, recurrent, fitted, trained)


def measured(setting: Setting, *, draws: int = DRAWS) -> diagnose.Alignment:
    """Measure the estimators of a setting."""
    key = jax.random.key(SEED + 3)
    estimators = {"backpropagation": jax.value_and_grad, **setting.estimators}
    return diagnose.alignment(estimators, setting.loss, setting.params, *digits(), key=key, draws=draws)


def block() -> str:
    """Measure all settings, and lay them out: the whole gradient first, layer by layer below."""
    parts, layers = [], []
    for make in SETTINGS:
        setting = make()
        found = measured(setting)
        parts.append(f"Exact gradient: {setting.title}.\n\n{found.table()}\n")
        if len(next(iter(found.estimators.values())).layers) > 1:
            layers.append(f"Exact gradient: {setting.title}.\n\n{by_layer(found)}\n")
    below = ['<details markdown="1"><summary>The same layer by layer</summary>', *layers, "</details>\n"]
    return "\n".join(parts) + "\n" + "\n\n".join(below)


def by_layer(found: diagnose.Alignment) -> str:
    """Lay cosine, slope, bias and variance out with a row for each matrix, without those of shifts, nor the cost."""
    rows = [line.split(" | ")[:5] for line in found.table(layers=True).splitlines() if not re.search(r"· .*bias", line)]
    rows[1] = ["| ---", *["---"] * 4]
    return "\n".join(" | ".join(row) + " |" for row in rows)


def main() -> None:
    """Write the table into the guide."""
    text = GUIDE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    GUIDE.write_text(before + BEGIN + block() + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
