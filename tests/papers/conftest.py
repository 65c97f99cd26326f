"""A small package, planted where the evidence looks for this one."""

import sys
import textwrap

import pytest

from nablax.papers import _code


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Write files as a package, and let `papers` take it for `nablax`."""
    source = tmp_path / f"planted{abs(hash(str(tmp_path)))}"

    def write(files):
        for name, text in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(textwrap.dedent(text))
        return source

    monkeypatch.setattr(_code, "SOURCE", source)
    monkeypatch.syspath_prepend(tmp_path)
    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == source.name]:
        del sys.modules[name]


@pytest.fixture
def rewrite():
    """Change a file that may have been read already: files are read once in a process."""

    def change(path, old, new):
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        for cached in (_code._read, _code._listed):
            cached.cache_clear()

    return change
