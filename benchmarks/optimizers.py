"""Every optimiser on the same problems, each at the best of nine rates: loss against steps and against time.

``python -m benchmarks.optimizers`` runs what does not stand in ``benchmarks/optimizers.csv`` yet, writes the guide's table and draws its
picture; it may be killed and called again. ``--only NAME ...`` keeps to some problems or rules.

Equal budgets: nine rates, half a decade apart, at three seeds for each rule; then three fresh seeds at the rate whose mean loss
was lowest. A rate at the end of its grid is marked. Other settings are the rules' defaults.
"""

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from . import _one_thread

FILE = Path(__file__).with_suffix(".csv")
COLUMNS = ("problem", "rule", "rate", "at_end", "seed", "milliseconds", "losses")
RATES, SEEDS, LOOKS = 9, 3, 20


class Rule(NamedTuple):
    """An optimiser.

    Attributes:
        family: under which it stands.
        make: rate -> optimiser; with ``rows`` (rate, rows) -> optimiser.
        rate: the middle of its grid; None for the problem's own, of gradient descent.
        matrices: whether it runs on networks alone, being another rule's double on vectors or too large for them.
        rows: whether it has to know how many rows a batch has.
    """

    family: str
    make: Callable[..., Any]
    rate: float | None = None
    matrices: bool = False
    rows: bool = False


def rules() -> dict[str, Rule]:
    """By name; Optax's own, and ours."""
    import jax
    import optax

    from nablax import optimize

    key = jax.random.key(7)
    plain, momentum, adaptive, signs, matrices, curvature = (
        "gradient descent",
        "momentum",
        "a rate for each number",
        "signs and norms",
        "a matrix for each tensor",
        "curvature",
    )
    return {
        "optax.sgd": Rule(plain, optax.sgd),
        "beta_normalised": Rule(plain, optimize.beta_normalised),
        "smb": Rule(plain, optimize.smb),
        "aegd": Rule(plain, optimize.aegd),
        "gravity": Rule(plain, lambda rate: optimize.gravity(rate, alpha=0.0)),
        "optax.sgd, momentum .9": Rule(momentum, lambda rate: optax.sgd(rate, momentum=0.9)),
        "optax.sgd, Nesterov .9": Rule(momentum, lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True)),
        "xgrad around momentum .9": Rule(momentum, lambda rate: optimize.xgrad(optax.sgd(rate, momentum=0.9))),
        "nag_gs": Rule(momentum, optimize.nag_gs),
        "optax.adagrad": Rule(adaptive, optax.adagrad, 1e-1),
        "optax.rmsprop": Rule(adaptive, optax.rmsprop, 1e-2),
        "optax.adam": Rule(adaptive, optax.adam, 1e-2),
        "optax.adamw": Rule(adaptive, optax.adamw, 1e-2),
        "optax.amsgrad": Rule(adaptive, optax.amsgrad, 1e-2),
        "optax.nadam": Rule(adaptive, optax.nadam, 1e-2),
        "diffgrad": Rule(adaptive, optimize.diffgrad, 1e-2),
        "adamomentum": Rule(adaptive, optimize.adamomentum, 1e-2),
        "xgrad around adam": Rule(adaptive, lambda rate: optimize.xgrad(optax.adam(rate)), 1e-2),
        "mars": Rule(adaptive, optimize.mars, 1e-2),
        "mars, exact": Rule(adaptive, lambda rate: optimize.mars(rate, exact=True), 1e-2, matrices=True),
        "optax.lion": Rule(signs, optax.lion, 1e-3),
        "mars, lion": Rule(signs, lambda rate: optimize.mars(rate, "lion"), 1e-3, matrices=True),
        "steepest_descent": Rule(signs, optimize.steepest_descent),
        "optax.contrib.muon": Rule(signs, optax.contrib.muon, 1e-2, matrices=True),
        "mars, shampoo": Rule(signs, lambda rate: optimize.mars(rate, "shampoo"), 1e-2, matrices=True),
        "shampoo": Rule(matrices, optimize.shampoo, 1e-1),
        "soap": Rule(matrices, optimize.soap, 1e-2),
        "structured_ngd": Rule(
            matrices, lambda rate, rows: optimize.structured_ngd(rate, rows=rows), 1e-2, matrices=True, rows=True
        ),
        "psgd": Rule(matrices, lambda rate: optimize.psgd(rate, key=key), 1e-2),
        "psgd_low_rank": Rule(matrices, lambda rate: optimize.psgd_low_rank(rate, key=key), 1e-2, matrices=True),
        "psgd, newton": Rule(curvature, lambda rate: optimize.psgd(rate, "newton", key=key), 1e-1),
        "oasis": Rule(curvature, lambda rate: optimize.oasis(rate, key=key), 1e-1),
        "saddle_free_newton": Rule(curvature, lambda rate: optimize.saddle_free_newton(rate, dimensions=10), 1.0),
    }


def run(problem: Any, rule: Rule, name: str) -> list[dict[str, Any]]:
    """Tune a rule, and run its best rate on fresh seeds: a row a seed."""
    import jax
    import numpy as np

    from nablax.follow import train_step
    from nablax.optimize import xgrad_eval_params

    middle = problem.rate if rule.rate is None else rule.rate
    rates = middle * 10.0 ** (0.5 * (np.arange(RATES) - RATES // 2))
    every, took = problem.steps // LOOKS, []

    def make(rate: Any) -> Any:
        return rule.make(rate, problem.rows) if rule.rows else rule.make(rate)

    @jax.jit
    def begin(rate: Any, key: Any) -> tuple[Any, Any, Any]:
        start_key, key = jax.random.split(key)
        params = problem.start(start_key)
        return params, make(rate).init(params), jax.random.split(key, problem.steps).reshape(LOOKS, every)

    @jax.jit
    def stretch(rate: Any, params: Any, state: Any, keys: Any) -> tuple[Any, Any]:
        step = train_step(problem.loss, make(rate))

        def one(carry: tuple[Any, Any], key: Any) -> tuple[tuple[Any, Any], None]:
            params, state, _ = step(*carry, problem.batch(key))
            return (params, state), None

        return jax.lax.scan(one, (params, state), keys)[0]

    @jax.jit
    def judge(params: Any, state: Any) -> Any:
        """Of the weights that would be kept: XGrad's loop holds others."""
        return problem.judge(xgrad_eval_params(state, params) if name.startswith("xgrad") else params)

    def train(rate: Any, key: Any) -> list[float]:
        """Run after run, for a program of many at once takes longer to compile, and to run where caches are small."""
        params, state, keys = begin(rate, key)
        losses = [float(judge(params, state))]
        for part in keys:
            start = time.process_time()
            params, state = jax.block_until_ready(stretch(rate, params, state, part))
            took.append((time.process_time() - start) / every)
            losses.append(float(judge(params, state)))
        return losses

    seeds = jax.random.split(jax.random.key(1), SEEDS)
    tuning = np.array([[train(rate, seed)[-1] for rate in rates.astype(np.float32)] for seed in seeds])
    ends = np.where(np.isfinite(tuning), tuning, np.inf).mean(0)
    best = int(np.argmin(ends))
    fresh = [train(np.float32(rates[best]), seed) for seed in jax.random.split(jax.random.key(2), SEEDS)]
    return [
        {
            "rate": f"{rates[best]:.3g}",
            "at_end": int(best in (0, RATES - 1)),
            "seed": seed,
            "milliseconds": f"{1e3 * min(took):.4g}",
            "losses": " ".join(f"{loss:.4g}" for loss in losses),
        }
        for seed, losses in enumerate(fresh)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimizers", description=__doc__)
    parser.add_argument("--only", nargs="+", default=(), help="problems or rules")
    options = parser.parse_args()
    _one_thread.jax_alone()
    from ._optimizer_page import write
    from ._optimizer_problems import PROBLEMS, VECTORS

    known = rules()
    if strange := set(options.only) - set(PROBLEMS) - set(known):
        parser.error(f"no problem or rule {sorted(strange)[0]!r}; there are {', '.join([*PROBLEMS, *known])}")
    done = {(row["problem"], row["rule"]) for row in stored()}
    wanted = [
        (problem, rule)
        for problem in PROBLEMS
        for rule in known
        if not (known[rule].matrices and problem in VECTORS)
        and (not options.only or problem in options.only or rule in options.only)
    ]
    left = [pair for pair in wanted if pair not in done]
    began = time.monotonic()
    for turn, (problem, rule) in enumerate(left):
        rows = run(PROBLEMS[problem](), known[rule], rule)
        keep([{"problem": problem, "rule": rule, **row} for row in rows])
        rest = (time.monotonic() - began) / (turn + 1) * (len(left) - turn - 1)
        last = ", ".join(row["losses"].split()[-1] for row in rows)
        print(
            f"{turn + 1}/{len(left)}  {problem}, {rule}: {last} at {rows[0]['rate']}; {rest / 60:.0f} min left",
            flush=True,
        )
    problems = {name: make() for name, make in PROBLEMS.items()}
    write(
        stored(),
        {name: rule.family for name, rule in known.items()},
        {name: problem.title for name, problem in problems.items()},
        problems["network"].steps,
    )


def stored() -> list[dict[str, str]]:
    """What was run."""
    if not FILE.exists():
        return []
    with FILE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def keep(rows: list[dict[str, Any]]) -> None:
    """Add rows, all of a rule or none."""
    whole = [*stored(), *rows]
    partial = FILE.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(whole)
    partial.replace(FILE)


if __name__ == "__main__":
    main()
