"""Steps of consensus-based optimisation on Rastrigin's function of 20 numbers, 100,000 particles."""

import os
import time
from pathlib import Path

import numpy as np

TITLE = "consensus-based optimisation, 100,000 particles, 20-D Rastrigin, a step"
PEER = "cbx 1.0.1 (NumPy, double precision)"
UNIT = "ms of processor time, one thread"
TARGET = "5×"
BETTER = "lower"
PARTICLES, DIM, STEPS = 100_000, 20, 50
SETTINGS = {"step_size": 0.01, "noise": 7.0, "sharpness": 100.0}


def ours(folder: Path) -> dict:
    from benchmarks._one_thread import jax_alone

    jax_alone()
    import jax
    import jax.numpy as jnp

    from nablax.optimize import consensus

    def rastrigin(x):
        return jnp.sum((x - 1) ** 2 + 10 * (1 - jnp.cos(2 * jnp.pi * (x - 1))))

    start_key, key = jax.random.split(jax.random.key(0))
    start = 1 + jax.random.uniform(start_key, (PARTICLES, DIM), minval=-3, maxval=3)
    begun = time.perf_counter()
    run = jax.jit(
        lambda start, key, steps: consensus(rastrigin, start, steps=steps, key=key, **SETTINGS), static_argnums=2
    )
    program, none = run.lower(start, key, STEPS).compile(), run.lower(start, key, 1).compile()
    jax.block_until_ready(none(start, key))
    compiled = time.perf_counter() - begun
    values = []
    for _ in range(2):
        seconds = []
        for side in (program, none):
            begun = time.process_time()
            found = jax.block_until_ready(side(start, key))
            seconds.append(time.process_time() - begun)
        values.append(1000 * (seconds[0] - seconds[1]) / (STEPS - 1))
        found = program(start, key)
    return {
        "values": values,
        "compile": compiled,
        "accuracy": f"lowest loss {found.values[-1]:.1f} after {STEPS} steps",
    }


def peer(folder: Path) -> dict:
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    from cbx.dynamics import CBO

    def rastrigin(x):
        return np.sum((x - 1) ** 2 + 10 * (1 - np.cos(2 * np.pi * (x - 1))), axis=-1)

    random = np.random.default_rng(0)
    start = 1 + random.uniform(-3, 3, (1, PARTICLES, DIM))
    begun = time.perf_counter()
    walk = CBO(
        rastrigin,
        x=start,
        f_dim="3D",
        noise="anisotropic",
        dt=SETTINGS["step_size"],
        lamda=1.0,
        sigma=SETTINGS["noise"],
        alpha=SETTINGS["sharpness"],
        verbosity=0,
        max_it=10**9,
        track_args={"names": []},
    )
    walk.step()
    compiled = time.perf_counter() - begun
    values = []
    for _ in range(2):
        begun = time.process_time()
        for _ in range(STEPS // 5):
            walk.step()
        values.append(1000 * (time.process_time() - begun) / (STEPS // 5))
    for _ in range(STEPS - 1 - 2 * (STEPS // 5)):
        walk.step()
    return {
        "values": values,
        "compile": compiled,
        "accuracy": f"lowest loss {rastrigin(walk.x).min():.1f} after {STEPS} steps",
    }
