//! Which frames are for this host.

use hematite_lang::prelude::*;

/// Entries of the MAC address table.
pub const ADDRESSES: usize = 16;

/// The receive mode (virtio 1.3 section 5.1.6.5.1): what the control queue sets, and what it makes of a table that
/// is too small.
#[hw(value)]
pub struct ReceiveMode {
    /// Every frame.
    pub promiscuous: Bit,
    /// Every frame to a group address.
    pub all_multicast: Bit,
    /// Every frame to an individual address.
    pub all_unicast: Bit,
    /// No frame to a group address but the broadcast address, even with `all_multicast`.
    pub no_multicast: Bit,
    /// No frame to an individual address, even with `all_unicast`.
    pub no_unicast: Bit,
    /// No frame to the broadcast address.
    pub no_broadcast: Bit,
    /// Tagged frames of the VLAN table's VLANs only (section 5.1.6.5.3).
    pub vlan_filter: Bit,
}

/// What the filter goes by, from the control queue. A frame that is under way at a change is judged by either
/// state. A bank that was in use is written 20 cycles later at the earliest: a search is still going on in it.
#[hw(interface)]
#[join(FilterConfigIn)]
pub struct FilterConfigOut {
    /// The receive mode.
    pub mode: Signal<Out, ReceiveMode>,
    /// The card's own address, its first octet in bits 7..0.
    pub mac: Signal<Out, Bits<48>>,
    /// The bank of the address table that counts.
    pub bank: Signal<Out, Bit>,
    /// Entries of it that count, from the first on.
    pub addresses: Signal<Out, Bits<5>>,
    /// The entry of the other bank to write.
    pub entry: Signal<Out, Bits<4>>,
    /// An individual or group address, its first octet in bits 7..0.
    pub address: Signal<Out, Bits<48>>,
    /// Write it now.
    pub address_write: Signal<Out, Bit>,
    /// The VLAN to add or remove.
    pub vlan: Signal<Out, Bits<12>>,
    /// Add it.
    pub vlan_member: Signal<Out, Bit>,
    /// Do so now.
    pub vlan_write: Signal<Out, Bit>,
    /// Empty the VLAN table.
    pub vlan_clear: Signal<Out, Bit>,
    /// The VLAN table is being emptied, for 4096 cycles: `vlan_write` does nothing.
    pub vlan_busy: Signal<In, Bit>,
}

/// What the filter goes by, at the filter.
#[hw(interface)]
#[join(FilterConfigOut)]
pub struct FilterConfigIn {
    /// The receive mode.
    pub mode: Signal<In, ReceiveMode>,
    /// The card's own address, its first octet in bits 7..0.
    pub mac: Signal<In, Bits<48>>,
    /// The bank of the address table that counts.
    pub bank: Signal<In, Bit>,
    /// Entries of it that count, from the first on.
    pub addresses: Signal<In, Bits<5>>,
    /// The entry of the other bank to write.
    pub entry: Signal<In, Bits<4>>,
    /// An individual or group address, its first octet in bits 7..0.
    pub address: Signal<In, Bits<48>>,
    /// Write it now.
    pub address_write: Signal<In, Bit>,
    /// The VLAN to add or remove.
    pub vlan: Signal<In, Bits<12>>,
    /// Add it.
    pub vlan_member: Signal<In, Bit>,
    /// Do so now.
    pub vlan_write: Signal<In, Bit>,
    /// Empty the VLAN table.
    pub vlan_clear: Signal<In, Bit>,
    /// The VLAN table is being emptied, for 4096 cycles: `vlan_write` does nothing.
    pub vlan_busy: Signal<Out, Bit>,
}

/// Address and VLAN filter. Exact: 16 further addresses of either kind, every VLAN. The address table has two banks, so
/// that it changes at once.
///
/// The verdict on an address takes five cycles and one for each entry of the table that counts; that on a VLAN
/// follows `has_vlan` and `vlan` by two cycles. Promiscuous mode passes everything. A reset empties the VLAN table.
#[hw]
pub struct Filter {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Empties the VLAN table.
    pub reset: Signal<In, Bit>,
    /// What the driver wants.
    pub config: FilterConfigIn,
    /// Destination address, the first octet in bits 7..0.
    pub destination: Signal<In, Bits<48>>,
    /// A frame to it starts.
    pub start: Signal<In, Bit>,
    /// The frame has an 802.1Q tag.
    pub has_vlan: Signal<In, Bit>,
    /// Its VLAN identifier.
    pub vlan: Signal<In, Bits<12>>,
    /// The verdict on the address is yet to come.
    pub busy: Signal<Out, Bit>,
    /// The frame is not for this host by its address.
    pub wrong_address: Signal<Out, Bit>,
    /// It is not by its VLAN.
    pub wrong_vlan: Signal<Out, Bit>,
    sought: Reg<Bits<48>>,
    addresses: Ram<Bits<48>, 6>,
    searching: Reg<Bit>,
    /// An entry comes out of the table.
    looking: Reg<Bit>,
    /// What parts of the one before are those of the address.
    equal: [Reg<Bit>; 4],
    compared: Reg<Bit>,
    /// The bank in which is searched, and its entries.
    bank: Reg<Bit>,
    limit: Reg<Bits<5>>,
    /// The entry to be looked at.
    entry: Reg<Bits<5>>,
    own: Reg<Bit>,
    broadcast: Reg<Bit>,
    found: Reg<Bit>,
    refused: Reg<Bit>,
    members: Ram<Bit, 12>,
    /// The VLAN table is being emptied.
    #[reset(true)]
    clearing: Reg<Bit>,
    turn: Reg<Bits<12>>,
    stranger: Reg<Bit>,
}

#[hw]
impl Logic for Filter {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.searching, self.looking, self.compared, self.clearing, self.turn);
        registers!(self.clock => self.sought, self.entry, self.own, self.broadcast, self.found, self.refused);
        registers!(self.clock => self.stranger, self.bank, self.limit);
        clocked!(self.clock => self.addresses, self.members);
        let mode = self.config.mode.val();

        // Addresses.
        self.addresses.write_enable.next = self.config.address_write.val();
        self.addresses.write_address.next =
            cat::<5>((!self.config.bank.val(), self.config.entry.val())).resize::<6>();
        self.addresses.write_data.next = self.config.address.val();
        let sought = self.sought.q.val();
        let entry = self.entry.q.val();
        let more = entry < self.limit.q.val() && !entry.get_bit(4);
        self.addresses.read_address.next =
            cat::<5>((self.bank.q.val(), entry.get_bits::<4>(0))).resize::<6>();
        self.looking.d.next = false;
        self.compared.d.next = false;
        let looked_at = self.addresses.read_data.val();
        let mut equal = true;
        for n in 0..4 {
            registers!(self.clock => self.equal[n]);
            self.equal[n].d.next = looked_at.get_bits::<12>(12 * n) == sought.get_bits::<12>(12 * n);
            equal = equal && self.equal[n].q.val();
        }
        self.own.d.next = sought == self.config.mac.val();
        self.broadcast.d.next = sought.all();
        if self.start.val() {
            self.sought.d.next = self.destination.val();
            self.bank.d.next = self.config.bank.val();
            self.limit.d.next = self.config.addresses.val();
            self.entry.d.next = bits::<5>(0);
            self.found.d.next = false;
            self.searching.d.next = true;
        } else if self.searching.q.val() {
            self.compared.d.next = self.looking.q.val();
            if self.compared.q.val() && equal {
                self.found.d.next = true;
            }
            if more {
                self.entry.d.next = entry + 1;
                self.looking.d.next = true;
            } else if !self.looking.q.val() && !self.compared.q.val() {
                self.searching.d.next = false;
            }
        }
        let found = self.found.q.val();
        let wanted = if self.broadcast.q.val() {
            !mode.no_broadcast
        } else if sought.get_bit(0) {
            !mode.no_multicast && (mode.all_multicast || found)
        } else {
            !mode.no_unicast && (mode.all_unicast || found || self.own.q.val())
        };
        self.refused.d.next = !wanted && !mode.promiscuous;
        self.busy.next = self.searching.q.val();
        self.wrong_address.next = self.refused.q.val();

        // VLANs.
        let clearing = self.clearing.q.val();
        self.members.read_address.next = self.vlan.val();
        self.stranger.d.next =
            self.has_vlan.val() && mode.vlan_filter && !mode.promiscuous && !self.members.read_data.val();
        self.wrong_vlan.next = self.stranger.q.val();
        self.members.write_enable.next = clearing || self.config.vlan_write.val();
        self.members.write_address.next = if clearing {
            self.turn.q.val()
        } else {
            self.config.vlan.val()
        };
        self.members.write_data.next = !clearing && self.config.vlan_member.val();
        self.config.vlan_busy.next = clearing;
        if clearing {
            self.turn.d.next = self.turn.q.val() + 1;
            if self.turn.q.val().all() {
                self.clearing.d.next = false;
            }
        }
        if self.config.vlan_clear.val() {
            self.turn.d.next = bits::<12>(0);
            self.clearing.d.next = true;
        }
    }
}
