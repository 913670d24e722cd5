"""What the original projects do: a trained Keras model and `predict`. A label for each picture, and no masks.

python -m benchmarks.peers.keras_predict generator|loop MODEL.tflite MODEL.keras FOLDER OUT

generator: an ImageDataGenerator, batches of 32. loop: load_img and predict, one picture at a time, as a notebook's last
cell does. The .tflite only gives the labels, percentiles and thresholds. Pictures are resized bilinearly, where
ImageDataGenerator would take the nearest pixel, and stretched, so that the model sees what the others see.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow
from numpy.typing import NDArray

from benchmarks.peers import common


def prepared(pixels: NDArray[np.float32], notes: common.Notes) -> NDArray[np.float32]:
    """Stretch float32[H, W, 1] of gray levels and bring it to [-1, 1]."""
    gray = common.stretch(pixels[:, :, 0].astype(np.uint8), notes.percentiles)
    return gray[:, :, np.newaxis].astype(np.float32) / 127.5 - 1


def by_generator(model: keras.Model, folder: Path, notes: common.Notes) -> tuple[list[str], NDArray[np.float32]]:
    """File names and probabilities, float32[pictures, labels], by `flow_from_directory` and one `predict`."""
    generator = tensorflow.keras.preprocessing.image.ImageDataGenerator(
        preprocessing_function=lambda pixels: prepared(pixels, notes)
    )
    batches = generator.flow_from_directory(
        folder.parent,
        classes=[folder.name],
        target_size=notes.size[::-1],
        color_mode="grayscale",
        interpolation="bilinear",
        batch_size=32,
        shuffle=False,
    )
    probabilities = model.predict(batches, verbose=0)["probabilities"]
    return [Path(name).name for name in batches.filenames], probabilities


def by_loop(model: keras.Model, folder: Path, notes: common.Notes) -> tuple[list[str], NDArray[np.float32]]:
    """File names and probabilities, float32[pictures, labels], by `load_img` and a `predict` for each picture."""
    files, probabilities = sorted(folder.iterdir()), []
    for file in files:
        image = keras.utils.load_img(
            file, color_mode="grayscale", target_size=notes.size[::-1], interpolation="bilinear"
        )
        pixels = prepared(keras.utils.img_to_array(image), notes)[np.newaxis]
        probabilities.append(model.predict(pixels, verbose=0)["probabilities"][0])
    return [file.name for file in files], np.stack(probabilities)


def main(way: str, model: Path, network: Path, folder: Path, out: Path) -> None:
    """Judge a folder."""
    notes = common.read_notes(model)
    predict = by_generator if way == "generator" else by_loop
    names, probabilities = predict(keras.models.load_model(network, compile=False), folder, notes)
    out.mkdir(parents=True, exist_ok=True)
    common.write(out, [(name, *common.judge(256 * p, notes)) for name, p in zip(names, probabilities, strict=True)])


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:6]))
