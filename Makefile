PYTHON ?= python3
# Radiographs for the demo; without it, phantoms are drawn.
INCOMING ?=
# Data to train the shipped model on (see docs/model.md).
CXR_DATA ?= ../shared/data
RUN ?= runs/shipped
MODEL_LICENCE = Apache-2.0 for our part; the licences of the training pictures below restrict it to research use. \
  Lung masks: v7labs, CC BY 4.0

.PHONY: help demo test lint bench model room clean

help: ## list these commands
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: .venv-edge/installed ## scan a few phantoms, or INCOMING=folder, with the shipped model (no TensorFlow)
	@rm -rf demo-out
	@test -n "$(INCOMING)" || .venv-edge/bin/python -m cxr_edge.phantom demo-out/incoming --count 8
	@.venv-edge/bin/cxr-edge scan "$(or $(INCOMING),demo-out/incoming)" -o demo-out/verdicts || test $$? -eq 3

test: .venv/installed ## install everything and run every test
	.venv/bin/python -m pytest

lint: .venv/installed ## ruff, mypy, and the rule of who may import whom
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: .venv/installed ## scan beside plain Keras predict, on the same files, in one run
	.venv/bin/python benchmarks/beside_keras.py

model: .venv/installed ## train and convert the shipped model from CXR_DATA (an hour on two cores; resumes)
	.venv/bin/cxr-train table "$(CXR_DATA)/table.csv" -o "$(RUN)/table.csv" --path-column file --mask-column lung_mask \
	  --origin-column origin --group-column group --licence-column licence --age-column age \
	  --opacity-column ground_glass_mask,consolidation_mask \
	  --where "primary == '1' and (set == 'pool' or set == 'radiography')" --external "set == 'external'"
	.venv/bin/cxr-train fit --table "$(RUN)/table.csv" --out "$(RUN)/fit" --labels normal,pneumonia,covid19 --seed 1 \
	  --frozen-epochs 2 --fine-epochs 14 \
	  --weights "$(CXR_DATA)/weights/mobilenet_v2_imagenet_1.0_224_no_top_dequant_bncal.weights.h5"
	.venv/bin/cxr-train evaluate --model "$(RUN)/fit/model.keras" --table "$(RUN)/table.csv" --out "$(RUN)/evaluation"
	.venv/bin/cxr-train audit --model "$(RUN)/fit/model.keras" --table "$(RUN)/table.csv" --out "$(RUN)/audit"
	.venv/bin/cxr-convert "$(RUN)/fit/model.keras" --calibration "$(RUN)/table.csv" --licence "$(MODEL_LICENCE)" \
	  -o edge/cxr_edge/models/cxr-multitask.tflite

room: .venv/installed ## the figures of docs/training.md, from CXR_DATA (two hours on two cores; resumes)
	PATH="$(CURDIR)/.venv/bin:$$PATH" benchmarks/training_room.sh "$(CXR_DATA)" runs/room

clean: ## remove environments and whatever the commands above made
	rm -rf .venv .venv-edge demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv-edge/installed: pyproject.toml
	$(PYTHON) -m venv .venv-edge
	.venv-edge/bin/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
