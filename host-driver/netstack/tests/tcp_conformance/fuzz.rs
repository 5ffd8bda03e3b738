//! Any segments and calls.

use std::net::Shutdown;
use std::time::Duration;

use crate::common::tcp::A;
use crate::peer::{MSS_SACK, Peer};
use hematite_netstack::{StackConfig, TcpListener};
use proptest::prelude::*;

proptest! {
    #![proptest_config(crate::testing::config())]
    /// Segments near and far from what is expected, in all states, with calls in between: nothing panics,
    /// nothing is left.
    #[test]
    fn any_segments_and_calls(ops in proptest::collection::vec(
        (0u8..8, any::<u8>(), -3000i32..3000, -3000i32..3000, any::<u16>(), 0usize..1500, proptest::collection::vec(any::<u8>(), 0..10)),
        1..60,
    )) {
        let mut peer = Peer::new(StackConfig::default());
        let listener = TcpListener::bind(&mut peer.host.stack, (A, 80)).unwrap();
        let stream = peer.connect(&listener, &MSS_SACK);
        let mut buf = [0; 500];
        for (op, flags, seq, ack, window, len, options) in ops {
            let stack = &mut peer.host.stack;
            match op {
                0 => _ = stream.write(stack, &vec![1; len * 4]),
                1 => _ = stream.read(stack, &mut buf),
                2 => peer.pass(Duration::from_millis(len as u64)),
                3 if flags < 20 => _ = stream.shutdown(stack, Shutdown::Write),
                _ => {
                    let mut raw: Vec<u8> = options.iter().flat_map(|o| [*o, 5, 8, 10]).collect();
                    raw.truncate(36);
                    peer.send(|h| {
                        h.syn = flags & 0xc3 == 1;
                        h.fin = flags & 0x1c == 4;
                        h.rst = flags & 0xe4 == 0x20;
                        h.urg = flags & 0x40 != 0;
                        h.psh = flags & 0x80 != 0;
                        h.ack = flags & 0x38 != 0;
                        h.sequence_number = h.sequence_number.wrapping_add_signed(if flags & 2 == 0 { 0 } else { seq });
                        h.acknowledgment_number = h.acknowledgment_number.wrapping_add_signed(ack);
                        h.window_size = window;
                        h.set_options_raw(&raw).unwrap();
                    }, &vec![2; len]);
                    if flags & 2 == 0 {
                        peer.seq = peer.seq.wrapping_add(len as u32);
                    }
                }
            }
            for seg in peer.sent() {
                if !seg.header.rst {
                    peer.ack = seg.header.sequence_number.wrapping_add(seg.payload.len() as u32);
                }
            }
        }
        stream.close(&mut peer.host.stack);
        listener.close(&mut peer.host.stack);
        for _ in 0..2000 {
            peer.pass(Duration::from_secs(10));
            peer.sent();
        }
        prop_assert_eq!(peer.host.stack.tcp_socket_count(), (0, 0));
        prop_assert_eq!(peer.host.stack.tcp_timer_count(), 0);
    }
}
