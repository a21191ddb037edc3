# Every target builds the virtual environment on first use: a bare checkout and Python 3.10 or newer are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
APP_READY := $(VENV)-app/.ready
# silence the tokenizers' warning about forks
export TOKENIZERS_PARALLELISM := false
# threads that wait for each other fall asleep early: a second program on the machine would slow them down many times
export GOMP_SPINCOUNT ?= 1000

# installs the package into a folder as users get it: tools that read source code see only a part of an editable install
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --upgrade --target

.PHONY: help install test test-app test-slow test-lowest fuzz lint docs format demo demo-app tower benchmark clean

help:
	@echo "make install | test | test-app | test-slow | test-lowest | fuzz | lint | docs | format | demo | demo-app | tower | benchmark | clean"

install: $(READY)

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

test: $(READY)
	$(BIN)/python -m pytest

# The page has an environment of its own: gradio requires pillow < 13. pip rejects two pins of one package, so those of
# constraints-app.txt replace those of constraints.txt.
$(APP_READY): setup.cfg pyproject.toml constraints.txt constraints-app.txt
	$(PYTHON) -m venv $(VENV)-app
	$(VENV)-app/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	grep -v '^pillow==' constraints.txt | cat - constraints-app.txt > $(VENV)-app/constraints.txt
	$(VENV)-app/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(VENV)-app/constraints.txt --editable ".[dev-app]"
	touch $@

# the tests of the page, in headless Chromium if it is installed
test-app: $(APP_READY)
	$(VENV)-app/bin/python -m pytest tests/app "tests/test_docs.py::test_commands_and_blocks_run_in_their_order[app.md]"

# tests that take minutes: a cluster of two nodes, one of which is killed
test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

# more cases of the fuzz targets than `make test` runs
fuzz: $(READY)
	CIEA_FUZZ_CASES=$(or $(CASES),200) $(BIN)/python -m pytest tests/fuzz

# the same tests with the lowest versions that setup.cfg admits
test-lowest:
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-lowest.txt --editable ".[dev]"
	$(VENV)-lowest/bin/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yml
	rm -rf build
	$(INSTALL) build/lint .
	cd build/lint && MYPYPATH=../.. ../../$(BIN)/mypy --config-file ../../setup.cfg -p ciea_hf -p tests -p benchmarks
	cd build/lint && ../../$(BIN)/lint-imports ../../setup.cfg

# the site, in build/site; nothing is loaded from the network
docs: $(READY)
	rm -rf build
	$(INSTALL) build/docs .
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --quiet

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(READY)
	$(BIN)/python -m ciea_hf.demo.run

# the page over the models and indexes of `make demo`
demo-app: $(APP_READY)
	$(VENV)-app/bin/ciea demo-app demo/ciea demo/ciea.index --compare demo/marvel demo/marvel.index

tower: $(READY)
	$(BIN)/python -m ciea_hf.miniature.vision --output ciea_hf/miniature/vision_tower

# Open Clip Art wants its data set, which `ciea data build openclipart --source DIR --output data/openclipart` makes
benchmark: $(READY)
	for name in $(filter-out __init__ $(if $(wildcard data/openclipart),,openclipart),$(notdir $(basename $(wildcard benchmarks/*.py)))); do $(BIN)/python -m benchmarks.$$name || exit 1; done

clean:
	rm -rf build dist demo .mypy_cache .pytest_cache .ruff_cache
