//! Runs a script: virtual time, the peer's segments, the calls, and what the stack must send.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::io;
use std::time::Duration;

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{Icmpv4Type, IpNumber, Ipv4Header};
use hematite_netstack::{Instant, StackConfig, TcpListener, TcpSocket, TcpStream};

use crate::calls;
use crate::common::frames::icmp;
use crate::common::tcp::{A, B, byte_at};
use crate::common::tcp_peer::TcpPeer;
use crate::script::{Call, Event, IcmpError, Line, PORT};
use crate::segment::{Base, Segment};

/// How far off its time a segment may be: Linux's timers count in jiffies.
const TOLERANCE: Duration = Duration::from_millis(1);
/// The peer's initial sequence number: it wraps around after a kilobyte.
const PEER_ISN: u32 = 0xffff_fc00;
/// Our port.
const LISTEN_PORT: u16 = 80;
/// Salts of what the peer and what we send.
pub const PEER_SALT: u64 = 1;
pub const OUR_SALT: u64 = 2;

/// What the runner knows of one port of the peer's.
#[derive(Debug)]
struct Flow {
    our_port: u16,
    /// Our initial sequence number and first timestamp, once they were seen.
    isn: Option<u32>,
    ts: Option<u32>,
    /// The window that the peer said last.
    win: u16,
    written: usize,
    read: usize,
    stream: Option<TcpStream>,
}

impl Flow {
    fn new() -> Self {
        Self {
            our_port: LISTEN_PORT,
            isn: None,
            ts: None,
            win: 65_535,
            written: 0,
            read: 0,
            stream: None,
        }
    }

    /// What the numbers of our segments count from.
    fn ours(&self) -> Base {
        Base {
            seq: self.isn.unwrap_or(0),
            ack: PEER_ISN,
            ts: self.ts.unwrap_or(0),
            echo: 0,
        }
    }

    /// And those of the peer's.
    fn peers(&self) -> Base {
        let ours = self.ours();
        Base {
            seq: ours.ack,
            ack: ours.seq,
            ts: 0,
            echo: ours.ts,
        }
    }
}

/// A segment that the stack sent and no line has claimed yet.
struct Sent {
    at: Instant,
    port: u16,
    seg: crate::common::tcp_peer::Seg,
}

/// A run of a script.
pub struct Run {
    peer: TcpPeer,
    flows: BTreeMap<u16, Flow>,
    socket: Option<TcpSocket>,
    listener: Option<TcpListener>,
    pending: VecDeque<Sent>,
    /// The time of the line before.
    clock: Instant,
    start: Instant,
    /// Everything that was on the wire, for the report of a failure.
    log: String,
}

/// Runs all lines of a script.
///
/// # Errors
/// The line that did not come true, and why.
pub fn run(lines: &[Line]) -> Result<(), String> {
    let mut config = StackConfig::default();
    let settings = lines
        .iter()
        .take_while(|l| matches!(l.event, Event::Sysctl { .. }))
        .count();
    for line in &lines[..settings] {
        if let Event::Sysctl { name, value } = &line.event {
            sysctl(&mut config, name, *value).map_err(|e| format!("{}: {}\n  {e}", line.place, line.text))?;
        }
    }
    let peer = TcpPeer::new(config);
    let start = peer.now;
    let mut run = Run {
        peer,
        flows: BTreeMap::new(),
        socket: None,
        listener: None,
        pending: VecDeque::new(),
        clock: start,
        start,
        log: String::new(),
    };
    for line in &lines[settings..] {
        if let Err(error) = run.line(line) {
            return Err(format!(
                "{}: {}\n{error}\nthe wire so far:\n{}",
                line.place, line.text, run.log
            ));
        }
    }
    let end = run.nothing_pending();
    end.map_err(|error| format!("after the last line\n{error}\nthe wire so far:\n{}", run.log))
}

fn sysctl(config: &mut StackConfig, name: &str, value: u64) -> Result<(), String> {
    let small = value as u32;
    match name {
        "tcp_ecn" => config.tcp_ecn = value as u8,
        "tcp_frto" => config.tcp_frto = value as u8,
        "tcp_sack" => config.tcp_sack = value != 0,
        "tcp_timestamps" => config.tcp_timestamps = value != 0,
        "tcp_window_scaling" => config.tcp_window_scaling = value != 0,
        "tcp_syncookies" => config.tcp_syncookies = value as u8,
        "tcp_syn_retries" => config.tcp_syn_retries = small,
        "tcp_synack_retries" => config.tcp_synack_retries = small,
        "tcp_retries2" => config.tcp_retries2 = small,
        "tcp_max_syn_backlog" => config.tcp_max_syn_backlog = small,
        "tcp_rmem" => config.tcp_rmem.1 = value as usize,
        "tcp_slow_start_after_idle" => config.tcp_slow_start_after_idle = value != 0,
        "tcp_congestion_control_reno" => {
            config.tcp_congestion_control = hematite_netstack::CongestionAlgorithm::Reno;
        }
        _ => return Err(format!("scripts know no setting `{name}`")),
    }
    Ok(())
}

impl Run {
    fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.start).as_secs_f64()
    }

    fn flow(&mut self, port: u16) -> &mut Flow {
        self.flows.entry(port).or_insert_with(Flow::new)
    }

    fn line(&mut self, line: &Line) -> Result<(), String> {
        let (early, late) = (self.clock + line.delay.0, self.clock + line.delay.1);
        if let Event::Out(expected) = &line.event {
            self.run_until(late + TOLERANCE, true);
            let at = self.expect(line.port, expected, early, late)?;
            self.clock = if early == late { early } else { at };
            return Ok(());
        }
        self.run_until(late, false);
        self.clock = late;
        self.nothing_pending()?;
        match &line.event {
            Event::Out(_) | Event::Quiet => {}
            Event::Sysctl { .. } => return Err("  settings come before everything else".into()),
            Event::Fresh => _ = self.flows.remove(&line.port),
            Event::In { segment, damaged } => self.inject(line.port, segment, *damaged)?,
            Event::Icmp { kind, seq } => self.icmp(line.port, *kind, *seq),
            Event::Call { call, result } => {
                let got = self.call(line.port, call)?;
                if got != *result {
                    return Err(format!("  expected:  {result}\n  returned:  {got}"));
                }
            }
        }
        self.capture();
        Ok(())
    }

    /// Lets time pass, until `end` or until something is sent.
    fn run_until(&mut self, end: Instant, stop: bool) {
        while !stop || self.pending.is_empty() {
            let next = self.peer.host.stack.next_deadline().filter(|t| *t <= end);
            let now = self.peer.now;
            self.peer.pass(next.unwrap_or(end).saturating_duration_since(now));
            self.capture();
            if next.is_none() {
                return;
            }
        }
    }

    /// Takes what the stack sent.
    fn capture(&mut self) {
        let at = self.peer.now;
        for seg in self.peer.sent() {
            let port = seg.header.destination_port;
            let flow = self.flow(port);
            if seg.header.syn {
                flow.our_port = seg.header.source_port;
                let isn = *flow.isn.get_or_insert(seg.header.sequence_number);
                if isn != seg.header.sequence_number && flow.stream.is_none() && !seg.header.ack {
                    flow.isn = Some(seg.header.sequence_number);
                }
            }
            let ts = seg.header.options_iterator().find_map(|o| match o {
                Ok(etherparse::TcpOptionElement::Timestamp(val, _)) => Some(val),
                _ => None,
            });
            flow.ts = flow.ts.or(ts);
            self.note("out", at, port, &self.read(port, &seg, false));
            self.pending.push_back(Sent { at, port, seg });
        }
    }

    fn note(&mut self, way: &str, at: Instant, port: u16, segment: &Segment) {
        let named = if port == PORT {
            String::new()
        } else {
            format!("@{port} ")
        };
        let _ = writeln!(self.log, "  {:9.6} {way:3} {named}{segment}", self.seconds(at));
    }

    fn read(&self, port: u16, seg: &crate::common::tcp_peer::Seg, absolute: bool) -> Segment {
        let flow = &self.flows[&port];
        let known = flow.isn.is_some() && !absolute;
        let mut segment = Segment::read(&seg.header, seg.payload.len(), known, &flow.ours());
        segment.ecn = seg.ecn;
        segment
    }

    fn nothing_pending(&self) -> Result<(), String> {
        let Some(sent) = self.pending.front() else {
            return Ok(());
        };
        Err(format!(
            "  no line expects what was sent at {:.6}:\n  {}",
            self.seconds(sent.at),
            self.read(sent.port, &sent.seg, false)
        ))
    }

    /// Compares the next segment with the one that is expected.
    fn expect(
        &mut self,
        port: u16,
        expected: &Segment,
        early: Instant,
        late: Instant,
    ) -> Result<Instant, String> {
        let Some(sent) = self.pending.pop_front() else {
            return Err(format!(
                "  expected:  {expected}\n  and nothing was sent until {:.6}",
                self.seconds(late)
            ));
        };
        let time = |at: Instant| format!("at {:.6}", self.seconds(at));
        let segment = self.read(sent.port, &sent.seg, expected.absolute);
        let in_time = sent.at + TOLERANCE >= early && sent.at <= late + TOLERANCE;
        let when = if early == late {
            time(early)
        } else {
            format!("{} to {:.6}", time(early), self.seconds(late))
        };
        let mut rows = vec![(format!("@{port}"), format!("@{}", sent.port), port != sent.port)];
        let (wanted, got) = (expected.columns(), segment.columns());
        let differs = expected.differences(&segment);
        rows.extend(
            wanted
                .into_iter()
                .zip(got)
                .zip(differs)
                .map(|((w, g), d)| (w, g, d)),
        );
        rows.push((when, time(sent.at), !in_time));
        if rows.iter().any(|r| r.2) {
            return Err(diff(&rows));
        }
        let offset = segment.seq.0 - 1;
        let wrong = sent
            .seg
            .payload
            .iter()
            .enumerate()
            .find(|(i, b)| **b != byte_at(OUR_SALT, offset as usize + i));
        if let Some((i, byte)) = wrong {
            return Err(format!(
                "  byte {} of the stream is {byte}, which is not what was written",
                offset + i as i64
            ));
        }
        Ok(sent.at)
    }

    fn inject(&mut self, port: u16, segment: &Segment, damaged: bool) -> Result<(), String> {
        let flow = self.flow(port);
        flow.win = segment.win.unwrap_or(flow.win);
        let header = segment.header((port, flow.our_port), flow.win, &flow.peers())?;
        let payload: Vec<u8> = (segment.seq.0..segment.seq.1)
            .map(|at| byte_at(PEER_SALT, (at - 1) as usize))
            .collect();
        self.note("in", self.peer.now, port, segment);
        self.peer
            .send_marked(header, &payload, u16::from(damaged), segment.ecn);
        Ok(())
    }

    fn icmp(&mut self, port: u16, kind: IcmpError, seq: i64) {
        let kind = Icmpv4Type::DestinationUnreachable(match kind {
            IcmpError::FragNeeded(next_hop_mtu) => {
                DestUnreachableHeader::FragmentationNeeded { next_hop_mtu }
            }
            IcmpError::PortUnreachable => DestUnreachableHeader::Port,
            IcmpError::HostUnreachable => DestUnreachableHeader::Host,
        });
        let flow = self.flow(port);
        let ip = Ipv4Header::new(1000, 64, IpNumber::TCP, A.octets(), B.octets()).unwrap();
        let mut quote = ip.to_bytes().to_vec();
        quote.extend(flow.our_port.to_be_bytes());
        quote.extend(port.to_be_bytes());
        quote.extend(flow.isn.unwrap_or(0).wrapping_add(seq as u32).to_be_bytes());
        self.peer.send_ip(1, &icmp(kind, &quote), 0);
    }

    fn call(&mut self, port: u16, call: &Call) -> Result<String, String> {
        let stack = &mut self.peer.host.stack;
        let flow = self.flows.entry(port).or_insert_with(Flow::new);
        let ok = |result: io::Result<()>| match result {
            Ok(()) => "ok".into(),
            Err(e) => format!("{:?}", e.kind()),
        };
        let socket = &mut self.socket;
        Ok(match call {
            Call::Socket => {
                *socket = Some(TcpSocket::new(stack));
                "ok".into()
            }
            Call::Listen(backlog) => {
                let socket = socket.take().unwrap_or_else(|| TcpSocket::new(stack));
                let listening = (|| {
                    socket.set_reuse_address(stack, true)?;
                    socket.bind(stack, (A, LISTEN_PORT))?;
                    socket.listen(stack, *backlog)
                })();
                ok(listening.map(|l| self.listener = Some(l)))
            }
            Call::Connect => {
                let socket = socket.take().unwrap_or_else(|| TcpSocket::new(stack));
                ok(socket.connect(stack, (B, port)).map(|s| flow.stream = Some(s)))
            }
            Call::Accept => {
                let listener = self.listener.as_ref().ok_or("  nobody listens")?;
                match listener.accept(stack) {
                    Err(e) => format!("{:?}", e.kind()),
                    Ok((stream, from)) => {
                        if from.port() != port {
                            return Err(format!("  accepted port {}, not {port}", from.port()));
                        }
                        flow.stream = Some(stream);
                        "ok".into()
                    }
                }
            }
            Call::CloseListener => {
                self.listener.take().ok_or("  nobody listens")?.close(stack);
                "ok".into()
            }
            Call::Nstat(name) => {
                let value = stack.snmp().iter().find(|c| c.0 == name);
                value
                    .ok_or_else(|| format!("  no counter is called {name}"))?
                    .1
                    .to_string()
            }
            Call::Sockets => stack.tcp_socket_count().0.to_string(),
            Call::TimeWait => stack.tcp_socket_count().1.to_string(),
            Call::Set(name, values) => {
                let set = match (socket, &flow.stream) {
                    (Some(socket), _) => calls::set_socket(socket, stack, name, values),
                    (None, Some(stream)) => calls::set_stream(stream, stack, name, values),
                    (None, None) => return Err("  there is no socket to set an option of".into()),
                };
                ok(set.ok_or_else(|| format!("  no option is called {name}, or it has other values"))?)
            }
            Call::Close => {
                flow.stream.take().ok_or("  there is no stream")?.close(stack);
                "ok".into()
            }
            _ => {
                let stream = flow.stream.as_ref().ok_or("  there is no stream")?;
                calls::call(stack, stream, call, (&mut flow.written, &mut flow.read))?
            }
        })
    }
}

/// Two rows of columns, and marks under what differs.
fn diff(columns: &[(String, String, bool)]) -> String {
    let (mut expected, mut sent, mut marks) = (String::new(), String::new(), String::new());
    for (n, (wanted, got, differs)) in columns.iter().enumerate() {
        // The port is only of interest where it is another.
        if n == 0 && !differs || wanted.is_empty() && got.is_empty() {
            continue;
        }
        let width = wanted.len().max(got.len());
        let mark = if *differs {
            "^".repeat(width)
        } else {
            String::new()
        };
        let _ = write!(expected, "  {wanted:width$}");
        let _ = write!(sent, "  {got:width$}");
        let _ = write!(marks, "  {mark:width$}");
    }
    let rows = [("expected:", expected), ("sent:", sent), ("", marks)];
    let rows = rows.map(|(name, row)| format!("  {name:9}{row}").trim_end().to_string());
    rows.join("\n")
}
