"""A folder that wishes the box ill: one row each, no crash, no hang, and memory within the budget."""

from __future__ import annotations

import csv
import io
import os
import random
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cxr_edge import imaging, machine
from cxr_edge.discover import discover
from cxr_edge.errors import ExitCode
from cxr_edge.phantom import draw

SCRIPT = Path(sys.executable).with_name("cxr-edge")
PICTURE = Image.fromarray(draw(1, width=240, height=260).image)
WIDE = Image.fromarray(np.asarray(PICTURE).astype(np.uint16) * 257)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


KINDS = {
    "gray.png": encoded(PICTURE, "PNG"),
    "wide.png": encoded(WIDE, "PNG"),
    "palette.png": encoded(PICTURE.convert("P"), "PNG", transparency=3),
    "rgba.png": encoded(PICTURE.convert("RGBA"), "PNG"),
    "gray.jpg": encoded(PICTURE, "JPEG"),
    "progressive.jpg": encoded(PICTURE.convert("RGB"), "JPEG", progressive=True),
    "cmyk.jpg": encoded(PICTURE.convert("CMYK"), "JPEG"),
    "gray.bmp": encoded(PICTURE, "BMP"),
    "raw.tif": encoded(PICTURE, "TIFF"),
    "lzw.tif": encoded(PICTURE.convert("RGB"), "TIFF", compression="tiff_lzw"),
    "deflate.tif": encoded(WIDE, "TIFF", compression="tiff_deflate"),
    "lossy.webp": encoded(PICTURE.convert("RGB"), "WEBP"),
    "lossless.webp": encoded(PICTURE.convert("RGBA"), "WEBP", lossless=True),
}


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG that claims a size, whatever follows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def endless_tiff() -> bytes:
    """A TIFF whose next directory is its first."""
    content = bytearray(KINDS["raw.tif"])
    start = struct.unpack_from("<I", content, 4)[0]
    entries = struct.unpack_from("<H", content, start)[0]
    struct.pack_into("<I", content, start + 2 + 12 * entries, start)
    return bytes(content)


def bombs() -> dict[str, bytes]:
    zeros = zlib.compress(bytes(50_000_000), 9)
    frames = [PICTURE.rotate(angle) for angle in range(0, 360, 4)]
    return {
        "claims 50000 x 50000.png": png(50_000, 50_000, chunk(b"IDAT", zeros)),
        "claims 100 megapixels of 16 bit RGBA.png": png(10_000, 10_000, chunk(b"IDAT", zeros), depth=16, colour=6),
        "strip.png": png(60_000, 64, chunk(b"IDAT", zlib.compress(bytes(60_001 * 64)))),
        "tower.png": png(64, 60_000, chunk(b"IDAT", zlib.compress(bytes(65 * 60_000)))),
        "text bomb.png": png(240, 260, *[chunk(b"zTXt", b"k\0\0" + zeros)] * 20, chunk(b"IDAT", zeros)),
        "profile bomb.png": png(240, 260, chunk(b"iCCP", b"k\0\0" + zeros), chunk(b"IDAT", zeros)),
        "too much data.png": png(240, 260, chunk(b"IDAT", zeros)),
        "nothing.png": png(0, 0),
        "claims 65500 x 65500.jpg": KINDS["gray.jpg"].replace(
            struct.pack(">BHH", 8, 260, 240), struct.pack(">BHH", 8, 65_500, 65_500)
        ),
        "claims 2 gigapixels.bmp": KINDS["gray.bmp"][:18] + struct.pack("<ii", 46_000, 46_000) + KINDS["gray.bmp"][26:],
        "negative.bmp": KINDS["gray.bmp"][:18] + struct.pack("<ii", -240, -260) + KINDS["gray.bmp"][26:],
        "endless.tif": endless_tiff(),
        "animation.png": encoded(PICTURE, "PNG", save_all=True, append_images=frames, loop=0, duration=1),
        "animation.webp": encoded(PICTURE, "WEBP", save_all=True, append_images=frames, loop=0, duration=1),
        "not on the list.gif": encoded(PICTURE, "GIF"),
        "not on the list.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 300 300\n",
        "zip.png": b"PK\x03\x04" + bytes(1000),
        "script.png": b"#!/bin/sh\nreboot\n",
    }


NAMES = [
    b"=1+1.png",
    b"-rf",
    b"@SUM(A1).png",
    b"new\nline.png",
    b'quo"te.png',
    b"latin-\xe9.png",
    b"n" * 255,
    b"a;b.png",
]


def hostile_folder(folder: Path) -> int:
    """Fill the folder; return how many files there are."""
    dice = random.Random(5)
    files = {name.encode(): content for name, content in (KINDS | bombs()).items()}
    for name, content in KINDS.items():
        for number in range(12):
            broken = bytearray(content)
            if number % 3 == 0:
                del broken[dice.randrange(len(broken)) :]
            for _ in range(dice.choice((1, 4, 40))):
                if broken:
                    # Half of the flips in the header, where the decoders believe most.
                    broken[dice.randrange(min(len(broken), dice.choice((200, len(broken)))))] = dice.randrange(256)
            files[f"broken/{number}-{name}".encode()] = bytes(broken)
    files |= {b"names/" + name: KINDS["gray.png"] + name for name in NAMES}
    for path, content in files.items():
        target = folder / os.fsdecode(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    (folder / "loop").symlink_to(folder)
    (folder / "self.png").symlink_to("self.png")
    (folder / "broken" / "up").symlink_to("..")
    os.mkfifo(folder / "pipe.png")
    return len(files)


@pytest.mark.parametrize("isolate", ["--isolate", "--no-isolate"])
def test_a_hostile_folder_costs_a_row_each(tmp_path: Path, isolate: str) -> None:
    count = hostile_folder(tmp_path / "in")
    out = tmp_path / "out"
    command = [SCRIPT, "scan", tmp_path / "in", "-o", out, "--settle", "0", "--memory", "48M", isolate]
    script = f"""
import json, subprocess, sys
from cxr_edge import machine
with machine.PeakOfFamily() as peak:
    done = subprocess.run({[str(part) for part in command]!r})
print(json.dumps([done.returncode, peak.mib]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    code, peak = eval(done.stdout.splitlines()[-1])
    assert code == ExitCode.SOME_FAILED
    assert "Traceback" not in done.stderr
    if isolate == "--isolate":  # libtiff itself writes to stderr, and cron would mail it
        assert done.stderr == ""
    with (out / "verdicts.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, strict=True))
    found = [one.name for one in discover(tmp_path / "in", leave_out=out, warn=lambda _: None)]
    assert Counter(row["path"].removeprefix("./") for row in rows) == Counter(found)
    assert len(rows) == count
    assert not [row for row in rows if row["reason_code"] in ("internal_error", "timed_out", "decoder_crashed")]
    ok = {row["path"] for row in rows if row["status"] == "ok"}
    assert set(KINDS) <= ok
    assert not any(row["path"] in bombs() and row["width"] == "50000" for row in rows if row["status"] == "ok")
    # The program, its children, and the sampler that measures them, beside the budget.
    assert peak < 48 + 150


# What a picture takes is known before it is decoded

SIDE = 1800
GRAY = Image.fromarray(draw(2, width=600, height=600).image).resize((SIDE, SIDE))
HEAVY: dict[str, Callable[[], bytes]] = {
    "gray PNG": lambda: encoded(GRAY, "PNG"),
    "RGB PNG": lambda: encoded(GRAY.convert("RGB"), "PNG"),
    "RGBA PNG": lambda: encoded(GRAY.convert("RGBA"), "PNG"),
    "gray with opacity PNG": lambda: encoded(GRAY.convert("LA"), "PNG"),
    "palette PNG": lambda: encoded(GRAY.convert("P"), "PNG"),
    "palette with opacity PNG": lambda: encoded(GRAY.convert("P"), "PNG", transparency=3),
    "bilevel PNG": lambda: encoded(GRAY.convert("1"), "PNG"),
    "16-bit PNG": lambda: encoded(Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 257), "PNG"),
    "JPEG": lambda: encoded(GRAY.convert("RGB"), "JPEG"),
    "progressive JPEG": lambda: encoded(GRAY.convert("RGB"), "JPEG", progressive=True),
    "CMYK JPEG": lambda: encoded(GRAY.convert("CMYK"), "JPEG"),
    "BMP": lambda: encoded(GRAY.convert("RGB"), "BMP"),
    "one-strip TIFF": lambda: encoded(GRAY.convert("RGB"), "TIFF", compression="tiff_lzw", tiffinfo={278: SIDE}),
    "float TIFF": lambda: encoded(Image.fromarray(np.asarray(GRAY).astype(np.float32)), "TIFF"),
    "WebP": lambda: encoded(GRAY.convert("RGB"), "WEBP"),
    "lossless WebP": lambda: encoded(GRAY.convert("RGBA"), "WEBP", lossless=True),
}


@pytest.mark.parametrize("make", HEAVY.values(), ids=HEAVY.keys())
def test_a_picture_takes_no_more_memory_than_its_header_told(make: Callable[[], bytes]) -> None:
    data = make()
    told = imaging.memory_needed(io.BytesIO(data), (224, 224))
    assert told >= 2 * SIDE * SIDE  # its mask at least
    reading, writing = os.pipe()
    if not (child := os.fork()):  # its peak begins with what it holds now
        try:
            before = machine.peak_memory()
            imaging.decode(data, (224, 224))
            os.write(writing, f"{machine.peak_memory() - before}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        taken = float(answer.read())
    os.waitpid(child, 0)
    assert taken * 2**20 < told + 6 * 2**20  # a decoder's own code and tables


@given(st.sampled_from(sorted(KINDS)), st.data())
@settings(max_examples=300)
def test_no_header_makes_the_estimate_fail(name: str, data: st.DataObject) -> None:
    content = bytearray(KINDS[name])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content), 400) - 1))] = data.draw(st.integers(0, 255))
    assert imaging.memory_needed(io.BytesIO(bytes(content)), (224, 224)) >= 0
