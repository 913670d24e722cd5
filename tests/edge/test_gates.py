"""What is no radiograph, or cannot be judged, is turned away with its reason; radiographs pass."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cxr_edge import gates, imaging
from cxr_edge.errors import ImageProblem, Reason, Status
from cxr_edge.gates import BLANK_CONTRAST, check_outputs, check_picture
from cxr_edge.imaging import Radiograph
from cxr_edge.manifest import OPERATING_POINTS, Familiar, Manifest
from cxr_edge.phantom import draw
from cxr_edge.preprocess import InputSpec


def radiograph(gray: NDArray[np.uint8]) -> Radiograph:
    return Radiograph(gray, 2 * gray.shape[1], 2 * gray.shape[0])


@pytest.mark.parametrize("level", [0, 100, 255])
def test_one_gray_is_blank_whatever_the_gray(level: int) -> None:
    noise = np.random.default_rng(0).integers(0, BLANK_CONTRAST // 2, (300, 200))
    blank = np.clip(level + noise, 0, 255).astype(np.uint8)
    blank[:3, :3] = 255 - level  # dust
    with pytest.raises(ImageProblem) as caught:
        check_picture(radiograph(blank))
    assert (caught.value.status, caught.value.reason) == (Status.REJECTED, Reason.BLANK)
    assert (caught.value.width, caught.value.height) == (400, 600)


@pytest.mark.parametrize("seed", range(6))
def test_a_radiograph_is_not_blank_even_underexposed(seed: int) -> None:
    gray = draw(seed, height=300, width=700).image
    check_picture(radiograph(gray))
    check_picture(radiograph((gray // 8).astype(np.uint8)))


def test_the_blank_gate_at_its_edge() -> None:
    for contrast, blank in ((BLANK_CONTRAST - 1, True), (BLANK_CONTRAST, False)):
        gray = np.repeat(np.array([[50], [50 + contrast]], np.uint8), 100, axis=0).repeat(100, axis=1)
        if blank:
            with pytest.raises(ImageProblem):
                check_picture(radiograph(gray))
        else:
            check_picture(radiograph(gray))


def encoded(image: Image.Image, kind: str) -> bytes:
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


def reason_of(picture: Radiograph) -> Reason | None:
    try:
        check_picture(picture)
    except ImageProblem as problem:
        return problem.reason if problem.status is Status.REJECTED else Reason.INTERNAL_ERROR
    return None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "TIFF"])
def test_colours_make_no_radiograph_in_any_format(kind: str) -> None:
    gray = Image.fromarray(draw(0, height=300, width=400).image)
    overlay = gray.convert("RGB")
    ImageDraw.Draw(overlay).rectangle((100, 100, 220, 220), fill=(220, 40, 30))
    assert reason_of(imaging.decode(encoded(overlay, kind), (224, 224))) is Reason.NOT_A_RADIOGRAPH
    assert reason_of(imaging.decode(encoded(gray.convert("RGB"), kind), (224, 224))) is None


def test_a_bluish_film_and_a_small_coloured_mark_are_no_colours() -> None:
    gray = draw(1, height=300, width=400).image
    bluish = np.stack([gray, gray, np.minimum(gray.astype(int) + 25, 255)], axis=2).astype(np.uint8)
    image = Image.fromarray(bluish)
    ImageDraw.Draw(image).rectangle((10, 10, 40, 40), fill=(255, 0, 0))
    assert reason_of(imaging.decode(encoded(image, "PNG"), (224, 224))) is None


def test_colours_of_a_palette_count() -> None:
    image = Image.new("P", (200, 200))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (0, 0, 200, 90))
    assert reason_of(imaging.decode(encoded(image, "PNG"), (224, 224))) is Reason.NOT_A_RADIOGRAPH


def test_a_page_of_text_is_saturated() -> None:
    page = Image.new("L", (600, 800), 255)
    pen = ImageDraw.Draw(page)
    for line in range(20, 780, 24):
        pen.text((30, line), "Findings: the heart is of normal size. " * 2, fill=0)
    assert reason_of(imaging.decode(encoded(page, "PNG"), (224, 224))) is Reason.SATURATED


FAMILIAR = Familiar(mean=(1.0, 2.0), whitening=((1.0, 0.0), (0.0, 0.5)), limit=2.0)
PICTURE = Radiograph(np.zeros((64, 64), np.uint8), 640, 640)


def manifest(**fields: Any) -> Manifest:
    content: dict[str, Any] = {
        "name": "m",
        "task": "softmax",
        "labels": ("normal", "pneumonia"),
        "negative": "normal",
        "input": InputSpec(),
        "outputs": {"probabilities": "a", "mask": "b", "embedding": "c"},
        "temperature": 1.0,
        "uncertain_below": 0.6,
        "operating_points": dict.fromkeys(OPERATING_POINTS, 0.5),
        "mask_threshold": 0.5,
        "lung_area_pct": (10.0, 60.0),
        "familiar": FAMILIAR,
        "affected": None,
        "tflite_sha256": "",
    }
    return Manifest(**content | fields)


def outputs(embedding: tuple[float, float] = (1.0, 2.0), mask: NDArray[np.uint8] | None = None) -> gates.Outputs:
    lungs = np.zeros((20, 20), np.uint8)
    lungs[4:16, 3:9] = lungs[4:16, 11:17] = 255
    return {"embedding": np.array(embedding, np.float32), "mask": lungs if mask is None else mask}


def rejection(found: gates.Outputs, **fields: Any) -> Reason:
    with pytest.raises(ImageProblem) as caught:
        check_outputs(found, manifest(**fields), PICTURE)
    assert (caught.value.status, caught.value.width) == (Status.REJECTED, 640)
    return caught.value.reason


def test_distance_is_counted_in_standard_deviations() -> None:
    assert gates.distance(np.array([1.0, 2.0], np.float32), FAMILIAR) == 0
    assert gates.distance(np.array([4.0, 10.0], np.float32), FAMILIAR) == pytest.approx(5)


def test_what_the_model_knows_passes_up_to_the_limit() -> None:
    check_outputs(outputs((3.0, 2.0)), manifest(), PICTURE)
    assert rejection(outputs((3.01, 2.0))) is Reason.OUT_OF_DISTRIBUTION


def test_a_model_without_such_outputs_has_no_such_gates() -> None:
    check_outputs({}, manifest(familiar=None, lung_area_pct=None), PICTURE)


@pytest.mark.parametrize("level", [0, 255])
def test_no_lungs_or_nothing_but_lungs(level: int) -> None:
    assert rejection(outputs(mask=np.full((20, 20), level, np.uint8))) is Reason.LUNGS_NOT_FOUND


def test_lungs_that_go_on_outside_the_frame() -> None:
    lungs = np.zeros((20, 20), np.uint8)
    lungs[10:, 2:18] = 255
    assert rejection(outputs(mask=lungs)) is Reason.LUNGS_CUT_OFF
    lungs[-1] = 0
    check_outputs(outputs(mask=lungs), manifest(), PICTURE)


def test_an_inverted_radiograph_is_known_by_its_negative() -> None:
    far, farther, near = outputs((4.0, 2.0)), outputs((9.0, 2.0)), outputs((1.5, 2.0))
    assert gates.may_be_inverted(far, manifest())
    assert not gates.may_be_inverted(near, manifest())
    assert gates.is_inverted(far, near, manifest())
    assert not gates.is_inverted(near, far, manifest())
    # A negative that is unfamiliar too is no radiograph either way.
    assert not gates.is_inverted(farther, far, manifest())
    assert not gates.may_be_inverted(far, manifest(familiar=None))


def test_radiographs_of_the_data_pass_the_first_gates(radiographs: list[Path]) -> None:
    for path in radiographs:
        assert reason_of(imaging.decode(path.read_bytes(), (224, 224))) is None, path
