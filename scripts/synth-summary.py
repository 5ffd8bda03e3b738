#!/usr/bin/env python3
"""Reads what Yosys and nextpnr wrote in the current directory; prints it and puts it into the summary file."""

import json
import sys

name, target_mhz, summary_path = sys.argv[1], float(sys.argv[2]), sys.argv[3]

with open("stat.json") as file:
    cells = json.load(file)["design"]["num_cells_by_type"]
with open("report.json") as file:
    report = json.load(file)

used = {kind: numbers["used"] for kind, numbers in report["utilization"].items()}
available = {kind: numbers["available"] for kind, numbers in report["utilization"].items()}
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
    "fmax_mhz": {clock: round(numbers["achieved"], 2) for clock, numbers in report.get("fmax", {}).items()},
}

print(f"{name} on {summary['device']}, out of context:")
print(f"  LUT4           {summary['lut4']:7}  (placed with carries and RAM: {summary['comb_placed']} of {summary['comb_available']})")
print(f"  flip-flops     {summary['ff']:7}")
print(f"  block RAM      {summary['block_ram']:7}  of {summary['block_ram_available']}")
for clock, achieved in summary["fmax_mhz"].items():
    verdict = "met" if achieved >= target_mhz else "MISSED"
    print(f"  Fmax {achieved:7.2f} MHz  {clock} ({target_mhz:g} MHz {verdict})")

try:
    with open(summary_path) as file:
        everything = json.load(file)
except FileNotFoundError:
    everything = {}
everything[name] = summary
with open(summary_path, "w") as file:
    json.dump(everything, file, indent=2)
    file.write("\n")
