"""The command line's flags for XLA: there while a command runs, and nobody else's touched."""

import os
import subprocess
import sys

import pytest

from nablax.app import _compiling
from nablax.app._compiling import FLAGS, quick_compiling


@pytest.mark.parametrize("before", [None, "--xla_cpu_multi_thread_eigen=false"])
def test_flags_come_before_those_that_are_there_which_hold_and_go_again(monkeypatch, before):
    """Of a flag that is named twice XLA takes the last."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if before is not None:
        monkeypatch.setenv("XLA_FLAGS", before)
    with pytest.raises(KeyError), quick_compiling():
        assert os.environ["XLA_FLAGS"].split() == [*FLAGS, *([before] if before else [])]
        raise KeyError
    assert os.environ.get("XLA_FLAGS") == before


def test_an_xla_that_may_not_know_them_is_not_given_them(monkeypatch):
    """XLA ends a process that names a flag it does not have."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(_compiling, "version", lambda package: "0.99.0")
    with quick_compiling():
        assert "XLA_FLAGS" not in os.environ


def test_the_one_installed_takes_them_after_the_command_line_is_imported():
    program = (
        "from nablax.app import _cli\n"
        "from nablax.app._compiling import quick_compiling\n"
        "import jax\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "with quick_compiling():\n"
        "    print(jax.jit(lambda x: x + 1)(1))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, "2"), done.stderr
