//! The receive mode (virtio 1.3 section 5.1.6.5.1).

use hematite_lang::prelude::*;

use super::class::{Answer, Step, verdict};
use crate::virtio::features::Negotiated;

/// VIRTIO_NET_CTRL_RX.
const CLASS: u64 = 0;
/// VIRTIO_NET_CTRL_RX_PROMISC.
pub const PROMISC: usize = 0;
/// VIRTIO_NET_CTRL_RX_ALLMULTI.
pub const ALLMULTI: usize = 1;
/// VIRTIO_NET_CTRL_RX_ALLUNI.
pub const ALLUNI: usize = 2;
/// VIRTIO_NET_CTRL_RX_NOMULTI.
pub const NOMULTI: usize = 3;
/// VIRTIO_NET_CTRL_RX_NOUNI.
pub const NOUNI: usize = 4;
/// VIRTIO_NET_CTRL_RX_NOBCAST.
pub const NOBCAST: usize = 5;
/// Commands of the class.
const MODES: usize = 6;

/// Carries out the commands of class CTRL_RX: each turns one mode on or off.
///
/// Promiscuous mode is on until a driver turns it off, so that one that cannot, or never does, hears everything: what
/// drivers expect of a virtio device. A byte other than 0 and 1 is refused. A mode holds a cycle after `commit`.
#[hw]
pub struct ReceiveModes {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Promiscuous mode and no other: a device reset.
    pub reset: Signal<In, Bit>,
    /// What was negotiated.
    pub negotiated: Signal<In, Negotiated>,
    /// The command at hand.
    pub step: Signal<In, Step>,
    /// What becomes of it.
    pub answer: Signal<Out, Answer>,
    /// The modes that are on, each at the bit of its command.
    pub modes: Signal<Out, Bits<6>>,
    accept: Reg<Bit>,
    #[reset(bits::<6>(1))]
    on: Reg<Bits<6>>,
}

#[hw]
impl Logic for ReceiveModes {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.accept, self.on);
        let step = self.step.val();
        let ours = step.class == bits::<8>(CLASS);
        let byte = step.tail.get_bits::<8>(88);
        let extra = self.negotiated.val().ctrl_rx_extra;
        let allowed = match step.code.index() {
            PROMISC | ALLMULTI => self.negotiated.val().ctrl_rx,
            ALLUNI | NOMULTI | NOUNI | NOBCAST => extra,
            _ => false,
        };
        if step.start {
            self.accept.d.next = false;
        } else if step.judge && ours {
            let boolean = !byte.get_bits::<7>(1).any();
            self.accept.d.next = allowed && boolean && step.length == bits::<16>(1);
        }
        if step.commit && ours {
            let mut on = self.on.q.val();
            for mode in 0..MODES {
                if step.code.get_bits::<3>(0) == bits::<3>(mode as u64) {
                    on.set_bits::<1>(mode, byte.get_bits::<1>(0));
                }
            }
            self.on.d.next = on;
        }
        self.answer.next = verdict(self.accept.q.val());
        self.modes.next = self.on.q.val();
    }
}
