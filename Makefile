# make           build/drupe            make test     all tests
# make setup     install what is missing (tools/manifest)
# make demo      the lab, on a small real model
# make bench     timings; tests/bench/results.csv keeps them
# make docs      docs/cli.md, from the tables
# make install   PREFIX=/usr/local      make dist     tar.gz and wheel in dist/
BUILD   ?= build
PREFIX  ?= /usr/local
PRESET  ?= release
JOBS    ?= $(shell nproc)

.PHONY: all setup demo test bench docs install dist clean

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

bench: all
	@tests/bench/run $(BUILD)

docs: all
	@$(BUILD)/drupe docs >docs/cli.md

install: all
	@cmake --install $(BUILD) --prefix $(PREFIX)

dist:
	@tools/setup base dist
	@tools/dist

clean:
	rm -rf $(BUILD) build-dist dist
