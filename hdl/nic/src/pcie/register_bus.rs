//! The register bus: two masters, four groups of registers.

use hematite_lang::prelude::*;

use super::ports::{RegisterIn, RegisterOut, only};

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
    /// Whose registers the access is for.
    of_virtio: Reg<Bit>,
    of_vendor: Reg<Bit>,
    of_port: Reg<Bit>,
    of_msix: Reg<Bit>,
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
        registers!(self.clock => self.of_virtio, self.of_vendor, self.of_port, self.of_msix);
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
                let address = if self.writes.valid.val() {
                    self.writes.address.val()
                } else {
                    self.reads.address.val()
                };
                let port = address.get_bits::<2>(13).all();
                self.address.d.next = address;
                self.of_msix.d.next = address.get_bit(15);
                self.of_port.d.next = !address.get_bit(15) && port;
                self.of_vendor.d.next = !address.get_bit(15) && address.get_bit(14) && !port;
                self.of_virtio.d.next = !address.get_bit(15) && !address.get_bit(14);
                if self.writes.valid.val() {
                    self.data.d.next = self.writes.write_data.val();
                    self.byte_enables.d.next = self.writes.byte_enables.val();
                    self.write.d.next = self.writes.write.val();
                } else {
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
                let virtio = self.of_virtio.q.val();
                let vendor = self.of_vendor.q.val();
                let port = self.of_port.q.val();
                let msix = self.of_msix.q.val();
                self.virtio.valid.next = virtio;
                self.vendor.valid.next = vendor;
                self.port.valid.next = port;
                self.msix.valid.next = msix;
                let ready = (virtio && self.virtio.ready.val())
                    || (vendor && self.vendor.ready.val())
                    || (port && self.port.ready.val())
                    || (msix && self.msix.ready.val());
                let read = only(virtio, self.virtio.read_data.val())
                    | only(vendor, self.vendor.read_data.val())
                    | only(port, self.port.read_data.val())
                    | only(msix, self.msix.read_data.val());
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
