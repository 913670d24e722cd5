"""Decoders in processes of their own: same results, and whatever becomes of one, the next file is judged."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_edge.decoder import Decoder, FileLeft, Left, LocalDecoder
from cxr_edge.discover import FoundFile, find
from cxr_edge.errors import CxrEdgeError, ImageProblem, Reason
from cxr_edge.isolate import IsolatedDecoder, Nursery
from cxr_edge.phantom import draw
from cxr_edge.preprocess import InputSpec

SPEC = InputSpec(224, 224)


def put(path: Path, content: bytes) -> FoundFile:
    path.write_bytes(content)
    found = find(path.parent, path)
    assert found
    return found


def png(seed: int = 0) -> bytes:
    content = io.BytesIO()
    Image.fromarray(draw(seed, width=300, height=240).image).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery(SPEC, 64 * 2**20) as running:
        yield running


@pytest.fixture(params=["here", "isolated"])
def decoder(request: pytest.FixtureRequest, nursery: Nursery) -> Iterator[Decoder]:
    made: Decoder = LocalDecoder(SPEC) if request.param == "here" else nursery.decoder()
    yield made
    made.close()


def pid_of(decoder: IsolatedDecoder) -> int:
    assert decoder._child
    return decoder._child.pid


def problem(decoder: Decoder, found: FoundFile) -> ImageProblem:
    decoder.look(found)
    decoder.read()
    with pytest.raises(ImageProblem) as caught:
        decoder.prepare()
    return caught.value


def test_both_decoders_see_the_same(nursery: Nursery, radiographs: list[Path]) -> None:
    here, isolated = LocalDecoder(SPEC), nursery.decoder()
    for path in radiographs:
        found = find(path.parent, path)
        assert found
        assert here.look(found) == isolated.look(found) > path.stat().st_size
        assert here.read() == isolated.read()
        one, other = here.prepare(), isolated.prepare()
        assert np.array_equal(one.pixels, other.pixels)
        assert (one.width, one.height, one.brightness) == (other.width, other.height, other.brightness)
        assert 0 < one.brightness < 255
    isolated.close()


def test_problems_pass_the_border_as_they_are(tmp_path: Path, nursery: Nursery) -> None:
    here, isolated = LocalDecoder(SPEC), nursery.decoder()
    contents = {"empty": b"", "text": b"no radiograph", "cut": png()[:3000], "small": b"", "gone": b"x"}
    small = io.BytesIO()
    Image.new("L", (9, 9)).save(small, "PNG")
    contents["small"] = small.getvalue()
    for name, content in contents.items():
        found = put(tmp_path / name, content)
        one, other = problem(here, found), problem(isolated, found)
        assert (one.status, one.reason, one.sentence) == (other.status, other.reason, other.sentence)
        assert (one.width, one.height) == (other.width, other.height)
    isolated.close()


def test_a_file_that_vanished_or_changed_gets_no_row(tmp_path: Path, decoder: Decoder) -> None:
    found = put(tmp_path / "a.png", png())
    (tmp_path / "a.png").write_bytes(png() + b"more")
    with pytest.raises(FileLeft) as caught:
        decoder.look(found)
    assert caught.value.left is Left.CHANGING
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileLeft) as caught:
        decoder.look(found)
    assert caught.value.left is Left.VANISHED


def test_a_file_that_grows_while_it_is_read_gets_no_row(tmp_path: Path, decoder: Decoder) -> None:
    found = put(tmp_path / "a.png", png())
    decoder.look(found)
    with (tmp_path / "a.png").open("ab") as file:
        file.write(b"more")
    with pytest.raises(FileLeft):
        decoder.read()


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_was_a_file_and_is_a_link_or_a_pipe_now_is_not_opened(tmp_path: Path, decoder: Decoder, kind: str) -> None:
    found = put(tmp_path / "a.png", png())
    (tmp_path / "a.png").unlink()
    if kind == "link":
        put(tmp_path / "b.png", png())
        (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    else:
        os.mkfifo(tmp_path / "a.png")
    with pytest.raises((FileLeft, ImageProblem)):
        decoder.look(found)


def test_names_that_are_no_utf_8_reach_the_decoder(tmp_path: Path, decoder: Decoder) -> None:
    found = put(tmp_path / os.fsdecode(b"\xff\n.png"), png())
    assert decoder.look(found) > 0
    assert len(decoder.read()) == 64


def test_a_killed_decoder_costs_the_file_in_its_hands(tmp_path: Path, nursery: Nursery) -> None:
    found, decoder = put(tmp_path / "a.png", png()), nursery.decoder()
    decoder.look(found)
    killed = pid_of(decoder)
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(ImageProblem) as caught:
        decoder.read()
    assert caught.value.reason is Reason.DECODER_CRASHED
    decoder.look(found)
    decoder.read()
    assert decoder.prepare().width == 300
    assert pid_of(decoder) != killed
    decoder.close()


def test_a_decoder_that_hangs_is_killed_and_replaced(tmp_path: Path, nursery: Nursery) -> None:
    found, decoder = put(tmp_path / "a.png", png()), nursery.decoder(seconds=0.3)
    decoder.look(found)
    hung = pid_of(decoder)
    os.kill(hung, signal.SIGSTOP)
    with pytest.raises(ImageProblem, match="0 seconds") as caught:
        decoder.read()
    assert caught.value.reason is Reason.TIMED_OUT
    until(lambda: not Path(f"/proc/{hung}").exists())
    decoder.look(found)
    decoder.close()


def test_a_decoder_that_takes_too_much_memory_is_refused_it(tmp_path: Path, nursery: Nursery) -> None:
    """The header of a picture says what it will take, but a decoder may take more: here, of 300 MB at a time."""
    wide = io.BytesIO()
    Image.new("RGBA", (6000, 3500), (90, 90, 90, 200)).save(wide, "PNG", compress_level=1)
    found, decoder = put(tmp_path / "a.png", wide.getvalue()), nursery.decoder()
    assert decoder.look(found) > 200e6  # a sweep with this budget would not go on
    decoder.read()
    with pytest.raises(ImageProblem) as caught:
        decoder.prepare()
    assert caught.value.reason in (Reason.TOO_LARGE, Reason.DECODER_CRASHED)
    decoder.close()


def test_the_terminal_and_the_service_manager_do_not_end_decoders(tmp_path: Path, nursery: Nursery) -> None:
    found, decoder = put(tmp_path / "a.png", png()), nursery.decoder()
    decoder.look(found)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid_of(decoder), number)
    assert len(decoder.read()) == 64
    decoder.close()


def test_a_nursery_that_has_died_says_what_to_do(tmp_path: Path) -> None:
    found = put(tmp_path / "a.png", png())
    with Nursery(SPEC, 2**26) as nursery:
        os.kill(nursery._pid, signal.SIGKILL)
        with pytest.raises(CxrEdgeError) as caught:
            nursery.decoder().look(found)
    assert "--no-isolate" in caught.value.remedy


def test_nothing_outlives_a_killed_sweep(tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from cxr_edge.discover import find
from cxr_edge.isolate import Nursery
from cxr_edge.preprocess import InputSpec
with Nursery(InputSpec(224, 224), 2**26) as nursery:
    decoder = nursery.decoder()
    decoder.look(find(Path({str(tmp_path)!r}), Path({str(tmp_path / "a.png")!r})))
    print(nursery._pid, decoder._child.pid, flush=True)
    time.sleep(60)
"""
    put(tmp_path / "a.png", png())
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as sweep:
        assert sweep.stdout
        pids = sweep.stdout.readline().split()
        assert len(pids) == 2
        sweep.kill()
    until(lambda: not any(alive(pid) for pid in pids))


def alive(pid: str) -> bool:
    try:
        # One that nobody has waited for yet is dead all the same.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition: object) -> None:
    assert callable(condition)
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not come to pass within ten seconds")
