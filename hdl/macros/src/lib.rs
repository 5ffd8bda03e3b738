//! The `#[hw]` attribute: plain Rust that also traces to width-exact Verilog.
//!
//! One attribute, five places:
//!
//! | on | makes |
//! |---|---|
//! | `struct` | a hardware block: ports, registers and sub-blocks, with `Default` |
//! | `#[hw(interface)] struct` | a bundle of ports, with `join` and `link` |
//! | `#[hw(value)] struct` | a value carried by a signal, first field in the lowest bits |
//! | `enum` | a state or code carried by a signal, numbered from 0 |
//! | `impl Logic for X` | the behaviour: `update` stays plain Rust, and `hdl` traces it |
//! | `fn` | a helper function, callable from either meaning |
//!
//! The language that `update` may use is described in `hematite_lang`.

mod block;
mod expr;
mod func;
mod path;
mod stmt;
mod value;

use proc_macro2::TokenStream;
use syn::{Item, parse_macro_input};

/// See the crate documentation.
#[proc_macro_attribute]
pub fn hw(args: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let item = parse_macro_input!(item as Item);
    let args = TokenStream::from(args);
    let kind = args.to_string();
    let expanded = match (item, kind.as_str()) {
        (Item::Struct(s), "") => block::expand(s),
        (Item::Struct(s), "interface") => block::expand_interface(s),
        (Item::Struct(s), "value") => value::expand_struct(s),
        (Item::Enum(e), "") => value::expand_enum(e),
        (Item::Impl(i), "") => func::expand_impl(i),
        (Item::Fn(f), "") => func::expand_fn(f),
        (item, _) => Err(syn::Error::new_spanned(
            item,
            "#[hw] goes on a struct, an enum, a fn or `impl Logic for X`; \
             #[hw(interface)] and #[hw(value)] go on a struct",
        )),
    };
    expanded.unwrap_or_else(|e| e.to_compile_error()).into()
}
