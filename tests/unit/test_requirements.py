"""Which packages the archive finds lacking. Versions are compared as PEP 440 does, checked against the `packaging` library."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from vsrv import requirements

ROOT = Path(__file__).resolve().parent.parent.parent
VERSIONS = ("2.9", "2.10.7", "2.11", "2.11.0", "2.13.0+cpu", "2.14", "2.14.0", "3", "0.9.9", "10.0")
CLAUSES = (">=2.11,<2.14", ">=2.11", "<=2.11", "==2.11", "!=2.11", ">2.11,<10", "")


@pytest.mark.parametrize("clauses", CLAUSES)
def test_versions_compare_as_pep_440_says(clauses: str) -> None:
    for version in VERSIONS:
        expected = Version(Version(version).public) in SpecifierSet(clauses)
        assert requirements.satisfies(version, clauses) == expected, version


def test_a_vendors_own_build_counts_as_its_release() -> None:
    assert requirements.satisfies("2.12.0a0+nv25.10", ">=2.11,<2.14")
    assert not requirements.satisfies("unknown", ">=2.11")


def test_every_dependency_of_the_project_has_a_form_that_is_understood() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lacks = requirements.lacking_of(declared, [])
    assert [f"{lack.name}{lack.wanted}" for lack in lacks] == declared
    with pytest.raises(ValueError, match="unknown form"):
        requirements.lacking_of(["torch~=2.11"], [])


def test_distributions_are_found_by_their_folders(tmp_path: Path) -> None:
    """Names as wheels, Debian's packages and older tools write them; the first folder in the path counts, as at import."""
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (
        "first/Prometheus_Client-0.26.0.dist-info",
        "second/numpy-1.24.2.egg-info",
        "second/jinja2-3.1.6-py3.11.egg-info",
    ):
        (tmp_path / path).mkdir(parents=True)
    (second / "prometheus_client-0.1.dist-info").mkdir()
    wanted = ["prometheus-client>=0.21", "numpy>=2.0", "jinja2>=3.1.6", "torch>=2.11"]
    lacks = requirements.lacking_of(wanted, [str(first), str(tmp_path / "none"), str(second)])
    assert [(lack.name, lack.found) for lack in lacks] == [("numpy", "1.24.2"), ("torch", "")]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_locks_hold_what_the_project_asks_for(kind: str) -> None:
    """A new bound in pyproject needs new locks: `python3 build_zipapp.py lock`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lock = (ROOT / "vsrv" / "locks" / f"{kind}.txt").read_text()
    pinned = {
        match[1].lower().replace("_", "-"): Version(Version(match[2]).public)
        for match in re.finditer(r"^([\w.-]+)={2,3}([\w.+]+)", lock, re.MULTILINE)
    }
    wanted = [*project["dependencies"], *extras["build"], *(extras["cuda"] if kind == "cuda" else ())]
    for requirement in map(Requirement, wanted):
        assert pinned[requirement.name.lower().replace("_", "-")] in requirement.specifier, requirement
    assert lock.count("--hash=sha256:") >= len(pinned) and "://" not in lock
    assert bool(re.search(r"^torch===[\d.]+\+cpu", lock, re.MULTILINE)) == (kind == "cpu")


def test_tests_build_with_the_releases_that_the_archive_carries() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras["build"]) <= set(extras["test"])
