# make demo   set up and run the main job on drawn faces
# make test   set up and run lint, types and all tests
# make quick  the same without the tests that start Ray
# make mutate break the code that decides on scores, line by line, and list what no test notices
# make bench  set up and measure speed; BENCH_DATA=... for other photos than drawn ones
# make soak   break parts of small sweeps ROUNDS times; the results must not change by a byte
# make hosts  as root: `ray up`, a sweep and `ray down` on three hosts made of namespaces
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
DEMO_DATA := data/demo
DEMO_RUN := runs/demo
BENCH_DATA ?= data/bench
ROUNDS ?= 40
TEST_PROCESSES ?= logical
BESIDE := $(VENV)/without-ray.log
# Ray starts many processes, each of which would compile all that it imports (containers set this).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test with-ray beside without-ray quick mutate check lint types bench soak hosts setup \
	lock docs clean
demo: setup
	$(BIN)/python -m examples.drawn_faces $(DEMO_DATA) --people 120 --eval-people 30 --height 192 --width 144
	$(BIN)/python -m ray_jobs.sweep --config configs/demo.yaml data.root=$(DEMO_DATA) run.dir=$(DEMO_RUN)
	@echo "Against the true answers of the photos to predict:"
	$(BIN)/python -m maskcls score $(DEMO_RUN)/submission.csv $(DEMO_DATA)/answers.csv

# Tests with Ray come first to the CPUs, since its own time limits are short. Types and the other
# tests take what is left, and are told at their end.
test: lint
	@$(MAKE) --no-print-directory --jobs=2 with-ray beside

with-ray: setup
	$(BIN)/python -m pytest -m ray

beside: setup
	@echo "beside it, told at the end: types, and the tests without Ray (tail -f $(BESIDE))"
	@nice -n 10 $(MAKE) --no-print-directory types without-ray > $(BESIDE) 2>&1; \
		status=$$?; cat $(BESIDE); exit $$status

without-ray: setup
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile -m "not ray"

quick: check
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile -m "not ray and not slow"

mutate: setup
	$(BIN)/mutmut run
	$(BIN)/mutmut results

soak: setup
	$(BIN)/python -m benchmarks.faults --rounds $(ROUNDS)

hosts: setup
	$(BIN)/python -m benchmarks.hosts

check: lint types

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks.bench $(BENCH_DATA)

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt requirements-dev.txt
	@test -n "$(PYTHON)" || { echo "python3.11 or newer is needed: install it or set PYTHON=..."; exit 1; }
	if command -v uv >/dev/null; then \
		uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
		uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt -r requirements-dev.txt; \
	else \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt; \
	fi
	# `import maskcls` and `python -m ray_jobs.sweep` then work in any folder.
	echo "$(CURDIR)" > "$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')/maskcls.pth"
	touch $@

lock:
	$(BIN)/python -m pip install --quiet uv
	for name in requirements requirements-dev; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
			--no-emit-index-url $$name.in -o $$name.txt; done

docs:
	$(BIN)/python -m maskcls.config.documentation > docs/config.md

clean:
	rm -rf $(VENV) $(DEMO_DATA) $(DEMO_RUN) data/bench
