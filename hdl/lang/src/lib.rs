//! The hardware layer over rust-hdl-core: #[hw] runtime, registers, memories, FIFOs, streams
