//! From the bytes of a command to its reply.

use hematite_lang::prelude::*;

use super::coalescing::Coalescing;
use super::command::{Command, ERR, OK};
use crate::virtio::features::Negotiated;
use crate::virtio::ports::{Coalesce, CommandIn};

#[hw]
enum CommandState {
    Execute,
    Accepted,
    Reply,
}

/// Collects the bytes of a command, has its class carry it out, and makes the reply: ack, and before it the
/// result of a command that has one. A byte a cycle; the reply is there three cycles after `execute`. A command that
/// no class accepts is answered with VIRTIO_NET_ERR.
///
/// `QUEUES` is the number of data queues, receive queues at even places.
#[hw]
pub struct Commands<const QUEUES: usize> {
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
    /// Counter event: a command was refused.
    pub refused: Signal<Out, Bit>,
    coalescing: Coalescing<QUEUES>,
    state: Reg<CommandState>,
    class: Reg<Bits<8>>,
    code: Reg<Bits<8>>,
    data: Reg<Bits<96>>,
    /// Bytes of the command.
    length: Reg<Bits<16>>,
    /// Bytes of its data.
    data_length: Reg<Bits<16>>,
    reply: Reg<Bits<72>>,
    reply_length: Reg<Bits<16>>,
}

#[hw]
impl<const QUEUES: usize> Logic for Commands<QUEUES> {
    fn update(&mut self) {
        clocked!(self.clock, self.reset => self.coalescing);
        registers!(self.clock, self.reset => self.state);
        registers!(self.clock => self.class, self.code, self.data, self.length, self.data_length);
        registers!(self.clock => self.reply, self.reply_length);

        // The command.
        let byte = self.command.byte.val();
        let length = self.length.q.val();
        if self.command.byte_valid.val() {
            if !length.all() {
                self.length.d.next = length + 1;
            }
            if length == bits::<16>(0) {
                self.class.d.next = byte;
            } else if length == bits::<16>(1) {
                self.code.d.next = byte;
            } else {
                self.data.d.next = cat::<96>((byte, self.data.q.val().get_bits::<88>(8)));
            }
        }
        self.data_length.d.next = if length.all() { length } else { length - 2 };
        let command = Command {
            class: self.class.q.val(),
            command: self.code.q.val(),
            length: self.data_length.q.val(),
            data: self.data.q.val(),
        };

        // The classes.
        let mut offered = false;
        self.coalescing.negotiated.next = self.negotiated.val();
        self.coalescing.command.next = command;
        for q in 0..QUEUES {
            self.coalescing.enabled[q].next = self.enabled[q].val();
            self.coalesce[q].next = self.coalescing.coalesce[q].val();
        }
        let accepted = self.coalescing.accepted.val();

        // The reply.
        self.command.executed.next = false;
        self.command.reply.next = self.reply.q.val().get_bits::<8>(0);
        self.command.reply_length.next = self.reply_length.q.val();
        self.refused.next = false;
        if self.command.reply_ready.val() {
            self.reply.d.next = self.reply.q.val() >> 8;
        }
        match self.state.q.val() {
            CommandState::Execute => {
                if self.command.execute.val() {
                    // Fewer than two bytes have no class, and a length that fits none.
                    offered = true;
                    self.state.d.next = CommandState::Accepted;
                }
            }
            CommandState::Accepted => {
                self.refused.next = !accepted;
                let ack = if accepted { bits::<8>(OK) } else { bits::<8>(ERR) };
                if self.coalescing.has_result.val() {
                    self.reply.d.next = cat::<72>((ack, self.coalescing.result.val()));
                    self.reply_length.d.next = bits::<16>(9);
                } else {
                    self.reply.d.next = ack.resize::<72>();
                    self.reply_length.d.next = bits::<16>(1);
                }
                self.state.d.next = CommandState::Reply;
            }
            CommandState::Reply => {
                self.command.executed.next = true;
                if self.command.start.val() {
                    self.state.d.next = CommandState::Execute;
                }
            }
        }
        self.coalescing.offered.next = offered;
        if self.command.start.val() {
            self.length.d.next = 0.into();
        }
    }
}
