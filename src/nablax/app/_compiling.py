"""How XLA compiles the command line's programs: many small ones, most of which run for less time than they compile."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

# The older way of turning what is fused into machine code, on CPUs. Learning penguins (344 rows, 8 columns) with its
# report compiles in 60 % of the time, and a step of training takes as long as before.
_FLAG, _VALUE = "--xla_cpu_use_fusion_emitters", "false"
_HAVE_IT = ("0.10.",)  # XLA ends a process that names a flag it does not have


@contextmanager
def quick_compiling() -> Iterator[None]:
    """Have XLA spend less on compiling, unless ``XLA_FLAGS`` says how; it reads them once, when it is first used."""
    before = os.environ.get("XLA_FLAGS", "")
    if _FLAG in before or not version("jaxlib").startswith(_HAVE_IT):
        yield
        return
    os.environ["XLA_FLAGS"] = f"{before} {_FLAG}={_VALUE}".strip()
    try:
        yield
    finally:
        os.environ["XLA_FLAGS"] = before
        if not before:
            del os.environ["XLA_FLAGS"]


__all__ = ["quick_compiling"]
