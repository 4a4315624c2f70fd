# make           build/drupe            make test     all tests
# make setup     install what is missing (tools/manifest)
# make demo      the lab, on a small real model
# make test-aarch64  unit tests of an aarch64 build, in an emulator
# make bench     timings; tests/bench/results.csv keeps them
# make bench-gpu  the same on a GPU; ROWS="awq lora": some of them
# make docs      docs/cli.md and docs/passes.md, from the tables
# make install   PREFIX=/usr/local      make dist     tar.gz and wheel in dist/
BUILD   ?= build
PREFIX  ?= /usr/local
PRESET  ?= release
JOBS    ?= $(shell nproc)

.PHONY: all setup demo test test-aarch64 bench bench-gpu docs install dist clean

all: $(BUILD)/build.ninja
	@cmake --build $(BUILD) -j $(JOBS)

$(BUILD)/build.ninja:
	@cmake --preset $(PRESET) -B $(BUILD) >/dev/null

setup:
	@tools/setup base test

demo: setup
	@$(MAKE) --no-print-directory all
	@tools/demo $(BUILD)

test: setup
	@$(MAKE) --no-print-directory all
	@tools/run-tests $(BUILD)

test-aarch64: setup
	@$(MAKE) --no-print-directory all
	@JOBS=$(JOBS) tools/test-aarch64 $(BUILD)

bench: all
	@tests/bench/run $(BUILD)

bench-gpu: all
	@tests/bench/gpu $(BUILD) $(ROWS)

docs: all
	@$(BUILD)/drupe docs >docs/cli.md
	@$(BUILD)/drupe docs passes >docs/passes.md

install: all
	@cmake --install $(BUILD) --prefix $(PREFIX)

dist:
	@tools/setup base dist
	@JOBS=$(JOBS) tools/dist

clean:
	rm -rf $(BUILD) build-dist build-aarch64 dist
