# Everything a person needs; CI calls the same targets. `make help` lists them.
# Each target makes what it needs: a fresh machine wants only Python 3.11 or newer, and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCE ?=
NETWORK ?=
FILES ?= 60000
MINUTES ?= 10
ROUNDS ?= 300
SEED ?= $(shell date +%s)
PEERS ?= all
IMAGES ?=
PHOTOS ?= 60
BENCH_ROUNDS ?= 3
PRECISION ?= fp32
BENCH ?= .bench
FEATURES ?=
TESTS ?=
BUDGET ?= 600
RATE ?= 3e-4

.DEFAULT_GOAL := help
.PHONY: help demo test errors lint types docs check format torture fuzz bench bench-scan bench-store bench-import bench-head bench-audit \
	bench-claim bench-ray bench-report bench-sources bench-idx bench-web clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# The environment of a user (for the demonstration), and with it that of a developer. A stamp is
# newer than pyproject.toml when what it asks for is installed.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tlpipe needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.user: $(VENV)/.made pyproject.toml
	@echo "Installing tlpipe and what it needs; this takes a minute or two, once ..."
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.developer: $(VENV)/.made pyproject.toml
	@echo "Installing tlpipe and the tools of its developers; this takes some minutes, once ..."
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.user

demo: $(VENV)/.user ## embed, train and classify 1,797 real scans with the default backbone
	$(BIN)/tlpipe demo
	@echo "Before you type these, once in each shell, so that tlpipe is found: . $(BIN)/activate"

test: $(VENV)/.developer ## run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --error-sites

errors: $(VENV)/.developer ## run the tests, and list the errors that none brings about: [TESTS=tests/test_cli.py]
	$(BIN)/python tests/error_recorder.py $(TESTS)

lint: $(VENV)/.developer ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.developer ## check types
	$(BIN)/mypy

docs: $(VENV)/.developer ## build the documentation into site/; every warning is an error
	$(BIN)/properdocs build --strict

check: lint types docs test ## all that CI checks

format: $(VENV)/.developer ## correct style and format where that can be done for you
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

torture: $(VENV)/.developer ## kill embeddings at every step and check what is left: [ROUNDS=300] [SEED=n]
	$(BIN)/python tests/torture.py --rounds $(ROUNDS) --seed $(SEED)
	TLPIPE_FAULTS=40 TLPIPE_HISTORIES=$(ROUNDS) $(BIN)/python -m pytest \
		tests/test_faults.py tests/test_state_machine.py

bench: $(VENV)/.developer ## measure embedding against the machine's limit and peers: SOURCE=folder [PEERS=none]
	@test -n "$(SOURCE)" || { echo "Name a folder of images: make bench SOURCE=folder" >&2; exit 2; }
	$(BIN)/python tests/benchmarks/embed_rate.py "$(SOURCE)" --rounds $(BENCH_ROUNDS) --peers $(PEERS) \
		$(if $(IMAGES),--images $(IMAGES)) --photos $(PHOTOS) --precision $(PRECISION) --folder "$(BENCH)"

bench-store: $(VENV)/.developer ## measure what updating, storing and reading features cost: [FILES=60000]
	$(BIN)/python tests/benchmarks/store_cost.py --files $(FILES)

bench-scan: $(VENV)/.developer ## measure listing a folder against a bare walk, and manifests of 1,000,000 rows
	$(BIN)/python tests/benchmarks/scan_rate.py

bench-import: $(VENV)/.developer ## measure what taking an ONNX file as a backbone costs: [NETWORK=file]
	$(BIN)/python tests/benchmarks/import_cost.py $(NETWORK)

bench-head: $(VENV)/.developer ## measure training the head against scikit-learn: FEATURES="a.h5 b.h5"
	@test -n "$(FEATURES)" || { echo "Name feature files: make bench-head FEATURES=a.h5" >&2; exit 2; }
	$(BIN)/python tests/benchmarks/head_cost.py $(FEATURES) --rounds $(BENCH_ROUNDS) --folder "$(BENCH)"

bench-claim: $(VENV)/.developer ## a head from the cache against PyTorch from images: SOURCE="folder folder"
	@test -n "$(SOURCE)" || { echo "Name folders of images: make bench-claim SOURCE=folder" >&2; exit 2; }
	$(BIN)/python tests/benchmarks/claim.py $(SOURCE) --budget-s $(BUDGET) --rate $(RATE) \
		$(if $(IMAGES),--images $(IMAGES)) --folder "$(BENCH)"

bench-ray: $(VENV)/.developer ## measure a local Ray cluster against the local engine: SOURCE=folder [IMAGES=4000]
	@test -n "$(SOURCE)" || { echo "Name a folder of images: make bench-ray SOURCE=folder" >&2; exit 2; }
	$(BIN)/python tests/benchmarks/ray_rate.py "$(SOURCE)" --rounds $(BENCH_ROUNDS) --folder "$(BENCH)" \
		$(if $(IMAGES),--images $(IMAGES))

bench-report: $(VENV)/.developer ## time, memory, size and first paint of a report: SOURCE=folder [IMAGES=10000]
	@test -n "$(SOURCE)" || { echo "Name a folder of a folder per class: make bench-report SOURCE=folder" >&2; exit 2; }
	$(BIN)/python tests/benchmarks/report_cost.py "$(SOURCE)" --rounds $(BENCH_ROUNDS) --folder "$(BENCH)" \
		$(if $(IMAGES),--images $(IMAGES))

bench-sources: $(VENV)/.developer ## archives against the folder that was packed: SOURCE=folder [IMAGES=2000]
	@test -n "$(SOURCE)" || { echo "Name a folder of images: make bench-sources SOURCE=folder" >&2; exit 2; }
	$(BIN)/python tests/benchmarks/source_kinds.py "$(SOURCE)" --embeds $(BENCH_ROUNDS) \
		$(if $(IMAGES),--images $(IMAGES))

bench-idx: $(VENV)/.developer ## embed, train and test an IDX data set: SOURCE=folder [IMAGES=6000]
	@test -n "$(SOURCE)" || { echo "Name a folder of IDX files: make bench-idx SOURCE=folder" >&2; exit 2; }
	$(BIN)/python tests/benchmarks/idx_accuracy.py "$(SOURCE)" $(if $(IMAGES),--images $(IMAGES))

bench-audit: $(VENV)/.developer ## flip labels, and count which of them audit finds: FEATURES="a.h5 b.h5"
	@test -n "$(FEATURES)" || { echo "Name feature files: make bench-audit FEATURES=a.h5" >&2; exit 2; }
	$(BIN)/python tests/benchmarks/label_errors.py $(FEATURES)

bench-web: $(VENV)/.developer ## the page of export-web against classify: SOURCE=folder [IMAGES=200] [PRECISION=int8]
	@test -n "$(SOURCE)" || { echo "Name a folder of images: make bench-web SOURCE=folder" >&2; exit 2; }
	$(BIN)/python tests/benchmarks/web_page.py "$(SOURCE)" --precision $(PRECISION) \
		$(if $(IMAGES),--images $(IMAGES))

fuzz: $(VENV)/.developer ## damage files at random for 10 minutes, and see that tlpipe stands it: [MINUTES=60]
	$(BIN)/python tests/fuzz.py --minutes $(MINUTES)

clean: ## remove the environment and all caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site
