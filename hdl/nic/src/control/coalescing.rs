//! Notification coalescing (virtio 1.3 section 5.1.6.5.8).

use hematite_lang::prelude::*;

use super::class::{Answer, Step};
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
/// The new values hold a cycle after `commit`; what a queue has that is not enabled, `QUEUES` cycles later.
#[hw]
pub struct Coalescing<const QUEUES: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// All parameters to 0: a device reset.
    pub reset: Signal<In, Bit>,
    /// What was negotiated.
    pub negotiated: Signal<In, Negotiated>,
    /// The command at hand.
    pub step: Signal<In, Step>,
    /// What becomes of it.
    pub answer: Signal<Out, Answer>,
    /// The queues that are enabled.
    pub enabled: [Signal<In, Bit>; QUEUES],
    /// What holds for each queue.
    pub coalesce: [Signal<Out, Coalesce>; QUEUES],
    accept: Reg<Bit>,
    /// The queue that the command names, where it names one.
    named: [Reg<Bit>; QUEUES],
    ours: Reg<Bit>,
    get: Reg<Bit>,
    /// The parameters of the queue that VQ_GET names.
    asked: Reg<Coalesce>,
    /// What was set last for all queues of a direction.
    transmit: Reg<Coalesce>,
    receive: Reg<Coalesce>,
    queue: [Reg<Coalesce>; QUEUES],
    /// The queue that is given what its direction has, if it is not enabled.
    turn: Reg<Bits<5>>,
}

#[hw]
impl<const QUEUES: usize> Logic for Coalescing<QUEUES> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.transmit, self.receive, self.turn);
        registers!(self.clock => self.accept, self.ours, self.get, self.asked);
        for q in 0..QUEUES {
            registers!(self.clock, self.reset => self.queue[q]);
            registers!(self.clock => self.named[q]);
        }
        let step = self.step.val();
        // Class, code and queue are there two cycles before they are judged.
        let ours = self.ours.q.val();
        let get = self.get.q.val();
        self.ours.d.next = step.class == bits::<8>(CLASS);
        self.get.d.next = step.class == bits::<8>(CLASS) && step.code == bits::<8>(VQ_GET as u64);
        let packets = step.tail.get_bits::<32>(32);
        let usecs = step.tail.get_bits::<32>(64);
        let small = !packets.get_bits::<16>(16).any() && !usecs.get_bits::<16>(16).any();
        // The queue's index stands before the parameters, or alone.
        let vq = if get {
            step.tail.get_bits::<16>(64)
        } else {
            step.tail.get_bits::<16>(0)
        };
        let mut known = false;
        let mut asked = Coalesce {
            max_packets: bits::<16>(0),
            max_usecs: bits::<16>(0),
        };
        for q in 0..QUEUES {
            self.named[q].d.next = vq == bits::<16>(q as u64) && self.enabled[q].val();
            if self.named[q].q.val() {
                known = true;
                asked = self.queue[q].q.val();
            }
        }
        self.asked.d.next = asked;
        let all = self.negotiated.val().notf_coal;
        let each = self.negotiated.val().vq_notf_coal;
        let for_all = all && small && step.length == bits::<16>(8);
        let for_one = each && small && step.length == bits::<16>(12) && known;
        if step.start {
            self.accept.d.next = false;
        } else if step.judge && ours {
            self.accept.d.next = match step.code.index() {
                TX_SET | RX_SET => for_all,
                VQ_SET => for_one,
                VQ_GET => each && known && step.length == bits::<16>(4),
                _ => false,
            };
        }
        let mut byte = bits::<8>(0);
        let result = cat::<64>((
            bits::<16>(0),
            self.asked.q.val().max_usecs,
            bits::<16>(0),
            self.asked.q.val().max_packets,
        ));
        for n in 0..8 {
            if get && step.reply_position.get_bits::<3>(0) == bits::<3>(n as u64) {
                byte = result.get_bits::<8>(8 * n);
            }
        }
        self.answer.next = Answer {
            accept: self.accept.q.val(),
            busy: false,
            ahead: if get { bits::<4>(8) } else { bits::<4>(0) },
            behind: bits::<16>(0),
            byte,
            late: false,
        };

        let value = Coalesce {
            max_packets: packets.get_bits::<16>(0),
            max_usecs: usecs.get_bits::<16>(0),
        };
        let mut sets_transmit = false;
        let mut sets_receive = false;
        let mut sets_one = false;
        if step.commit && ours {
            match step.code.index() {
                TX_SET => sets_transmit = true,
                RX_SET => sets_receive = true,
                VQ_SET => sets_one = true,
                _ => {}
            }
        }
        if sets_transmit {
            self.transmit.d.next = value;
        }
        if sets_receive {
            self.receive.d.next = value;
        }
        // One value for all queues to take, so that each is no more than registers with an enable.
        let sets = sets_transmit || sets_receive || sets_one;
        let turn = self.turn.q.val();
        self.turn.d.next = if turn == bits::<5>(QUEUES as u64 - 1) {
            bits::<5>(0)
        } else {
            turn + 1
        };
        let new = if sets {
            value
        } else if turn.get_bit(0) {
            self.transmit.q.val()
        } else {
            self.receive.q.val()
        };
        for q in 0..QUEUES {
            let all = if q % 2 == 0 { sets_receive } else { sets_transmit };
            let one = sets_one && self.named[q].q.val();
            let renewed = !sets && turn == bits::<5>(q as u64) && !self.enabled[q].val();
            if one || all || renewed {
                self.queue[q].d.next = new;
            }
            self.coalesce[q].next = self.queue[q].q.val();
        }
    }
}
