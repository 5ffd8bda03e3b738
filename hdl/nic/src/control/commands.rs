//! From the bytes of a command to its reply.

use hematite_lang::prelude::*;

use super::address::Addresses;
use super::announce::Announce;
use super::class::{KEPT, Step, either, verdict};
use super::coalescing::Coalescing;
use super::multiqueue::MultiQueue;
use super::offloads::GuestOffloads;
use super::receive_mode::{self, ReceiveModes};
use super::statistics::Statistics;
use super::vlan::Vlans;
use crate::parse::classifier::HashTypes;
use crate::parse::filter::{FilterConfigOut, ReceiveMode};
use crate::parse::steering::{Steer, TableOut};
use crate::parse::toeplitz::KeyOut;
use crate::statistics::CountReadOut;
use crate::virtio::features::Negotiated;
use crate::virtio::ports::{Coalesce, CommandIn};

/// VIRTIO_NET_OK.
const OK: u64 = 0;
/// VIRTIO_NET_ERR.
const ERR: u64 = 1;

#[hw]
enum CommandState {
    Execute,
    Prepare,
    Judge,
    Verdict,
    Again,
    LastByte,
    LastFresh,
    Commit,
    Spread,
    Spreading,
    Effect,
    Reply,
}

/// Shows the bytes of a command to its class, has it judged and carried out (see [`Step`]), and makes the reply:
/// the ack, and what the class puts around it. A command that no class accepts is answered with VIRTIO_NET_ERR.
///
/// A byte a cycle; from `execute` to the reply two cycles, and for an accepted command seven more and one for each
/// byte of its data, but no more than 512. A byte of the reply every four cycles, unless its class
/// says that it is late.
///
/// `QUEUES` is the number of data queues, receive queues at even places; `PAIRS` is half of it.
#[hw]
pub struct Commands<const PAIRS: usize, const QUEUES: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Everything that commands have set to its start value: a device reset.
    pub reset: Signal<In, Bit>,
    /// Commands.
    pub command: CommandIn,
    /// What was negotiated.
    pub negotiated: Signal<In, Negotiated>,
    /// The data queues that are enabled.
    pub enabled: [Signal<In, Bit>; QUEUES],
    /// Notification coalescing of the data queues.
    pub coalesce: [Signal<Out, Coalesce>; QUEUES],
    /// Something for the receive queue is on its way through the card.
    pub inside: [Signal<In, Bit>; PAIRS],
    /// Nothing goes to the receive queue any more.
    pub retire: [Signal<Out, Bit>; PAIRS],
    /// Frames go to one receive queue only.
    pub single: Signal<Out, Bit>,
    /// How frames are spread over receive queues.
    pub steer: Signal<Out, Steer>,
    /// Writes of the indirection table.
    pub table: TableOut,
    /// Writes of the hash key.
    pub key: KeyOut,
    /// What is hashed.
    pub hash_types: Signal<Out, HashTypes>,
    /// The same, less the offloads on receive that are turned off.
    pub active: Signal<Out, Negotiated>,
    /// The card's address after a reset, its first octet in bits 7..0.
    pub permanent_mac: Signal<In, Bits<48>>,
    /// Which frames the driver wants; its address is part of it.
    pub filter: FilterConfigOut,
    /// The driver has set the address: high for one cycle.
    pub mac_set: Signal<Out, Bit>,
    /// The driver has made an announcement: high for one cycle.
    pub announced: Signal<Out, Bit>,
    /// Reads of what is counted for each queue.
    pub counts: CountReadOut,
    /// Counter event: a command came.
    pub received: Signal<Out, Bit>,
    /// Counter event: it is carried out.
    pub accepted: Signal<Out, Bit>,
    /// Counter event: a command was refused.
    pub refused: Signal<Out, Bit>,
    coalescing: Coalescing<QUEUES>,
    multiqueue: MultiQueue<PAIRS>,
    receive_modes: ReceiveModes,
    addresses: Addresses,
    vlans: Vlans,
    offloads: GuestOffloads,
    announce: Announce,
    statistics: Statistics<QUEUES>,
    state: Reg<CommandState>,
    class: Reg<Bits<8>>,
    code: Reg<Bits<8>>,
    /// Bytes of the command.
    count: Reg<Bits<16>>,
    /// Bytes of its data.
    length: Reg<Bits<16>>,
    kept: Ram<Bits<8>, 9>,
    /// The byte that is read from `kept`.
    again: Reg<Bits<9>>,
    /// It is there.
    read: Reg<Bit>,
    position: Reg<Bits<16>>,
    tail: Reg<Bits<96>>,
    fresh: Reg<Bit>,
    started: Reg<Bit>,
    ok: Reg<Bit>,
    /// Bytes of the reply before the ack, and all of them.
    ahead: Reg<Bits<16>>,
    total: Reg<Bits<16>>,
    /// The byte of the reply that is asked for.
    reply_at: Reg<Bits<16>>,
    reply_position: Reg<Bits<16>>,
    /// Cycles until it is there.
    reply_wait: Reg<Bits<2>>,
    reply: Reg<Bits<8>>,
}

#[hw]
impl<const PAIRS: usize, const QUEUES: usize> Logic for Commands<PAIRS, QUEUES> {
    fn update(&mut self) {
        clocked!(self.clock, self.reset => self.coalescing, self.multiqueue);
        clocked!(self.clock, self.reset => self.receive_modes, self.addresses, self.vlans);
        clocked!(self.clock, self.reset => self.offloads, self.announce, self.statistics);
        registers!(self.clock, self.reset => self.state);
        registers!(self.clock => self.class, self.code, self.count, self.length, self.again, self.read);
        registers!(self.clock => self.position, self.tail, self.fresh, self.started, self.ok);
        registers!(self.clock => self.ahead, self.total, self.reply_at, self.reply_position);
        registers!(self.clock => self.reply_wait, self.reply);
        clocked!(self.clock => self.kept);

        // The bytes: from the driver, and again from the memory.
        let count = self.count.q.val();
        let short = !count.get_bits::<15>(1).any();
        let position = self.position.q.val();
        let applying = matches!(
            self.state.q.val(),
            CommandState::Again | CommandState::LastByte | CommandState::LastFresh
        );
        let mut byte = self.command.byte.val();
        let mut fresh = false;
        if self.command.byte_valid.val() {
            if !count.all() {
                self.count.d.next = count + 1;
            }
            if count == bits::<16>(0) {
                self.class.d.next = byte;
            } else if count == bits::<16>(1) {
                self.code.d.next = byte;
            } else {
                self.position.d.next = count - 2;
                fresh = true;
            }
        }
        let again = self.again.q.val();
        if self.read.q.val() {
            byte = self.kept.read_data.val();
            self.position.d.next = (again - 1).resize::<16>();
            fresh = true;
        }
        if fresh {
            self.tail.d.next = cat::<96>((byte, self.tail.q.val().get_bits::<88>(8)));
        }
        self.fresh.d.next = fresh;
        self.length.d.next = if count.all() { count } else { count - 2 };
        let length = self.length.q.val();
        self.kept.write_enable.next = self.fresh.q.val() && !applying && position < bits::<16>(KEPT as u64);
        self.kept.write_address.next = position.get_bits::<9>(0);
        self.kept.write_data.next = self.tail.q.val().get_bits::<8>(88);
        self.kept.read_address.next = again;
        self.read.d.next = false;

        // The classes.
        let step = Step {
            class: self.class.q.val(),
            code: self.code.q.val(),
            length,
            start: self.started.q.val(),
            position,
            tail: self.tail.q.val(),
            fresh: self.fresh.q.val(),
            applying,
            judge: matches!(self.state.q.val(), CommandState::Judge),
            commit: matches!(self.state.q.val(), CommandState::Commit),
            reply_position: self.reply_position.q.val(),
        };
        self.started.d.next = self.command.start.val();
        let mut answer = verdict(false);

        self.coalescing.step.next = step;
        self.coalescing.negotiated.next = self.negotiated.val();
        for q in 0..QUEUES {
            self.coalescing.enabled[q].next = self.enabled[q].val();
            self.coalesce[q].next = self.coalescing.coalesce[q].val();
        }
        answer = either(answer, self.coalescing.answer.val());

        self.multiqueue.step.next = step;
        self.multiqueue.negotiated.next = self.negotiated.val();
        for p in 0..PAIRS {
            self.multiqueue.inside[p].next = self.inside[p].val();
            self.retire[p].next = self.multiqueue.retire[p].val();
        }
        self.single.next = self.multiqueue.single.val();
        self.steer.next = self.multiqueue.steer.val();
        self.table.link(&mut self.multiqueue.table);
        self.key.link(&mut self.multiqueue.key);
        self.hash_types.next = self.multiqueue.hash_types.val();
        answer = either(answer, self.multiqueue.answer.val());

        self.receive_modes.step.next = step;
        self.receive_modes.negotiated.next = self.negotiated.val();
        answer = either(answer, self.receive_modes.answer.val());

        self.addresses.step.next = step;
        self.addresses.negotiated.next = self.negotiated.val();
        self.addresses.permanent.next = self.permanent_mac.val();
        self.mac_set.next = self.addresses.mac_set.val();
        self.filter.mac.next = self.addresses.mac.val();
        self.filter.bank.next = self.addresses.bank.val();
        self.filter.addresses.next = self.addresses.count.val();
        self.filter.entry.next = self.addresses.entry.val();
        self.filter.address.next = self.addresses.address.val();
        self.filter.address_write.next = self.addresses.write.val();
        answer = either(answer, self.addresses.answer.val());

        self.vlans.step.next = step;
        self.vlans.negotiated.next = self.negotiated.val();
        self.filter.vlan.next = self.vlans.vlan.val();
        self.filter.vlan_member.next = self.vlans.member.val();
        self.filter.vlan_write.next = self.vlans.write.val();
        self.filter.vlan_clear.next = self.vlans.clear.val();
        self.vlans.clearing.next = self.filter.vlan_busy.val();
        answer = either(answer, self.vlans.answer.val());

        self.offloads.step.next = step;
        self.offloads.negotiated.next = self.negotiated.val();
        self.active.next = self.offloads.active.val();
        answer = either(answer, self.offloads.answer.val());

        self.announce.step.next = step;
        self.announce.negotiated.next = self.negotiated.val();
        self.announced.next = self.announce.announced.val();
        answer = either(answer, self.announce.answer.val());

        self.statistics.step.next = step;
        self.statistics.negotiated.next = self.negotiated.val();
        self.counts.link(&mut self.statistics.read);
        answer = either(answer, self.statistics.answer.val());

        let modes = self.receive_modes.modes.val();
        self.filter.mode.next = ReceiveMode {
            promiscuous: modes.get_bit(receive_mode::PROMISC),
            all_multicast: modes.get_bit(receive_mode::ALLMULTI) || self.addresses.many_multicast.val(),
            all_unicast: modes.get_bit(receive_mode::ALLUNI) || self.addresses.many_unicast.val(),
            no_multicast: modes.get_bit(receive_mode::NOMULTI),
            no_unicast: modes.get_bit(receive_mode::NOUNI),
            no_broadcast: modes.get_bit(receive_mode::NOBCAST),
            vlan_filter: self.negotiated.val().ctrl_vlan,
        };

        // The reply.
        let ahead = answer.ahead.resize::<16>();
        let behind = if self.ok.q.val() {
            answer.behind
        } else {
            bits::<16>(0)
        };
        self.ahead.d.next = ahead;
        self.total.d.next = ahead + behind + 1;
        let reply_at = self.reply_at.q.val();
        self.reply_position.d.next = if reply_at < self.ahead.q.val() {
            reply_at
        } else {
            reply_at - 1
        };
        self.reply.d.next = if reply_at != self.ahead.q.val() {
            answer.byte
        } else if self.ok.q.val() {
            bits::<8>(OK)
        } else {
            bits::<8>(ERR)
        };
        self.command.executed.next = matches!(self.state.q.val(), CommandState::Reply);
        self.command.reply_length.next = self.total.q.val();
        self.command.reply.next = self.reply.q.val();
        let waits = self.reply_wait.q.val().any();
        self.command.reply_valid.next = !waits;
        if self.command.start.val() {
            self.count.d.next = bits::<16>(0);
            self.ok.d.next = false;
            self.reply_at.d.next = bits::<16>(0);
            self.reply_wait.d.next = bits::<2>(3);
        } else if self.command.reply_ready.val() {
            self.reply_at.d.next = reply_at + 1;
            self.reply_wait.d.next = bits::<2>(3);
        } else if waits && self.command.executed.val() && !answer.late {
            self.reply_wait.d.next = self.reply_wait.q.val() - 1;
        }

        self.received.next = false;
        self.accepted.next = false;
        self.refused.next = false;
        let past = length > bits::<16>(KEPT as u64);
        let last = if past {
            again.all()
        } else {
            again == length.get_bits::<9>(0) - 1
        };
        match self.state.q.val() {
            CommandState::Execute => {
                if self.command.execute.val() {
                    self.state.d.next = CommandState::Prepare;
                }
            }
            CommandState::Prepare => self.state.d.next = CommandState::Judge,
            CommandState::Judge => {
                self.received.next = true;
                self.state.d.next = CommandState::Verdict;
            }
            CommandState::Verdict => {
                // Without two bytes there is no class to judge.
                let ok = answer.accept && !short;
                self.ok.d.next = ok;
                self.accepted.next = ok;
                self.refused.next = !ok;
                self.again.d.next = bits::<9>(0);
                self.state.d.next = if !ok {
                    CommandState::Reply
                } else if length.any() {
                    CommandState::Again
                } else {
                    CommandState::Commit
                };
            }
            CommandState::Again => {
                self.read.d.next = true;
                self.again.d.next = again + 1;
                if last {
                    self.state.d.next = CommandState::LastByte;
                }
            }
            CommandState::LastByte => self.state.d.next = CommandState::LastFresh,
            CommandState::LastFresh => self.state.d.next = CommandState::Commit,
            // What was set has a way to go before those whom it concerns can say that they still have something to do.
            CommandState::Commit => self.state.d.next = CommandState::Spread,
            CommandState::Spread => self.state.d.next = CommandState::Spreading,
            CommandState::Spreading => self.state.d.next = CommandState::Effect,
            CommandState::Effect => {
                if !answer.busy {
                    self.state.d.next = CommandState::Reply;
                }
            }
            CommandState::Reply => {
                if self.command.start.val() {
                    self.state.d.next = CommandState::Execute;
                }
            }
        }
    }
}
