"""Cross-validation on phantoms, killed and resumed; and that no fold's group is ever in its training."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_edge.errors import UsageError
from cxr_train import folds, phantoms, table
from cxr_train.table import Source

CXR_TRAIN = Path(sys.executable).with_name("cxr-train")


def frame(groups: list[int]) -> pd.DataFrame:
    rows = pd.DataFrame({"group": [str(group) for group in groups]})
    rows["label"] = ["ill" if int(group) % 2 else "well" for group in rows["group"]]
    rows["origin"] = ["a" if int(group) % 3 else "b" for group in rows["group"]]
    return rows


@settings(max_examples=25)
@given(st.lists(st.integers(0, 79), min_size=60, max_size=120), st.integers(0, 5))
def test_every_row_is_held_out_once_and_its_group_never_taught(groups: list[int], seed: int) -> None:
    rows = frame([*groups, *range(40)])
    held = [0] * len(rows)
    for _, held_out in folds.assign(rows, "4", seed):
        own = folds.split(rows, held_out, seed)
        taught = own[own["split"] != "test"]
        assert not set(taught["group"]) & set(own.loc[own["split"] == "test", "group"])
        assert not set(own.loc[own["split"] == "train", "group"]) & set(own.loc[own["split"] == "validation", "group"])
        assert (own["split"] == "validation").any()
        held = [count + int(out) for count, out in zip(held, held_out, strict=True)]
    assert set(held) == {1}


def test_leaving_an_origin_out_leaves_out_what_shares_a_group_with_it() -> None:
    rows = frame(list(range(60)))
    rows.loc[0, "group"] = "shared"
    rows.loc[1, "group"] = "shared"
    names = []
    for name, held_out in folds.assign(rows, "origin", 0):
        names.append(name)
        own = folds.split(rows, held_out, 0)
        assert set(own.loc[own["split"] == "test", "origin"]) == {name}
        assert name not in set(own.loc[own["split"] != "test", "origin"])
        assert "shared" not in set(own.loc[own["split"] != "test", "group"])
    assert names == ["a", "b"]


@pytest.mark.parametrize(
    ("by", "sentence"), [("one", "neither a number"), ("1", "neither a number"), ("50", "fewer than 50 groups")]
)
def test_folds_that_cannot_be_are_refused(by: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        folds.assign(frame(list(range(60))), by, 0)
    with pytest.raises(UsageError, match="all pictures are of the origin 'a'"):
        folds.assign(frame(list(range(60))).assign(origin="a"), "origin", 0)


def test_a_killed_cross_validation_goes_on(tmp_path: Path) -> None:
    source = phantoms.write_dataset(tmp_path / "set", 80, side=96)
    table.build(source, tmp_path / "table.csv", Source(group="patient", origin="origin"), "", "", seed=0)
    options = ["--preset", "cnn-4conv", "--size", "48", "--fine-epochs", "1", "--folds", "2"]
    command = [str(CXR_TRAIN), "fit", "--table", str(tmp_path / "table.csv"), "--out", str(tmp_path / "run"), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (tmp_path / "run" / "fold-1" / "judged.csv").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = (tmp_path / "run" / "fold-1" / "judged.csv").stat().st_mtime_ns

    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "fold-1" / "judged.csv").stat().st_mtime_ns == first
    predictions = pd.read_csv(tmp_path / "run" / "evaluation" / "predictions.csv")
    assert len(predictions) == 80
    assert predictions["path"].is_unique
    assert set(predictions["fold"]) == {1, 2}
    content = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())
    assert content["about"]["parameters"] > 0
    assert content["splits"]["test"]["pictures"] == 80
