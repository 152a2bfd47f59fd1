# Each target sets up what it needs: a virtual environment in .venv with the locked packages, and this project in it.
#   make course   run all nine lessons at toy scale and write the report
#   make test     lint, compile, build and test everything
#   make lab      open the notebooks in JupyterLab
#   make soak     kill training 300 times at random moments; nothing may be lost (half an hour)
#   make bench    measure against the peers
#   make clean    remove the environment, the build and all runs
# make course TORCH=cpu takes the CPU-only build of torch (smaller; Linux).

PYTHON ?= python3
TORCH ?=
BIN := .venv/bin
SOURCES := pyproject.toml requirements.lock rustbpe/Cargo.toml rustbpe/Cargo.lock $(wildcard rustbpe/src/*.rs rustbpe/src/*/*.rs)

.PHONY: course test lab soak bench clean needs browser

course: .venv/ready
	$(BIN)/nanochat run --scale toy

test: .venv/ready browser
	$(BIN)/ruff check nanochat notebooks tests benchmarks
	$(BIN)/lint-imports
	cd rustbpe && cargo fmt --check && cargo clippy -q --all-targets -- -D warnings && cargo clippy -q --all-targets --no-default-features -- -D warnings
	cd rustbpe && cargo test -q --no-default-features
	$(BIN)/nanochat sync --check
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests

lab: .venv/ready
	$(BIN)/jupyter lab notebooks

soak: .venv/ready
	$(BIN)/python tests/soak/kills.py --cycles 50 --saves 100 --out benchmarks/results/soak.json

bench: .venv/ready
	$(BIN)/python benchmarks/train_cpu.py
	$(BIN)/python benchmarks/tokenizer.py

clean:
	rm -rf .venv runs work rustbpe/target

.venv/ready: $(wildcard $(SOURCES)) | needs
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q "uv>=0.5"
	$(BIN)/uv pip install -q --python $(BIN)/python $(if $(TORCH),--torch-backend=$(TORCH) -r pyproject.toml --extra test,--require-hashes -r requirements.lock)
	$(BIN)/maturin develop -q --release >/dev/null
	touch .venv/ready

needs:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { echo "needs Python 3.10 or newer: install it, or name it with make PYTHON=/path/to/python3"; exit 1; }
	@command -v cc >/dev/null || { echo "needs a C compiler (cc): on Debian or Ubuntu apt install build-essential, on macOS xcode-select --install"; exit 1; }
	@command -v cargo >/dev/null || { echo "needs Rust's cargo: install it with rustup (see rustup.rs)"; exit 1; }

browser: .venv/ready
	@$(BIN)/python tests/browser.py
