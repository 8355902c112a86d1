"""What the archive needs of the Python that runs it: which packages lack or have another version, in one line with both remedies.

An installed vsrv has been checked by pip. The answer costs a listing of the folders in sys.path (about a millisecond), not an import.
"""

from __future__ import annotations

import json
import operator
import os
import re
import sys
from dataclasses import dataclass

from vsrv import boot

FOR_GPUS = "run: pip install '.[cuda]' in vsrv's source tree, or vsrv.pyz setup --cuda"

_RELEASE = re.compile(r"\d+(?:\.\d+)*")
_REQUIREMENT = re.compile(r"([\w.-]+)((?:[<>=!]=?[\d.]+,?)*)")
_CLAUSE = re.compile(r"(>=|<=|==|!=|<|>)([\d.]+)")
_METADATA = re.compile(r"(?P<name>.+?)-(?P<version>\d[^-]*?)(?:-py[\d.]+)?\.(?:dist-info|egg-info)")
_OPERATORS = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True, slots=True)
class Lack:
    """A package that is needed; `found` is the version that is here, "" if there is none."""

    name: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.name} {self.wanted} (here is {self.found})" if self.found else self.name


def stamp() -> dict[str, object]:
    """What build_zipapp.py wrote into the archive: version, commit, epoch, python, requires. Empty elsewhere."""
    text = boot.package_data("build.json")
    facts: dict[str, object] = json.loads(text) if text else {}
    return facts


def lacking() -> list[Lack]:
    """What this Python lacks; nothing where vsrv does not run from an archive."""
    requires = stamp().get("requires")
    return lacking_of([str(line) for line in requires], sys.path) if isinstance(requires, list) else []


def lacking_of(requirements: list[str], folders: list[str]) -> list[Lack]:
    """Which of the requirements, of the form "torch>=2.11,<2.14", no distribution in the folders meets."""
    here = _installed(folders)
    lacks = []
    for requirement in requirements:
        match = _REQUIREMENT.fullmatch(requirement)
        if match is None:
            raise ValueError(f"requirement {requirement!r} is of an unknown form")
        version = here.get(_normal(match[1]), "")
        if not version or not satisfies(version, match[2]):
            lacks.append(Lack(match[1], match[2], version))
    return lacks


def satisfies(version: str, clauses: str) -> bool:
    """Whether a version lies within ">=2.11,<2.14". Suffixes (2.13.0+cpu, 2.12.0a0+nv) do not count."""
    match = _RELEASE.match(version)
    release = _numbers(match[0]) if match else ()
    return all(_OPERATORS[sign](release, _numbers(bound)) for sign, bound in _CLAUSE.findall(clauses))


def _numbers(release: str) -> tuple[int, ...]:
    """2.11 and 2.11.0 are the same release (PEP 440)."""
    numbers = [int(part) for part in release.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed(folders: list[str]) -> dict[str, str]:
    """Version by normal name of every distribution in the folders; an earlier folder wins, as at import."""
    versions: dict[str, str] = {}
    for folder in filter(os.path.isdir, folders):
        for match in filter(None, map(_METADATA.fullmatch, os.listdir(folder))):
            versions.setdefault(_normal(match["name"]), match["version"])
    return versions
