"""What a run costs the machine: CPU, memory and images per second, live on the terminal and in `resources.csv`.

    resources.csv   one line for each epoch: epoch, seconds, images_per_s, cpu_pct (100 is one core), rss_mib (its peak)

Not in `training_log.csv`: that one is the same in every run with the same seed, and these never are.
"""

from __future__ import annotations

import csv
import sys
import threading
import time
from pathlib import Path
from typing import Any

import keras
import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

COLUMNS = ("epoch", "seconds", "images_per_s", "cpu_pct", "rss_mib")
_EVERY_S = 0.5


class ResourceMonitor(keras.callbacks.Callback):
    """Samples this process twice a second in a thread of its own while an epoch runs."""

    def __init__(self, file: Path, batches: Any, epochs: int) -> None:
        super().__init__()
        self.file, self.batches, self.epochs = file, batches, epochs
        self.process = psutil.Process()
        self.console = Console(stderr=True)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Start to sample, and on a terminal to show."""
        self.started, self.done, self.peak = time.monotonic(), 0, self.process.memory_info().rss
        self.cpu = sum(self.process.cpu_times()[:2])
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=self.console, transient=True, disable=not sys.stderr.isatty())
        self.bar = self.progress.add_task(f"epoch {epoch + 1}/{self.epochs}", total=len(self.batches))
        self.progress.start()
        self.stop = threading.Event()
        self.sampler = threading.Thread(target=self._sample, daemon=True)
        self.sampler.start()

    def _sample(self) -> None:
        while not self.stop.wait(_EVERY_S):
            self.peak = max(self.peak, self.process.memory_info().rss)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count, and tell the terminal."""
        self.done = batch + 1
        loss = (logs or {}).get("loss", float("nan"))
        seconds, rate, cpu, rss = self._figures()
        text = f"loss {loss:.4f}  {rate:.0f} images/s  CPU {cpu:.0f} %  {rss:.0f} MiB"
        self.progress.update(self.bar, completed=self.done, description=text)
        # The rate of training alone, without the validation that follows.
        self.trained = seconds, rate

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the epoch's line, and say it on stderr."""
        self._end()
        seconds, _, cpu, rss = self._figures()
        _, rate = self.trained
        new = not self.file.exists()
        with self.file.open("a", newline="") as file:
            lines = csv.writer(file)
            if new:
                lines.writerow(COLUMNS)
            lines.writerow((epoch, f"{seconds:.1f}", f"{rate:.1f}", f"{cpu:.0f}", f"{rss:.0f}"))
        values = logs or {}
        told = "  ".join(f"{name} {values[name]:.4f}" for name in ("loss", "val_loss") if name in values)
        self.console.print(
            f"epoch {epoch + 1}/{self.epochs}  {told}  {rate:.0f} images/s  CPU {cpu:.0f} %  {rss:.0f} MiB  "
            f"{seconds:.0f} s",
            highlight=False,
            soft_wrap=True,
        )

    def _figures(self) -> tuple[float, float, float, float]:
        """Since the epoch began: seconds, images per second, CPU in percent of a core, peak resident MiB."""
        seconds = max(time.monotonic() - self.started, 1e-6)
        cpu = 100 * (sum(self.process.cpu_times()[:2]) - self.cpu) / seconds
        images = min(self.done * self.batches.batch, self.batches.pictures)
        return seconds, images / seconds, cpu, self.peak / 2**20

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Leave no thread behind."""
        self._end()

    def _end(self) -> None:
        self.stop.set()
        self.sampler.join()
        self.progress.stop()
