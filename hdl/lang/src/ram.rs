//! Memories that synthesis infers as block RAM or distributed RAM.

use std::marker::PhantomData;

use rust_hdl_core::ast::Verilog;
use rust_hdl_core::prelude::*;

use crate::Documented;
use crate::trace::{self, Traced};

/// One write port, one read port, one clock; `2^A` words of `T`. `read_data` follows `read_address`
/// by one cycle. Reading the word that is being written gives no defined value: the block RAMs of
/// FPGAs differ there, so users must not need it. From 2048 bits on it asks for block RAM, which synthesis would
/// otherwise count as dearer than distributed RAM while it is wide and shallow.
#[derive(Debug)]
pub struct Ram<T: Synth, const A: usize> {
    /// Rising edge, both ports.
    pub clock: Signal<In, Clock>,
    /// Writes `write_data` at this edge.
    pub write_enable: Signal<In, Bit>,
    /// Where to write.
    pub write_address: Signal<In, Bits<A>>,
    /// What to write.
    pub write_data: Signal<In, T>,
    /// Where to read.
    pub read_address: Signal<In, Bits<A>>,
    /// The word at the `read_address` of the cycle before.
    pub read_data: Signal<Out, T>,
    _words: Vec<T>,
}

/// One write port and one combinational read port, `2^A` words of `T`: distributed RAM, for shallow
/// buffers. Reading the word that is being written gives the old one.
#[derive(Debug)]
pub struct LutRam<T: Synth, const A: usize> {
    /// Rising edge of the write port.
    pub clock: Signal<In, Clock>,
    /// Writes `write_data` at this edge.
    pub write_enable: Signal<In, Bit>,
    /// Where to write.
    pub write_address: Signal<In, Bits<A>>,
    /// What to write.
    pub write_data: Signal<In, T>,
    /// Where to read.
    pub read_address: Signal<In, Bits<A>>,
    /// The word there, in the same cycle.
    pub read_data: Signal<Out, T>,
    _words: Vec<T>,
}

/// One write port and one read port, each with its own clock, `2^A` words of `T`, for clock
/// crossings. `read_data` follows `read_address` by one cycle of the read clock.
#[derive(Debug)]
pub struct DualClockRam<T: Synth, const A: usize> {
    /// Rising edge of the write port.
    pub clock: Signal<In, Clock>,
    /// Writes `write_data` at this edge.
    pub write_enable: Signal<In, Bit>,
    /// Where to write.
    pub write_address: Signal<In, Bits<A>>,
    /// What to write.
    pub write_data: Signal<In, T>,
    /// Rising edge of the read port.
    pub read_clock: Signal<In, Clock>,
    /// Where to read.
    pub read_address: Signal<In, Bits<A>>,
    /// The word at the `read_address` of the cycle before.
    pub read_data: Signal<Out, T>,
    _words: Vec<T>,
    _type: PhantomData<T>,
}

/// Bits from which on a [`Ram`] is worth a block RAM.
const BLOCK: usize = 2048;

/// A word of a memory: a plain range when it is more than one bit.
fn range(bits: usize) -> String {
    if bits == 1 {
        String::new()
    } else {
        format!(" [{}:0]", bits - 1)
    }
}

macro_rules! memory {
    ($name:ident, $doc:literal, [$($field:ident),*], [$($extra:ident),*], $update:expr, $body:expr) => {
        impl<T: Synth, const A: usize> Default for $name<T, A> {
            fn default() -> Self {
                $name {
                    $($field: Default::default(),)*
                    _words: vec![T::default(); 1 << A],
                    $($extra: PhantomData,)*
                }
            }
        }
        impl<T: Synth, const A: usize> Documented for $name<T, A> {
            const DOC: &'static str = $doc;
        }
        impl<T: Synth, const A: usize> Logic for $name<T, A> {
            fn update(&mut self) {
                let step: fn(&mut Self) = $update;
                step(self);
            }
            fn hdl(&self) -> Verilog {
                let body: fn(usize, usize) -> String = $body;
                let body = body(T::BITS, A);
                trace::leave(Traced::Leaf {
                    type_name: std::any::type_name::<Self>(),
                    doc: <Self as Documented>::DOC,
                    body: body.clone(),
                });
                Verilog::Custom(body)
            }
        }
        impl<T: Synth, const A: usize> Block for $name<T, A> {
            fn connect_all(&mut self) {}
            fn update_all(&mut self) {
                self.clock.update_all();
                self.update();
                $(self.$field.update_all();)*
            }
            fn has_changed(&self) -> bool {
                false $(|| self.$field.has_changed())*
            }
            fn accept(&self, name: &str, probe: &mut dyn Probe) {
                probe.visit_start_scope(name, self);
                $(self.$field.accept(stringify!($field), probe);)*
                probe.visit_end_scope(name, self);
            }
        }
    };
}

memory!(
    Ram,
    "Synchronous memory, one write port and one read port. A word read while it is being written is undefined.",
    [
        clock,
        write_enable,
        write_address,
        write_data,
        read_address,
        read_data
    ],
    [],
    |m| {
        if m.clock.pos_edge() {
            m.read_data.next = m._words[m.read_address.val().index()];
            if m.write_enable.val() {
                m._words[m.write_address.val().index()] = m.write_data.val();
            }
        }
    },
    |width, a| {
        // The x tells synthesis that it need not build a bypass around the block RAM.
        format!(
            "{style}    reg{w} words [0:{last}];\n    reg{w} read_word;\n    assign read_data = read_word;\n\n    \
             always @(posedge clock) begin\n        if (write_enable) words[write_address] <= write_data;\n        \
             if (write_enable & (write_address == read_address)) read_word <= {width}'hx;\n        \
             else read_word <= words[read_address];\n    end\n",
            style = if width << a >= BLOCK {
                "    (* ram_style = \"block\" *)\n"
            } else {
                ""
            },
            w = range(width),
            last = (1usize << a) - 1
        )
    }
);

memory!(
    LutRam,
    "Distributed memory, one write port and one combinational read port.",
    [
        clock,
        write_enable,
        write_address,
        write_data,
        read_address,
        read_data
    ],
    [],
    |m| {
        if m.clock.pos_edge() && m.write_enable.val() {
            m._words[m.write_address.val().index()] = m.write_data.val();
        }
        m.read_data.next = m._words[m.read_address.val().index()];
    },
    |width, a| {
        format!(
            "    (* ram_style = \"distributed\" *)\n    reg{w} words [0:{last}];\n    \
             assign read_data = words[read_address];\n\n    \
             always @(posedge clock) begin\n        if (write_enable) words[write_address] <= write_data;\n    end\n",
            w = range(width),
            last = (1usize << a) - 1
        )
    }
);

memory!(
    DualClockRam,
    "Memory with one write port and one read port on different clocks.",
    [
        clock,
        write_enable,
        write_address,
        write_data,
        read_clock,
        read_address,
        read_data
    ],
    [_type],
    |m| {
        if m.clock.pos_edge() && m.write_enable.val() {
            m._words[m.write_address.val().index()] = m.write_data.val();
        }
        if m.read_clock.pos_edge() {
            m.read_data.next = m._words[m.read_address.val().index()];
        }
    },
    |width, a| {
        format!(
            "    reg{w} words [0:{last}];\n    reg{w} read_word;\n    assign read_data = read_word;\n\n    \
             always @(posedge clock) begin\n        if (write_enable) words[write_address] <= write_data;\n    end\n\n    \
             always @(posedge read_clock) begin\n        read_word <= words[read_address];\n    end\n",
            w = range(width),
            last = (1usize << a) - 1
        )
    }
);
