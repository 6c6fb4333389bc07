# Two commands do all the set-up on a fresh machine with Python 3.11-3.13 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
ORT118 ?= .venv-ort118
CHROMIUM ?= .chromium
DEMO ?= demo-bundle
# Where the machine has a single core, one worker is as good as none.
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: demo test test-board ort118 lint bench clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed tests/requirements-torch.txt
	$(BIN)/python -m pip install --quiet -e '.[test,lint,torch]' -r tests/requirements-torch.txt
	touch $@

# Export, quantize and verify the shipped model, and classify an image with the device's scripts; leaves a report.
# The emulated ARM core is skipped until `resnet-edge runners setup qemu` has made it.
demo: $(VENV)/installed
	$(BIN)/resnet-edge export resnet8 --weights fashion-mnist -o $(DEMO) --format all
	$(BIN)/resnet-edge quantize $(DEMO) --recipe int8 --recipe fp16
	$(BIN)/resnet-edge inspect $(DEMO)/resnet8-int8.tflite --full-int8
	$(BIN)/resnet-edge verify $(DEMO) --data fashion-mnist --samples 2000 --max-drop 1 --latency --report $(DEMO).html
	$(BIN)/resnet-edge verify $(DEMO) --samples 32 --artifact '*-int8.tflite' --artifact '*-int8.onnx' \
	  --runner local --runner qemu:cortex-a53
	$(BIN)/python $(DEMO)/run_tflite.py calibration_data/fashion_mnist/ankle_boot.png
	$(BIN)/python $(DEMO)/run_onnx.py calibration_data/fashion_mnist/ankle_boot.png

# ONNX Runtime 1.18 needs NumPy 1, so it lives apart; it has no wheels for Python 3.13, where its tests skip.
$(ORT118)/installed: tests/compat/requirements-ort118.txt
	if $(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then \
	  $(PYTHON) -m venv $(ORT118) && \
	  $(ORT118)/bin/python -m pip install --quiet -r tests/compat/requirements-ort118.txt; \
	else mkdir -p $(ORT118); fi
	touch $@

ort118: $(ORT118)/installed

# Reports are looked at in a browser. Without one, which the script explains, these tests skip (in CI they fail).
$(CHROMIUM)/installed: tests/reports/install_chromium.sh
	if sh tests/reports/install_chromium.sh $(CHROMIUM); then touch $@; fi

test: $(VENV)/installed-test $(ORT118)/installed $(CHROMIUM)/installed
	RESNET_EDGE_ORT118=$(ORT118) RESNET_EDGE_CHROMIUM=$(CHROMIUM) $(BIN)/python -m pytest -n $(WORKERS)

# On a whole emulated board, with a kernel and an sshd of its own; needs qemu-system-aarch64 (qemu-system-arm).
test-board: $(VENV)/installed-test
	$(BIN)/python -m pytest tests/runners/whole_board.py

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	$(BIN)/python -m benchmarks.export
	$(BIN)/python -m benchmarks.verify

clean:
	rm -rf $(VENV) $(ORT118) $(CHROMIUM) $(DEMO) $(DEMO).html .mypy_cache .pytest_cache .ruff_cache
