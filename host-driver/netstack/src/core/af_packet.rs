//! Packet sockets: whole frames from and to an interface (net/packet/af_packet.c, packet(7)).
//!
//! They see what taps see. Their queues are rings of buffers that are used again.

use std::collections::VecDeque;
use std::io;

use super::drop_reason::SkbDropReason;
use super::filter::{BpfContext, SocketFilter};
use super::netdevice::IfIndex;
use super::skb::PktType;
use super::tap::TapPacket;
use super::time::Instant;
use crate::errno::Errno;
use crate::eventpoll::{EventPolls, WaitQueue};
use crate::socket::{Readiness, SockId};
use crate::stack::Stack;
use crate::wire::ethernet::{ETH_HLEN, EthHdr, EtherType};
use zerocopy::FromBytes;

/// Bytes of bookkeeping charged for each queued frame beside its own.
const FRAME_OVERHEAD: usize = 256;

/// What is known about a received frame (`struct sockaddr_ll`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketMeta {
    /// Bytes of the frame; as many as fit were copied.
    pub len: usize,
    /// The interface.
    pub ifindex: IfIndex,
    /// EtherType.
    pub protocol: EtherType,
    /// Whom it is addressed to; [`PktType::Outgoing`] for one of ours.
    pub pkt_type: PktType,
    /// When it passed.
    pub timestamp: Instant,
}

/// A packet socket (`struct packet_sock`).
#[derive(Debug)]
pub(crate) struct PacketSock {
    ifindex: Option<IfIndex>,
    protocol: Option<EtherType>,
    filter: Option<SocketFilter>,
    queue: VecDeque<(PacketMeta, Vec<u8>)>,
    /// Buffers that were read, for the next frames.
    spare: Vec<Vec<u8>>,
    rmem_alloc: usize,
    rcvbuf: usize,
    drops: u64,
    wait: WaitQueue,
}

impl PacketSock {
    /// A frame passes (`packet_rcv`).
    pub(crate) fn deliver(&mut self, packet: &TapPacket<'_>, polls: &mut EventPolls) {
        let protocol = EthHdr::ref_from_prefix(packet.data).map_or(EtherType(0), |(h, _)| h.ether_type());
        let wanted =
            self.ifindex.is_none_or(|i| i == packet.ifindex) && self.protocol.is_none_or(|p| p == protocol);
        if !wanted {
            return;
        }
        let mut keep = packet.data.len();
        if let Some(filter) = &mut self.filter {
            let context = BpfContext {
                protocol: protocol.0,
                pkt_type: packet.pkt_type as u8,
                ifindex: packet.ifindex.get(),
            };
            keep = keep.min(filter.run(packet.data, &context));
        }
        if keep == 0 {
            return;
        }
        if self.rmem_alloc > self.rcvbuf {
            self.drops += 1;
            return;
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.extend_from_slice(packet.data.get(..keep).unwrap_or(packet.data));
        self.rmem_alloc += buffer.len() + FRAME_OVERHEAD;
        let meta = PacketMeta {
            len: keep,
            ifindex: packet.ifindex,
            protocol,
            pkt_type: packet.pkt_type,
            timestamp: packet.timestamp,
        };
        self.queue.push_back((meta, buffer));
        self.wait.wake(polls, Readiness::READABLE);
    }

    fn readiness(&self) -> Readiness {
        let mut ready = Readiness::WRITABLE;
        ready.set(Readiness::READABLE, !self.queue.is_empty());
        ready
    }

    /// What the socket is ready for, and who wants to know.
    pub(crate) fn poll_target(&mut self) -> (Readiness, &mut WaitQueue) {
        (self.readiness(), &mut self.wait)
    }
}

/// A socket for whole Ethernet frames (`socket(AF_PACKET, SOCK_RAW)`).
///
/// The socket lives in the stack until [`PacketSocket::close`]; a handle that is only dropped leaves it open.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the socket stays open until it is closed"]
pub struct PacketSocket(SockId);

impl PacketSocket {
    pub(crate) fn id(&self) -> SockId {
        self.0
    }

    /// Makes a socket for the frames of one interface or all, and of one EtherType or all (`ETH_P_ALL`).
    ///
    /// # Errors
    /// ENODEV without such an interface.
    pub fn bind(
        stack: &mut Stack,
        ifindex: Option<IfIndex>,
        protocol: Option<EtherType>,
    ) -> io::Result<Self> {
        if ifindex.is_some_and(|i| stack.devs.get(i).is_none()) {
            return Err(Errno::NoDev.into());
        }
        let id = stack.taps.sockets.insert(PacketSock {
            ifindex,
            protocol,
            filter: None,
            queue: VecDeque::new(),
            spare: Vec::new(),
            rmem_alloc: 0,
            rcvbuf: stack.config.rmem_default,
            drops: 0,
            wait: WaitQueue::default(),
        });
        Ok(Self(id))
    }

    /// Receives one frame, Ethernet header first. What does not fit in `buf` is lost.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    pub fn recv(&self, stack: &mut Stack, buf: &mut [u8]) -> io::Result<PacketMeta> {
        let s = stack.taps.sockets.get_mut(self.0)?;
        let (meta, mut frame) = s.queue.pop_front().ok_or(Errno::Again)?;
        s.rmem_alloc = s.rmem_alloc.saturating_sub(frame.len() + FRAME_OVERHEAD);
        let len = frame.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), frame.get(..len)) {
            to.copy_from_slice(from);
        }
        frame.clear();
        s.spare.push(frame);
        Ok(meta)
    }

    /// Sends one frame as it is, Ethernet header first, FCS not included (`packet_snd`).
    ///
    /// # Errors
    /// `InvalidInput` for less than a header, EMSGSIZE beyond the MTU, ENODEV, ENETDOWN, or ENOBUFS if the
    /// queue of the interface is full.
    pub fn send(&self, stack: &mut Stack, ifindex: IfIndex, frame: &[u8]) -> io::Result<usize> {
        stack.taps.sockets.get(self.0)?;
        let dev = stack.devs.get(ifindex).ok_or(Errno::NoDev)?;
        let (header, _) = EthHdr::ref_from_prefix(frame).map_err(|_| Errno::Inval)?;
        if frame.len() > dev.mtu as usize + ETH_HLEN {
            return Err(Errno::MsgSize.into());
        }
        let protocol = header.ether_type();
        let skb = stack.alloc_ip_skb(frame.len()).and_then(|mut skb| {
            skb.put_slice(frame).ok()?;
            Some(skb)
        });
        let Some(mut skb) = skb else {
            stack.drops.count(SkbDropReason::NoMem);
            return Err(Errno::NoBufs.into());
        };
        skb.set_dev(ifindex);
        skb.set_protocol(protocol);
        skb.reset_mac_header();
        stack.dev_queue_xmit(skb)?;
        Ok(frame.len())
    }

    /// Only frames that the filter keeps are received (`SO_ATTACH_FILTER`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn attach_filter(&self, stack: &mut Stack, filter: impl Into<SocketFilter>) -> io::Result<()> {
        stack.taps.sockets.get_mut(self.0)?.filter = Some(filter.into());
        Ok(())
    }

    /// Sets the limit of memory for received frames in bytes (`SO_RCVBUF`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_recv_buffer_size(&self, stack: &mut Stack, size: usize) -> io::Result<()> {
        stack.taps.sockets.get_mut(self.0)?.rcvbuf = size.min(stack.config.rmem_max);
        Ok(())
    }

    /// Frames dropped because the receive buffer was full (`PACKET_STATISTICS`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn drops(&self, stack: &Stack) -> io::Result<u64> {
        Ok(stack.taps.sockets.get(self.0)?.drops)
    }

    /// What a call would not wait for.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn readiness(&self, stack: &Stack) -> io::Result<Readiness> {
        Ok(stack.taps.sockets.get(self.0)?.readiness())
    }

    /// Closes the socket.
    pub fn close(self, stack: &mut Stack) {
        if let Some(s) = stack.taps.sockets.remove(self.0) {
            stack.epolls.forget(&s.wait);
        }
    }
}
