//! A stub resolver (RFC 1035, RFC 5452) on UDP sockets of the stack.
//!
//! Each question has its own socket with a random port, and each attempt a random identifier. An answer is taken
//! only from the server that was asked, on that port, with that identifier and that question. The resolver has
//! no thread: its owner calls [`Resolver::poll`] after frames came in and at [`Resolver::next_deadline`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use thiserror::Error;
use tracing::debug;

use crate::core::time::Instant;
use crate::socket::{Domain, UdpSocket};
use crate::stack::Stack;
use wire::{Answer, Name, emit_query};

pub(crate) mod wire;

pub use wire::RecordType;

const DNS_PORT: u16 = 53;
/// Most servers (`MAXNS` of resolv.conf).
const MAX_SERVERS: usize = 3;
/// Wait for each server, doubled in each round (`timeout` of resolv.conf).
const TIMEOUT: Duration = Duration::from_secs(5);
/// Rounds through the servers (`attempts` of resolv.conf).
const ATTEMPTS: usize = 2;
/// Names that an alias may lead through in further questions.
const MAX_CHAIN: u8 = 8;
/// Questions that are open at the same time.
const MAX_QUERIES: usize = 64;
/// Largest answer without extensions (RFC 1035 section 4.2.1); a longer one is still read.
const MAX_MESSAGE: usize = 1500;

/// Why there are no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DnsError {
    /// There is no such name (NXDOMAIN).
    #[error("no such name")]
    NoName,
    /// The text is no name.
    #[error("not a domain name")]
    BadName,
    /// No server answered in time, or all failed.
    #[error("no server answered")]
    TryAgain,
    /// There are no servers to ask, or too many questions are open.
    #[error("no servers, or too many questions")]
    NotReady,
    /// Aliases lead nowhere.
    #[error("too many aliases")]
    TooManyAliases,
}

/// The addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// In the order of the server; none if the name has none of the type.
    pub addrs: Vec<IpAddr>,
    /// For how long they may be kept.
    pub ttl: Duration,
    /// The answer was cut short: there are more (TC bit). They would have to be asked for by TCP.
    pub truncated: bool,
}

/// Names a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueryId(u64);

/// A question that is open or answered.
#[derive(Debug)]
struct Query {
    id: QueryId,
    name: Name,
    kind: RecordType,
    aliases: u8,
    /// Servers asked so far; wraps around the list in rounds.
    asked: usize,
    transaction: u16,
    socket: Option<UdpSocket>,
    due: Instant,
    result: Option<Result<Addresses, DnsError>>,
}

/// The resolver.
#[derive(Debug, Default)]
pub struct Resolver {
    servers: Vec<IpAddr>,
    queries: Vec<Query>,
    next: u64,
}

impl Resolver {
    /// A resolver that asks these servers, the first three of them (`nameserver` of resolv.conf).
    pub fn new(servers: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut resolver = Self::default();
        resolver.set_servers(servers);
        resolver
    }

    /// Replaces the servers, such as with those of a new [`Lease`](crate::dhcp::Lease).
    pub fn set_servers(&mut self, servers: impl IntoIterator<Item = IpAddr>) {
        self.servers = servers.into_iter().take(MAX_SERVERS).collect();
    }

    /// Asks for the addresses of a name; the first question leaves at once.
    ///
    /// # Errors
    /// [`DnsError::BadName`] if the text is no name, [`DnsError::NotReady`] without servers or with too many
    /// questions open.
    pub fn query(&mut self, stack: &mut Stack, name: &str, kind: RecordType) -> Result<QueryId, DnsError> {
        let name = Name::from_text(name).ok_or(DnsError::BadName)?;
        if self.servers.is_empty() || self.queries.len() >= MAX_QUERIES {
            return Err(DnsError::NotReady);
        }
        let id = QueryId(self.next);
        self.next += 1;
        let mut query = Query {
            id,
            name,
            kind,
            aliases: 0,
            asked: 0,
            transaction: 0,
            socket: None,
            due: stack.now(),
            result: None,
        };
        query.ask(stack, &self.servers);
        self.queries.push(query);
        Ok(id)
    }

    /// Reads answers and asks again where none came in time.
    pub fn poll(&mut self, stack: &mut Stack) {
        for query in &mut self.queries {
            query.poll(stack, &self.servers);
        }
    }

    /// When [`Resolver::poll`] has something to do if nothing comes in until then.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.queries
            .iter()
            .filter(|q| q.result.is_none())
            .map(|q| q.due)
            .min()
    }

    /// The result of a question, once there is one; it is forgotten here with that. None for a question that is
    /// still open.
    pub fn take_result(&mut self, id: QueryId) -> Option<Result<Addresses, DnsError>> {
        let at = self
            .queries
            .iter()
            .position(|q| q.id == id && q.result.is_some())?;
        self.queries.remove(at).result
    }

    /// Gives a question up.
    pub fn cancel(&mut self, stack: &mut Stack, id: QueryId) {
        if let Some(at) = self.queries.iter().position(|q| q.id == id) {
            self.queries.remove(at).hang_up(stack);
        }
    }
}

impl Query {
    /// Sends the question to the next server; ends it when all had their turns. A server that cannot be sent to
    /// is passed over.
    fn ask(&mut self, stack: &mut Stack, servers: &[IpAddr]) {
        while self.asked < servers.len() * ATTEMPTS {
            let Some(server) = servers.get(self.asked % servers.len().max(1)) else {
                break;
            };
            let round = self.asked / servers.len().max(1);
            self.asked += 1;
            self.transaction = stack.prng.next_u64() as u16;
            match self.send(stack, *server) {
                Ok(()) => {
                    self.due = stack.now() + TIMEOUT * (1 << round.min(4));
                    return;
                }
                Err(error) => debug!(%error, %server, "dns"),
            }
        }
        self.finish(stack, Err(DnsError::TryAgain));
    }

    /// On a socket of its own, connected so that only the server's answers come in.
    fn send(&mut self, stack: &mut Stack, server: IpAddr) -> io::Result<()> {
        self.hang_up(stack);
        let server = SocketAddr::new(server, DNS_PORT);
        let any: IpAddr = match Domain::for_address(server) {
            Domain::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
            Domain::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind(stack, (any, 0))?;
        let message = emit_query(self.transaction, &self.name, self.kind);
        let sent = socket
            .connect(stack, server)
            .and_then(|()| socket.send(stack, &message));
        self.socket = Some(socket);
        sent.map(|_| ())
    }

    fn poll(&mut self, stack: &mut Stack, servers: &[IpAddr]) {
        let mut buf = [0; MAX_MESSAGE];
        while let Some(socket) = &self.socket {
            match socket.recv(stack, &mut buf) {
                Ok(len) => self.answered(stack, servers, buf.get(..len).unwrap_or(&[])),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // Nobody there (ICMP): the next.
                Err(_) => self.ask(stack, servers),
            }
        }
        if self.result.is_none() && self.due <= stack.now() {
            self.ask(stack, servers);
        }
    }

    fn answered(&mut self, stack: &mut Stack, servers: &[IpAddr], message: &[u8]) {
        // What is not an answer to this question does not end the wait for one.
        let Some(answer) = Answer::parse(message, self.transaction, &self.name, self.kind) else {
            return;
        };
        match answer {
            Answer::Addresses {
                addrs,
                ttl,
                truncated,
            } => {
                let ttl = Duration::from_secs(ttl.into());
                self.finish(
                    stack,
                    Ok(Addresses {
                        addrs,
                        ttl,
                        truncated,
                    }),
                );
            }
            Answer::NoName => self.finish(stack, Err(DnsError::NoName)),
            Answer::Failed(_) => self.ask(stack, servers),
            Answer::Alias(_) if self.aliases >= MAX_CHAIN => {
                self.finish(stack, Err(DnsError::TooManyAliases));
            }
            Answer::Alias(name) => {
                self.name = name;
                self.aliases += 1;
                self.asked = 0;
                self.ask(stack, servers);
            }
        }
    }

    fn finish(&mut self, stack: &mut Stack, result: Result<Addresses, DnsError>) {
        self.hang_up(stack);
        self.result = Some(result);
    }

    fn hang_up(&mut self, stack: &mut Stack) {
        if let Some(socket) = self.socket.take() {
            socket.close(stack);
        }
    }
}
