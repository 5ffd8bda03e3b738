//! The card's address and the table of further ones (virtio 1.3 section 5.1.6.5.2).

use hematite_lang::prelude::*;

use super::class::{Answer, Step, verdict};
use crate::parse::filter::ADDRESSES;
use crate::virtio::features::Negotiated;

/// VIRTIO_NET_CTRL_MAC.
const CLASS: u64 = 1;
/// VIRTIO_NET_CTRL_MAC_TABLE_SET.
const TABLE_SET: u64 = 0;
/// VIRTIO_NET_CTRL_MAC_ADDR_SET.
const ADDR_SET: u64 = 1;
/// Lists in a table: individual addresses, then group addresses.
const LISTS: u64 = 2;

/// Carries out the commands of class CTRL_MAC.
///
/// The filter's table has two banks. MAC_TABLE_SET fills the one that is not in use while its bytes come the first
/// time, and `commit` swaps them: no frame meets a table that is half old and half new, and a command that turns out to
/// be malformed has changed nothing. Of the individual addresses either all have a place or, when there are more than
/// the table has, none, and every individual address passes; the same with the group addresses and the places that are
/// left. Refused are lists of 65536 addresses and more, and a group address as the card's own.
///
/// A byte a cycle; everything holds a cycle after `commit`.
#[hw]
pub struct Addresses {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// An empty table, and the permanent address: a device reset.
    pub reset: Signal<In, Bit>,
    /// What was negotiated.
    pub negotiated: Signal<In, Negotiated>,
    /// The command at hand.
    pub step: Signal<In, Step>,
    /// What becomes of it.
    pub answer: Signal<Out, Answer>,
    /// The address after a reset, its first octet in bits 7..0.
    pub permanent: Signal<In, Bits<48>>,
    /// The address now.
    pub mac: Signal<Out, Bits<48>>,
    /// It was set: high for one cycle.
    pub mac_set: Signal<Out, Bit>,
    /// The bank of the table in use.
    pub bank: Signal<Out, Bit>,
    /// Its entries.
    pub count: Signal<Out, Bits<5>>,
    /// There are more individual addresses than fit.
    pub many_unicast: Signal<Out, Bit>,
    /// There are more group addresses than fit.
    pub many_multicast: Signal<Out, Bit>,
    /// Entry of the other bank to write.
    pub entry: Signal<Out, Bits<4>>,
    /// An address for it.
    pub address: Signal<Out, Bits<48>>,
    /// Write it now.
    pub write: Signal<Out, Bit>,
    own: Reg<Bits<48>>,
    own_set: Reg<Bit>,
    accept: Reg<Bit>,
    /// Lists that are complete.
    lists: Reg<Bits<2>>,
    /// The bytes of a list's length come, else addresses.
    counting: Reg<Bit>,
    /// Bytes of that which came.
    bytes: Reg<Bits<3>>,
    /// Addresses of the list that are still to come.
    left: Reg<Bits<16>>,
    /// The list has too many.
    many: [Reg<Bit>; 2],
    /// The command is malformed.
    bad: Reg<Bit>,
    /// Places taken.
    taken: Reg<Bits<5>>,
    /// What is in use.
    in_bank: Reg<Bit>,
    in_count: Reg<Bits<5>>,
    in_many: [Reg<Bit>; 2],
}

#[hw]
impl Logic for Addresses {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.accept, self.own_set, self.in_bank, self.in_count);
        registers!(self.clock => self.own, self.lists, self.counting, self.bytes, self.left, self.bad, self.taken);
        for n in 0..2 {
            registers!(self.clock => self.many[n]);
            registers!(self.clock, self.reset => self.in_many[n]);
        }
        let step = self.step.val();
        let ours = step.class == bits::<8>(CLASS);
        let table_set = ours && step.code == bits::<8>(TABLE_SET);
        let addr_set = ours && step.code == bits::<8>(ADDR_SET);
        let address = step.tail.get_bits::<48>(48);

        // The two lists.
        let bytes = self.bytes.q.val();
        let lists = self.lists.q.val();
        let left = self.left.q.val();
        let taken = self.taken.q.val();
        let count = step.tail.get_bits::<32>(64);
        let free = bits::<5>(ADDRESSES as u64) - taken;
        let few = !count.get_bits::<27>(5).any() && count.get_bits::<5>(0) <= free;
        let second = lists.get_bit(0);
        let listing = if second {
            self.many[1].q.val()
        } else {
            self.many[0].q.val()
        };
        let mut write = false;
        if step.start {
            self.lists.d.next = bits::<2>(0);
            self.counting.d.next = true;
            self.bytes.d.next = bits::<3>(0);
            self.taken.d.next = bits::<5>(0);
            self.bad.d.next = false;
        } else if step.fresh && !step.applying {
            self.bytes.d.next = bytes + 1;
            if lists == bits::<2>(LISTS) {
                self.bad.d.next = true;
            } else if self.counting.q.val() {
                if bytes == bits::<3>(3) {
                    self.bytes.d.next = bits::<3>(0);
                    self.left.d.next = count.get_bits::<16>(0);
                    if count.get_bits::<16>(16).any() {
                        self.bad.d.next = true;
                    }
                    for n in 0..2 {
                        if lists == bits::<2>(n as u64) {
                            self.many[n].d.next = !few;
                        }
                    }
                    if count.any() {
                        self.counting.d.next = false;
                    } else {
                        self.lists.d.next = lists + 1;
                    }
                }
            } else if bytes == bits::<3>(5) {
                self.bytes.d.next = bits::<3>(0);
                self.left.d.next = left - 1;
                if !listing {
                    write = table_set;
                    self.taken.d.next = taken + 1;
                }
                if left == bits::<16>(1) {
                    self.lists.d.next = lists + 1;
                    self.counting.d.next = true;
                }
            }
        }
        self.entry.next = taken.get_bits::<4>(0);
        self.address.next = address;
        self.write.next = write;

        // The verdict.
        let whole = lists == bits::<2>(LISTS) && !self.bad.q.val();
        let may_set = self.negotiated.val().ctrl_mac_addr || self.negotiated.val().ctrl_rx;
        let group = address.get_bit(0);
        if step.start {
            self.accept.d.next = false;
        } else if step.judge {
            self.accept.d.next = (table_set && self.negotiated.val().ctrl_rx && whole)
                || (addr_set && may_set && !group && step.length == bits::<16>(6));
        }
        self.answer.next = verdict(self.accept.q.val());

        // The change.
        self.own_set.d.next = step.commit && addr_set;
        if self.reset.val() {
            self.own.d.next = self.permanent.val();
        } else if step.commit && addr_set {
            self.own.d.next = address;
        }
        if step.commit && table_set {
            self.in_bank.d.next = !self.in_bank.q.val();
            self.in_count.d.next = taken;
            for n in 0..2 {
                self.in_many[n].d.next = self.many[n].q.val();
            }
        }
        self.mac.next = self.own.q.val();
        self.mac_set.next = self.own_set.q.val();
        self.bank.next = self.in_bank.q.val();
        self.count.next = self.in_count.q.val();
        self.many_unicast.next = self.in_many[0].q.val();
        self.many_multicast.next = self.in_many[1].q.val();
    }
}
