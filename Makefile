# Everything runs in .venv, which the first command builds; it is rebuilt when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
# the shapes on signatures, checked in tests only; they keep torch.compile from seeing a whole graph
SHAPES := --jaxtyping-packages=hybridvit.models,hybridvit.folding,hybridvit.tasks.detect.dino,hybridvit.tasks.detect.heads,hybridvit.tasks.hand.mano.layer,hybridvit.tasks.hand.mano.rotation,beartype.beartype

# prints the slowest twenty, so that no test becomes slow unnoticed
TEST := $(BIN)/python -m pytest --durations 20 -n

# What a system lacks is missing from the standard library: without the other packages, and the two kinds of error that
# their absence makes, this takes a tenth of the time of the check above it.
OTHER_SYSTEM := $(BIN)/mypy hybridvit --cache-dir .mypy_cache/other --follow-imports skip --no-warn-unused-ignores \
	--disable-error-code name-defined --disable-error-code var-annotated

.PHONY: docs lab dist browser demo demo-segmentation demo-detection demo-hand test test-nightly test-litert check types types-elsewhere style bench bench-gpu results clean

demo: .venv/ready
	$(BIN)/python -m hybridvit.demo

demo-segmentation: .venv/ready
	$(BIN)/python -m hybridvit.demo segmentation

demo-detection: .venv/ready
	$(BIN)/python -m hybridvit.demo detection

demo-hand: .venv/ready
	$(BIN)/python -m hybridvit.demo hand

# A thread that waits by spinning takes the core from the one it waits for when the machine is shared: up to 9 times slower.
test test-nightly test-litert: export OMP_WAIT_POLICY ?= PASSIVE
test test-nightly: export NODE_PATH ?= $(CURDIR)/.venv/node/node_modules
# What every change must pass; test-nightly has every seed, every variant and every place to stop.
test: SELECTED := -m "not nightly"
# every error text that the tests meet, to be read in a row
test-nightly: export HYBRIDVIT_ERROR_TEXTS ?= $(CURDIR)/runs/error-texts.txt
test test-nightly: .venv/ready
	$(if $(HYBRIDVIT_ERROR_TEXTS),rm -f $(HYBRIDVIT_ERROR_TEXTS))
	$(TEST) 2 $(SELECTED) --dist loadscope tests/unit tests/contract/test_every_model.py $(SHAPES)
# three for two cores: these wait for processes of their own a fifth of the time
	$(TEST) 3 $(SELECTED) --dist loadscope --no-loadscope-reorder tests/engine tests/system tests/contract/test_every_task.py \
		$(SHAPES)
	$(TEST) 2 $(SELECTED) --dist loadscope tests/deployment tests/contract/test_every_target.py
	$(TEST) 2 $(SELECTED) --dist loadscope tests/serve tests/jobs
# apart, for Playwright leaves an event loop in its process
	$(TEST) 2 $(SELECTED) --dist loadscope tests/browser
	$(if $(HYBRIDVIT_ERROR_TEXTS),sort -u -o $(HYBRIDVIT_ERROR_TEXTS) $(HYBRIDVIT_ERROR_TEXTS))

# The browser of the tests, where there is none and the system's packages can be installed; else these are skipped.
browser:
	@for name in "$$CHROMIUM" chromium chromium-browser google-chrome; do command -v "$$name" > /dev/null && exit 0; done; \
	if test "$$(id -u)" = 0 && command -v apt-get > /dev/null; then \
		apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium > /dev/null; fi

# LiteRT's converter wants an older torch, so an environment of its own (6.7 GB)
test-litert: .venv-litert/ready
	.venv-litert/bin/python -m pytest -p no:anyio tests/litert tests/deployment/test_litert_runner.py
	.venv-litert/bin/python -m pytest -p no:anyio tests/contract/test_every_target.py -k litert

# two at a time, the longest first
check: .venv/ready
	$(MAKE) --jobs 2 types docs types-elsewhere style

types:
	$(BIN)/mypy

types-elsewhere:
	$(OTHER_SYSTEM) --platform win32
	$(OTHER_SYSTEM) --platform darwin

style:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# The site, into docs/_build/index.html: a dead link, a missing picture and an unknown reference are errors.
docs: .venv/ready
	$(BIN)/python -m sphinx -b html -q -W --keep-going -n docs docs/_build

bench: .venv/ready
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/inference.py
	$(BIN)/python benchmarks/fold_cost.py
	$(BIN)/python benchmarks/fastervit_inference.py
	$(BIN)/python benchmarks/carrier_tokens.py

# All times of docs/results.md taken anew: hours, on cores that nobody else uses.
results: .venv/ready
	$(BIN)/python benchmarks/cpu.py
	$(BIN)/python benchmarks/results.py

# Two tables of the papers in miniature, on the two marks: docs/ablations.md. What is finished is not run again.
SMALL_FASTVIT := model=fastvit_s12 'model_options={"depths": [1, 1, 2, 1], "widths": [8, 16, 32, 64], "mlp_ratio": 2}'
SEEDS ?= 0 1 2 3 4
lab: .venv/ready
	$(BIN)/python -m hybridvit ablate fastvit-4 --base two_marks --keys $(SMALL_FASTVIT) schedule.epochs=2 \
		--seeds $(SEEDS) --lab runs/lab/two_marks
	$(BIN)/python -m hybridvit ablate fastervit-s1-small --seeds $(SEEDS) --lab runs/lab/two_marks

# The wheel and the source distribution of the last commit: nothing that merely lies in the folder gets into them.
dist: .venv/ready
	rm -rf dist build/dist && mkdir -p build/dist
	git archive HEAD | tar -x -C build/dist
	$(BIN)/python -m build --no-isolation --outdir dist build/dist
	rm -r build/dist

# Needs a CUDA GPU and runs in whatever environment has it; writes docs/measurements/.
bench-gpu:
	$(PYTHON) -c "import torch, sys; torch.cuda.is_available() or sys.exit('bench-gpu needs a CUDA GPU; none was found.')"
	PYTHONPATH=. $(PYTHON) benchmarks/training_step.py --device cuda --output docs/measurements/gpu-training-step.json
	PYTHONPATH=. $(PYTHON) benchmarks/inference.py --device cuda --output docs/measurements/gpu-inference.json
	PYTHONPATH=. $(PYTHON) benchmarks/fastervit_inference.py --device cuda --output docs/measurements/gpu-fastervit.json
	PYTHONPATH=. $(PYTHON) benchmarks/gpu.py --output docs/measurements/gpu-models.json

clean:
	rm -rf docs/_build docs/reference build dist .venv .venv-litert .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

.venv/ready: pyproject.toml
	$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('hybridvit needs Python 3.11 or newer.')"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[dev]'
# on all cores, where pip takes one; some packages hold files that are no Python of this version
	$(BIN)/python -m compileall -qq -j 0 .venv/lib > /dev/null || true
# Khronos' validator of mesh files, which a test asks where there is node; without a network that test is skipped
	-! command -v npm > /dev/null || npm install --silent --no-fund --no-audit --prefix .venv/node gltf-validator@2.0.0-dev.3.10
	touch $@

.venv-litert/ready: pyproject.toml
	test -x .venv-litert/bin/python || $(PYTHON) -m venv .venv-litert
	.venv-litert/bin/python -m pip install --quiet --disable-pip-version-check -e '.[litert]' pytest pytest-timeout
	touch $@
