//! Offloads on receive, turned on and off (virtio 1.3 section 5.1.6.5.8).

use hematite_lang::prelude::*;

use super::class::{Answer, Step, verdict};
use crate::virtio::features::{self, Negotiated};

/// VIRTIO_NET_CTRL_GUEST_OFFLOADS.
const CLASS: u64 = 5;
/// VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET.
const SET: u64 = 0;

/// Carries out the command of class CTRL_GUEST_OFFLOADS: every offload that was negotiated is on until it says
/// otherwise.
///
/// A bit that is no offload, or whose feature was not negotiated, is refused. Merging is off without GUEST_CSUM, which it
/// needs. The new state holds a cycle after `commit`; a packet that is being merged then is still delivered merged.
#[hw]
pub struct GuestOffloads {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// All on: a device reset.
    pub reset: Signal<In, Bit>,
    /// What was negotiated.
    pub negotiated: Signal<In, Negotiated>,
    /// The command at hand.
    pub step: Signal<In, Step>,
    /// What becomes of it.
    pub answer: Signal<Out, Answer>,
    /// What was negotiated, less what is turned off.
    pub active: Signal<Out, Negotiated>,
    accept: Reg<Bit>,
    #[reset(true)]
    csum: Reg<Bit>,
    #[reset(true)]
    tso4: Reg<Bit>,
    #[reset(true)]
    tso6: Reg<Bit>,
    #[reset(true)]
    ecn: Reg<Bit>,
}

#[hw]
impl Logic for GuestOffloads {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.accept, self.csum, self.tso4, self.tso6, self.ecn);
        let step = self.step.val();
        let ours = step.class == bits::<8>(CLASS);
        let negotiated = self.negotiated.val();
        let wanted = step.tail.get_bits::<64>(32);
        let mut beyond = wanted;
        if negotiated.guest_csum {
            beyond = beyond.replace_bit(features::GUEST_CSUM, false);
        }
        if negotiated.guest_tso4 {
            beyond = beyond.replace_bit(features::GUEST_TSO4, false);
        }
        if negotiated.guest_tso6 {
            beyond = beyond.replace_bit(features::GUEST_TSO6, false);
        }
        if negotiated.guest_ecn {
            beyond = beyond.replace_bit(features::GUEST_ECN, false);
        }
        if step.start {
            self.accept.d.next = false;
        } else if step.judge && ours {
            self.accept.d.next = negotiated.ctrl_guest_offloads
                && step.code == bits::<8>(SET)
                && step.length == bits::<16>(8)
                && !beyond.any();
        }
        if step.commit && ours {
            self.csum.d.next = wanted.get_bit(features::GUEST_CSUM);
            self.tso4.d.next = wanted.get_bit(features::GUEST_TSO4);
            self.tso6.d.next = wanted.get_bit(features::GUEST_TSO6);
            self.ecn.d.next = wanted.get_bit(features::GUEST_ECN);
        }
        self.answer.next = verdict(self.accept.q.val());
        let csum = negotiated.guest_csum && self.csum.q.val();
        self.active.next = negotiated;
        self.active.next.guest_csum = csum;
        self.active.next.guest_tso4 = negotiated.guest_tso4 && self.tso4.q.val() && csum;
        self.active.next.guest_tso6 = negotiated.guest_tso6 && self.tso6.q.val() && csum;
        self.active.next.guest_ecn = negotiated.guest_ecn && self.ecn.q.val();
    }
}
