"""What a release says about itself agrees: version, licence, authors, pins, links."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nablax

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
REQUIRED = {"library": PROJECT["dependencies"], "build": PYPROJECT["build-system"]["requires"]}
REQUIRED |= PROJECT["optional-dependencies"]
PINS = {
    canonicalize_name(name): version
    for name, version in (line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split())
}
# Builds of PyTorch differ by accelerator, so that its version is the machine's choice.
NOT_PINNED = {"torch"}


def test_the_version_stands_in_one_place():
    """Read from the package when it is built; a second copy would be forgotten."""
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+|\.dev\d+)?", nablax.__version__)
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT and "version" not in CITATION
    source = ROOT / PYPROJECT["tool"]["hatch"]["version"]["path"]
    assert source.read_text(encoding="utf-8").count(f'__version__ = "{nablax.__version__}"') == 1


def test_the_newest_changes_are_of_this_version():
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[1]
    assert newest == nablax.__version__


def test_the_licence_is_the_one_that_is_named():
    assert PROJECT["license"] == CITATION["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", text)
    assert all(re.search(rf"^ +{number}\. [A-Z]", text, re.M) for number in range(1, 10))
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_citation_tells_the_same_as_the_metadata():
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] == "software" and CITATION["message"]
    assert CITATION["title"].lower() == PROJECT["name"]
    assert CITATION["abstract"] == PROJECT["description"]
    assert CITATION["keywords"] == PROJECT["keywords"]
    assert CITATION["authors"] == PROJECT["authors"] == [{"name": "The Nablax authors"}]


def test_the_oldest_python_named_is_the_one_required():
    oldest = re.fullmatch(r">=3\.(\d+)", PROJECT["requires-python"])[1]
    named = [int(n) for n in re.findall(r"Python :: 3\.(\d+)", "\n".join(PROJECT["classifiers"]))]
    assert named == list(range(int(oldest), named[-1] + 1))


@pytest.mark.parametrize("extra", REQUIRED)
def test_every_package_is_pinned_where_it_is_allowed(extra):
    for requirement in map(Requirement, REQUIRED[extra]):
        name = canonicalize_name(requirement.name)
        if name in NOT_PINNED:
            continue
        exact = [s.version for s in requirement.specifier if s.operator == "=="]
        pin = PINS.get(name, *exact)
        assert requirement.specifier, f"{requirement} says no oldest version"
        assert requirement.specifier.contains(pin), f"{requirement} is pinned at {pin}"


def test_packages_come_from_wherever_the_reader_gets_them():
    """No lock file, no address in what installs: either would name one index for everyone."""
    locks = {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock", "pylock.toml", "conda-lock.yml", "pip.conf"}
    assert not [path for path in ROOT.glob("*") if path.name in locks]
    installs = ["Makefile", "pyproject.toml", "constraints.txt", ".ci/run", ".ci/release.py"]
    address = re.compile(r"\w+://|--(extra-)?index-url|--find-links|--trusted-host")
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in installs}
    assert [name for name, text in texts.items() if address.search(text)] == []


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"])
def test_links_of_the_front_pages_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert links or page != "README.md"
