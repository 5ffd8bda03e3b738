//! Validation of IPv4 options (RFC 791 section 3.1; net/ipv4/ip_options.c).

/// End of the list.
const IPOPT_END: u8 = 0;
/// No operation.
const IPOPT_NOOP: u8 = 1;
/// Loose source route.
const IPOPT_LSRR: u8 = 131;
/// Strict source route.
const IPOPT_SSRR: u8 = 137;

/// What the options of a datagram ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Options {
    /// Nothing that we would have to do.
    Plain,
    /// To be sent along a route given by the sender.
    SourceRoute,
}

/// Checks a list of options.
///
/// # Errors
/// The offset in `options` of the first byte that is wrong, for a parameter problem.
pub(crate) fn ip_options_compile(options: &[u8]) -> Result<Options, usize> {
    let mut at = 0;
    let mut found = Options::Plain;
    while let Some(&kind) = options.get(at) {
        match kind {
            IPOPT_END => break,
            IPOPT_NOOP => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let len = usize::from(*options.get(at + 1).ok_or(at)?);
        if len < 2 || len > options.len() - at {
            return Err(at + 1);
        }
        if kind == IPOPT_LSRR || kind == IPOPT_SSRR {
            // A length of 3 and whole addresses, a pointer not below 4, and one route only.
            if len < 3 || (len - 3) % 4 != 0 || found == Options::SourceRoute {
                return Err(at + 1);
            }
            if options.get(at + 2).is_none_or(|&pointer| pointer < 4) {
                return Err(at + 2);
            }
            found = Options::SourceRoute;
        }
        at += len;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_lists_and_finds_the_wrong_byte() {
        assert_eq!(ip_options_compile(&[1, 1, 1, 0]), Ok(Options::Plain));
        // Record route, then end; what follows the end does not matter.
        assert_eq!(
            ip_options_compile(&[7, 7, 4, 0, 0, 0, 0, 0, 7, 1]),
            Ok(Options::Plain)
        );
        assert_eq!(
            ip_options_compile(&[131, 7, 4, 10, 0, 0, 1, 0]),
            Ok(Options::SourceRoute)
        );
        assert_eq!(ip_options_compile(&[1, 7, 40, 0]), Err(2), "longer than the list");
        assert_eq!(
            ip_options_compile(&[7, 1, 0, 0]),
            Err(1),
            "a length that would loop"
        );
        assert_eq!(ip_options_compile(&[1, 1, 1, 7]), Err(3), "no length");
        assert_eq!(
            ip_options_compile(&[131, 7, 3, 10, 0, 0, 1, 0]),
            Err(2),
            "pointer into the header"
        );
    }
}
