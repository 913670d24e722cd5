"""A file that describes itself: manifest, labels, card and self-test, appended to the flatbuffer as a ZIP."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from cxr_edge import model_file
from cxr_edge.errors import OutputUnwritable
from cxr_edge.manifest import Manifest
from cxr_edge.model_file import Golden, ModelFile

_EPOCH = (1980, 1, 1, 0, 0, 0)


def package(flatbuffer: bytes, manifest: Manifest, card: str, golden: Golden) -> bytes:
    """Append the files to a flatbuffer without any; the same input gives the same bytes."""
    content = io.BytesIO()
    content.write(flatbuffer)
    files: dict[str, bytes] = {
        "manifest.json": manifest.to_json().encode(),
        "labels.txt": ("\n".join(manifest.labels) + "\n").encode(),
        "MODEL_CARD.md": card.encode(),
        **model_file.pack_golden(golden),
    }
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return content.getvalue()


def write(content: bytes, out: Path) -> ModelFile:
    """Write a packaged model so that nothing half-written is ever seen, and read it as the box will.

    Raises:
        OutputUnwritable: `out` cannot be written.
    """
    temp = out.with_name(f".{out.name}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temp.write_bytes(content)
        temp.replace(out)
    except OSError as error:
        temp.unlink(missing_ok=True)
        raise OutputUnwritable(f"{out} cannot be written: {error.strerror}", "choose another -o") from error
    return model_file.read(out)
