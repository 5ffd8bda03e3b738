//! Notification coalescing (virtio 1.3 section 5.1.6.5.8).

use hematite_lang::prelude::*;

use super::Command;
use crate::virtio::features::Negotiated;
use crate::virtio::ports::Coalesce;

/// VIRTIO_NET_CTRL_NOTF_COAL.
const CLASS: u64 = 6;
/// VIRTIO_NET_CTRL_NOTF_COAL_TX_SET.
const TX_SET: usize = 0;
/// VIRTIO_NET_CTRL_NOTF_COAL_RX_SET.
const RX_SET: usize = 1;
/// VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET.
const VQ_SET: usize = 2;
/// VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET.
const VQ_GET: usize = 3;

/// Carries out the commands of class NOTF_COAL for `QUEUES` data queues, receive queues at even places.
///
/// Values above 65535 are refused, and so are commands that name a queue that is not an enabled data queue. A queue
/// that is not enabled has what was last set for its direction, so it starts with that.
/// Two cycles from `offered` to `accepted` and the new values.
#[hw]
pub struct Coalescing<const QUEUES: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// All parameters to 0: a device reset.
    pub reset: Signal<In, Bit>,
    /// What was negotiated.
    pub negotiated: Signal<In, Negotiated>,
    /// The command at hand.
    pub command: Signal<In, Command>,
    /// It is to be carried out: high for one cycle.
    pub offered: Signal<In, Bit>,
    /// It is being carried out: high for one cycle, or never.
    pub accepted: Signal<Out, Bit>,
    /// The command has eight bytes of result, whether it is accepted or not.
    pub has_result: Signal<Out, Bit>,
    /// They are these.
    pub result: Signal<Out, Bits<64>>,
    /// The queues that are enabled.
    pub enabled: [Signal<In, Bit>; QUEUES],
    /// What holds for each queue.
    pub coalesce: [Signal<Out, Coalesce>; QUEUES],
    ours: Reg<Bit>,
    sets: [Reg<Bit>; QUEUES],
    sets_transmit: Reg<Bit>,
    sets_receive: Reg<Bit>,
    value: Reg<Coalesce>,
    asked: Reg<Coalesce>,
    get: Reg<Bit>,
    transmit: Reg<Coalesce>,
    receive: Reg<Coalesce>,
    queue: [Reg<Coalesce>; QUEUES],
}

#[hw]
impl<const QUEUES: usize> Logic for Coalescing<QUEUES> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.ours, self.sets_transmit, self.sets_receive);
        registers!(self.clock, self.reset => self.transmit, self.receive);
        registers!(self.clock => self.value, self.asked, self.get);
        for q in 0..QUEUES {
            registers!(self.clock, self.reset => self.sets[q], self.queue[q]);
        }
        let command = self.command.val();
        let packets = command.data.get_bits::<32>(32);
        let usecs = command.data.get_bits::<32>(64);
        let small = !packets.get_bits::<16>(16).any() && !usecs.get_bits::<16>(16).any();
        let get = command.class == bits::<8>(CLASS) && command.command == bits::<8>(VQ_GET as u64);
        // The queue's index stands before the parameters, or alone.
        let vq = if get {
            command.data.get_bits::<16>(64)
        } else {
            command.data.get_bits::<16>(0)
        };
        let mut known = false;
        let mut asked = Coalesce {
            max_packets: bits::<16>(0),
            max_usecs: bits::<16>(0),
        };
        for q in 0..QUEUES {
            if vq == bits::<16>(q as u64) && self.enabled[q].val() {
                known = true;
                asked = self.queue[q].q.val();
            }
        }
        let all = self.negotiated.val().notf_coal;
        let each = self.negotiated.val().vq_notf_coal;
        let for_all = all && small && command.length == bits::<16>(8);
        let for_one = each && small && command.length == bits::<16>(12) && known;
        let mut ours = false;
        let mut receive = false;
        let mut transmit = false;
        let mut one = false;
        if self.offered.val() && command.class == bits::<8>(CLASS) {
            match command.command.index() {
                TX_SET => {
                    ours = for_all;
                    transmit = for_all;
                }
                RX_SET => {
                    ours = for_all;
                    receive = for_all;
                }
                VQ_SET => {
                    ours = for_one;
                    one = for_one;
                }
                VQ_GET => ours = each && known && command.length == bits::<16>(4),
                _ => {}
            }
        }
        self.ours.d.next = ours;
        self.sets_receive.d.next = receive;
        self.sets_transmit.d.next = transmit;
        self.value.d.next = Coalesce {
            max_packets: packets.get_bits::<16>(0),
            max_usecs: usecs.get_bits::<16>(0),
        };
        self.asked.d.next = asked;
        self.get.d.next = get;
        self.accepted.next = self.ours.q.val();
        self.has_result.next = self.get.q.val();
        self.result.next = cat::<64>((
            bits::<16>(0),
            self.asked.q.val().max_usecs,
            bits::<16>(0),
            self.asked.q.val().max_packets,
        ));

        let value = self.value.q.val();
        if self.sets_transmit.q.val() {
            self.transmit.d.next = value;
        }
        if self.sets_receive.q.val() {
            self.receive.d.next = value;
        }
        for q in 0..QUEUES {
            let all = if q % 2 == 0 {
                self.sets_receive.q.val()
            } else {
                self.sets_transmit.q.val()
            };
            self.sets[q].d.next = one && vq == bits::<16>(q as u64);
            if self.sets[q].q.val() || all {
                self.queue[q].d.next = value;
            } else if !self.enabled[q].val() {
                self.queue[q].d.next = if q % 2 == 0 {
                    self.receive.q.val()
                } else {
                    self.transmit.q.val()
                };
            }
            self.coalesce[q].next = self.queue[q].q.val();
        }
    }
}
