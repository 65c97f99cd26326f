"""What the benchmarks of the check-up share: calls and training steps timed warm, the first one apart."""

import time


def timed(rounds: int, loss, model, batch, optimizer, state, logits) -> tuple[list[float], float, object]:
    """Milliseconds of each call, seconds of the first one, and the last record."""
    import jax

    from nablax.diagnose import checkup

    def run(seed: int):
        key = jax.random.key(seed)
        return checkup(loss, model, batch, optimizer=optimizer, opt_state=state, key=key, logits=logits)

    start = time.perf_counter()
    run(0)
    first, values = time.perf_counter() - start, []
    for seed in range(rounds):
        start = time.perf_counter()
        record = run(seed)
        values.append(1e3 * (time.perf_counter() - start))
    return values, first, record


def timed_steps(rounds: int, steps: int, step, model, state, batch) -> tuple[list[float], float]:
    """Milliseconds of a training step in each round of so many, and seconds of the first one."""
    import jax

    start, values = time.perf_counter(), []
    jax.block_until_ready(step(model, state, batch))
    first = time.perf_counter() - start
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(steps):
            model, state = step(model, state, batch)
        jax.block_until_ready(model)
        values.append(1e3 * (time.perf_counter() - start) / steps)
    return values, first
