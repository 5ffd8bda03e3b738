#!/usr/bin/env python3
"""Reads what Yosys and nextpnr wrote in the current directory; prints it and puts it into the summary file.

    synth-summary.py <configuration> <MHz> <summary file> <seed>...
"""

import json
import sys

name, target_mhz, summary_path, seeds = sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4:]

with open("stat.json") as file:
    cells = json.load(file)["design"]["num_cells_by_type"]
reports = {}
for seed in seeds:
    with open(f"report-{seed}.json") as file:
        reports[seed] = json.load(file)

# The packing is the same for every seed.
utilization = reports[seeds[0]]["utilization"]
used = {kind: numbers["used"] for kind, numbers in utilization.items()}
available = {kind: numbers["available"] for kind, numbers in utilization.items()}
fmax = {
    seed: {clock: round(numbers["achieved"], 2) for clock, numbers in report.get("fmax", {}).items()}
    for seed, report in reports.items()
}
summary = {
    "configuration": name,
    "device": "LFE5UM5G-45F-8BG381",
    "lut4": cells.get("LUT4", 0),
    "carry": cells.get("CCU2C", 0),
    "distributed_ram": cells.get("TRELLIS_DPR16X4", 0),
    "ff": cells.get("TRELLIS_FF", 0),
    "block_ram": cells.get("DP16KD", 0) + cells.get("PDPW16KD", 0),
    "multipliers": cells.get("MULT18X18D", 0),
    "comb_placed": used.get("TRELLIS_COMB", 0),
    "comb_available": available.get("TRELLIS_COMB", 0),
    "block_ram_available": available.get("DP16KD", 0),
    "target_mhz": target_mhz,
    # Of the slowest seed.
    "fmax_mhz": {clock: min(clocks[clock] for clocks in fmax.values()) for clock in fmax[seeds[0]]},
    "fmax_mhz_of_seed": fmax,
}

print(f"{name} on {summary['device']}, out of context:")
print(f"  LUT4           {summary['lut4']:7}  (placed with carries and RAM: {summary['comb_placed']} of {summary['comb_available']})")
print(f"  flip-flops     {summary['ff']:7}")
print(f"  block RAM      {summary['block_ram']:7}  of {summary['block_ram_available']}")
for seed, clocks in fmax.items():
    for clock, achieved in clocks.items():
        verdict = "met" if achieved >= target_mhz else "MISSED"
        print(f"  Fmax {achieved:7.2f} MHz  {clock}, seed {seed} ({target_mhz:g} MHz {verdict})")

try:
    with open(summary_path) as file:
        everything = json.load(file)
except FileNotFoundError:
    everything = {}
everything.setdefault("offload", {}).setdefault("synth", {})[name] = summary
with open(summary_path, "w") as file:
    json.dump(everything, file, indent=2)
    file.write("\n")
