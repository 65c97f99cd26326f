"""Every test runs with rank promotion forbidden; warnings are errors (pyproject)."""

import os
from pathlib import Path

# Nearly all of the suite's time is the compiler's: code that is compiled twice as fast or more may run slower.
os.environ["XLA_FLAGS"] = " ".join(
    ["--xla_backend_optimization_level=1", "--xla_cpu_use_fusion_emitters=false", os.environ.get("XLA_FLAGS", "")]
)

# No test reads or writes the user's own cache; those of the cache name a folder of their own.
os.environ["NABLAX_CACHE"] = "off"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """Compiled programs hold memory maps, of which Linux grants a process 65530; beyond them it crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 25_000:
        jax.clear_caches()


def pytest_collection_modifyitems(items):
    """With ``--dist loadgroup`` a file stays on one worker, for its fixtures and compiled programs; claims spread out."""
    for item in items:
        alone = item.path.name == "test_claims.py"
        item.add_marker(pytest.mark.xdist_group(item.nodeid if alone else str(item.path)))
