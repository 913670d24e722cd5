"""Somebody else's TFLite classifiers get a manifest, and are judged by the box as they judge themselves."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from cxr_convert import foreign
from cxr_convert.predict import read_input
from cxr_edge import model_file
from cxr_edge.errors import ExitCode, ModelRefused
from cxr_edge.preprocess import InputSpec
from cxr_edge.runtime import Engine, find_runtime

if TYPE_CHECKING:
    from tests.convert.conftest import Source

SIDE = 32
Network = Callable[[Any], Any]


def export(outputs: Network, channels: int, white: float, kind: Any, batch: int | None = 1) -> bytes:
    """A TFLite file as its maker would export it: pixels from 0 to `white`; `kind` of integers, or None for float."""
    keras.utils.set_random_seed(3)
    image = keras.Input((SIDE, SIDE, channels), batch_size=batch)
    model = keras.Model(image, outputs(image))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if kind is not None:
        rng = np.random.default_rng(0)
        pictures = rng.uniform(0, white, (20, 1, SIDE, SIDE, channels)).astype(np.float32)
        pictures[0, 0, 0, 0, :], pictures[0, 0, 0, 1, :] = 0, white
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([picture] for picture in pictures)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = kind
    return bytes(converter.convert())


def brightness(image: Any, white: float) -> Any:
    """A feature that follows how bright the picture is, about -2 to 2."""
    return layers.Rescaling(8 / white, -3.0)(layers.GlobalAveragePooling2D()(layers.AveragePooling2D(4)(image)))


def softmax(white: float) -> Network:
    return lambda image: layers.Dense(2, "softmax")(brightness(image, white))


def sigmoid_with_mask(white: float) -> Network:
    def network(image: Any) -> Any:
        mask = layers.Conv2D(1, 4, strides=4, activation="sigmoid")(image)
        return [mask, layers.Dense(1, "sigmoid")(brightness(image, white))]

    return network


@pytest.fixture(scope="module")
def described(everything: Source, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[int, str, Path]]:
    """Run `cxr-convert describe` on a flatbuffer, with the table of a model of two labels."""
    table = everything.table.assign(label=np.where(everything.table["label"] == "normal", "well", "ill"))

    def run(content: bytes, *options: str, labels: str = "well,ill") -> tuple[int, str, Path]:
        folder = tmp_path_factory.mktemp("foreign")
        (folder / "theirs.tflite").write_bytes(content)
        table.to_csv(folder / "table.csv", index=False)
        arguments = (folder / "theirs.tflite", "--labels", labels, "--calibration", folder / "table.csv")
        code, said = everything.run("describe", *arguments, "-o", folder / "ours.tflite", *options)
        assert (code == 0) == (folder / "ours.tflite").exists(), said
        return code, said, folder / "ours.tflite"

    return run


def theirs(content: bytes, gray: NDArray[np.uint8], white: float) -> NDArray[np.float32]:
    """What the maker's own code would get of a picture: its smallest output."""
    interpreter = find_runtime().interpreter(model_content=content)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    values = np.repeat(gray, source["shape"][3], axis=3) / np.float32(255) * np.float32(white)
    if source["dtype"] is not np.float32:
        scale, zero_point = source["quantization"]
        values = np.clip(np.rint(values / scale) + zero_point, *_ends(source["dtype"]))
    interpreter.set_tensor(source["index"], values.astype(source["dtype"]))
    interpreter.invoke()
    detail = min(interpreter.get_output_details(), key=lambda detail: int(np.prod(detail["shape"])))
    result = interpreter.get_tensor(detail["index"])[0].astype(np.float32)
    scale, zero_point = detail["quantization"]
    return np.asarray((result - zero_point) * np.float32(scale) if scale else result)


def _ends(kind: type) -> tuple[int, int]:
    return int(np.iinfo(kind).min), int(np.iinfo(kind).max)


@pytest.mark.parametrize(
    ("network", "channels", "pixels", "kind"),
    [
        (softmax, 3, "0..1", None),
        (softmax, 1, "0..255", tf.uint8),
        (sigmoid_with_mask, 3, "0..255", tf.int8),
        (sigmoid_with_mask, 1, "0..1", None),
    ],
)
def test_the_box_says_what_its_maker_would(
    described: Callable[..., tuple[int, str, Path]],
    everything: Source,
    network: Callable[[float], Network],
    channels: int,
    pixels: str,
    kind: Any,
) -> None:
    white = 255.0 if pixels == "0..255" else 1.0
    content = export(network(white), channels, white, kind)
    code, said, out = described(content, "--pixels", pixels, "--licence", "CC0", "--intended-use", "Ours.")
    assert code == 0, said
    read = model_file.read(out)
    manifest, engine = read.manifest, Engine(find_runtime(), read)
    assert (manifest.input.channels, manifest.negative, manifest.familiar) == (channels, "well", None)
    assert (manifest.task, manifest.lung_area_pct is None) == (
        ("softmax", True) if network is softmax else ("sigmoid", False)
    )
    assert manifest.about["type"] == ("float32" if kind is None else "int8")
    for path in everything.table["path"][:10]:
        gray = read_input(path, InputSpec(SIDE, SIDE, low_percentile=0, high_percentile=100))
        result = engine.infer(gray)
        np.testing.assert_allclose(result["probabilities"] / 256, theirs(content, gray, white), atol=2.5 / 256)
        assert ("mask" in result) == (network is sigmoid_with_mask)
    assert "Not compared: the file came as it is" in said
    assert "Not known here" in said
    assert "CC0" in said
    assert "Ours." in said


def test_what_was_appended_to_their_file_is_replaced(
    described: Callable[..., tuple[int, str, Path]], tmp_path: Path
) -> None:
    content = export(softmax(1.0), 1, 1.0, None)
    (tmp_path / "with.tflite").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "with.tflite", "a") as archive:
        archive.writestr("labels.txt", "theirs\n")
    appended = (tmp_path / "with.tflite").read_bytes()
    code, said, out = described(appended, "--pixels", "0..1", "--negative", "ill", labels="well, ill")
    assert code == 0, said
    assert model_file.read(out).manifest.negative == "ill"
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist().count("labels.txt") == 1
        assert archive.read("labels.txt") == b"well\nill\n"
    # Described again, it is the same file.
    assert described(out.read_bytes(), "--pixels", "0..1")[0] == 0


def logits(image: Any) -> Any:
    return layers.Dense(2)(brightness(image, 1.0))


def independent(image: Any) -> Any:
    return layers.Activation("sigmoid")(layers.Rescaling(0.0, 2.0)(layers.Dense(2)(brightness(image, 1.0))))


def two_heads(image: Any) -> Any:
    return [softmax(1.0)(image), layers.Dense(2, "softmax")(brightness(image, 1.0))]


def two_pictures(image: Any) -> Any:
    return layers.Dense(2, "softmax")(brightness(layers.Concatenate()([image, image]), 1.0))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda: export(logits, 1, 1.0, None), "are not within 0 to 1"),
        (lambda: export(independent, 1, 1.0, None), "its probabilities sum to 1.76, not to 1"),
        (lambda: export(two_heads, 1, 1.0, None), "outputs of [1, 2], [1, 2] are not one [1, 2]"),
        (lambda: export(softmax(1.0), 2, 1.0, None), "inputs of [1, 32, 32, 2] are not one picture"),
        (lambda: export(softmax(1.0), 1, 1.0, None, batch=4), "inputs of [4, 32, 32, 1] are not one"),
        (lambda: b"no model at all", "is not a TFLite model"),
        (lambda: b"\x1c\0\0\0TFL3" + b"\0" * 64, "cannot run theirs.tflite"),
    ],
    ids=["logits", "independent", "two heads", "channels", "batch", "no model", "damaged"],
)
def test_what_is_no_classifier_of_pictures_is_refused(
    described: Callable[..., tuple[int, str, Path]], content: Callable[[], bytes], sentence: str
) -> None:
    code, said, _ = described(content(), "--pixels", "0..1")
    assert (code, sentence in said) == (ExitCode.MODEL_REFUSED, True), said
    assert "try:" in said


def test_as_many_labels_as_probabilities() -> None:
    content = export(softmax(1.0), 1, 1.0, None)
    with pytest.raises(ModelRefused, match=r"outputs of \[1, 2\] are not one \[1, 3\]"):
        foreign.look(content, ("well", "ill", "dead"), find_runtime(), "theirs.tflite")


@pytest.mark.parametrize("labels", ["well", "well,well", "well,", "well,uncertain"])
def test_labels_that_cannot_be_are_refused(described: Callable[..., tuple[int, str, Path]], labels: str) -> None:
    code, said, _ = described(b"", "--pixels", "0..1", labels=labels)
    assert (code, "two or more different labels" in said) == (ExitCode.USAGE, True), said


def test_a_batch_that_can_be_one_is_taken(described: Callable[..., tuple[int, str, Path]]) -> None:
    code, said, _ = described(export(softmax(1.0), 1, 1.0, None, batch=None), "--pixels", "0..1")
    assert code == 0, said
