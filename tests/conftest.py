"""Radiographs for every test: real ones where the data is, phantoms elsewhere, so that no test is ever skipped.

The data folder is the one that CXR_DATA names, or `../shared/data` beside the repository.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from cxr_edge import phantom

DATA_BESIDE_THE_REPOSITORY = Path(__file__).parents[2] / "shared" / "data"

# The same examples in every run: a red build is the commit's doing. Slow machines have no deadline.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def data_dir() -> Path | None:
    """The folder of real data, or None where there is none."""
    named = os.environ.get("CXR_DATA")
    for folder in (Path(named) if named else None, DATA_BESIDE_THE_REPOSITORY):
        if folder and folder.is_dir():
            return folder
    return None


@pytest.fixture(scope="session")
def radiographs(data_dir: Path | None, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """6 to 12 radiographs of mixed formats and sizes: real ones as their sources gave them, or phantoms."""
    chosen: list[Path] = []
    for source in sorted((data_dir / "originals").glob("*/")) if data_dir else []:
        files = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
        chosen += dict.fromkeys(files[i] for i in (0, len(files) // 2, -1) if files)
    if len(chosen) >= 6:
        return chosen[:12]
    return phantom.write_folder(tmp_path_factory.mktemp("phantoms"), 6)
