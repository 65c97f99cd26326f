"""Training without backpropagation beside backpropagation, on the digits: ``python -m benchmarks.local_rules [--write]``.

Each rule and backpropagation train the same network for as many steps on the same batches, each at the rate (of
projections, the strength) that is best over a grid of one size at two other draws; five draws of network, split and
batches are shown. With ``--write`` the table goes into benchmarks/README.md and docs/guides/estimate.md.
"""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nablax import estimate
from nablax.papers._problems._classifier import cross_entropy, digits, pooled_digits, split_digits
from nablax.papers._problems._training import trained
from nablax.papers._problems._tuning import tuned

from ._passes import memory, operations

HERE = Path(__file__).parent
PAGES = HERE / "README.md", HERE.parent / "docs/guides/estimate.md"
START, END = "<!-- local rules: python -m benchmarks.local_rules --write -->", "<!-- end of local rules -->"
SEEDS, TRAIN, BATCH, HIDDEN, PROBE = 5, 1200, 32, 64, 256


class Problem(NamedTuple):
    """A network as drawn for one key, and what is done with it.

    Attributes:
        start: arrays that are trained.
        batch: ``batch(step, key)``, what one step sees.
        probe: what cosines are measured on.
        step: by way, ``(init, update)``: ``update(params, state, batch, key) -> (params, state)``.
        grads: by way, ``grads(params, batch, key)``, where there is a gradient; of projections, how they move weights.
        below: of a gradient, the part below the last layer.
        right: ``right(params, key) -> share`` of held-out rows.
        forward: ``forward(params, batch, key)``, the pass that passes are counted in.
    """

    start: Any
    batch: Callable[..., Any]
    probe: Any
    step: dict[str, Callable[..., Any]]
    grads: dict[str, Callable[..., Any]]
    below: Callable[[Any], Any]
    right: Callable[..., Any]
    forward: Callable[..., Any]


def _by_gradient(grads: Callable[..., Any], optimizer: Callable[[Any], Any]) -> Callable[..., Any]:
    """A whole training at a rate, by a gradient."""

    def train(problem: Problem, rate: Any, steps: int, key: Any) -> Any:
        def value_and_grad(_: Any) -> Callable[..., Any]:
            return lambda params, batch, *, key: (jnp.zeros(()), grads(params, batch, key))

        return trained(
            lambda params, batch: jnp.zeros(()),
            problem.start,
            optimizer(rate),
            problem.batch,
            steps,
            key=key,
            value_and_grad=value_and_grad,
        )[0]

    return train


def _rows(x: Any, y: Any) -> Callable[..., Any]:
    def batch(step: Any, key: Any) -> Any:
        rows = jax.random.randint(key, (BATCH,), 0, len(x))
        return x[rows], y[rows]

    return batch


def _shown(scores: Any, labels: Any) -> Any:
    return jnp.mean((jnp.argmax(scores, axis=1) == labels).astype(jnp.float32))


def direct_feedback(key: Any) -> Problem:
    data_key, net_key, feedback_key = jax.random.split(key, 3)
    x, y, test_x, test_y = split_digits(data_key, TRAIN)
    net, rest = eqx.partition(eqx.nn.MLP(64, 10, HIDDEN, 2, activation=jnp.tanh, key=net_key), eqx.is_inexact_array)
    feedback = estimate.init_direct_feedback(eqx.combine(net, rest), x[0], key=feedback_key)

    def loss(way: str, net: Any, batch: Any) -> Any:
        model = eqx.combine(net, rest)
        model = estimate.direct_feedback_alignment(model, feedback) if way == "rule" else model
        return cross_entropy(jax.vmap(model)(batch[0]), batch[1])

    grads = {way: lambda net, batch, key, way=way: jax.grad(functools.partial(loss, way))(net, batch) for way in WAYS}
    return Problem(
        net,
        _rows(x, y),
        (x[:PROBE], y[:PROBE]),
        {way: _by_gradient(grads[way], optax.sgd) for way in WAYS},
        grads,
        lambda net: net.layers[:-1],
        lambda net, key: _shown(jax.vmap(eqx.combine(net, rest))(test_x), test_y),
        lambda net, batch, key: loss("backprop", net, batch),
    )


def equilibrium(key: Any) -> Problem:
    data_key, *keys = jax.random.split(key, 3)
    x, y, test_x, test_y = split_digits(data_key, TRAIN)
    layers = [eqx.nn.Linear(a, b, key=k) for a, b, k in zip((64, HIDDEN), (HIDDEN, 10), keys)]
    net = estimate.Equilibrium(layers, activation="sigmoid", steps=20)

    def loss(net: Any, batch: Any) -> Any:
        return 0.5 * jnp.mean(jnp.sum((net(batch[0]) - jax.nn.one_hot(batch[1], 10)) ** 2, axis=1))

    nudged = estimate.equilibrium_gradient(loss, steps=4)
    grads = {
        "rule": lambda net, batch, key: nudged(net, batch)[1],
        "backprop": lambda net, batch, key: jax.grad(loss)(net, batch),
    }
    return Problem(
        net,
        _rows(x, y),
        (x[:PROBE], y[:PROBE]),
        {way: _by_gradient(grads[way], optax.sgd) for way in WAYS},
        grads,
        lambda net: net.layers[:-1],
        lambda net, key: _shown(net(test_x), test_y),
        # One update of all layers, there and back: 20 are a prediction.
        lambda net, batch, key: jax.vmap(net.drive)((batch[0][:, :HIDDEN], batch[0][:, :10]), batch[0]),
    )


class Block(eqx.Module):
    """A label's noisy embedding and an image in, logits out."""

    net: eqx.nn.MLP

    def __call__(self, z: Any, x: Any) -> Any:
        return self.net(jnp.concatenate([z, x]))


def noprop(key: Any) -> Problem:
    data_key, head_key, *keys = jax.random.split(key, 7)
    x, y, test_x, test_y = split_digits(data_key, TRAIN)
    blocks = tuple(Block(eqx.nn.MLP(10 + 64, 10, 32, 1, key=one)) for one in keys)
    net, rest = eqx.partition(estimate.NoProp(blocks, jnp.eye(10), key=head_key), eqx.is_inexact_array)

    def answers(net: Any, x: Any, key: Any) -> Any:
        return jax.vmap(lambda x, key: eqx.combine(net, rest)(x, key=key))(x, jax.random.split(key, len(x)))

    def loss(way: str, net: Any, batch: Any, key: Any) -> Any:
        if way == "backprop":
            return cross_entropy(answers(net, batch[0], key), batch[1])
        model = eqx.combine(net, rest)
        keys = jax.random.split(key, len(batch[0]))
        return jnp.mean(jax.vmap(lambda x, y, key: model.loss(x, y, key=key))(*batch, keys))

    grads = {way: jax.grad(functools.partial(loss, way)) for way in WAYS}
    return Problem(
        net,
        _rows(x, y),
        (x[:PROBE], y[:PROBE]),
        {way: _by_gradient(grads[way], optax.adam) for way in WAYS},
        grads,
        lambda net: net.blocks,
        lambda net, key: _shown(answers(net, test_x, key), test_y),
        lambda net, batch, key: answers(net, batch[0], key),
    )


class Convolution(eqx.Module):
    """One graph convolution with rectified units; the adjacency comes normalised."""

    weight: Any
    bias: Any

    def __call__(self, h: Any, adjacency: Any) -> Any:
        return jax.nn.relu(adjacency @ (h @ self.weight) + self.bias)


def single_forward(key: Any) -> Problem:
    """Digits joined to those that look most alike, a fifth of them labelled; the whole graph in every step."""
    nodes, neighbours, width = 480, 8, 32
    pick_key, mark_key, virtual_key, *keys = jax.random.split(key, 5)
    images, labels = digits()
    rows = jax.random.permutation(pick_key, len(images))[:nodes]
    images, labels = images[rows], labels[rows]
    distances = jnp.sum((images[:, None] - images[None]) ** 2, axis=2)
    nearest = jax.lax.top_k(-distances, neighbours + 1)[1][:, 1:]
    edges = jnp.zeros((nodes, nodes)).at[jnp.arange(nodes)[:, None], nearest].set(1.0)
    adjacency = jnp.maximum(edges, edges.T)
    train = jax.random.permutation(mark_key, nodes) < nodes // 5
    joined = estimate.virtual_nodes(adjacency, images, labels, train, 10, key=virtual_key)
    joined = eqx.tree_at(lambda graph: graph.adjacency, joined, _normalised(joined.adjacency))
    plain = _normalised(adjacency)
    # The rule's last layer has as many units as the others: its answers are distances to the virtual nodes.
    shapes = [(64, width), (width, width), (width, 10)]
    first, local, last = (
        Convolution(jax.random.normal(k, s) * (2 / sum(s)) ** 0.5, jnp.zeros(s[1]))
        for k, s in zip([*keys, jax.random.fold_in(key, 1)], shapes)
    )
    net = {"first": first, "rule": local, "backprop": last}

    def usual(net: Any) -> Any:
        h = net["first"](images, plain)
        return plain @ (h @ net["backprop"].weight) + net["backprop"].bias

    def labelled(scores: Any) -> Any:
        each = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
        return jnp.sum(jnp.where(train, each, 0)) / jnp.sum(train)

    def right(net: Any, way: str) -> Any:
        layers = [net["first"], net["rule"]]
        scores = estimate.single_forward_classes(layers, joined) if way == "rule" else usual(net)
        right = (jnp.argmax(scores, axis=1) == labels).astype(jnp.float32)
        return jnp.sum(jnp.where(train, 0, right)) / jnp.sum(~train)

    def local_loss(net: Any) -> Any:
        return estimate.single_forward([net["first"], net["rule"]], joined, labels, train)

    def whole_loss(net: Any) -> Any:
        """The last layer's loss of the same layers, to which the first one's gradient is compared."""
        h = joined.features
        for layer in (net["first"], net["rule"]):
            h = layer(h / jnp.maximum(jnp.linalg.norm(h, axis=1, keepdims=True), 1e-12), joined.adjacency)
        return labelled(h[:nodes] @ h[nodes:].T)

    grads = {
        "rule": lambda net, batch, key: jax.grad(local_loss)(net),
        "backprop": lambda net, batch, key: jax.grad(lambda net: labelled(usual(net)))(net),
        "compared": lambda net, batch, key: jax.grad(whole_loss)(net),
    }
    return Problem(
        net,
        lambda step, key: step,
        jnp.zeros(()),
        {way: _by_gradient(grads[way], optax.adam) for way in WAYS},
        grads,
        lambda net: net["first"],
        right,
        lambda net, batch, key: usual(net),
    )


def _normalised(adjacency: Any) -> Any:
    looped = adjacency + jnp.eye(len(adjacency))
    root = 1 / jnp.sqrt(jnp.sum(looped, axis=1))
    return root[:, None] * looped * root


def projections(key: Any) -> Problem:
    order_key, *keys = jax.random.split(key, 3)
    images, labels = pooled_digits()
    order = jax.random.permutation(order_key, len(images))
    images, labels = images[order], labels[order]
    net = tuple(eqx.nn.Linear(a, b, key=k) for a, b, k in zip((16, 32), (32, 10), keys))

    def scores(net: Any, x: Any) -> Any:
        return jax.vmap(net[1])(jax.nn.relu(jax.vmap(net[0])(x)))

    def moved(net: Any, batch: Any, key: Any, strength: Any = 5.0) -> Any:
        new, _ = estimate.feasibility(steps=20, strength=strength)(net, *batch)
        return jax.tree.map(jnp.subtract, net, new)

    grads = {
        "rule": moved,
        "backprop": lambda net, batch, key: jax.grad(lambda net: cross_entropy(scores(net, batch[0]), batch[1]))(net),
    }

    def project(problem: Problem, strength: Any, steps: int, key: Any) -> Any:
        step = _by_gradient(functools.partial(moved, strength=strength), lambda _: optax.sgd(1.0))
        return step(problem, strength, steps, key)

    return Problem(
        net,
        _rows(images[:TRAIN], labels[:TRAIN]),
        (images[:BATCH], labels[:BATCH]),
        {"rule": project, "backprop": _by_gradient(grads["backprop"], optax.adam)},
        grads,
        lambda net: net[:-1],
        lambda net, key: _shown(scores(net, images[TRAIN:]), labels[TRAIN:]),
        lambda net, batch, key: scores(net, batch[0]),
    )


WAYS = ("rule", "backprop")
# Name, network, how it is made, steps, grids of the rule and of backpropagation, ends where nothing lies beyond.
RULES = (
    ("direct feedback", "64-64-64-10, tanh, descent", direct_feedback, 300, [(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)] * 2),
    ("equilibrium propagation, ±0.5", "64-64-10 at rest, descent", equilibrium, 300, [(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)] * 2),
    ("NoProp, discrete", "5 blocks 74-32-10, Adam", noprop, 300, [(3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)] * 2),
    ("single forward", "graph of 480, 64-32-32 (10), Adam", single_forward, 60, [(3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)] * 2),
    ("projections, 20 a batch", "16-32-10, relu, Adam", projections, 60, [(0.5, 1.0, 5.0, 25.0, 125.0, 625.0, 3125.0), (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)]),
)  # fmt: skip
HEAD = (
    "rule",
    "network",
    "steps",
    "accuracy, %",
    "backprop's, %",
    "behind, points",
    "cosine to the gradient below the last layer: at the start, at the end",
    "passes a step: rule, backprop",
    "kB beside the weights: rule, backprop",
)


def row(name: str, network: str, make: Callable[..., Problem], steps: int, grids: list) -> str:
    """Train both ways and write one row of the table."""

    def run(way: str, setting: Any, key: Any) -> dict[str, Any]:
        problem_key, train_key, end_key = jax.random.split(key, 3)
        problem = make(problem_key)
        net = problem.step[way](problem, setting, steps, train_key)
        last = way if make is single_forward else end_key
        found = {"right": 100 * problem.right(net, last)}
        if way == "rule":
            truth = problem.grads.get("compared", problem.grads["backprop"])
            for when, params in (("start", problem.start), ("end", net)):
                pair = (
                    problem.below(grads(params, problem.probe, end_key)) for grads in (problem.grads["rule"], truth)
                )
                a, b = (jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(part)]) for part in pair)
                found[when] = jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
        return found

    methods = {way: functools.partial(run, way) for way in WAYS}
    runs = tuned(methods, dict(zip(WAYS, grids)), "higher", key=jax.random.key(0), keys=SEEDS, of="right")
    rule, usual = runs.results["rule"], runs.results["backprop"]
    problem = make(jax.random.key(0))
    args = problem.start, problem.batch(jnp.array(0), jax.random.key(1)), jax.random.key(2)
    forward = operations(problem.forward, *args)
    passes = (f"{operations(problem.grads[way], *args) / forward:.1f}" for way in WAYS)
    held = (f"{memory(problem.grads[way], *args) / 1000:.0f}" for way in WAYS)
    cells = (
        name,
        network,
        str(steps),
        _mean(rule["right"]),
        _mean(usual["right"]),
        _mean(usual["right"] - rule["right"]),
        f"{_mean(rule['start'], 2)}, {_mean(rule['end'], 2)}",
        ", ".join(passes),
        ", ".join(held),
    )
    line = "| " + " | ".join(cells) + " |"
    print(runs.settings, line, sep="\n", flush=True)
    return line


def _mean(values: np.ndarray, places: int = 1) -> str:
    values = np.asarray(values, np.float64)
    return f"{values.mean():.{places}f} ± {values.std(ddof=1) / np.sqrt(len(values)):.{places}f}".replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.local_rules", description=__doc__)
    parser.add_argument("names", nargs="*", help="rules to run; all by default")
    parser.add_argument("--write", action="store_true", help="write the table into the pages")
    options = parser.parse_args()
    chosen = [rule for rule in RULES if not options.names or any(name in rule[0] for name in options.names)]
    rows = {rule[0]: row(*rule) for rule in chosen}
    for page in PAGES if options.write else ():
        text = page.read_text(encoding="utf-8")
        before, rest = text.split(START)
        table, after = rest.split(END)
        # Rows of rules that were not run stay.
        kept = {line.split("|")[1].strip(): line for line in table.strip().splitlines()[2:]} | rows
        lines = ["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
        lines += [kept[rule[0]] for rule in RULES if rule[0] in kept]
        page.write_text(before + START + "\n" + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
