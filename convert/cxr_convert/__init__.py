"""The conversion room: from `model.keras` to an int8 `.tflite` that describes itself."""
