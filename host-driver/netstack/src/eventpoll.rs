//! Readiness of many sockets at once (fs/eventpoll.c, epoll(7)).
//!
//! A socket that is watched knows its [`WaitQueue`]; what happens to it (data, room, a connection, an error, the
//! end) wakes that, and so puts it on the ready list of each [`Epoll`] that wants to know. [`Epoll::wait`] looks at
//! the ready list and at nothing else: it costs as much as there is ready, however many sockets are watched. The one
//! exception are datagram sockets that somebody found full: the memory that they wait for comes back from the
//! device without passing the stack, so these few are asked in each wait.
//!
//! Nothing blocks in here; [`wait_for`](crate::wait::wait_for) blocks for an owner that has a loop.
//!
//! ```
//! use hematite_netstack::{Epoll, EpollEvent, Readiness, Stack, StackConfig, Trigger, UdpSocket};
//! use std::net::Ipv4Addr;
//!
//! let mut stack = Stack::new(StackConfig::default(), 1);
//! let socket = UdpSocket::bind(&mut stack, (Ipv4Addr::LOCALHOST, 7))?;
//! let epoll = Epoll::new(&mut stack);
//! epoll.add(&mut stack, &socket, Readiness::READABLE, Trigger::Level, 42)?;
//! let mut events = [EpollEvent::default(); 8];
//! assert_eq!(epoll.wait(&mut stack, &mut events)?, 0);
//! socket.send_to(&mut stack, b"to myself", (Ipv4Addr::LOCALHOST, 7))?;
//! stack.poll(hematite_netstack::Instant::from_millis(1));
//! assert_eq!(epoll.wait(&mut stack, &mut events)?, 1);
//! assert_eq!((events[0].token, events[0].readiness), (42, Readiness::READABLE));
//! # std::io::Result::Ok(())
//! ```

use std::collections::VecDeque;
use std::io;

use crate::errno::Errno;
use crate::socket::{Readiness, SockId, SockTable, readiness};
use crate::stack::Stack;
use crate::tcp::TcpSockId;

/// What is told whether it was asked for or not (`EPOLLERR | EPOLLHUP`).
const ALWAYS: Readiness = Readiness::ERROR.union(Readiness::HANGUP);

/// When a socket that is ready is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trigger {
    /// In each wait for as long as it is ready.
    #[default]
    Level,
    /// When something new has happened to it (`EPOLLET`): read or write until `WouldBlock`.
    Edge,
    /// Once, and then not again before [`Epoll::modify`] (`EPOLLONESHOT`).
    OneShot,
}

/// A socket that is ready (`struct epoll_event`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpollEvent {
    /// What [`Epoll::add`] was given.
    pub token: u64,
    /// What the socket is ready for, of what was asked for.
    pub readiness: Readiness,
}

impl Default for EpollEvent {
    fn default() -> Self {
        Self {
            token: 0,
            readiness: Readiness::empty(),
        }
    }
}

/// Names a socket of any kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollKey(pub(crate) Target);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Udp(SockId),
    Tcp(TcpSockId),
    Ping(SockId),
    Raw(SockId),
    Packet(SockId),
}

mod sealed {
    /// Only the stack's own sockets can be watched.
    pub trait Sealed {}
}

/// A socket that an [`Epoll`] can watch.
pub trait Pollable: sealed::Sealed {
    /// The socket's name.
    fn poll_key(&self) -> PollKey;
}

/// Makes socket types pollable.
macro_rules! pollable {
    ($($kind:ty => $target:ident($field:ident)),* $(,)?) => { $(
        impl sealed::Sealed for $kind {}
        impl Pollable for $kind {
            fn poll_key(&self) -> PollKey {
                PollKey(Target::$target(self.$field()))
            }
        }
    )* };
}

pollable! {
    crate::UdpSocket => Udp(id),
    crate::TcpSocket => Tcp(id),
    crate::TcpListener => Tcp(id),
    crate::TcpStream => Tcp(id),
    crate::PingSocket => Ping(id),
    crate::RawSocket => Raw(id),
    crate::PacketSocket => Packet(id),
}

/// Who wants to know what happens to a socket (`wait_queue_head_t`): indices of items.
#[derive(Debug, Default)]
pub(crate) struct WaitQueue {
    items: Vec<u32>,
    /// Somebody found no room to send (`SOCK_NOSPACE`).
    pub nospace: bool,
}

impl WaitQueue {
    /// Whether anybody does.
    pub(crate) fn is_watched(&self) -> bool {
        !self.items.is_empty()
    }

    /// Something happened (`__wake_up_sync_key`).
    pub(crate) fn wake(&self, polls: &mut EventPolls, events: Readiness) {
        for &at in &self.items {
            polls.callback(at, events);
        }
    }
}

/// One socket in one epoll instance (`struct epitem`).
#[derive(Debug)]
struct Item {
    epoll: SockId,
    /// `None`: removed, but still on the ready list.
    target: Option<Target>,
    interest: Readiness,
    trigger: Trigger,
    token: u64,
    /// A one-shot one that was told of is not.
    armed: bool,
    /// On the ready list.
    queued: bool,
}

/// One instance (`struct eventpoll`).
#[derive(Debug, Default)]
struct EventPoll {
    /// Items to be looked at (`rdllist`).
    ready: VecDeque<u32>,
}

/// All instances and their items.
#[derive(Debug, Default)]
pub(crate) struct EventPolls {
    instances: SockTable<EventPoll>,
    items: Vec<Option<Item>>,
    free: Vec<u32>,
    /// Datagram sockets without room that somebody waits for.
    nospace: Vec<Target>,
}

impl EventPolls {
    fn item(&mut self, at: u32) -> Option<&mut Item> {
        self.items.get_mut(at as usize)?.as_mut()
    }

    /// Something happened to the socket of an item (`ep_poll_callback`).
    fn callback(&mut self, at: u32, events: Readiness) {
        let Some(item) = self.items.get_mut(at as usize).and_then(Option::as_mut) else {
            return;
        };
        if !item.armed || item.queued || !events.intersects(item.interest | ALWAYS) {
            return;
        }
        if let Ok(epoll) = self.instances.get_mut(item.epoll) {
            item.queued = true;
            epoll.ready.push_back(at);
        }
    }

    fn insert(&mut self, item: Item) -> u32 {
        match self.free.pop() {
            Some(at) => {
                self.items[at as usize] = Some(item);
                at
            }
            None => {
                self.items.push(Some(item));
                (self.items.len() - 1) as u32
            }
        }
    }

    /// Removes an item (`ep_remove`); one on the ready list goes when it is reached there.
    fn remove(&mut self, at: u32) {
        let Some(item) = self.item(at) else { return };
        item.target = None;
        if !item.queued {
            self.release(at);
        }
    }

    fn release(&mut self, at: u32) {
        if let Some(slot) = self.items.get_mut(at as usize)
            && slot.take().is_some()
        {
            self.free.push(at);
        }
    }

    /// The socket is closed (`eventpoll_release`).
    pub(crate) fn forget(&mut self, wait: &WaitQueue) {
        for &at in &wait.items {
            self.remove(at);
        }
    }

    /// Takes the next of the ready list off; none if it was removed, or there is no more.
    fn pop_ready(&mut self, id: SockId) -> Option<(u32, &Item, Target)> {
        let at = self.instances.get_mut(id).ok()?.ready.pop_front()?;
        let item = self.item(at)?;
        item.queued = false;
        if item.target.is_none() {
            self.release(at);
        }
        let item = self.items.get(at as usize)?.as_ref()?;
        Some((at, item, item.target?))
    }
}

/// Watches sockets and tells which of them are ready (epoll(7)).
///
/// It lives in the stack until [`Epoll::close`]. A socket that is closed is watched no longer.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the instance stays until it is closed"]
pub struct Epoll(SockId);

impl Epoll {
    /// A new instance that watches nothing (`epoll_create`).
    pub fn new(stack: &mut Stack) -> Self {
        Self(stack.epolls.instances.insert(EventPoll::default()))
    }

    /// Watches a socket (`EPOLL_CTL_ADD`). `token` names it in the events. Errors and hang-ups are told of without
    /// being asked for.
    ///
    /// # Errors
    /// `AlreadyExists` if it is watched by this instance; EBADF if either is not of this stack.
    pub fn add(
        &self,
        stack: &mut Stack,
        socket: &impl Pollable,
        interest: Readiness,
        trigger: Trigger,
        token: u64,
    ) -> io::Result<()> {
        stack.epolls.instances.get(self.0)?;
        let target = socket.poll_key().0;
        if stack.epoll_find(self.0, target)?.is_some() {
            return Err(Errno::Exist.into());
        }
        let at = stack.epolls.insert(Item {
            epoll: self.0,
            target: Some(target),
            interest,
            trigger,
            token,
            armed: true,
            queued: false,
        });
        stack.poll_target(target)?.1.items.push(at);
        Ok(stack.epoll_look(at, target, interest)?)
    }

    /// Changes what is told of a socket, and arms a one-shot one again (`EPOLL_CTL_MOD`).
    ///
    /// # Errors
    /// `NotFound` if it is not watched; EBADF if either is not of this stack.
    pub fn modify(
        &self,
        stack: &mut Stack,
        socket: &impl Pollable,
        interest: Readiness,
        trigger: Trigger,
        token: u64,
    ) -> io::Result<()> {
        let target = socket.poll_key().0;
        let at = stack.epoll_find(self.0, target)?.ok_or(Errno::NoEnt)?;
        if let Some(item) = stack.epolls.item(at) {
            (item.interest, item.trigger, item.token) = (interest, trigger, token);
            item.armed = true;
        }
        Ok(stack.epoll_look(at, target, interest)?)
    }

    /// Watches a socket no longer (`EPOLL_CTL_DEL`).
    ///
    /// # Errors
    /// `NotFound` if it is not watched; EBADF if either is not of this stack.
    pub fn delete(&self, stack: &mut Stack, socket: &impl Pollable) -> io::Result<()> {
        let target = socket.poll_key().0;
        let at = stack.epoll_find(self.0, target)?.ok_or(Errno::NoEnt)?;
        stack.poll_target(target)?.1.items.retain(|i| *i != at);
        stack.epolls.remove(at);
        Ok(())
    }

    /// Fills `events` with sockets that are ready, each in its turn, and tells how many there are (`epoll_wait`
    /// with a timeout of zero). Those that find no room come first the next time.
    ///
    /// # Errors
    /// `InvalidInput` without room for an event; EBADF if the instance is not of this stack.
    pub fn wait(&self, stack: &mut Stack, events: &mut [EpollEvent]) -> io::Result<usize> {
        if events.is_empty() {
            return Err(Errno::Inval.into());
        }
        Ok(stack.epoll_wait(self.0, events)?)
    }

    /// Ends the instance; the sockets stay.
    pub fn close(self, stack: &mut Stack) {
        if stack.epolls.instances.remove(self.0).is_none() {
            return;
        }
        for at in 0..stack.epolls.items.len() as u32 {
            let Some(item) = stack.epolls.item(at).filter(|item| item.epoll == self.0) else {
                continue;
            };
            if let Some(target) = item.target
                && let Ok((_, wait)) = stack.poll_target(target)
            {
                wait.items.retain(|i| *i != at);
            }
            stack.epolls.release(at);
        }
    }
}

impl Stack {
    /// What a socket is ready for, and who wants to know (`vfs_poll`).
    fn poll_target(&mut self, target: Target) -> Result<(Readiness, &mut WaitQueue), Errno> {
        Ok(match target {
            Target::Udp(id) => {
                let s = self.udp.get_mut(id)?;
                (readiness(&s.sock, s.queue.len()), &mut s.sock.wait)
            }
            Target::Tcp(id) => self.tcp.socks.get_mut(id)?.poll_target(),
            Target::Ping(id) => self.ping.poll_target(id)?,
            Target::Raw(id) => self.raw.poll_target(id)?,
            Target::Packet(id) => self.taps.sockets.get_mut(id)?.poll_target(),
        })
    }

    /// The item of a socket in an instance (`ep_find`).
    fn epoll_find(&mut self, epoll: SockId, target: Target) -> Result<Option<u32>, Errno> {
        // Two fields of one stack: the list is short, and comes back below.
        let mut items = std::mem::take(&mut self.poll_target(target)?.1.items);
        let found = items
            .iter()
            .copied()
            .find(|&at| self.epolls.item(at).is_some_and(|item| item.epoll == epoll));
        std::mem::swap(&mut self.poll_target(target)?.1.items, &mut items);
        Ok(found)
    }

    /// Looks at a socket once, since what happened before it was watched has told nobody.
    fn epoll_look(&mut self, at: u32, target: Target, interest: Readiness) -> Result<(), Errno> {
        let ready = self.epoll_item_poll(target, interest)?;
        self.epolls.callback(at, ready);
        Ok(())
    }

    /// What a socket is ready for (`ep_item_poll`). One that is not writable, and should be, is noted.
    fn epoll_item_poll(&mut self, target: Target, interest: Readiness) -> Result<Readiness, Errno> {
        let (ready, _) = self.poll_target(target)?;
        if interest.contains(Readiness::WRITABLE) && !ready.contains(Readiness::WRITABLE) {
            self.poll_nospace(target);
        }
        Ok(ready)
    }

    /// A socket has no room to send, and whoever watches it will want to know when it has (`SOCK_NOSPACE`).
    pub(crate) fn poll_nospace(&mut self, target: Target) {
        let Ok((_, wait)) = self.poll_target(target) else {
            return;
        };
        if !wait.is_watched() || std::mem::replace(&mut wait.nospace, true) {
            return;
        }
        // A stream hears of its room by acknowledgments.
        if !matches!(target, Target::Tcp(_)) {
            self.epolls.nospace.push(target);
        }
    }

    /// Tells of the room that datagram sockets have again (`sock_def_write_space`).
    fn poll_write_space(&mut self) {
        let mut nospace = std::mem::take(&mut self.epolls.nospace);
        nospace.retain(|&target| {
            let Ok((ready, wait)) = self.poll_target(target) else {
                return false;
            };
            if !ready.contains(Readiness::WRITABLE) {
                return true;
            }
            let wait = std::mem::take(wait);
            wait.wake(&mut self.epolls, Readiness::WRITABLE);
            if let Ok((_, place)) = self.poll_target(target) {
                place.items = wait.items;
            }
            false
        });
        self.epolls.nospace = nospace;
    }

    /// `ep_send_events`.
    fn epoll_wait(&mut self, id: SockId, events: &mut [EpollEvent]) -> Result<usize, Errno> {
        self.poll_write_space();
        let mut filled = 0;
        // Those that stay on the list are behind these.
        for _ in 0..self.epolls.instances.get(id)?.ready.len() {
            let Some(event) = events.get_mut(filled) else {
                break;
            };
            let Some((at, item, target)) = self.epolls.pop_ready(id) else {
                continue;
            };
            let (interest, token, trigger) = (item.interest, item.token, item.trigger);
            let ready = self.epoll_item_poll(target, interest)? & (interest | ALWAYS);
            if ready.is_empty() {
                continue;
            }
            *event = EpollEvent {
                token,
                readiness: ready,
            };
            filled += 1;
            match trigger {
                Trigger::Level => self.epolls.callback(at, ready),
                Trigger::Edge => {}
                Trigger::OneShot => {
                    if let Some(item) = self.epolls.item(at) {
                        item.armed = false;
                    }
                }
            }
        }
        Ok(filled)
    }
}
