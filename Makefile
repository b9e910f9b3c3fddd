# make run    everything in one go: the example config, a local sink, a real sample of each content system
# make test   the tests
# make test-packages   what is shipped, and what the pages tell readers to type
# make check  what CI runs: formatting, lint, types, tests
# make fmt    mend the formatting
# make dist   the wheel and the sdist, in dist/
# make deb    dist/relay_VERSION_ARCH.deb: the bundle, the units, a config and the user, for Debian and Ubuntu (needs debhelper)
# make docs   the documentation as a site, in dist/docs
# make lock   renew the locked versions
# make bundle   dist/bundle/relay: a directory that runs without Python, on this machine's libc or a later one
# make binary   dist/relay: one executable that runs on any Linux of this architecture (needs a C compiler, zstd and libzstd-dev)
# make screenshots   the pictures of the dashboard in docs/images (needs Debian's chromium and chromium-driver)

# What makes .venv. Another one, where there is none yet: make run PYTHON=python3.12
PYTHON ?= $(shell sh packaging/interpreter)
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
# tests at once
JOBS ?= 4
BUNDLER := build/bundler/.ready
BUNDLE := dist/bundle/relay/relay
BINARY := dist/relay

# Where modules are not kept compiled, each start of relay compiles all of them anew: an installed one does not.
unexport PYTHONDONTWRITEBYTECODE

# make schema renew what is derived from the config's models and docs/configuration.md

.PHONY: run test test-packages check lint types fmt lock schema docs bench torture attacks hostile bundle binary screenshots
.PHONY: dist deb audit sbom clean

run: $(RUNTIME)
	$(BIN)/relay demo --config config.example.yaml

# A file's tests stay together: they share a browser, or a store. More at once than processors, since many wait. Their
# order is that of tests/conftest.py: what takes long begins first.
# What became of each is kept for the catalogue of faults, but not of a choice of them.
test: $(DEV)
	@rm -f build/tests.xml
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(if $(ARGS),$(ARGS),--junitxml=build/tests.xml)

# What is shipped: the wheel, the one executable, the Debian package, the image (built before), and all that the pages tell
# readers to type.
test-packages: $(DEV)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "packages or typed" tests/packaging tests/docs $(ARGS)

check: lint types test test-packages

lint: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/hadolint Dockerfile
	$(BIN)/shellcheck .ci/run packaging/interpreter packaging/dist packaging/deb packaging/debian/relay.p*

types: $(DEV)
	$(BIN)/mypy

fmt: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schema: $(DEV)
	$(BIN)/python -m tests.docs.test_schema

docs: $(DEV)
	$(BIN)/sphinx-build --builder html --conf-dir docs --doctree-dir dist/.doctrees --fresh-env --write-all --fail-on-warning --keep-going --quiet . dist/docs

# what relay carries and costs, beside others: docs/performance.md
bench: $(DEV)
	$(BIN)/python -m bench $(if $(STORE),--store $(STORE)) $(ARGS)

# faults and attacks, a line for each: docs/reliability.md
torture: $(DEV)
	$(BIN)/python -m tests.torture $(ARGS)

# what hostile destinations cost: fault, code, seconds, memory
hostile: $(DEV)
	$(BIN)/python -m tests.faults.hostile $(ARGS)

# every attack of the catalogue against a real daemon, and docs/attacks.md of what was seen
ATTACKS := I1,I2,I3,I4,I5,I6,I7,S1,S2,S3,S4,S5,S6,S7,S8,S9,S10,S11
attacks: $(DEV)
	$(BIN)/python -m tests.torture --only $(ATTACKS) --results build/attacks $(ARGS)
	$(BIN)/python -m tests.torture.attacks_page build/attacks/torture.json

# known vulnerabilities of what the lock names; fails where there is one, not where nobody can be asked
audit: $(DEV)
	$(BIN)/python -m tests.torture.supply audit

# what relay is made of, as CycloneDX, into dist/
sbom: $(DEV)
	$(BIN)/python -m tests.torture.supply sbom

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "relay needs Python 3.11 or later; say which with PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python's venv module is missing: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }

$(RUNTIME): requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing relay into $(VENV), with $$($(BIN)/python -V) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.lock requirements-build.lock
	@echo "installing what the tests need into $(VENV) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock -r requirements-build.lock
	@touch $@

# the same commit gives the same files
dist deb: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || stat -c %Y pyproject.toml)

dist: $(DEV)
	packaging/dist

deb: $(BUNDLE) $(DEV)
	packaging/deb

screenshots: $(DEV)
	$(BIN)/python -m tests.browser.screenshots docs/images $(ARGS)

# What goes into the bundle is what requirements.lock says, and nothing that only tests need: hence an environment of its own.
$(BUNDLER): requirements-bundle.lock | $(BIN)/python
	@echo "installing what makes the bundle into build/bundler …"
	@$(BIN)/python -m venv --clear build/bundler
	@build/bundler/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bundle.lock
	@touch $@

bundle: $(BUNDLE)

# A fixed seed: the same source and tools make the same files.
$(BUNDLE): $(BUNDLER) packaging/bundle.py packaging/bundle.spec packaging/program.c packaging/start.py config.example.yaml $(shell find relay -type f ! -name '*.pyc')
	PYTHONHASHSEED=0 build/bundler/bin/python packaging/bundle.py

binary: $(BINARY)

$(BINARY): $(BUNDLE) packaging/onefile.py packaging/launcher.c
	build/bundler/bin/python packaging/onefile.py

COMPILE = $(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --no-header

# setuptools alone is locked in requirements-build.lock: what builds the wheel, here and in the Dockerfile
lock: | $(BIN)/python
	$(BIN)/pip install --quiet 'pip-tools>=7.4'
	$(COMPILE) --extra postgres -o requirements.lock pyproject.toml
	$(COMPILE) --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml
	$(COMPILE) --allow-unsafe --only-build-deps --build-deps-for wheel --build-deps-for sdist -o requirements-build.lock pyproject.toml
	$(COMPILE) --allow-unsafe --extra bundle --extra postgres -c requirements.lock -o requirements-bundle.lock pyproject.toml

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
