"""How XLA compiles what learning runs: many small programs, most of which run for less time than they compile."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

# On CPUs: the older way of turning what is fused into machine code, one piece of it at a time, and with less care.
# Learning penguins (344 rows, 8 columns) with its report takes 60 % of the processor time, and a step of training takes
# as long as before. Drawing 20,000 rows takes 40 % longer with it, so that only learning compiles like this.
FLAGS = (
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_backend_optimization_level=1",
)
_HAVE_THEM = ("0.10.",)  # XLA ends a process that names a flag it does not have


@contextmanager
def quick_compiling() -> Iterator[None]:
    """Have XLA, which reads ``XLA_FLAGS`` at its first use, spend less on compiling; the user's flags come last."""
    before = os.environ.get("XLA_FLAGS")
    if not version("jaxlib").startswith(_HAVE_THEM):
        yield
        return
    os.environ["XLA_FLAGS"] = " ".join([*FLAGS, *([] if before is None else [before])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["XLA_FLAGS"]
        else:
            os.environ["XLA_FLAGS"] = before


__all__ = ["FLAGS", "quick_compiling"]
