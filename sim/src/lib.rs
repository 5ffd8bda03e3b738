//! The verilated card in a machine: PCIe root complex, wires, faults, virtual time
