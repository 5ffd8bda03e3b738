//! Elaborates a card configuration into Verilog, a file list and a report
