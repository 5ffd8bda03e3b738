//! Verilog names from Rust ones.

/// Words that cannot name a signal.
pub(super) fn reserved(name: &str) -> bool {
    const WORDS: &str = "alias always and assert assign assume automatic before begin bind bit break buf byte case \
        cell checker class clocking config const constraint context continue cover cross deassign default design \
        disable do edge else end endcase enum event expect export extends extern final for force foreach forever \
        fork function generate genvar global highz if iff ifnone import include initial inout input inside \
        instance int integer interconnect interface intersect join large let library local logic longint macromodule \
        matches medium modport module nand negedge new next nor not null or output package packed parameter posedge \
        primitive priority program property protected pull pure rand real ref reg release repeat return restrict \
        scalared sequence shortint shortreal signed small solve specify static string strong struct super supply \
        table tagged task this throughout time timeprecision timeunit tran tri type typedef union unique unsigned \
        until use var vectored virtual void wait wand weak while wildcard wire with within wor xnor xor";
    WORDS.split_whitespace().any(|w| w == name)
}

/// The name, with a trailing underscore if it is a word of Verilog.
pub(super) fn safe(name: &str) -> String {
    if reserved(name) {
        format!("{name}_")
    } else {
        name.into()
    }
}

/// `hematite_nic::mac::MacRx<8>` as `mac_rx_8`.
pub(super) fn module_name(type_name: &str) -> String {
    // Drop each path, keeping the last segment of every type.
    let mut out = String::new();
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut String| {
        let last = word.rsplit("::").next().unwrap_or_default();
        if !last.is_empty() {
            if !out.is_empty() {
                out.push('_');
            }
            out.push_str(&snake(last));
        }
        word.clear();
    };
    for c in type_name.chars() {
        if c.is_alphanumeric() || c == '_' || c == ':' {
            word.push(c)
        } else {
            flush(&mut word, &mut out)
        }
    }
    flush(&mut word, &mut out);
    // Bits<8> reads better as bits8 than as bits_8.
    out.replace("bits_", "bits")
}

fn snake(camel: &str) -> String {
    let mut out = String::new();
    let mut previous_lower = false;
    for c in camel.chars() {
        if c.is_uppercase() && previous_lower {
            out.push('_');
        }
        previous_lower = c.is_lowercase() || c.is_ascii_digit();
        out.extend(c.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn types_become_module_names() {
        assert_eq!(super::module_name("a::mac::MacRx<8>"), "mac_rx_8");
        assert_eq!(
            super::module_name("x::Fifo<rust_hdl_core::bits::Bits<8>, 4>"),
            "fifo_bits8_4"
        );
        assert_eq!(super::module_name("x::TlpDemux"), "tlp_demux");
    }

    #[test]
    fn words_of_verilog_gain_an_underscore() {
        assert_eq!(super::safe("reg"), "reg_");
        assert_eq!(super::safe("next"), "next_");
        assert_eq!(super::safe("regs"), "regs");
        assert!(!super::reserved("count"));
    }

    #[test]
    fn nested_types_keep_their_last_segments() {
        assert_eq!(
            super::module_name("a::Skid<b::Beat<c::Bits<64>>>"),
            "skid_beat_bits64"
        );
        assert_eq!(super::module_name("a::CRC32"), "crc32");
    }
}
