//! Tracking of TCP (net/netfilter/nf_conntrack_proto_tcp.c): what the end points' states must be, seen from
//! the middle, and which segments fit their windows (Guido van Rooij, "Real Stateful TCP Packet Filtering in
//! IP Filter").

use std::time::Duration;

use super::conn::{ConntrackConfig, TcpTimeouts};
use super::tuple::Dir;
use crate::wire::tcp::{TCP_HLEN, TcpFlags, TcpHdr, TcpOptions};
use zerocopy::FromBytes;

/// State of a connection (`enum tcp_conntrack`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// A SYN from the one side.
    SynSent,
    /// A SYN from each side, none acknowledged.
    SynSent2,
    /// A SYN-ACK from the other side.
    SynRecv,
    /// The handshake is over.
    Established,
    /// A FIN from one side.
    FinWait,
    /// It was acknowledged.
    CloseWait,
    /// FINs from both sides.
    LastAck,
    /// Both were acknowledged.
    TimeWait,
    /// Reset.
    Close,
}

impl TcpState {
    /// The name that /proc/net/nf_conntrack has for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "SYN_SENT",
            Self::SynSent2 => "SYN_SENT2",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
        }
    }

    fn timeout(self, t: &TcpTimeouts) -> Duration {
        match self {
            Self::SynSent | Self::SynSent2 => t.syn_sent,
            Self::SynRecv => t.syn_recv,
            Self::Established => t.established,
            Self::FinWait => t.fin_wait,
            Self::CloseWait => t.close_wait,
            Self::LastAck => t.last_ack,
            Self::TimeWait => t.time_wait,
            Self::Close => t.close,
        }
    }
}

/// What a segment does to the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    To(TcpState),
    /// It is for the end points to judge; nothing changes.
    Ignore,
    Invalid,
}

/// The one control bit that counts (`get_conntrack_index`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rst,
    Syn,
    SynAck,
    Fin,
    Ack,
}

fn kind(flags: TcpFlags) -> Option<Kind> {
    if flags.contains(TcpFlags::RST) {
        Some(Kind::Rst)
    } else if flags.contains(TcpFlags::SYN | TcpFlags::ACK) {
        Some(Kind::SynAck)
    } else if flags.contains(TcpFlags::SYN) {
        Some(Kind::Syn)
    } else if flags.contains(TcpFlags::FIN) {
        Some(Kind::Fin)
    } else if flags.contains(TcpFlags::ACK) {
        Some(Kind::Ack)
    } else {
        None
    }
}

/// The state machine of RFC 9293 section 3.3.2 as the middle sees it (`tcp_conntracks`).
fn step(state: TcpState, kind: Kind, dir: Dir) -> Step {
    use Dir::{Original, Reply};
    use Step::{Ignore, Invalid, To};
    use TcpState::*;
    match (kind, dir, state) {
        // A retransmitted SYN, a simultaneous open, a new connection where one has ended, or one that the
        // other end answers with what it thinks of the old one.
        (Kind::Syn, Original, SynSent | TimeWait | Close) => To(SynSent),
        (Kind::Syn, Original, SynSent2) => To(SynSent2),
        (Kind::Syn, Original, _) => Ignore,
        (Kind::Syn, Reply, SynSent | SynSent2) => To(SynSent2),
        (Kind::Syn, Reply, TimeWait) => To(SynSent),
        (Kind::Syn, Reply, _) => Invalid,
        (Kind::SynAck, Original, SynRecv | SynSent2) => To(SynRecv),
        (Kind::SynAck, Original, _) => Invalid,
        (Kind::SynAck, Reply, SynSent | SynSent2) => To(SynRecv),
        (Kind::SynAck, Reply, _) => Ignore,
        (Kind::Fin, _, SynSent | SynSent2) => Invalid,
        (Kind::Fin, _, SynRecv | Established) => To(FinWait),
        (Kind::Fin, _, FinWait | CloseWait | LastAck) => To(LastAck),
        (Kind::Fin, _, TimeWait) => To(TimeWait),
        (Kind::Fin, _, Close) => To(Close),
        (Kind::Ack, Original, SynSent | SynSent2) => Invalid,
        (Kind::Ack, Original, SynRecv) => To(Established),
        (Kind::Ack, Reply, SynSent | SynSent2) => Ignore,
        (Kind::Ack, Reply, SynRecv) => To(SynRecv),
        (Kind::Ack, _, Established) => To(Established),
        (Kind::Ack, _, FinWait | CloseWait) => To(CloseWait),
        (Kind::Ack, _, LastAck | TimeWait) => To(TimeWait),
        (Kind::Ack, _, Close) => To(Close),
        (Kind::Rst, _, _) => To(Close),
    }
}

/// What one side has sent (`struct ip_ct_tcp_state`).
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Largest seq + len.
    end: u32,
    /// Largest ack + window that it may send up to.
    maxend: u32,
    /// Largest window.
    maxwin: u32,
    maxack: Option<u32>,
    scale: u8,
    wscale_ok: bool,
    sack_ok: bool,
    unacknowledged: bool,
}

/// What is tracked of a connection (`struct ip_ct_tcp`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct TcpTrack {
    pub state: TcpState,
    seen: [Seen; 2],
    /// Begun in the middle: the scale of the windows is not known (`IP_CT_TCP_FLAG_BE_LIBERAL`).
    liberal: bool,
}

/// What becomes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TcpVerdict {
    Valid {
        timeout: Duration,
        /// Answered for good: not to be dropped early.
        assured: bool,
    },
    Invalid,
    /// The connection has ended and this begins another one.
    Reopen,
}

/// A segment as it is tracked.
pub(crate) struct Segment<'a> {
    header: &'a TcpHdr,
    options: &'a [u8],
    /// Bytes of payload.
    len: usize,
}

impl<'a> Segment<'a> {
    /// `l4` begins with the TCP header; `len` is what the IP header says that there is. None if it is
    /// malformed (`tcp_error`).
    pub(crate) fn new(l4: &'a [u8], len: usize) -> Option<Self> {
        let (header, _) = TcpHdr::ref_from_prefix(l4).ok()?;
        let options = l4.get(TCP_HLEN..header.header_len())?;
        let payload = len.checked_sub(header.header_len())?;
        let flags = header.flags() - (TcpFlags::PSH | TcpFlags::ECE | TcpFlags::CWR | TcpFlags::URG);
        let valid = flags == TcpFlags::SYN
            || flags == TcpFlags::SYN | TcpFlags::ACK
            || flags == TcpFlags::RST
            || flags == TcpFlags::RST | TcpFlags::ACK
            || flags == TcpFlags::FIN | TcpFlags::ACK
            || flags == TcpFlags::ACK;
        valid.then_some(Self {
            header,
            options,
            len: payload,
        })
    }

    fn has(&self, flag: TcpFlags) -> bool {
        self.header.flags().contains(flag)
    }

    /// The sequence number behind the segment (`segment_seq_plus_len`).
    fn end(&self) -> u32 {
        self.header
            .seq
            .get()
            .wrapping_add(self.len as u32)
            .wrapping_add(u32::from(self.has(TcpFlags::SYN)))
            .wrapping_add(u32::from(self.has(TcpFlags::FIN)))
    }

    fn options(&self) -> TcpOptions {
        TcpOptions::parse(self.options, self.has(TcpFlags::SYN))
    }
}

const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

const fn after(a: u32, b: u32) -> bool {
    before(b, a)
}

impl Seen {
    /// From a SYN (`tcp_init_sender`).
    fn syn(&mut self, segment: &Segment<'_>, end: u32, window: u32) {
        let options = segment.options();
        *self = Self {
            end,
            maxend: end,
            maxwin: window.max(1),
            maxack: None,
            scale: options.wscale.unwrap_or(0),
            wscale_ok: options.wscale.is_some(),
            sack_ok: options.sack_ok,
            unacknowledged: false,
        };
    }
}

impl TcpTrack {
    /// Begins with a segment (`tcp_new`); none if a connection cannot begin with it.
    pub(crate) fn new(segment: &Segment<'_>, config: &ConntrackConfig) -> Option<Self> {
        let mut seen = [Seen::default(); 2];
        let (end, window) = (segment.end(), u32::from(segment.header.window.get()));
        let (state, liberal) = match kind(segment.header.flags())? {
            Kind::Syn => {
                seen[0].syn(segment, end, window);
                (TcpState::SynSent, false)
            }
            Kind::Ack | Kind::Fin if config.tcp_loose => {
                seen[0].end = end;
                seen[0].maxwin = window.max(1);
                seen[0].maxend = end.wrapping_add(seen[0].maxwin);
                (TcpState::Established, true)
            }
            _ => return None,
        };
        Some(Self { state, seen, liberal })
    }

    /// A further segment (`nf_conntrack_tcp_packet`).
    pub(crate) fn packet(
        &mut self,
        segment: &Segment<'_>,
        dir: Dir,
        seen_reply: bool,
        config: &ConntrackConfig,
    ) -> TcpVerdict {
        let Some(kind) = kind(segment.header.flags()) else {
            return TcpVerdict::Invalid;
        };
        let old = self.state;
        let new = match step(old, kind, dir) {
            Step::Invalid => return TcpVerdict::Invalid,
            Step::Ignore => {
                return TcpVerdict::Valid {
                    timeout: old.timeout(&config.tcp),
                    assured: false,
                };
            }
            Step::To(new) => new,
        };
        let ended = matches!(old, TcpState::TimeWait | TcpState::Close);
        if new == TcpState::SynSent && ended {
            return TcpVerdict::Reopen;
        }
        if kind == Kind::Rst && old != TcpState::SynSent && !self.plausible_reset(segment, dir) {
            return TcpVerdict::Invalid;
        }
        if !self.in_window(segment, dir) && !config.tcp_be_liberal && !self.liberal {
            return TcpVerdict::Invalid;
        }
        self.state = new;
        let mut timeout = new.timeout(&config.tcp);
        if self.seen.iter().any(|s| s.unacknowledged) {
            timeout = timeout.min(config.tcp.unacknowledged);
        }
        let assured = seen_reply
            && matches!(old, TcpState::SynRecv | TcpState::Established)
            && new == TcpState::Established;
        TcpVerdict::Valid { timeout, assured }
    }

    /// RFC 5961 section 3: a reset from before what the other side has acknowledged is an old or a forged one.
    fn plausible_reset(&self, segment: &Segment<'_>, dir: Dir) -> bool {
        match self.seen[dir.other() as usize].maxack {
            Some(maxack) => !before(segment.header.seq.get(), maxack),
            None => true,
        }
    }

    /// Whether data and acknowledgment are in the windows, which then move (`tcp_in_window`).
    fn in_window(&mut self, segment: &Segment<'_>, dir: Dir) -> bool {
        let h = segment.header;
        let (mut seq, ack, mut end) = (h.seq.get(), h.ack_seq.get(), segment.end());
        let (syn, has_ack) = (segment.has(TcpFlags::SYN), segment.has(TcpFlags::ACK));
        let mut window = u32::from(h.window.get());
        let [original, reply] = &mut self.seen;
        let (sender, receiver) = match dir {
            Dir::Original => (original, reply),
            Dir::Reply => (reply, original),
        };
        // The last acknowledged byte is that of the furthest block.
        let mut sack = match receiver.sack_ok {
            true => segment
                .options()
                .sacks
                .as_slice()
                .iter()
                .fold(ack, |sack, b| if after(b.end, sack) { b.end } else { sack }),
            false => ack,
        };
        if sender.maxwin == 0 {
            if syn {
                sender.syn(segment, end, window);
                // RFC 7323 section 2.2: both or neither.
                if !(sender.wscale_ok && receiver.wscale_ok) {
                    (sender.scale, receiver.scale) = (0, 0);
                }
                if !has_ack {
                    return true;
                }
            } else {
                sender.end = end;
                sender.maxwin = (window << sender.scale).max(1);
                sender.maxend = end.wrapping_add(sender.maxwin);
                if receiver.maxwin == 0 {
                    (receiver.end, receiver.maxend) = (sack, sack);
                }
            }
        } else if syn
            && after(end, sender.end)
            && matches!(
                self.state,
                TcpState::SynSent | TcpState::SynSent2 | TcpState::SynRecv
            )
        {
            // A SYN with another number: a server that answers an old connection, or a client that retries.
            let (wscale_ok, scale) = (receiver.wscale_ok, receiver.scale);
            sender.syn(segment, end, window);
            if !(sender.wscale_ok && wscale_ok) {
                (sender.scale, receiver.scale) = (0, 0);
            } else {
                receiver.scale = scale;
            }
            if dir == Dir::Reply && !has_ack {
                return true;
            }
        }
        let mut ack = ack;
        // A reset may acknowledge nothing in so many words.
        if !has_ack || segment.has(TcpFlags::RST) && ack == 0 {
            (ack, sack) = (receiver.end, receiver.end);
        }
        if segment.has(TcpFlags::RST) && seq == 0 && self.state == TcpState::SynSent {
            (seq, end) = (sender.end, sender.end);
        }
        /// At least this far back may an acknowledgment be.
        const MAXACKWINCONST: u32 = 66_000;
        let ack_window = sender.maxwin.max(MAXACKWINCONST);
        let inside = before(seq, sender.maxend.wrapping_add(1))
            && after(end, sender.end.wrapping_sub(receiver.maxwin).wrapping_sub(1))
            && before(sack, receiver.end.wrapping_add(1))
            && after(sack, receiver.end.wrapping_sub(ack_window).wrapping_sub(1));
        if !inside {
            return false;
        }
        if !syn {
            window <<= sender.scale;
        }
        let reach = window.wrapping_add(sack.wrapping_sub(ack));
        sender.maxwin = sender.maxwin.max(reach);
        if after(end, sender.end) {
            sender.end = end;
            sender.unacknowledged = true;
        }
        if has_ack && sender.maxack.is_none_or(|max| after(ack, max)) {
            sender.maxack = Some(ack);
        }
        if receiver.maxwin != 0 && after(end, sender.maxend) {
            receiver.maxwin = receiver.maxwin.wrapping_add(end.wrapping_sub(sender.maxend));
        }
        if after(sack.wrapping_add(window), receiver.maxend.wrapping_sub(1)) {
            // A zero window still lets probes through.
            receiver.maxend = sack.wrapping_add(window).wrapping_add(u32::from(window == 0));
        }
        if ack == receiver.end {
            receiver.unacknowledged = false;
        }
        true
    }

    pub(crate) fn timeout(&self, config: &ConntrackConfig) -> Duration {
        self.state.timeout(&config.tcp)
    }
}

#[cfg(test)]
mod tests;
