//! A DHCPv4 client (RFC 2131) on a UDP socket of the stack.
//!
//! ```text
//!   INIT --DISCOVER--> SELECTING --OFFER, REQUEST--> REQUESTING --ACK--> BOUND
//!    ^                                                   | NAK             | T1
//!    |<--------------------------------------------------+                 v
//!    |<------------------ NAK, end of lease ---- REBINDING <--T2-- RENEWING
//! ```
//!
//! The client has no thread: its owner calls [`DhcpClient::poll`] after frames came in and at
//! [`DhcpClient::next_deadline`]. It gives the interface its address and the default route, and takes them
//! away when the lease is over.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tracing::debug;

use crate::core::addr::Ipv4Cidr;
use crate::core::netdevice::{DeviceFlags, IfIndex};
use crate::core::time::Instant;
use crate::errno::Errno;
use crate::ipv4::fib::Route;
use crate::socket::UdpSocket;
use crate::stack::Stack;
use crate::wire::ethernet::MacAddr;
use wire::{Answer, Ask, MessageType};

pub(crate) mod wire;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// First wait for an answer, doubled up to the longest (section 4.1).
const FIRST_TIMEOUT: Duration = Duration::from_secs(4);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(64);
/// Requests of an offer before the client starts over (section 3.1, step 5).
const REQUEST_ATTEMPTS: u32 = 4;
/// Least wait between the requests for more time (section 4.4.5).
const RENEW_INTERVAL: Duration = Duration::from_secs(60);
/// A lease shorter than this would leave no time to renew it.
const SHORTEST_LEASE: Duration = Duration::from_secs(10);
/// Largest message that is read.
const MAX_MESSAGE: usize = 1500;
/// Metric of the default route, as dhcpcd and NetworkManager give one to wired interfaces.
const ROUTE_METRIC: u32 = 100;

/// What a server granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Our address and its network.
    pub address: Ipv4Cidr,
    /// Who granted it.
    pub server: Ipv4Addr,
    /// Default router, if one was told that is on the link.
    pub router: Option<Ipv4Addr>,
    /// DNS servers.
    pub dns: Vec<Ipv4Addr>,
    /// MTU of the link, if it was told. Not applied.
    pub mtu: Option<u16>,
    /// When more time is asked for from this server (T1), and from any (T2), and when it ends. None: never.
    times: Option<[Instant; 3]>,
}

impl Lease {
    /// When the lease ends, if ever.
    pub fn expires(&self) -> Option<Instant> {
        self.times.map(|t| t[2])
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DhcpEvent {
    /// The interface has an address now.
    Bound(Lease),
    /// The lease got more time.
    Renewed(Lease),
    /// The address is gone: the server took it back, or the lease ended.
    Lost,
}

/// Where the client is (figure 5).
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Init,
    Selecting,
    Requesting { offer: Box<Lease>, attempts: u32 },
    Bound(Box<Lease>),
    Renewing(Box<Lease>),
    Rebinding(Box<Lease>),
}

/// The client of one interface.
#[derive(Debug)]
#[must_use = "the client holds a socket until it is released"]
pub struct DhcpClient {
    ifindex: IfIndex,
    socket: UdpSocket,
    mac: MacAddr,
    state: State,
    xid: u32,
    began: Instant,
    due: Instant,
    timeout: Duration,
}

impl DhcpClient {
    /// A client that starts at the next [`DhcpClient::poll`].
    ///
    /// # Errors
    /// ENODEV without such an interface, EINVAL if it is no Ethernet, `AddrInUse` if something has port 68.
    pub fn new(stack: &mut Stack, ifindex: IfIndex) -> io::Result<Self> {
        let dev = stack.devs.get(ifindex).ok_or(Errno::NoDev)?;
        if dev.flags.intersects(DeviceFlags::LOOPBACK | DeviceFlags::NOARP) {
            return Err(Errno::Inval.into());
        }
        let mac = dev.mac;
        let socket = UdpSocket::new(stack, crate::Domain::Ipv4);
        let bound = socket
            .bind_device(stack, Some(ifindex))
            .and_then(|()| socket.set_broadcast(stack, true))
            .and_then(|()| socket.bind_to(stack, (Ipv4Addr::UNSPECIFIED, CLIENT_PORT)));
        if let Err(e) = bound {
            socket.close(stack);
            return Err(e);
        }
        let now = stack.now();
        Ok(Self {
            ifindex,
            socket,
            mac,
            state: State::Init,
            xid: stack.prng.next_u64() as u32,
            began: now,
            due: now,
            timeout: FIRST_TIMEOUT,
        })
    }

    /// The lease in use.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Bound(l) | State::Renewing(l) | State::Rebinding(l) => Some(l),
            State::Init | State::Selecting | State::Requesting { .. } => None,
        }
    }

    /// When [`DhcpClient::poll`] has something to do if nothing comes in until then.
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Bound(lease) => lease.times.map(|t| t[0]),
            State::Renewing(lease) => Some(lease.times.map_or(self.due, |t| t[1].min(self.due))),
            State::Rebinding(lease) => Some(lease.times.map_or(self.due, |t| t[2].min(self.due))),
            _ => Some(self.due),
        }
    }

    /// Reads answers and does what is due. To be called until it tells nothing.
    pub fn poll(&mut self, stack: &mut Stack) -> Option<DhcpEvent> {
        let mut buf = [0; MAX_MESSAGE];
        while let Ok(meta) = self.socket.recv_msg(stack, &mut buf) {
            let message = buf.get(..meta.len.min(buf.len())).unwrap_or(&[]);
            if meta.from.port() != SERVER_PORT {
                continue;
            }
            if let Some(answer) = Answer::parse(message, self.xid, self.mac)
                && let Some(event) = self.answered(stack, &answer)
            {
                return Some(event);
            }
        }
        self.timers(stack)
    }

    /// Gives the address back (section 4.4.6) and ends the client.
    pub fn release(mut self, stack: &mut Stack) {
        if let Some(lease) = self.lease().cloned() {
            self.xid = stack.prng.next_u64() as u32;
            let server = Some(lease.server);
            self.send(
                stack,
                MessageType::Release,
                lease.address.addr(),
                None,
                server,
                lease.server,
            );
            self.unconfigure(stack, &lease);
        }
        self.socket.close(stack);
    }

    /// A server answers.
    fn answered(&mut self, stack: &mut Stack, answer: &Answer) -> Option<DhcpEvent> {
        debug!(kind = ?answer.kind, yiaddr = %answer.yiaddr, server = ?answer.server, "dhcp");
        match (answer.kind, &self.state) {
            (MessageType::Offer, State::Selecting) => {
                // The first offer that will do is taken.
                let offer = Box::new(self.lease_of(stack, answer)?);
                self.state = State::Requesting { offer, attempts: 0 };
                (self.due, self.timeout) = (stack.now(), FIRST_TIMEOUT);
                None
            }
            (MessageType::Ack, State::Requesting { offer, .. }) => {
                if answer.server.is_some_and(|s| s != offer.server) {
                    return None;
                }
                let lease = self.lease_of(stack, answer)?;
                self.configure(stack, &lease);
                self.state = State::Bound(Box::new(lease.clone()));
                Some(DhcpEvent::Bound(lease))
            }
            (MessageType::Ack, State::Renewing(old) | State::Rebinding(old)) => {
                let (old, mut lease) = (old.clone(), self.lease_of(stack, answer)?);
                if answer.server.is_none() {
                    lease.server = old.server;
                }
                // The same address keeps its sockets; what else changed is changed.
                if (old.address, old.router) != (lease.address, lease.router) {
                    self.unconfigure(stack, &old);
                    self.configure(stack, &lease);
                }
                self.state = State::Bound(Box::new(lease.clone()));
                Some(DhcpEvent::Renewed(lease))
            }
            (MessageType::Nak, State::Requesting { .. }) => {
                self.restart(stack);
                None
            }
            (MessageType::Nak, State::Renewing(old) | State::Rebinding(old)) => {
                let old = old.clone();
                self.unconfigure(stack, &old);
                self.restart(stack);
                Some(DhcpEvent::Lost)
            }
            _ => None,
        }
    }

    /// What is due.
    fn timers(&mut self, stack: &mut Stack) -> Option<DhcpEvent> {
        let now = stack.now();
        if self.next_deadline().is_none_or(|due| due > now) {
            return None;
        }
        match self.state.clone() {
            State::Init => {
                self.xid = stack.prng.next_u64() as u32;
                self.began = now;
                self.state = State::Selecting;
                self.discover(stack);
            }
            State::Selecting => self.discover(stack),
            State::Requesting { attempts, .. } if attempts >= REQUEST_ATTEMPTS => self.restart(stack),
            State::Requesting { offer, attempts } => {
                let (wanted, server) = (Some(offer.address.addr()), Some(offer.server));
                let all = Ipv4Addr::BROADCAST;
                self.send(
                    stack,
                    MessageType::Request,
                    Ipv4Addr::UNSPECIFIED,
                    wanted,
                    server,
                    all,
                );
                let attempts = attempts + 1;
                self.state = State::Requesting { offer, attempts };
                self.back_off(stack);
            }
            State::Bound(lease) => {
                self.xid = stack.prng.next_u64() as u32;
                self.began = now;
                self.due = now;
                self.state = State::Renewing(lease);
            }
            State::Renewing(lease) | State::Rebinding(lease) => return self.renew(stack, lease),
        }
        None
    }

    /// Asks for more time: the server of the lease until T2, then any, until the end (section 4.4.5).
    fn renew(&mut self, stack: &mut Stack, lease: Box<Lease>) -> Option<DhcpEvent> {
        let now = stack.now();
        // A lease without an end is never renewed.
        let [_, t2, end] = lease.times?;
        if now >= end {
            self.unconfigure(stack, &lease);
            self.restart(stack);
            return Some(DhcpEvent::Lost);
        }
        let (to, limit) = if now >= t2 {
            (Ipv4Addr::BROADCAST, end)
        } else {
            (lease.server, t2)
        };
        self.send(stack, MessageType::Request, lease.address.addr(), None, None, to);
        // Half of the time that is left, a minute at least.
        let wait = (limit.saturating_duration_since(now) / 2).max(RENEW_INTERVAL);
        self.due = now + wait;
        self.state = if now >= t2 {
            State::Rebinding(lease)
        } else {
            State::Renewing(lease)
        };
        None
    }

    fn discover(&mut self, stack: &mut Stack) {
        let all = Ipv4Addr::BROADCAST;
        self.send(
            stack,
            MessageType::Discover,
            Ipv4Addr::UNSPECIFIED,
            None,
            None,
            all,
        );
        self.back_off(stack);
    }

    fn restart(&mut self, stack: &Stack) {
        self.state = State::Init;
        (self.due, self.timeout) = (stack.now(), FIRST_TIMEOUT);
    }

    /// Twice as long each time, one second more or less, so that many hosts spread (section 4.1).
    fn back_off(&mut self, stack: &mut Stack) {
        let spread = Duration::from_nanos(stack.prng.below(2_000_000_000));
        self.due = stack.now() + self.timeout + spread - Duration::from_secs(1);
        self.timeout = (self.timeout * 2).min(LONGEST_TIMEOUT);
    }

    fn send(
        &self,
        stack: &mut Stack,
        kind: MessageType,
        ciaddr: Ipv4Addr,
        requested: Option<Ipv4Addr>,
        server: Option<Ipv4Addr>,
        to: Ipv4Addr,
    ) {
        let secs = stack.now().saturating_duration_since(self.began).as_secs();
        let ask = Ask {
            kind,
            xid: self.xid,
            secs: u16::try_from(secs).unwrap_or(u16::MAX),
            mac: self.mac,
            ciaddr,
            requested,
            server,
        };
        // What cannot be sent now is sent again later.
        let to = SocketAddrV4::new(to, SERVER_PORT);
        if let Err(error) = self.socket.send_to(stack, &ask.emit(), to) {
            debug!(%error, ?kind, "dhcp");
        }
    }

    /// The lease of an offer or acknowledgement, if it makes sense.
    fn lease_of(&self, stack: &Stack, answer: &Answer) -> Option<Lease> {
        let addr = answer.yiaddr;
        let impossible =
            addr.is_unspecified() || addr.is_loopback() || addr.is_multicast() || addr.is_broadcast();
        if impossible {
            return None;
        }
        // Without a mask the class decides, as hosts did before (RFC 950 section 2.2).
        let prefix_len = match answer.subnet_mask.map(Ipv4Addr::to_bits) {
            Some(mask) if mask.leading_ones() + mask.trailing_zeros() >= 32 => mask.leading_ones() as u8,
            Some(_) => return None,
            None => match addr.octets()[0] {
                0..128 => 8,
                128..192 => 16,
                _ => 24,
            },
        };
        let address = Ipv4Cidr::new(addr, prefix_len).ok()?;
        let previous = match &self.state {
            State::Requesting { offer, .. } => Some(offer.server),
            _ => self.lease().map(|l| l.server),
        };
        let now = stack.now();
        let times = match answer.lease {
            None => None,
            Some(lease) if lease < SHORTEST_LEASE => return None,
            Some(lease) => {
                let t2 = answer.t2.filter(|t| *t < lease).unwrap_or(lease / 8 * 7);
                let t1 = answer.t1.filter(|t| *t < t2).unwrap_or((lease / 2).min(t2));
                Some([now + t1, now + t2, now + lease])
            }
        };
        let usable = |r: &&Ipv4Addr| address.contains(**r) && **r != addr;
        Some(Lease {
            address,
            server: answer.server.or(previous)?,
            router: answer.routers.iter().find(usable).copied(),
            dns: answer.dns.clone(),
            mtu: answer.mtu,
            times,
        })
    }

    fn configure(&self, stack: &mut Stack, lease: &Lease) {
        // An address or route that is there already is as good.
        let _ = stack.add_address(self.ifindex, lease.address);
        if let Some(router) = lease.router {
            let _ = stack.add_route(self.default_route(router));
        }
    }

    fn default_route(&self, router: Ipv4Addr) -> Route {
        Route {
            oif: Some(self.ifindex),
            metric: ROUTE_METRIC,
            ..Route::via(Ipv4Cidr::DEFAULT, router)
        }
    }

    fn unconfigure(&self, stack: &mut Stack, lease: &Lease) {
        if let Some(router) = lease.router {
            stack.del_route(&self.default_route(router));
        }
        // Somebody may have removed it meanwhile.
        let _ = stack.remove_address(self.ifindex, lease.address);
    }
}
