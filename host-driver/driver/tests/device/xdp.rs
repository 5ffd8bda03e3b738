//! The hook before the skb.

use hematite_driver::{XdpAction, XdpBuff};

use crate::model::Settings;
use crate::{Options, Sink, finish, frame, seeded, settle, up};

/// The first byte of a frame says what is to become of it.
fn program(xdp: &mut XdpBuff) -> XdpAction {
    match xdp.data()[0] % 6 {
        0 => XdpAction::Pass,
        1 => XdpAction::Drop,
        2 => XdpAction::Aborted,
        3 => {
            // Back with source and destination exchanged.
            let (dest, source) = xdp.data_mut()[..12].split_at_mut(6);
            dest.swap_with_slice(source);
            XdpAction::Tx
        }
        4 => XdpAction::Redirect(9),
        _ => {
            xdp.adjust_head(-4).expect("there is room");
            xdp.data_mut()[..4].copy_from_slice(b"more");
            XdpAction::Pass
        }
    }
}

#[test]
fn frames_pass_drop_go_back_and_change() {
    let mut net = up(Settings::default(), Options::default(), seeded());
    let mut sink = Sink::default();
    net.set_xdp(Some(Box::new(program))).unwrap();
    let frames: Vec<Vec<u8>> = (0..120u32)
        .map(|n| {
            let mut frame = frame(n, 60 + n as usize);
            frame[0] = n as u8;
            frame
        })
        .collect();
    net.function().from_wire.extend(frames.iter().cloned());
    settle(&mut net, &mut sink).unwrap();
    let mut expect = Vec::new();
    let mut back = Vec::new();
    for frame in &frames {
        match frame[0] % 6 {
            0 => expect.push(frame.clone()),
            3 => back.push([&frame[6..12], &frame[..6], &frame[12..]].concat()),
            5 => expect.push([b"more", &frame[..]].concat()),
            _ => {}
        }
    }
    assert_eq!(sink.frames, expect);
    // The model finishes its work in any order.
    let mut sent = Vec::from_iter(std::mem::take(&mut net.function().to_wire));
    sent.sort();
    back.sort();
    assert_eq!(sent, back);
    let stats = net.xdp_stats();
    assert_eq!((stats.packets, stats.drops, stats.aborted), (120, 40, 20));
    // Nobody takes redirected frames here.
    assert_eq!((stats.tx, stats.redirects, stats.redirect_errors), (20, 0, 20));
    // Off again.
    assert!(net.set_xdp(None).unwrap().is_some());
    net.function().from_wire.extend([frames[1].clone()]);
    settle(&mut net, &mut sink).unwrap();
    assert_eq!(sink.frames.last(), Some(&frames[1]));
    finish(net);
}
