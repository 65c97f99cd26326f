"""A bank of trainings with their check-ups and their outcomes, from which the check-up's levels are made and judged.

``python -m benchmarks.checkup_bank`` trains and writes ``checkup_bank.csv``; what stands in it is kept. Measures
are stored, not judgements, so that rules are judged again without training (``benchmarks.checkup_rules``).

A run is a model, an optimiser and settings drawn by a seed, at one of nine rates over four decades. Runs of even seeds are
for making rules, those of odd ones for judging them. Other rates are rehearsed for every run, so that what stands here
does not depend on the rules; ``checkup`` rehearses them where a run is likely to fail, and says nothing of them elsewhere.
"""

import csv
import sys
import time
from pathlib import Path

FILE = Path(__file__).with_suffix(".csv")
RATES, SEEDS = 9, 12
SCHEDULES = ("constant", "warm-up", "cosine")
CHECKED, HORIZONS, LAST = (0, 20, 200), (50, 200), 400
# Model, optimiser, rate in the middle, rows of a batch.
PROGRAMS = [
    ("mlp", "adam", 1e-2, 128),
    ("mlp", "sgd", 1e-1, 32),
    ("flow", "adam", 1e-2, 128),
    ("recurrent", "nesterov", 3e-2, 32),
    ("cnn", "heavy ball", 3e-2, 32),
    ("physics", "adam", 1e-2, 64),
    ("multitask", "heavy ball", 3e-2, 128),
    ("mlp", "muon", 2e-2, 128),
    ("flow", "lion", 1e-3, 512),
    ("recurrent", "rmsprop", 3e-3, 128),
    ("mlp, bfloat16", "heavy ball", 3e-2, 32),
    ("transformer", "adam", 1e-2, 32),
    ("cnn", "adam", 1e-2, 128),
    ("mlp", "rmsprop", 3e-3, 8),
]


def settings_of(random) -> dict:
    """What a run is like besides its rate."""
    return {
        "start_scale": float(random.choice([0.05, 0.3, 1, 1, 1, 1, 2, 5])),
        "schedule": str(random.choice(["constant", "constant", "constant", "cosine", "warm-up"])),
        "clip": float(random.choice([1e30, 1e30, 1e30, 1.0])),
        "weight_decay": float(random.choice([0, 0, 0, 1e-2, 0.1])),
        "label_noise": float(random.choice([0, 0, 0.2, 0.5])),
        "zero_head": int(random.random() < 0.2),
        "frozen": int(random.random() < 0.15),
        "dead_start": float(random.choice([0, 0, 0, 0, 0.5, 1.0])),
        "target_cosine": float(random.choice([-0.95, -0.5, 0.0, 0.7])),
    }


def optimizer_of(name):
    """With everything that settings change as an argument, so that one program serves all runs."""
    import jax.numpy as jnp
    import optax

    cores = {
        "sgd": optax.identity,
        "heavy ball": lambda: optax.trace(0.9),
        "nesterov": lambda: optax.trace(0.9, nesterov=True),
        "adam": optax.scale_by_adam,
        "lion": optax.scale_by_lion,
        # Muon moves matrices, and by Adam what is none; it comes with its sign.
        "muon": lambda: optax.chain(optax.contrib.muon(1.0), optax.scale(-1.0)),
        "rmsprop": optax.scale_by_rms,
    }

    def stateless(change):
        update = lambda updates, state, params=None: (change(updates), state)  # noqa: E731
        return optax.GradientTransformation(lambda params: optax.EmptyState(), update)

    def clipped(longest):
        def change(updates):
            factor = jnp.minimum(1.0, longest / optax.tree.norm(updates))
            return {name: u * factor.astype(u.dtype) for name, u in updates.items()}

        return stateless(change)

    def free_first(free):
        return stateless(lambda us: {n: u * free.astype(u.dtype) if n == "w0" else u for n, u in us.items()})

    def chain(learning_rate, schedule, decay, clip, free):
        core = cores[name]()

        # The optimiser's own schedule, as people have it, so that a check-up's rehearsal follows it.
        def rate(step):
            warm, cosine = jnp.minimum(1.0, (step + 1) / 20), 0.5 * (1 + jnp.cos(jnp.pi * step / LAST))
            shares = {"constant": 1.0, "warm-up": warm, "cosine": cosine}
            return -learning_rate * sum(jnp.where(schedule == SCHEDULES.index(n), s, 0.0) for n, s in shares.items())

        return optax.chain(
            clipped(clip),
            core,
            optax.add_decayed_weights(decay),
            free_first(free),
            optax.scale_by_schedule(rate),
        )

    return optax.inject_hyperparams(chain)(learning_rate=0.1, schedule=0.0, decay=0.0, clip=1e30, free=1.0)


def program(model_name, optimizer_name, middle, rows):
    """What is compiled once for all runs of a model and an optimiser."""
    import jax
    import jax.numpy as jnp
    import optax

    from ._bank_models import MODELS

    model, optimizer = MODELS[model_name](), optimizer_of(optimizer_name)

    def batch_at(key, arrays, step):
        key = jax.random.fold_in(key, step)
        if model.draw is not None:
            return model.draw(key, arrays, rows)
        chosen = jax.random.randint(key, (rows,), 0, 1024)
        return jax.tree.map(lambda leaf: jnp.take(leaf, chosen, axis=0), arrays)

    def with_rate(state, rate):
        now = jnp.asarray(rate, state.hyperparams["learning_rate"].dtype)
        return state._replace(hyperparams={**state.hyperparams, "learning_rate": now})

    def walk(params, state, rate, key, arrays, begin, end):
        def step(i, carry):
            params, state = carry
            gradient = jax.grad(model.loss)(params, batch_at(key, arrays, i))
            updates, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(begin, end, step, (params, with_rate(state, rate)))

    together = jax.vmap(walk, in_axes=(0, 0, 0, None, None, None, None))
    measured = jax.jit(jax.vmap(lambda p, arrays: model.loss(p, jax.tree.map(lambda a: a[:256], arrays)), (0, None)))
    return model, optimizer, jax.jit(together), measured, jax.jit(batch_at), with_rate


def family(made, index, seed, middle):
    """The rows of one setting at nine rates."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from nablax.diagnose import Thresholds, checkup

    # At these every run is likely to fail.
    always = Thresholds(fault=0.0, first=0.0)
    model, optimizer, walk, measured, batch_at, with_rate = made
    random = np.random.default_rng([index, seed])
    settings = settings_of(random)
    arrays, chance = model.data(random, settings)
    arrays = jax.tree.map(jnp.asarray, arrays)
    key = jax.random.key(1000 * index + seed)
    params = {
        name: leaf * settings["start_scale"] if leaf.ndim > 1 else leaf for name, leaf in model.start(key).items()
    }
    if settings["zero_head"]:
        params[model.head] = jnp.zeros_like(params[model.head])
    if settings["dead_start"] and "b1" in params:
        count = int(settings["dead_start"] * params["b1"].shape[0])
        params["b1"] = params["b1"].at[:count].set(-100.0)
    state = optimizer.init(params)
    hyper = {"decay": settings["weight_decay"], "clip": settings["clip"], "free": 1.0 - settings["frozen"]}
    hyper["schedule"] = SCHEDULES.index(settings["schedule"])
    hyper = {name: jnp.asarray(value, state.hyperparams[name].dtype) for name, value in hyper.items()}
    state = state._replace(hyperparams={**state.hyperparams, **hyper})
    rates = jnp.asarray(middle * 10 ** (np.arange(RATES) / 2 - 2), jnp.float32)
    copies = lambda tree: jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * RATES), tree)  # noqa: E731
    at, states, losses = (copies(params), copies(state)), {}, {}
    marks = sorted({0, *CHECKED, *(c + h for c in CHECKED for h in HORIZONS)})
    for begin, end in zip(marks, [*marks[1:], None]):
        states[begin], losses[begin] = at, np.asarray(measured(at[0], arrays), float)
        if end is not None:
            at = walk(*at, rates, key, arrays, begin, end)
    found = []
    for step in CHECKED:
        batch, host = batch_at(key, arrays, step), jax.device_get(states[step])
        records, best = [], np.ones(RATES)
        for i in range(RATES):
            params, state = jax.tree.map(lambda leaf: leaf[i], host)  # noqa: B023
            if not all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in jax.tree.leaves(params)):
                records.append(None)
                continue
            state = jax.device_get(with_rate(state, rates[i]))
            record = checkup(
                model.loss, params, batch, optimizer=optimizer, opt_state=state, key=jax.random.key(step),
                logits=model.logits, losses=model.losses, chance=None if model.logits else chance, thresholds=always,
            )  # fmt: skip
            records.append(record)
            best[i] = 1.0 if record.rehearsal is None else record.rehearsal.best
        advised = {horizon: np.full(RATES, np.nan) for horizon in HORIZONS}
        if np.any(best != 1):
            begin, other = step, states[step]
            for horizon in HORIZONS:
                other = walk(*other, rates * best, key, arrays, begin, step + horizon)
                begin = step + horizon
                advised[horizon] = np.where(best == 1, np.nan, np.asarray(measured(other[0], arrays), float))
        for i, record in enumerate(records):
            row = {"seed": seed, **settings, "step": step, "rate": float(rates[i]), "place": i, "chance_loss": chance}
            row["floor"] = model.floor(arrays)
            row |= {"start_loss": losses[0][i], "now_loss": losses[step][i]}
            for horizon in HORIZONS:
                ends = losses[step + horizon]
                lowest = np.min(np.where(np.isfinite(ends), ends, np.inf))
                row |= {
                    f"loss_{horizon}": ends[i],
                    f"best_{horizon}": lowest,
                    f"advised_{horizon}": advised[horizon][i],
                }
            row["finite"] = int(record is not None and np.isfinite(record.loss))
            if row["finite"]:
                row |= record.signs._asdict()
            found.append(row)
    return found


def main() -> None:
    from nablax.diagnose._checkup._signs import Signs

    lead = [
        "model",
        "optimizer",
        "rows",
        "seed",
        *settings_of(__import__("numpy").random.default_rng(0)),
        "step",
        "rate",
    ]
    ends = [f"{kind}_{horizon}" for horizon in HORIZONS for kind in ("loss", "best", "advised")]
    names = [*lead, "place", "chance_loss", "floor", "start_loss", "now_loss", *ends, "finite", *Signs._fields]
    done = set()
    if FILE.exists():
        with FILE.open(newline="") as file:
            done = {(row["model"], row["optimizer"], int(row["seed"])) for row in csv.DictReader(file)}
    else:
        FILE.write_text(",".join(names) + "\n")
    for index, (model, optimizer, middle, rows) in enumerate(PROGRAMS):
        seeds = [seed for seed in range(SEEDS) if (model, optimizer, seed) not in done]
        if not seeds:
            continue
        begin, made, found = time.perf_counter(), program(model, optimizer, middle, rows), []
        for seed in seeds:
            found += family(made, index, seed, middle)
        with FILE.open("a", newline="") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            for row in found:
                row = {"model": model, "optimizer": optimizer, "rows": rows, **row}
                writer.writerow({n: f"{v:.4g}" if isinstance(v, float) else v for n, v in row.items()})
        print(f"{model}, {optimizer}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
