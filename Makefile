# `make` alone says what there is. Everything is installed into .venv, once: a stamp file in it says what is there.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# cpu or gpu: which onnxruntime and faiss serve. They exclude each other, so each has an environment of its own.
EXTRA ?= cpu
VENV ?= $(if $(filter gpu,$(EXTRA)),.venv-gpu,.venv)
BIN := $(VENV)/bin

# uv makes an environment in seconds, pip in half a minute; nothing needs uv but `make lock`.
UV ?= $(shell command -v uv 2>/dev/null)
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALL := $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(PIP) install)
INSTALL_FIRSTSIGHT = $(INSTALL) --no-deps --no-build-isolation --editable .
TORCH = $(shell sed -n 's/^    "\(torch==[^"]*\)".*/\1/p' pyproject.toml)
TORCHVISION = $(shell sed -n 's/^    "\(torchvision==[^"]*\)".*/\1/p' pyproject.toml)

# Folder with the data packs, for training and measuring.
DATA ?= data

.PHONY: help serve keys secrets drill demo test test-console check format bench docs lock train-embedding train-model-set train-detector train-benchmark report

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(VENV)/serve  ## the service on 127.0.0.1:8000, state under ./var, settings from FIRSTSIGHT_* (README.md, "Settings")
	@exec $(BIN)/firstsight serve

keys: $(VENV)/serve  ## API keys; ARGS="create shop-app --scope enrol", "list", "revoke shop-app"; the file is in FIRSTSIGHT_API_KEYS_FILE
	@$(BIN)/firstsight keys $(ARGS)

# For docker-compose.yml: nothing in it is a default that everybody knows. The containers' users have to be able to read both files,
# which are mounted one by one; nobody else on this machine gets as far as them, since the folder is its owner's.
secrets: $(VENV)/serve  ## what `docker compose up` needs: Redis' password in .env, API keys in var/; prints a key of scope admin, once
	@mkdir -p var && chmod 700 var
	@test ! -e .env || { echo ".env is there already: remove it and var/keys.json for new ones"; exit 1; }
	@umask 077; echo "REDIS_PASSWORD=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(32))')" > .env
	@$(BIN)/firstsight keys create metrics --scope admin --file var/keys.json > var/metrics.key
	@$(BIN)/firstsight keys create admin --scope admin --file var/keys.json
	@chmod 644 var/keys.json var/metrics.key

drill: $(VENV)/dev  ## two replicas behind nginx on one Redis, killed and restarted under load; prints what held
	$(BIN)/python -m drill $(ARGS)

demo: $(VENV)/dev  ## draw brands, enrol one picture of each, recognise them in scenes; leaves build/demo.png
	$(BIN)/python -m demo $(ARGS)

test: $(VENV)/dev  ## all tests; ARGS="-k enrol" for some
	$(BIN)/python -m pytest $(ARGS)

test-console: $(VENV)/dev  ## the console in headless Chromium; a part of `test`, which skips it where there is no Chromium
	TESTS_SKIP_NOTHING=1 $(BIN)/python -m pytest tests/console $(ARGS)

check: $(VENV)/dev  ## lint, format and types, as the tests' other half
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/dev  ## put imports and layout in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/dev  ## ratios and costs, side by side in one run; writes bench/results/
	$(BIN)/python -m bench

docs: $(VENV)/dev  ## write again the pages that are made from the code
	$(BIN)/python -m docs.generate

# What glibc hands back to the kernel after a step has to be cleared again for the next: a quarter of a CPU's time.
train-embedding train-detector train-benchmark: export GLIBC_TUNABLES ?= \
	glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.hugetlb=1

train-embedding: $(VENV)/dev  ## train the embedding network on the packs in DATA; again to go on; ARGS="--help" says how
	$(BIN)/python -m training embedding --data $(DATA) $(ARGS)

train-model-set: $(VENV)/dev  ## what was trained -> models/: discriminant, ONNX, synthesizer, code book, calibration, manifest
	$(BIN)/python -m training discriminant --data $(DATA)
	$(BIN)/python -m training export
	$(BIN)/python -m training points --data $(DATA)
	$(BIN)/python -m training features --data $(DATA) --pack base --out runs/features/base
	$(BIN)/python -m training synthesizer
	$(BIN)/python -m training calibrate --data $(DATA) $(ARGS)
	$(BIN)/python -m training proofs --data $(DATA)

train-detector: $(VENV)/dev  ## train the detector on the packs in DATA (again to go on), and put it into models/
	$(BIN)/python -m training detector --data $(DATA) $(ARGS)
	$(BIN)/python -m training export-detector
	$(BIN)/python -m training regions --data $(DATA)

train-benchmark: $(VENV)/dev  ## train network and delta-encoder of the mini-ImageNet benchmark on its base classes alone
	$(BIN)/python -m training mini-imagenet --data $(DATA) $(ARGS)
	$(BIN)/python -m training features --data $(DATA) --model runs/mini-imagenet/checkpoint.safetensors --out runs/features/benchmark.npz
	$(BIN)/python -m training benchmark

report: $(VENV)/dev  ## measure models/ on the evaluation packs; writes docs/accuracy.md
	$(BIN)/python -m training evaluate tasks --data $(DATA)
	for task in grozi120-dev-5shot flickrlogos27-dev-5shot; do \
		$(BIN)/python -m training evaluate false-accepts --data $(DATA) --task $$task || exit 1; done
	$(BIN)/python -m training evaluate scan --data $(DATA)
	$(BIN)/python -m training evaluate brands --data $(DATA)
	for task in flickrlogos27-dev:5 grozi120-dev:20; do for shots in 1 2 5; do \
		$(BIN)/python -m training evaluate classify --data $(DATA)/$${task%:*} --way $${task#*:} --shot $$shots --episodes 500 --skip-small \
			--model models,teacher,histogram,hog --out docs/accuracy/classify-$${task%:*}-$${shots}shot.json || exit 1; done; done
	for shots in 1 5; do \
		$(BIN)/python -m training evaluate classify --data $(DATA)/mini-imagenet --split val --way 5 --shot $$shots --episodes 2000 \
			--model models/benchmarks/mini-imagenet --out docs/accuracy/classify-mini-imagenet-val-$${shots}shot.json || exit 1; done
	for shots in 1 5; do $(BIN)/python -m training evaluate detect --data $(DATA)/flickrlogos27-dev --shot $$shots --episodes 100 \
		--episode-list training/episodes/flickrlogos27-dev-detect-$${shots}shot.json \
		--out docs/accuracy/flickrlogos27-dev-detect-$${shots}shot.json || exit 1; done
	$(BIN)/python -m training report

# Universal: one file for Python 3.11 to 3.13 on any system. No registry's address is in it, and no torch: which build of torch is
# right depends on the machine.
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(or $(UV),$(error make lock needs uv)) pip compile --quiet --universal --python-version 3.11 \
	--fork-strategy fewest --generate-hashes --no-emit-index-url --no-annotate --group build pyproject.toml

lock:  ## pin every dependency with its hashes in requirements/; ARGS=--upgrade for newer ones
	$(COMPILE) $(ARGS) --extra cpu --extra training --extra dev \
		--no-emit-package torch --no-emit-package torchvision --output-file requirements/dev.txt
	$(COMPILE) $(ARGS) --extra cpu --constraint requirements/dev.txt --output-file requirements/cpu.txt
	$(COMPILE) $(ARGS) --extra gpu --constraint requirements/dev.txt --output-file requirements/gpu.txt

$(BIN)/python:
	@echo "Making $(VENV), once. It takes a minute without uv."
	@$(if $(UV),$(UV) venv --quiet --seed --python $(or $(PYTHON),3.13),$(or $(PYTHON),$(error Python 3.11, 3.12 or 3.13 is needed)) -m venv) $(VENV)

$(VENV)/serve: requirements/$(EXTRA).txt pyproject.toml | $(BIN)/python
	@$(INSTALL) --require-hashes --requirement $<
	@$(INSTALL_FIRSTSIGHT)
	@touch $@

# What is here holds all that serving needs. torch comes by pip even beside uv, which does not look where pip is told to look.
$(VENV)/dev: requirements/dev.txt pyproject.toml | $(BIN)/python
	@$(INSTALL) --require-hashes --requirement $<
	@$(INSTALL_FIRSTSIGHT)
	@$(PIP) install $(TORCH)
	@$(PIP) install --no-deps $(TORCHVISION) || echo "Only 'training export --torchvision' needs it: going on without."
	@touch $(VENV)/serve $@
