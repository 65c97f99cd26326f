"""Rates too high by up to two decades: who rescues the run? Our wrapper beside clipping, of gradients or of updates, each clip at the best of three.

MLP, CNN and transformer by gradient descent, heavy ball and Adam. A run fails whose rate is above the best and whose loss
ends further than a fifth of the way to chance above that rate's. Clipping gets three times our budget. What it costs runs that did not fail is in the words.
"""

import time
from pathlib import Path

import numpy as np

TITLE = "Failures by the learning rate rescued, of trainings of three networks by three optimisers"
PEER = "optax 0.2 clipping, best of 3"
UNIT = "share rescued"
TARGET = "0.8 rescued"
BETTER = "higher"
STEPS, BATCH, MARGIN = 200, 64, 0.2
RATES = {"descent": 0.1, "heavy ball": 0.01, "adam": 1e-3}
# From what works to two decades above the best, in half decades.
MULTIPLES = {
    "descent": (1, 3, 10, 30, 100, 300),
    "heavy ball": (1, 3, 10, 30, 100, 300),
    "adam": (1, 3, 10, 30, 100, 300, 1000),
}
CLIPS = (0.1, 1.0, 10.0)


def ours(folder: Path) -> dict:
    return _bank(("safe",))


def peer(folder: Path) -> dict:
    return _bank(("gradients", "updates"))


def _problems() -> dict:
    import jax
    import jax.numpy as jnp
    import optax
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = jnp.asarray(digits.data / 16, jnp.float32), jnp.asarray(digits.target)
    random = np.random.default_rng(0)
    moves = random.dirichlet(np.full(24, 0.15), size=24)  # a Markov chain of 24 letters
    text = np.zeros((1024, 13), int)
    for row in text:
        row[0] = random.integers(24)
        for place in range(12):
            row[place + 1] = random.choice(24, p=moves[row[place]])
    text = jnp.asarray(text)

    def entropy(logits, target):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, target))

    def made(key, **shapes):
        keys = jax.random.split(key, len(shapes))
        return {name: jax.random.normal(k, s) * (2 / s[0]) ** 0.5 for k, (name, s) in zip(keys, shapes.items())}

    def mlp(p, rows):
        hidden = jax.nn.relu(jax.nn.relu(images[rows] @ p["a"]) @ p["b"])
        return entropy(hidden @ p["c"], labels[rows])

    def patches(x):  # a convolution as nine slices and one product, which runs as fast in a loop as outside
        wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        size = x.shape[1]
        return jnp.concatenate([wide[:, i : i + size, j : j + size] for i in range(3) for j in range(3)], axis=-1)

    def pooled(x):
        return x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).mean((2, 4))

    def cnn(p, rows):
        x = pooled(jax.nn.relu(patches(images[rows].reshape(-1, 8, 8, 1)) @ p["a"]))
        x = pooled(jax.nn.relu(patches(x) @ p["b"]))
        return entropy(x.reshape(len(rows), -1) @ p["c"], labels[rows])

    def normed(x):
        return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)

    def transformer(p, rows):
        given, target = text[rows % 1024, :-1], text[rows % 1024, 1:]
        x = p["letters"][given] + p["places"]
        h = normed(x)
        scores = jnp.einsum("bie,bje->bij", h @ p["q"], h @ p["k"]) / 4
        seen = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((12, 12), bool)), scores, -1e9))
        x = x + seen @ (h @ p["v"])
        x = x + jax.nn.relu(normed(x) @ p["a"]) @ p["b"]
        return entropy(x @ p["c"], target)

    square = (16, 16)
    return {
        "MLP": (lambda k: made(k, a=(64, 64), b=(64, 64), c=(64, 10)), mlp, np.log(10)),
        "CNN": (lambda k: made(k, a=(9, 8), b=(72, 16), c=(64, 10)), cnn, np.log(10)),
        "transformer": (
            lambda k: made(
                k, letters=(24, 16), places=(12, 16), q=square, k=square, v=square, a=(16, 32), b=(32, 16), c=(16, 24)
            ),
            transformer,
            np.log(24),
        ),
    }


def _optimizer(name: str, rate, method: str, clip):
    import optax

    from nablax import regulate

    made = {"descent": optax.sgd, "heavy ball": lambda r: optax.sgd(r, 0.9), "adam": optax.adam}[name](rate)
    if method == "safe":
        return regulate.safe_rate(made)
    if method == "gradients":
        return optax.chain(optax.clip_by_global_norm(clip), made)
    return optax.chain(made, optax.clip_by_global_norm(clip)) if method == "updates" else made


def _ends(problem, name: str, method: str, rates, clips, keys: int):
    """Losses at the end, [rates, clips, keys]: one program for all."""
    import jax
    import jax.numpy as jnp

    from nablax import follow

    init, loss, _ = problem

    def train(rate, clip, key):
        optimizer = _optimizer(name, rate, method, clip)
        step = follow.train_step(loss, optimizer)
        params = init(key)

        def body(carry, k):
            params, state, _ = step(*carry, jax.random.randint(k, (BATCH,), 0, 1797))
            return (params, state), None

        keys = jax.random.split(jax.random.fold_in(key, 1), STEPS)
        (params, _), _ = jax.lax.scan(body, (params, optimizer.init(params)), keys)
        return loss(params, jnp.arange(512))

    grid = [(rate, clip, jax.random.key(k)) for rate in rates for clip in clips for k in range(keys)]
    columns = [jnp.stack([jnp.asarray(x) for x in column]) for column in zip(*grid)]
    ends = jax.jit(lambda *c: jax.lax.map(lambda one: train(*one), c))(*columns)
    return np.nan_to_num(np.asarray(ends, np.float64), nan=np.inf, posinf=np.inf).reshape(len(rates), len(clips), keys)


def _bank(methods: tuple[str, ...], keys: int = 2) -> dict:
    begin = time.perf_counter()
    rescued, failed, differences, words = dict.fromkeys(methods, 0), 0, [], []
    for title, problem in _problems().items():
        for name, base in RATES.items():
            rates = base * np.array(MULTIPLES[name])
            plain = _ends(problem, name, "plain", rates, (1.0,), keys)[:, 0]
            middle = np.median(plain, axis=1)
            best = middle.min()
            gap = (plain - best) / (problem[2] - best)
            bad = (gap > MARGIN) & (rates > rates[middle.argmin()])[:, None]
            high = np.flatnonzero(bad.any(axis=1))
            failed += int(bad.sum())
            for method in methods:
                # Clipping is asked for the rates that fail; of ours what it costs the others too.
                clips, tried = ((1.0,), np.arange(len(rates))) if method == "safe" else (CLIPS, high)
                held = (_ends(problem, name, method, rates[tried], clips, keys) - best) / (problem[2] - best)
                # One clip for a problem and an optimiser, the one that rescues most.
                count = max(int((bad[tried] & (held[:, c] <= MARGIN)).sum()) for c in range(len(clips)))
                rescued[method] += count
                words.append(f"{title}, {name}, {method}: {count} of {int(bad.sum())}")
                if method == "safe":
                    differences += list((held[:, 0] - gap)[~bad])
            print(words[-1], f"{time.perf_counter() - begin:.0f} s", flush=True)
    shares = {method: count / failed for method, count in rescued.items()}
    said = ", ".join(f"{method} {count} of {failed}" for method, count in rescued.items())
    if differences:
        mean, error = np.mean(differences), np.std(differences, ddof=1) / len(differences) ** 0.5
        said += (
            f"; {len(differences)} healthy runs end {mean:+.3f} ± {error:.3f} of the way to chance from where they did"
        )
    return {"values": [max(shares.values())], "compile": 0.0, "accuracy": said, "each": words}
