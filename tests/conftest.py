"""Every test runs with rank promotion forbidden; warnings are errors (pyproject)."""

import os
from pathlib import Path

# Nearly all of the suite's time is the compiler's: code that is compiled four times as fast may run slower. Claims, which
# train, are compiled with more care (Makefile). A program in parts, to be compiled side by side, takes a third more in
# all, and each core has tests of its own.
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
        os.environ.get("XLA_FLAGS", ""),
    ]
)

# No test reads or writes the user's own cache; those of the cache name a folder of their own.
os.environ["NABLAX_CACHE"] = "off"

import jax
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr
from xdist.scheduler import LoadScopeScheduling

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key():
    return jax.random.key(0)


def _in_loops(program, inside=False):
    for equation in program.eqns:
        if inside and equation.primitive.name == "conv_general_dilated":
            yield equation
        within = inside or equation.primitive.name in ("scan", "while")
        for value in equation.params.values():
            for part in value if type(value) is tuple else (value,):
                if isinstance(part, ClosedJaxpr | Jaxpr):
                    yield from _in_loops(getattr(part, "jaxpr", part), within)


@pytest.fixture
def loop_convolutions():
    """Of a traced program, the convolutions that run in one of its loops."""
    return lambda program: list(_in_loops(program.jaxpr))


@pytest.fixture
def loops_are_fast(loop_convolutions):
    """Assert that a call's loops hold convolutions, and all in the layout that XLA is fast at there on a CPU."""

    def check(call, *args):
        found = loop_convolutions(jax.make_jaxpr(call)(*args))
        rows = (0, 3, 1, 2)
        assert found and {tuple(one.params["dimension_numbers"]) for one in found} == {(rows, (3, 2, 0, 1), rows)}

    return check


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """Compiled programs hold memory maps, of which Linux grants a process 65530; beyond them it crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 25_000:
        jax.clear_caches()


class ByFile(LoadScopeScheduling):
    """A file stays on one worker, for its fixtures and compiled programs; claims, which share nothing, spread out."""

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        return nodeid if file.endswith("test_claims.py") else file


def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False  # it would put the files of few tests last, however slow
    return ByFile(config, log)


def pytest_collection_modifyitems(items):
    """Files with a slow test come first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
