"""How a check-up is compiled: with options that the installed XLA has, and without them where it has not."""

import jax
import jax.numpy as jnp
import pytest

from nablax.diagnose._checkup import _compiling
from nablax.diagnose._checkup._compiling import quick_jit


@pytest.fixture(autouse=True)
def asked_anew():
    _compiling._options.cache_clear()
    yield
    _compiling._options.cache_clear()


def test_the_installed_version_has_the_options():
    assert _compiling._options() == {
        "xla_cpu_use_fusion_emitters": False,
        "xla_cpu_parallel_codegen_split_count": 1,
    }


@pytest.mark.parametrize("options", [{"xla_cpu_no_such_option": 1}, {"xla_cpu_parallel_codegen_split_count": 1}])
def test_a_version_without_them_compiles_all_the_same(monkeypatch, options):
    monkeypatch.setattr(_compiling, "_OPTIONS", options)
    traced = []

    @quick_jit
    def doubled(x, name):
        traced.append(name)
        return {name: 2 * x}

    for _ in range(2):
        assert doubled(jnp.asarray(3.0), "here")["here"] == 6
    assert traced == ["here"] and (_compiling._options() is None) == ("xla_cpu_no_such_option" in options)


def test_within_another_program_it_is_a_part_of_that():
    squared = quick_jit(lambda x: x * x)
    assert jax.jit(lambda x: squared(x) + 1)(3.0) == 10 and jax.grad(squared)(3.0) == 6 and squared(3.0) == 9


def test_no_other_backend_is_told(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert _compiling._options() is None
