//! Bus-master DMA: reads and writes of host memory as TLPs.
//!
//! [`read::ReadEngine`]: [`split::Splitter`] -> MRd header -> [`tags::TagTable`]; completions ->
//! [`completion::CompletionParser`] -> reassembly memory -> [`drain::Drain`] -> client.
//!
//! [`write::WriteEngine`]: [`split::Splitter`] -> MWr header; client data -> [`rows::Rows`] -> payload.
//!
//! Both keep data in *rows*: eight bytes as they lie in host memory at an address that is a multiple of
//! eight. A request's bytes are moved by `address mod 8` once, between rows and the packed stream.

pub mod align;
pub mod completion;
pub mod drain;
pub mod header;
pub mod ports;
pub mod read;
pub mod rows;
pub mod split;
pub mod tags;
pub mod write;
