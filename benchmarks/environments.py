"""Environments that the benchmarks make for themselves from PyPI, kept in .venv-bench/ for the next time."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.pictures import ROOT

FOLDER = ROOT / ".venv-bench"


class NotMade(Exception):
    """An environment could not be made; says why."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with nothing in it but `packages` and what they need (no pip either).

    `newest` is the last Python, 3.x, that the packages have wheels for.
    """

    name: str
    packages: tuple[str, ...]
    newest: int | None = None

    @property
    def home(self) -> Path:
        """Where it lies."""
        return FOLDER / self.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.home / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """Where its packages lie."""
        return next(self.home.glob("lib/python3.*/site-packages"))

    def size(self) -> float:
        """MiB of all files of its packages, but for the bytecode that Python adds by itself."""
        files = (path for path in self.site_packages.rglob("*") if "__pycache__" not in path.parts)
        return sum(path.lstat().st_size for path in files if not path.is_dir()) / 2**20

    def versions(self) -> dict[str, str]:
        """What is installed: version of each package."""
        found = metadata.distributions(path=[str(self.site_packages)])
        return {each.metadata["Name"]: each.version for each in found}

    def make(self) -> None:
        """Make it, unless it was made from the same packages before. A package that is a path is always put anew.

        Raises:
            NotMade: there is no Python for it, or pip could not install something.
        """
        base = self._base_python()
        stamp, recipe = self.home / "recipe.txt", "\n".join((str(base), *self.packages))
        if not stamp.is_file() or stamp.read_text() != recipe:
            shutil.rmtree(self.home, ignore_errors=True)
            _checked([str(base), "-m", "venv", "--without-pip", str(self.home)])
            self._install(*self.packages)
            stamp.write_text(recipe)
        elif own := [package for package in self.packages if package.startswith("/")]:
            self._install("--no-deps", "--force-reinstall", *own)

    def _install(self, *arguments: str) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check"]
        _checked([*pip, "install", "--quiet", "--no-warn-script-location", *arguments])

    def _base_python(self) -> Path:
        if self.newest is None or sys.version_info.minor <= self.newest:
            return Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
        if not (found := shutil.which(f"python3.{self.newest}")):
            raise NotMade(f"its wheels end with Python 3.{self.newest}, and no python3.{self.newest} is on the PATH")
        return Path(found)


def _checked(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotMade((done.stderr.strip().splitlines() or ["it left without a word"])[-1])
