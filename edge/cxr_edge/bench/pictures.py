"""What a bench measures on: a sample of the user's own files, or phantoms."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from cxr_edge.errors import NothingFound

PHANTOMS = 8
"""Drawing one takes longer than judging it; these are 4 PNG and 4 JPEG of about a megapixel."""
SAMPLE_FROM = 5000
"""Files of a folder that are looked at: the sample is drawn among the first so many."""
SAMPLE = 48
SAMPLE_BYTES = 128 * 2**20
"""A sample is copied once, perhaps to a RAM disk."""


def draw(into: Path) -> list[Path]:
    """Draw phantoms."""
    from cxr_edge import phantom

    return phantom.write_folder(into, PHANTOMS)


def sample(folder: Path, into: Path) -> list[Path]:
    """Copy a sample of a folder's files, the same one each time; hidden files and links are left alone, as by `scan`.

    Raises:
        NothingFound: there is no file.
    """
    found = list(islice(_files(folder), SAMPLE_FROM))
    if not found:
        raise NothingFound(f"{folder} holds no file", "check its name, or leave it out to measure on phantoms")
    into.mkdir()
    copies: list[Path] = []
    total = 0
    for path in random.Random(0).sample(found, min(SAMPLE, len(found))):
        total += path.stat().st_size
        if copies and total > SAMPLE_BYTES:
            break
        copies.append(Path(shutil.copyfile(path, into / f"{len(copies):03}{path.suffix}")))
    return copies


def repeat(pictures: list[Path], count: int, into: Path) -> None:
    """Fill a folder with `count` files, the pictures in turn: hard links where the file system has them."""
    into.mkdir()
    for number in range(count):
        source = pictures[number % len(pictures)]
        target = into / f"{number:06}{source.suffix}"
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                yield path
