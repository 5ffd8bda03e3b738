# Hematite. `make help` says what there is; everything else starts with scripts/bootstrap.sh, which is quick
# when its work is done.

TARGET := $(or $(CARGO_TARGET_DIR),target)
CARGO ?= cargo
# Cards for synthesis, each placed and routed once for each seed: make synth CONFIG='card-1 card card-4' SEEDS='1 2 3'
CONFIG ?= card
SEEDS ?= 1
# Of each fuzz target: make fuzz SECONDS=600 FUZZ=tcp_socket
SECONDS ?= 60
SEED_FLAG := $(if $(SEED),--seed $(SEED))

# rustup's directory is not on PATH right after its installation.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help demo demo-tap test fuzz conformance lint rtl bench synth bootstrap vm-test
.DEFAULT_GOAL := help

help:
	@echo 'make demo [SEED=n]  the card in co-simulation with the driver and the stack; leaves target/demo/'
	@echo 'make demo-tap       the same against the Linux kernel on a TAP device (root)'
	@echo 'make test           every test of the workspace; HEMATITE_SEED=n replays a random one'
	@echo 'make fuzz [SECONDS=n] every fuzz target of the stack under cargo-fuzz, a minute each (FUZZ=name: only that one)'
	@echo 'make conformance    writes tests/virtio-conformance.md anew, and checks it'
	@echo 'make vm-test        stock Linux drives the card in QEMU, and our driver on VFIO in a guest (x86-64 Debian)'
	@echo 'make lint           rustfmt, clippy, Verilator -Wall and Yosys on every configuration'
	@echo 'make rtl            Verilog, file list and report of every configuration in target/rtl/'
	@echo 'make bench          line rate, PCIe bytes and cycles a packet, instructions a TCP segment; leaves target/bench/summary.json'
	@echo 'make synth          Yosys and nextpnr-ecp5 for the ECP5-5G Versa: area and Fmax (CONFIG=card)'

# VERILATOR_ROOT for everything below. The script runs each time and rewrites the file only when it
# would say something else.
ifneq ($(filter-out help,$(or $(MAKECMDGOALS),help)),)
include $(TARGET)/env.mk
endif

.PHONY: always
$(TARGET)/env.mk: always
	@scripts/bootstrap.sh $(if $(filter lint synth,$(MAKECMDGOALS)),synth)

bootstrap:
	@:

demo:
	$(CARGO) run --release --package hematite-sim -- demo $(SEED_FLAG) --out $(TARGET)/demo

demo-tap:
	$(CARGO) run --release --package hematite-sim -- demo-tap $(SEED_FLAG) --out $(TARGET)/demo-tap

test:
	$(CARGO) test --workspace

# cargo-fuzz wants a nightly compiler; a stable one says that it is none with RUSTC_BOOTSTRAP.
fuzz:
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { echo 'cargo-fuzz is missing: cargo install cargo-fuzz' >&2; exit 1; }
	cd host-driver/netstack/fuzz && RUSTC_BOOTSTRAP=1 && export RUSTC_BOOTSTRAP && \
	    $(CARGO) run --quiet --bin seeds && \
	    for target in $(or $(FUZZ),$$($(CARGO) fuzz list)); do \
	        $(CARGO) fuzz run $$target -- -max_total_time=$(SECONDS) -max_len=4096 || exit 1; done

conformance:
	HEMATITE_CONFORMANCE=write $(CARGO) test --package hematite-conformance

vm-test:
	CARGO=$(CARGO) scripts/vm/test.sh

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	scripts/lint-rtl.sh

rtl:
	@$(CARGO) build --quiet --package rtl-gen
	@$(TARGET)/debug/rtl-gen --list | while read -r name _; do \
	    $(TARGET)/debug/rtl-gen --config $$name --out $(TARGET)/rtl/$$name || exit 1; done

bench:
	$(CARGO) run --release --package hematite-sim -- bench --out $(TARGET)/bench
	$(CARGO) bench --package hematite-netstack --bench stack -- --out $(abspath $(TARGET))/bench
	$(CARGO) bench --package hematite-driver --bench receive -- --out $(abspath $(TARGET))/bench

synth:
	for config in $(CONFIG); do scripts/synth.sh $$config 125 $(SEEDS) || exit 1; done
