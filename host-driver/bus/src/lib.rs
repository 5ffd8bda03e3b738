//! PCI functions and DMA memory
