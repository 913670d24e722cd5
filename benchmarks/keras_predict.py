"""What people use instead: a trained Keras model and a loop. Run by `beside_keras.py`, one process each.

    python keras_predict.py generator MODEL.keras FOLDER OUT.csv    ImageDataGenerator, batches of 32, as notebooks do
    python keras_predict.py loop      MODEL.keras FOLDER OUT.csv    load_img and predict, one picture at a time

Writes a CSV with the predicted label of each picture, no masks; prints the seconds of the work without start-up.
"""

from __future__ import annotations

import csv
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

SIZE = (224, 224)


def by_generator(model: keras.Model, folder: Path) -> tuple[list[str], np.ndarray]:  # type: ignore[type-arg]
    """Predict with `flow_from_directory` and `model.predict`, as the original projects do."""
    generator = tf.keras.preprocessing.image.ImageDataGenerator(preprocessing_function=lambda x: x / 127.5 - 1)
    batches = generator.flow_from_directory(
        folder.parent, classes=[folder.name], target_size=SIZE, color_mode="grayscale", batch_size=32, shuffle=False
    )
    return list(batches.filenames), model.predict(batches, verbose=0)["probabilities"]


def by_loop(model: keras.Model, folder: Path) -> tuple[list[str], np.ndarray]:  # type: ignore[type-arg]
    """Predict picture by picture, as a notebook's last cell does."""
    files = sorted(folder.iterdir())
    outputs = []
    for file in files:
        image = keras.utils.load_img(file, color_mode="grayscale", target_size=SIZE)
        pixels = keras.utils.img_to_array(image)[np.newaxis] / 127.5 - 1
        outputs.append(model.predict(pixels, verbose=0)["probabilities"][0])
    return [file.name for file in files], np.stack(outputs)


def main() -> None:
    """Load, predict, write, and print the seconds that predicting took."""
    way, model_file, folder, out = sys.argv[1], *map(Path, sys.argv[2:5])
    model = keras.models.load_model(model_file, compile=False)
    start = time.perf_counter()
    names, probabilities = (by_generator if way == "generator" else by_loop)(model, folder)
    with out.open("w", newline="") as file:
        csv.writer(file).writerows(zip(names, probabilities.argmax(axis=1), strict=True))
    print(f"seconds {time.perf_counter() - start:.3f}")


if __name__ == "__main__":
    main()
