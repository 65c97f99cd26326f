"""Compiled programs kept between calls: where, for whom, how many, and what becomes of those cut short."""

import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from nablax.app import _cache
from nablax.app._cache import cache_folder, kept_programs

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_enable_xla_caches",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NABLAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def events():
    counted = Counter()

    def count(event, **_):
        counted[event.rsplit("/", 1)[-1]] += 1

    jax.monitoring.register_event_listener(count)
    yield counted
    jax.monitoring.unregister_event_listener(count)


def compiled(number: float):
    """Compile and run a program that no other number gives."""
    jax.clear_caches()
    return float(jax.jit(lambda x: jnp.sin(x) * number)(1.0))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_second_call_finds_the_programs_of_the_first(folder, events):
    with kept_programs():
        first = compiled(2.0)
    assert events["cache_hits"] == 0 and events["cache_misses"] > 0
    assert folder.stat().st_mode & 0o777 == 0o700  # what is in it is run
    assert all(name.endswith("-cache") for name in names(folder))  # and no process's own folder
    before, misses = names(folder), events["cache_misses"]
    with kept_programs():
        assert compiled(2.0) == first
    assert events["cache_hits"] == events["compile_requests_use_cache"] - misses > 0
    assert events["cache_misses"] == misses and names(folder) == before


def test_jax_is_left_as_it_was_found(folder):
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    assert before["jax_compilation_cache_dir"] is None  # for who uses the library, nothing is kept
    with pytest.raises(KeyError), kept_programs():
        assert Path(jax.config.jax_compilation_cache_dir).parent == folder
        raise KeyError
    assert before == {name: getattr(jax.config, name) for name in SETTINGS}
    kept = names(folder)
    compiled(3.0)
    assert names(folder) == kept


def test_what_an_exception_may_have_cut_short_is_not_kept(folder):
    with pytest.raises(KeyboardInterrupt), kept_programs():
        compiled(4.0)
        raise KeyboardInterrupt
    assert names(folder) == set()


def test_an_entry_that_is_damaged_costs_the_time_to_compile_once(folder, events):
    with kept_programs():
        value = compiled(5.0)
    for path in folder.glob("*-cache"):
        path.write_bytes(path.read_bytes()[:50])
    for _ in range(2):  # given up, and kept anew
        with kept_programs():
            assert compiled(5.0) == value
    assert events["cache_hits"] == 0
    with kept_programs():
        assert compiled(5.0) == value
    assert events["cache_hits"] > 0


FULL_DISK = """
import resource
import jax, jax.numpy as jnp
from nablax.app._cache import kept_programs
with kept_programs():
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))  # bytes: no file grows beyond
    print(jax.jit(lambda x: jnp.sin(x) * 6.5)(1.0))
"""


def test_on_a_full_disk_nothing_is_kept_and_nothing_is_said(folder):
    with kept_programs():
        compiled(6.0)
    assert all(path.stat().st_size > 600 for path in folder.iterdir())
    environment = {**os.environ, "NABLAX_CACHE": str(folder)}
    done = subprocess.run([sys.executable, "-c", FULL_DISK], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stderr == "" and float(done.stdout)
    assert names(folder) == set()


def test_other_warnings_are_shown(folder):
    with pytest.warns(UserWarning, match="of another kind"), kept_programs():
        warnings.warn("of another kind", stacklevel=1)


def test_it_is_bounded_and_what_was_used_longest_ago_goes(folder, monkeypatch):
    folder.mkdir()
    for number in range(6):
        entry = folder / f"{number}-cache"
        entry.write_bytes(bytes(1000))
        os.utime(entry, (1000.0 + number, 1000.0))
    os.utime(folder / "0-cache", (2000.0, 1000.0))  # written with the others, read since
    dead, alive = folder / ".nablax-process-dead", folder / ".nablax-process-alive"
    for desk in (dead, alive):
        desk.mkdir()
    os.utime(dead, (time.time() - 2 * 86400,) * 2)
    monkeypatch.setattr(_cache, "_BYTES", 3500)
    with kept_programs():
        pass
    assert names(folder) == {"0-cache", "4-cache", "5-cache", ".nablax-process-alive"}
    monkeypatch.setattr(_cache, "_FILES", 2)
    with kept_programs():
        pass
    assert names(folder) == {"0-cache", "5-cache", ".nablax-process-alive"}


def test_a_folder_that_cannot_be_used_costs_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NABLAX_CACHE", str(tmp_path / "file" / "cache"))
    with kept_programs():
        assert jax.config.jax_compilation_cache_dir is None
        assert compiled(7.0)
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "not kept" in said.err and "NABLAX_CACHE" in said.err


def test_where_it_is(tmp_path, monkeypatch):
    monkeypatch.delenv("NABLAX_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    for platform, wanted in (
        ("linux", tmp_path / ".cache" / "nablax"),
        ("darwin", tmp_path / "Library" / "Caches" / "nablax"),
    ):
        monkeypatch.setattr(sys, "platform", platform)
        assert cache_folder() == wanted
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "nablax"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "nablax"
    monkeypatch.setenv("NABLAX_CACHE", "~/named")
    assert cache_folder() == tmp_path / "named"
    monkeypatch.setenv("NABLAX_CACHE", "off")
    assert cache_folder() is None


def test_off_keeps_nothing_and_a_cache_of_jaxs_own_stays(tmp_path, monkeypatch):
    with kept_programs():  # conftest turned it off
        assert jax.config.jax_compilation_cache_dir is None
    monkeypatch.delenv("NABLAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    assert cache_folder() is None
    assert names(tmp_path) == set()


PROCESS = """
import sys, jax, jax.numpy as jnp
from collections import Counter
from nablax.app._cache import kept_programs
counted = Counter()
jax.monitoring.register_event_listener(lambda event, **_: counted.update([event.rsplit("/", 1)[-1]]))
with kept_programs():
    for number in range(int(sys.argv[1]), int(sys.argv[2])):
        jax.jit(lambda x: jnp.sin(x) * number)(1.0)
        print(number, flush=True)
print(counted["compile_requests_use_cache"], counted["cache_hits"])
"""


def start(folder: Path, first: int, last: int) -> subprocess.Popen:
    command = [sys.executable, "-c", PROCESS, str(first), str(last)]
    environment = {**os.environ, "NABLAX_CACHE": str(folder)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_processes_at_once_one_of_them_killed(folder):
    """Two write the same and other programs at once, a third is killed at it: what is kept is whole, and serves."""
    one, other, third = start(folder, 0, 12), start(folder, 6, 18), start(folder, 0, 10_000)
    for line in third.stdout:
        if line.strip() == "5":
            third.send_signal(signal.SIGKILL)
            break
    third.wait()
    third.stdout.close()
    third.stderr.close()
    for process in (one, other):
        _, warned = process.communicate(timeout=100)
        assert process.returncode == 0 and not warned
    said, warned = start(folder, 0, 18).communicate(timeout=100)
    asked, found = said.split()[-2:]
    assert asked == found and int(found) >= 18 and not warned


def test_what_else_lies_in_a_named_folder_is_left_alone(folder, monkeypatch):
    monkeypatch.setattr(_cache, "_BYTES", 0)
    folder.mkdir(mode=0o700)
    (folder / "data.parquet").write_bytes(b"mine")
    (folder / "process-2025").mkdir()
    os.utime(folder / "process-2025", (0, 0))
    (folder / "broken-cache").write_bytes(b"no program")
    with kept_programs():
        compiled(5.0)
    assert {"data.parquet", "process-2025"} <= names(folder)
    assert "broken-cache" not in names(folder)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners and modes here")
def test_a_folder_that_others_may_write_is_not_used(folder, capsys):
    folder.mkdir()
    folder.chmod(0o777)
    with kept_programs():
        compiled(6.0)
    assert "others may write" in capsys.readouterr().err
    assert names(folder) == set()
