//! Configuration space of the function: a type 0 header and its capabilities.

use hematite_abi::{bar0, pci};
use hematite_lang::prelude::*;

use super::ports::{RegisterIn, merge32};

/// Max_Payload_Size Supported: 128 bytes << code.
pub const MAX_PAYLOAD_SUPPORTED: u64 = 2;

/// The number of the word at a byte offset.
const fn word(offset: usize) -> usize {
    offset / 4
}

// Words of configuration space. A name with a number is that word of the capability.
const IDENTIFICATION: usize = word(0x00);
const COMMAND_STATUS: usize = word(0x04);
const CLASS_REVISION: usize = word(0x08);
const BAR0: usize = word(0x10);
const BAR1: usize = word(0x14);
const SUBSYSTEM: usize = word(0x2c);
const CAPABILITIES: usize = word(0x34);
const INTERRUPT: usize = word(0x3c);
const POWER0: usize = pci::POWER_MANAGEMENT as usize / 4;
const POWER1: usize = POWER0 + 1;
const MSIX0: usize = pci::MSIX as usize / 4;
const MSIX1: usize = MSIX0 + 1;
const MSIX2: usize = MSIX0 + 2;
const COMMON0: usize = pci::COMMON_CAPABILITY as usize / 4;
const COMMON2: usize = COMMON0 + 2;
const COMMON3: usize = COMMON0 + 3;
const NOTIFY0: usize = pci::NOTIFY_CAPABILITY as usize / 4;
const NOTIFY2: usize = NOTIFY0 + 2;
const NOTIFY3: usize = NOTIFY0 + 3;
const NOTIFY4: usize = NOTIFY0 + 4;
const ISR0: usize = pci::ISR_CAPABILITY as usize / 4;
const ISR2: usize = ISR0 + 2;
const ISR3: usize = ISR0 + 3;
const DEVICE0: usize = pci::DEVICE_CAPABILITY as usize / 4;
const DEVICE2: usize = DEVICE0 + 2;
const DEVICE3: usize = DEVICE0 + 3;
const WINDOW0: usize = pci::PCI_ACCESS_CAPABILITY as usize / 4;
const WINDOW1: usize = WINDOW0 + 1;
const WINDOW2: usize = WINDOW0 + 2;
const WINDOW3: usize = WINDOW0 + 3;
const EXPRESS0: usize = pci::PCI_EXPRESS as usize / 4;
const EXPRESS1: usize = EXPRESS0 + 1;
const EXPRESS2: usize = EXPRESS0 + 2;
const EXPRESS3: usize = EXPRESS0 + 3;
const EXPRESS4: usize = EXPRESS0 + 4;
const EXPRESS9: usize = EXPRESS0 + 9;
const EXPRESS10: usize = EXPRESS0 + 10;
const EXPRESS11: usize = EXPRESS0 + 11;

/// The first word of a capability.
const fn capability(id: u64, next: u8) -> u64 {
    id | (next as u64) << 8
}

/// The first word of a virtio capability (virtio 1.3 section 4.1.4).
const fn virtio_capability(next: u8, length: u64, structure: u64) -> u64 {
    capability(0x09, next) | length << 16 | structure << 24
}

const ID_WORD: u64 = pci::VENDOR_ID as u64 | (pci::DEVICE_ID as u64) << 16;
const CLASS_WORD: u64 = pci::REVISION as u64 | (pci::CLASS as u64) << 8;
const SUBSYSTEM_WORD: u64 = pci::SUBSYSTEM_VENDOR_ID as u64 | (pci::SUBSYSTEM_ID as u64) << 16;
/// Version 3, neither D1 nor D2 nor PME.
const POWER_WORD: u64 = capability(0x01, pci::MSIX) | 0x0003 << 16;
const MSIX_WORD: u64 = capability(0x11, pci::COMMON_CAPABILITY);
const COMMON_WORD: u64 = virtio_capability(pci::NOTIFY_CAPABILITY, 16, 1);
const NOTIFY_WORD: u64 = virtio_capability(pci::ISR_CAPABILITY, 20, 2);
const ISR_WORD: u64 = virtio_capability(pci::DEVICE_CAPABILITY, 16, 3);
const DEVICE_WORD: u64 = virtio_capability(pci::PCI_ACCESS_CAPABILITY, 16, 4);
const WINDOW_WORD: u64 = virtio_capability(pci::PCI_EXPRESS, 20, 5);
/// Version 2, endpoint.
const EXPRESS_WORD: u64 = capability(0x10, 0) | 0x0002 << 16;
/// Extended tags, role-based error reporting, function-level reset; no latency limits.
const DEVICE_CAPABILITIES: u64 = MAX_PAYLOAD_SUPPORTED | 1 << 5 | 7 << 6 | 7 << 9 | 1 << 15 | 1 << 28;
/// 2.5 GT/s, one lane, no ASPM and compliant with its absence.
const LINK_CAPABILITIES: u64 = 1 | 1 << 4 | 1 << 22;
/// 2.5 GT/s, one lane, common with the reference clock of the slot.
const LINK_STATUS: u64 = 1 | 1 << 4 | 1 << 12;
/// Completion Timeout Disable supported, its range is fixed.
const DEVICE_CAPABILITIES_2: u64 = 1 << 4;
/// 2.5 GT/s.
const LINK_CAPABILITIES_2: u64 = 1 << 1;

/// Command: Memory Space, Bus Master, Parity Error Response, SERR#, Interrupt Disable.
const COMMAND_WRITABLE: u64 = 0x0546;
/// Device Control: error reporting, Max_Payload_Size, extended tags, Max_Read_Request_Size. The function
/// never sets Relaxed Ordering nor No Snoop, so their enables read 0.
const DEVICE_CONTROL_WRITABLE: u64 = 0x71ef;
/// Max_Read_Request_Size 512 bytes.
const DEVICE_CONTROL_RESET: u64 = 0x2000;
/// Link Control: read completion boundary, common clock, extended synch.
const LINK_CONTROL_WRITABLE: u64 = 0x00c8;

/// Configuration space: 256 bytes, no extended space (it reads 0).
///
/// Two cycles an access. `function_reset` gives every register its start value, but for Max_Payload_Size
/// and Link Control, which a function-level reset spares (PCI Express 6.6.2). `VECTORS` is the size of the
/// MSI-X table, `QUEUES` the number of virtqueues.
#[hw]
pub struct Config<const VECTORS: usize, const QUEUES: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Fundamental reset.
    pub reset: Signal<In, Bit>,
    /// Function-level reset.
    pub function_reset: Signal<In, Bit>,
    /// Configuration accesses.
    pub access: RegisterIn,
    /// A non-posted request was not supported.
    pub unsupported_request: Signal<In, Bit>,
    /// A posted request was not supported.
    pub unsupported_write: Signal<In, Bit>,
    /// A TLP received was poisoned.
    pub poisoned: Signal<In, Bit>,
    /// A poisoned completion was received.
    pub poisoned_completion: Signal<In, Bit>,
    /// A TLP received was malformed.
    pub malformed: Signal<In, Bit>,
    /// A completion with status Unsupported Request was received.
    pub received_master_abort: Signal<In, Bit>,
    /// A completion with status Completer Abort was received.
    pub received_target_abort: Signal<In, Bit>,
    /// A completion never came or came unasked.
    pub completion_error: Signal<In, Bit>,
    /// A bit of the ISR status is set (virtio 1.3 section 4.1.4.5).
    pub isr_pending: Signal<In, Bit>,
    /// Reads of the function are outstanding.
    pub transactions_pending: Signal<In, Bit>,
    /// Memory Space Enable, in D0.
    pub memory_enable: Signal<Out, Bit>,
    /// Bus Master Enable, in D0.
    pub bus_master: Signal<Out, Bit>,
    /// BAR 0.
    pub base: Signal<Out, Bits<64>>,
    /// Max_Payload_Size code.
    pub max_payload: Signal<Out, Bits<3>>,
    /// Max_Read_Request_Size code.
    pub max_read_request: Signal<Out, Bits<3>>,
    /// Completion Timeout Disable.
    pub completion_timeout_disable: Signal<Out, Bit>,
    /// MSI-X Enable.
    pub msix_enable: Signal<Out, Bit>,
    /// MSI-X Function Mask.
    pub msix_mask: Signal<Out, Bit>,
    /// See [`super::completer::Completer`].
    pub window_offset: Signal<Out, Bits<16>>,
    /// See [`super::completer::Completer`].
    pub window_length: Signal<Out, Bits<3>>,
    /// Software asked for a function-level reset, or moved the function from D3hot to D0.
    pub reset_request: Signal<Out, Bit>,
    done: Reg<Bit>,
    read: Reg<Bits<32>>,
    command: Reg<Bits<16>>,
    status: Reg<Bits<8>>,
    bar: Reg<Bits<48>>,
    interrupt_line: Reg<Bits<8>>,
    d3: Reg<Bit>,
    /// A cycle late: it goes far.
    masters: Reg<Bit>,
    enable: Reg<Bit>,
    mask: Reg<Bit>,
    window_bar: Reg<Bits<8>>,
    offset: Reg<Bits<32>>,
    length: Reg<Bits<32>>,
    #[reset(bits::<16>(DEVICE_CONTROL_RESET))]
    device_control: Reg<Bits<16>>,
    device_status: Reg<Bits<4>>,
    payload: Reg<Bits<3>>,
    link_control: Reg<Bits<16>>,
    timeout_disable: Reg<Bit>,
    request: Reg<Bit>,
    any_reset: Signal<Local, Bit>,
}

#[hw]
impl<const VECTORS: usize, const QUEUES: usize> Logic for Config<VECTORS, QUEUES> {
    fn update(&mut self) {
        self.any_reset.next = self.reset.val() || self.function_reset.val();
        registers!(self.clock, self.any_reset => self.command, self.status, self.bar, self.interrupt_line, self.d3);
        registers!(self.clock, self.any_reset => self.enable, self.mask, self.window_bar, self.offset, self.length);
        registers!(self.clock, self.any_reset => self.device_control, self.device_status, self.timeout_disable);
        registers!(self.clock, self.reset => self.done, self.payload, self.link_control, self.request);
        registers!(self.clock => self.read);

        let word = self.access.address.val().get_bits::<10>(2);
        let data = self.access.write_data.val();
        let enables = self.access.byte_enables.val();
        let active = self.access.valid.val() && !self.done.q.val();
        self.done.d.next = active;
        self.access.ready.next = self.done.q.val();
        self.access.read_data.next = self.read.q.val();

        self.memory_enable.next = self.command.q.val().get_bit(1) && !self.d3.q.val();
        registers!(self.clock, self.any_reset => self.masters);
        self.masters.d.next = self.command.q.val().get_bit(2) && !self.d3.q.val();
        self.bus_master.next = self.masters.q.val();
        self.base.next = cat::<64>((self.bar.q.val(), bits::<16>(0)));
        self.max_payload.next = self.payload.q.val();
        self.max_read_request.next = self.device_control.q.val().get_bits::<3>(12);
        self.completion_timeout_disable.next = self.timeout_disable.q.val();
        self.msix_enable.next = self.enable.q.val();
        self.msix_mask.next = self.mask.q.val();
        self.window_offset.next = self.offset.q.val().get_bits::<16>(0);
        let offset = self.offset.q.val();
        let in_bar = !self.window_bar.q.val().any() && !offset.get_bits::<16>(16).any();
        let aligned = match self.length.q.val().index() {
            1 => true,
            2 => !offset.get_bit(0),
            4 => !offset.get_bits::<2>(0).any(),
            _ => false,
        };
        self.window_length.next = if in_bar && aligned {
            self.length.q.val().get_bits::<3>(0)
        } else {
            bits::<3>(0)
        };
        self.request.d.next = false;
        self.reset_request.next = self.request.q.val();

        let control = self.device_control.q.val();
        let device_control = cat::<16>((
            control.get_bits::<8>(8),
            self.payload.q.val(),
            control.get_bits::<5>(0),
        ));
        // Interrupt Status is what virtio makes of it (4.1.4.5.1), though the function has no INTx to signal it by.
        let interrupt_status = self.isr_pending.val() && !self.enable.q.val();
        let command_status = cat::<32>((
            self.status.q.val(),
            bits::<4>(1),
            interrupt_status,
            bits::<3>(0),
            self.command.q.val(),
        ));
        let pending = self.transactions_pending.val();
        let device_word = cat::<32>((
            bits::<10>(0),
            pending,
            bits::<1>(0),
            self.device_status.q.val(),
            device_control,
        ));
        let bar0 = cat::<32>((self.bar.q.val().get_bits::<16>(0), bits::<16>(0x0004)));
        let bar1 = self.bar.q.val().get_bits::<32>(16);
        let power = cat::<32>((bits::<30>(0), self.d3.q.val(), self.d3.q.val()));
        let interrupt = cat::<32>((bits::<24>(0), self.interrupt_line.q.val()));
        let msix = cat::<32>((
            self.enable.q.val(),
            self.mask.q.val(),
            bits::<14>(VECTORS as u64 - 1),
            bits::<16>(MSIX_WORD),
        ));
        let link = cat::<32>((bits::<16>(LINK_STATUS), self.link_control.q.val()));
        let timeout = cat::<32>((bits::<27>(0), self.timeout_disable.q.val(), bits::<4>(0)));
        let window1 = cat::<32>((bits::<24>(0), self.window_bar.q.val()));

        self.read.d.next = match word.index() {
            IDENTIFICATION => bits::<32>(ID_WORD),
            COMMAND_STATUS => command_status,
            CLASS_REVISION => bits::<32>(CLASS_WORD),
            BAR0 => bar0,
            BAR1 => bar1,
            SUBSYSTEM => bits::<32>(SUBSYSTEM_WORD),
            CAPABILITIES => bits::<32>(pci::POWER_MANAGEMENT as u64),
            INTERRUPT => interrupt,
            POWER0 => bits::<32>(POWER_WORD),
            POWER1 => power,
            MSIX0 => msix,
            MSIX1 => bits::<32>(bar0::MSIX_TABLE as u64),
            MSIX2 => bits::<32>(bar0::MSIX_PENDING as u64),
            COMMON0 => bits::<32>(COMMON_WORD),
            COMMON2 => bits::<32>(bar0::COMMON as u64),
            COMMON3 => bits::<32>(bar0::COMMON_LENGTH as u64),
            NOTIFY0 => bits::<32>(NOTIFY_WORD),
            NOTIFY2 => bits::<32>(bar0::NOTIFY as u64),
            NOTIFY3 => bits::<32>(QUEUES as u64 * bar0::NOTIFY_MULTIPLIER as u64),
            NOTIFY4 => bits::<32>(bar0::NOTIFY_MULTIPLIER as u64),
            ISR0 => bits::<32>(ISR_WORD),
            ISR2 => bits::<32>(bar0::ISR as u64),
            ISR3 => bits::<32>(bar0::ISR_LENGTH as u64),
            DEVICE0 => bits::<32>(DEVICE_WORD),
            DEVICE2 => bits::<32>(bar0::DEVICE as u64),
            DEVICE3 => bits::<32>(bar0::DEVICE_LENGTH as u64),
            WINDOW0 => bits::<32>(WINDOW_WORD),
            WINDOW1 => window1,
            WINDOW2 => self.offset.q.val(),
            WINDOW3 => self.length.q.val(),
            EXPRESS0 => bits::<32>(EXPRESS_WORD),
            EXPRESS1 => bits::<32>(DEVICE_CAPABILITIES),
            EXPRESS2 => device_word,
            EXPRESS3 => bits::<32>(LINK_CAPABILITIES),
            EXPRESS4 => link,
            EXPRESS9 => bits::<32>(DEVICE_CAPABILITIES_2),
            EXPRESS10 => timeout,
            EXPRESS11 => bits::<32>(LINK_CAPABILITIES_2),
            _ => bits::<32>(0),
        };

        let mut cleared = bits::<8>(0);
        let mut device_cleared = bits::<4>(0);
        if active && self.access.write.val() {
            match word.index() {
                COMMAND_STATUS => {
                    let new = merge32(command_status, data, enables).get_bits::<16>(0);
                    self.command.d.next = new & bits::<16>(COMMAND_WRITABLE);
                    if enables.get_bit(3) {
                        cleared = data.get_bits::<8>(24);
                    }
                }
                BAR0 => self.bar.d.next = cat::<48>((bar1, merge32(bar0, data, enables).get_bits::<16>(16))),
                BAR1 => {
                    let low = self.bar.q.val().get_bits::<16>(0);
                    self.bar.d.next = cat::<48>((merge32(bar1, data, enables), low));
                }
                INTERRUPT => self.interrupt_line.d.next = merge32(interrupt, data, enables).get_bits::<8>(0),
                POWER1 => {
                    // D1 and D2 are not supported: such a write changes nothing.
                    let new = merge32(power, data, enables).get_bits::<2>(0);
                    if new == bits::<2>(3) {
                        self.d3.d.next = true;
                    } else if new == bits::<2>(0) {
                        self.d3.d.next = false;
                        self.request.d.next = self.d3.q.val();
                    }
                }
                MSIX0 => {
                    let new = merge32(msix, data, enables);
                    self.enable.d.next = new.get_bit(31);
                    self.mask.d.next = new.get_bit(30);
                }
                WINDOW1 => self.window_bar.d.next = merge32(window1, data, enables).get_bits::<8>(0),
                WINDOW2 => self.offset.d.next = merge32(offset, data, enables),
                WINDOW3 => self.length.d.next = merge32(self.length.q.val(), data, enables),
                EXPRESS2 => {
                    let new = merge32(device_word, data, enables);
                    self.device_control.d.next = new.get_bits::<16>(0) & bits::<16>(DEVICE_CONTROL_WRITABLE);
                    if new.get_bits::<3>(5) <= bits::<3>(MAX_PAYLOAD_SUPPORTED) {
                        self.payload.d.next = new.get_bits::<3>(5);
                    }
                    if enables.get_bit(1) && data.get_bit(15) {
                        self.request.d.next = true;
                    }
                    if enables.get_bit(2) {
                        device_cleared = data.get_bits::<4>(16);
                    }
                }
                EXPRESS4 => {
                    let new = merge32(link, data, enables).get_bits::<16>(0);
                    self.link_control.d.next = new & bits::<16>(LINK_CONTROL_WRITABLE);
                }
                EXPRESS10 => self.timeout_disable.d.next = merge32(timeout, data, enables).get_bit(4),
                _ => {}
            }
        }

        // Status bits 15..8: detected parity error, signaled system error, received master abort, received
        // target abort, signaled target abort, DEVSEL timing, master data parity error.
        let poisoned = self.poisoned.val() || self.poisoned_completion.val();
        let parity_response = self.command.q.val().get_bit(6);
        let seen = cat::<8>((
            poisoned,
            bits::<1>(0),
            self.received_master_abort.val(),
            self.received_target_abort.val(),
            bits::<3>(0),
            self.poisoned_completion.val() && parity_response,
        ));
        self.status.d.next = (self.status.q.val() & !cleared) | seen;
        // Device Status: correctable (an advisory non-fatal error counts as one), non-fatal, fatal,
        // unsupported request.
        let unsupported = self.unsupported_request.val() || self.unsupported_write.val();
        let device_seen = cat::<4>((
            unsupported,
            self.malformed.val(),
            self.unsupported_write.val() || poisoned || self.completion_error.val(),
            self.unsupported_request.val(),
        ));
        self.device_status.d.next = (self.device_status.q.val() & !device_cleared) | device_seen;
    }
}
