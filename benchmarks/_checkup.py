"""What the benchmarks of the check-up share: the call timed warm, the first one apart."""

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
