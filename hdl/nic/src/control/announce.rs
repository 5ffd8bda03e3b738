//! The driver's answer to a wish for an announcement (virtio 1.3 section 5.1.6.5.4).

use hematite_lang::prelude::*;

use super::class::{Answer, Step, verdict};
use crate::virtio::features::Negotiated;

/// VIRTIO_NET_CTRL_ANNOUNCE.
const CLASS: u64 = 3;
/// VIRTIO_NET_CTRL_ANNOUNCE_ACK.
const ACK: u64 = 0;

/// Carries out the command of class CTRL_ANNOUNCE: the driver has told the network where it is. `announced` is high at
/// `commit`; a command with data, another code, or without GUEST_ANNOUNCE is refused.
#[hw]
pub struct Announce {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Back to the start.
    pub reset: Signal<In, Bit>,
    /// What was negotiated.
    pub negotiated: Signal<In, Negotiated>,
    /// The command at hand.
    pub step: Signal<In, Step>,
    /// What becomes of it.
    pub answer: Signal<Out, Answer>,
    /// It was carried out: high for one cycle.
    pub announced: Signal<Out, Bit>,
    accept: Reg<Bit>,
}

#[hw]
impl Logic for Announce {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.accept);
        let step = self.step.val();
        let ours = step.class == bits::<8>(CLASS);
        if step.start {
            self.accept.d.next = false;
        } else if step.judge && ours {
            self.accept.d.next =
                self.negotiated.val().guest_announce && step.code == bits::<8>(ACK) && !step.length.any();
        }
        self.announced.next = step.commit && ours;
        self.answer.next = verdict(self.accept.q.val());
    }
}
