"""What a person gets from a package index: the wheel, built, looked into, and used where nothing else is installed."""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = re.compile(r"__pycache__|\.egg-info|\.pyc$")
# Runs a page's Python blocks in one namespace; each keeps the page's line numbers, so that a traceback shows the page.
PAGE = r"""
import re, sys
text, names = open(sys.argv[1], encoding="utf-8").read(), {"__name__": "__main__"}
found = list(re.finditer(r"(^<!-- not run: .+? -->\n)?^```python\n(.*?)^```$", text, re.M | re.S))
assert found, "no block of Python"
for block in found:
    if not block[1]:
        exec(compile("\n" * text[: block.start(2)].count("\n") + block[2], sys.argv[1], "exec"), names)
"""


def files(*folders: str) -> set[str]:
    """Files of the repository below some folders, from its root."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in found if not LEFT_OUT.search(path.as_posix())}


def look_into_wheel(path: Path) -> None:
    """The package with its data, the licence, and nothing else; a description that stands without its neighbours."""
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        described = Parser().parsestr(wheel.read(metadata).decode("utf-8"))
        about = PurePosixPath(metadata).parent
        package = {name for name in names if not name.startswith(f"{about}/")}
        assert package == {name.removeprefix("src/") for name in files("src/nablax")}, package
        assert {"nablax/py.typed", "nablax/_pages/templates/report.html.jinja"} <= package
        assert any(name.startswith("nablax/papers/") and name.endswith(".json") for name in package), "no outcomes"
        assert wheel.read(f"{about}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    text = described.get_payload()
    dangling = re.findall(r"\]\((?!https?://)[^)]*\)|<img src=\"(?!https?://)[^>]*>", text)
    assert described["Description-Content-Type"] == "text/markdown" and text.startswith("# Nablax") and not dangling
    print(f"{path.name}: {len(package)} files, {path.stat().st_size / 1e6:.1f} MB")


def look_into_source(path: Path) -> None:
    """What the tests and the pages need, and no file that merely lay about."""
    with tarfile.open(path) as source:
        names = {member.name.partition("/")[2] for member in source if member.isfile()}
    expected = files("src", "tests", "docs", "examples", "benchmarks")
    alone = {name for name in names - expected if "/" in name}
    assert expected <= names and not alone, (sorted(expected - names), sorted(alone))
    assert {"LICENSE", "CITATION.cff", "README.md", "pyproject.toml", "constraints.txt"} <= names
    print(f"{path.name}: {len(names)} files, {path.stat().st_size / 1e6:.1f} MB")


def use(wheel: Path, scratch: Path) -> None:
    """Install the wheel with the extra `app` alone; learn, draw, and run the README's blocks, away from the clone."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"MPLBACKEND": "Agg", "NABLAX_CACHE": str(scratch / "cache")}
    programs = scratch / "environment" / "bin"

    def call(program: str, *words: str) -> None:
        print("$", program, *words if program == "nablax" else words[-1:], flush=True)
        subprocess.run([programs / program, *words], check=True, cwd=scratch, env=environment)

    subprocess.run([sys.executable, "-m", "venv", programs.parent], check=True)
    pins = str(ROOT / "constraints.txt")
    call("python", "-m", "pip", "install", "--quiet", "--no-warn-conflicts", f"{wheel}[app]", "--constraint", pins)
    others = "('pytest', 'mkdocs', 'torch')"
    call("python", "-c", f"from importlib.util import find_spec; assert not any(map(find_spec, {others}))")
    call("python", "-c", f"import nablax; assert nablax.__file__.startswith({str(programs.parent)!r}), nablax.__file__")
    call("nablax", "--help")
    call("nablax", "learn", str(ROOT / "examples/iris.csv"), "--condition", "species", "--steps", "60")
    call("nablax", "sample", "runs/iris", "-n", "20", "--condition", "species=setosa", "-o", "new.csv")
    assert len((scratch / "new.csv").read_text().splitlines()) == 21
    call("python", "-c", PAGE, str(ROOT / "README.md"))


def main() -> None:
    """Take the two distributions of `dist/` through all of it."""
    (wheel,) = (ROOT / "dist").glob("*.whl")
    (source,) = (ROOT / "dist").glob("*.tar.gz")
    look_into_wheel(wheel)
    look_into_source(source)
    with tempfile.TemporaryDirectory() as scratch:
        use(wheel, Path(scratch))


if __name__ == "__main__":
    main()
