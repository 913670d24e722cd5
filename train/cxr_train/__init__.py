"""The training room: from a table of radiographs to `model.keras`, with figures that can be trusted."""
