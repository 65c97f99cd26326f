"""Both sides on one thread, by processor time: what a row says then does not depend on what else the machine does."""

import os
import time
from collections.abc import Callable


def jax_alone() -> None:
    """To be called before JAX makes its first array."""
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
    os.environ["NPROC"] = "1"
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # of the factorisations, which are LAPACK's


def torch_alone() -> None:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)


def seconds(run: Callable[[], object], repeats: int) -> list[float]:
    """Of processor time, each of the repetitions."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return times
