//! The register bus: two masters, four groups of registers.

use hematite_lang::prelude::*;

use super::ports::{RegisterIn, RegisterOut};

#[hw]
enum State {
    Idle,
    Access,
    Done,
}

/// Carries one register access at a time; `writes` goes before `reads`. Addresses below 0x4000 are
/// virtio's, below 0x6000 the vendor's, below 0x8000 the port's, the rest MSI-X's (see `hematite_abi::bar0`).
///
/// Three cycles beside what the registers take.
#[hw]
pub struct RegisterBus {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Ends the access under way.
    pub reset: Signal<In, Bit>,
    /// Performs memory writes.
    pub writes: RegisterIn,
    /// Performs the requests that want a completion.
    pub reads: RegisterIn,
    /// The virtio structures.
    pub virtio: RegisterOut,
    /// The vendor block.
    pub vendor: RegisterOut,
    /// The Ethernet port's registers.
    pub port: RegisterOut,
    /// The MSI-X table and pending bits.
    pub msix: RegisterOut,
    state: Reg<State>,
    /// The access is of `writes`.
    of_writes: Reg<Bit>,
    address: Reg<Bits<16>>,
    data: Reg<Bits<32>>,
    byte_enables: Reg<Bits<4>>,
    write: Reg<Bit>,
}

#[hw]
impl Logic for RegisterBus {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state);
        registers!(self.clock => self.of_writes, self.address, self.data, self.byte_enables, self.write);
        self.virtio.address.next = self.address.q.val();
        self.virtio.write_data.next = self.data.q.val();
        self.virtio.byte_enables.next = self.byte_enables.q.val();
        self.virtio.write.next = self.write.q.val();
        self.virtio.valid.next = false;
        self.vendor.address.next = self.address.q.val();
        self.vendor.write_data.next = self.data.q.val();
        self.vendor.byte_enables.next = self.byte_enables.q.val();
        self.vendor.write.next = self.write.q.val();
        self.vendor.valid.next = false;
        self.port.address.next = self.address.q.val();
        self.port.write_data.next = self.data.q.val();
        self.port.byte_enables.next = self.byte_enables.q.val();
        self.port.write.next = self.write.q.val();
        self.port.valid.next = false;
        self.msix.address.next = self.address.q.val();
        self.msix.write_data.next = self.data.q.val();
        self.msix.byte_enables.next = self.byte_enables.q.val();
        self.msix.write.next = self.write.q.val();
        self.msix.valid.next = false;
        self.writes.ready.next = false;
        self.writes.read_data.next = self.data.q.val();
        self.reads.ready.next = false;
        self.reads.read_data.next = self.data.q.val();

        match self.state.q.val() {
            State::Idle => {
                if self.writes.valid.val() {
                    self.address.d.next = self.writes.address.val();
                    self.data.d.next = self.writes.write_data.val();
                    self.byte_enables.d.next = self.writes.byte_enables.val();
                    self.write.d.next = self.writes.write.val();
                } else {
                    self.address.d.next = self.reads.address.val();
                    self.data.d.next = self.reads.write_data.val();
                    self.byte_enables.d.next = self.reads.byte_enables.val();
                    self.write.d.next = self.reads.write.val();
                }
                self.of_writes.d.next = self.writes.valid.val();
                if self.writes.valid.val() || self.reads.valid.val() {
                    self.state.d.next = State::Access;
                }
            }
            State::Access => {
                let mut ready = false;
                let mut read = bits::<32>(0);
                if self.address.q.val().get_bit(15) {
                    self.msix.valid.next = true;
                    ready = self.msix.ready.val();
                    read = self.msix.read_data.val();
                } else if self.address.q.val().get_bits::<2>(13).all() {
                    self.port.valid.next = true;
                    ready = self.port.ready.val();
                    read = self.port.read_data.val();
                } else if self.address.q.val().get_bit(14) {
                    self.vendor.valid.next = true;
                    ready = self.vendor.ready.val();
                    read = self.vendor.read_data.val();
                } else {
                    self.virtio.valid.next = true;
                    ready = self.virtio.ready.val();
                    read = self.virtio.read_data.val();
                }
                if ready {
                    self.data.d.next = read;
                    self.state.d.next = State::Done;
                }
            }
            State::Done => {
                self.writes.ready.next = self.of_writes.q.val();
                self.reads.ready.next = !self.of_writes.q.val();
                self.state.d.next = State::Idle;
            }
        }
    }
}
