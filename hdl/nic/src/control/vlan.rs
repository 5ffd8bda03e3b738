//! The VLAN table (virtio 1.3 section 5.1.6.5.3).

use hematite_lang::prelude::*;

use super::class::{Answer, Step, verdict};
use crate::virtio::features::Negotiated;

/// VIRTIO_NET_CTRL_VLAN.
const CLASS: u64 = 2;
/// VIRTIO_NET_CTRL_VLAN_ADD.
const ADD: u64 = 0;

/// Carries out the commands of class CTRL_VLAN. Identifiers above 4095 are refused.
///
/// The table is the filter's. A command that comes while that is still being emptied after a reset waits for it,
/// 4096 cycles at most; else it is in effect two cycles after `commit`.
#[hw]
pub struct Vlans {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Empties the table: a device reset.
    pub reset: Signal<In, Bit>,
    /// What was negotiated.
    pub negotiated: Signal<In, Negotiated>,
    /// The command at hand.
    pub step: Signal<In, Step>,
    /// What becomes of it.
    pub answer: Signal<Out, Answer>,
    /// The VLAN to add or remove.
    pub vlan: Signal<Out, Bits<12>>,
    /// Add it.
    pub member: Signal<Out, Bit>,
    /// Do so now.
    pub write: Signal<Out, Bit>,
    /// Empty the table.
    pub clear: Signal<Out, Bit>,
    /// The table is being emptied.
    pub clearing: Signal<In, Bit>,
    accept: Reg<Bit>,
    #[reset(true)]
    clear_next: Reg<Bit>,
    pending: Reg<Bit>,
    named: Reg<Bits<12>>,
    add: Reg<Bit>,
}

#[hw]
impl Logic for Vlans {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.accept, self.clear_next, self.pending);
        registers!(self.clock => self.named, self.add);
        let step = self.step.val();
        let ours = step.class == bits::<8>(CLASS);
        let vlan = step.tail.get_bits::<16>(80);
        if step.start {
            self.accept.d.next = false;
        } else if step.judge && ours {
            let known = !step.code.get_bits::<7>(1).any();
            let exists = !vlan.get_bits::<4>(12).any();
            self.accept.d.next =
                self.negotiated.val().ctrl_vlan && known && exists && step.length == bits::<16>(2);
        }
        self.clear_next.d.next = false;
        let clearing = self.clearing.val() || self.clear_next.q.val();
        if step.commit && ours {
            self.pending.d.next = true;
            self.named.d.next = vlan.get_bits::<12>(0);
            self.add.d.next = step.code == bits::<8>(ADD);
        } else if !clearing {
            self.pending.d.next = false;
        }
        self.clear.next = self.clear_next.q.val();
        self.vlan.next = self.named.q.val();
        self.member.next = self.add.q.val();
        self.write.next = self.pending.q.val() && !clearing;
        self.answer.next = verdict(self.accept.q.val());
        self.answer.next.busy = self.pending.q.val();
    }
}
