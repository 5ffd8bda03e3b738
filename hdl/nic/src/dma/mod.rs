//! Bus-master DMA: reads and writes of host memory as TLPs.

pub mod ports;
