//! The Ethernet MAC and the frame FIFOs behind it.
