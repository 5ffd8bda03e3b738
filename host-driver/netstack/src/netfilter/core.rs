//! Hooks and the functions on them (net/netfilter/core.c).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::conntrack::Conntrack;
use super::nat::Manip;
use super::packet::{IpView, NfProto};
use super::tables::{RejectWith, Table, TableVerdict, Tables};
use crate::core::addr::is_link_local;
use crate::core::dev::{NetDev, NetDevs};
use crate::core::netdevice::IfIndex;
use crate::core::skb::SkBuff;
use crate::core::time::Instant;
use crate::prandom::Prng;

/// A place on the way of a packet (`enum nf_inet_hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NfHook {
    /// Received and valid, not yet routed.
    PreRouting,
    /// For this host.
    LocalIn,
    /// For another host.
    Forward,
    /// Made by this host.
    LocalOut,
    /// About to leave.
    PostRouting,
}

impl NfHook {
    /// The five hooks.
    pub const ALL: [Self; 5] = [
        Self::PreRouting,
        Self::LocalIn,
        Self::Forward,
        Self::LocalOut,
        Self::PostRouting,
    ];

    /// Name of the base chain at the hook.
    pub const fn chain_name(self) -> &'static str {
        match self {
            Self::PreRouting => "PREROUTING",
            Self::LocalIn => "INPUT",
            Self::Forward => "FORWARD",
            Self::LocalOut => "OUTPUT",
            Self::PostRouting => "POSTROUTING",
        }
    }
}

/// Order of the functions on one hook, the least first (`enum nf_ip_hook_priorities`, with its values).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NfPriority(pub i32);

impl NfPriority {
    /// Before all else.
    pub const FIRST: Self = Self(i32::MIN);
    /// The raw table.
    pub const RAW: Self = Self(-300);
    /// Connection tracking.
    pub const CONNTRACK: Self = Self(-200);
    /// The mangle table.
    pub const MANGLE: Self = Self(-150);
    /// Translation of destinations.
    pub const NAT_DST: Self = Self(-100);
    /// The filter table.
    pub const FILTER: Self = Self(0);
    /// Translation of sources.
    pub const NAT_SRC: Self = Self(100);
    /// Confirmation of connections, after all else.
    pub const CONNTRACK_CONFIRM: Self = Self(i32::MAX);
}

/// Where a packet is (`struct nf_hook_state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NfHookState {
    /// The hook.
    pub hook: NfHook,
    /// The family of the packet.
    pub pf: NfProto,
    /// The interface that it came by.
    pub iif: Option<IfIndex>,
    /// The interface that it will leave by.
    pub oif: Option<IfIndex>,
}

/// What a function says about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NfVerdict {
    /// It goes on (`NF_ACCEPT`).
    Accept,
    /// It is gone (`NF_DROP`).
    Drop,
}

/// A function on a hook (`nf_hookfn`). Closures are such functions.
///
/// The packet starts at its network header, which has been validated. It may be changed, checksums included.
pub trait NfHookFn: Send {
    /// A packet passes.
    fn hook(&mut self, skb: &mut SkBuff, state: &NfHookState) -> NfVerdict;
}

impl<F: FnMut(&mut SkBuff, &NfHookState) -> NfVerdict + Send> NfHookFn for F {
    fn hook(&mut self, skb: &mut SkBuff, state: &NfHookState) -> NfVerdict {
        self(skb, state)
    }
}

/// Names a registered function, so that it can be removed.
#[derive(Debug, PartialEq, Eq)]
pub struct NfHookHandle(u64);

/// What is on a hook.
enum HookOp {
    Conntrack,
    Confirm,
    Table(Table),
    Nat,
    User(u64, Box<dyn NfHookFn>),
}

/// The parts of the stack that the functions ask.
pub(crate) struct NfEnv<'a> {
    pub devs: &'a NetDevs,
    pub now: Instant,
}

impl NfEnv<'_> {
    /// The source address to masquerade with (`inet_select_addr` on the interface that the packet leaves by).
    pub(crate) fn masquerade_addr(&self, state: &NfHookState, view: &IpView) -> Option<IpAddr> {
        let dev = self.devs.get(state.oif?)?;
        match view.daddr {
            IpAddr::V4(daddr) => dev.in_dev.select_addr(Some(daddr)).map(Into::into),
            IpAddr::V6(_) => inet6_addr(dev).map(Into::into),
        }
    }

    /// This host as a destination: the address of the interface that the packet came by, or the loopback
    /// address for what the host itself sends (`nf_nat_redirect`).
    pub(crate) fn redirect_addr(&self, state: &NfHookState, view: &IpView) -> Option<IpAddr> {
        match (state.hook, view.family()) {
            (NfHook::LocalOut, NfProto::Ipv4) => Some(Ipv4Addr::LOCALHOST.into()),
            (NfHook::LocalOut, NfProto::Ipv6) => Some(Ipv6Addr::LOCALHOST.into()),
            (_, NfProto::Ipv4) => {
                let dev = self.devs.get(state.iif?)?;
                dev.in_dev.select_addr(None).map(Into::into)
            }
            (_, NfProto::Ipv6) => inet6_addr(self.devs.get(state.iif?)?).map(Into::into),
        }
    }
}

/// An address of an interface that others beyond the link can answer to.
fn inet6_addr(dev: &NetDev) -> Option<Ipv6Addr> {
    let usable = dev.in6_dev.addrs.iter().filter(|a| a.usable());
    usable.map(|a| a.address.addr()).find(|a| !is_link_local(*a))
}

/// How a packet leaves a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HookVerdict {
    Accept,
    Drop,
    Reject(RejectWith),
}

/// The functions on each hook, in the order of their priority.
#[derive(Default)]
pub(crate) struct Hooks {
    hooks: [Vec<(NfPriority, HookOp)>; 5],
    next: u64,
}

impl Hooks {
    fn add(&mut self, hook: NfHook, priority: NfPriority, op: HookOp) {
        let list = &mut self.hooks[hook as usize];
        // Behind those of the same priority.
        let at = list.partition_point(|(p, _)| *p <= priority);
        list.insert(at, (priority, op));
    }

    /// `nf_register_net_hook`.
    pub(crate) fn register(
        &mut self,
        hook: NfHook,
        priority: NfPriority,
        function: Box<dyn NfHookFn>,
    ) -> NfHookHandle {
        let id = self.next;
        self.next += 1;
        self.add(hook, priority, HookOp::User(id, function));
        NfHookHandle(id)
    }

    /// `nf_unregister_net_hook`.
    pub(crate) fn unregister(&mut self, handle: &NfHookHandle) -> bool {
        for list in &mut self.hooks {
            let at = list
                .iter()
                .position(|(_, op)| matches!(op, HookOp::User(id, _) if *id == handle.0));
            if let Some(at) = at {
                list.remove(at);
                return true;
            }
        }
        false
    }

    pub(crate) fn add_conntrack(&mut self) {
        for hook in [NfHook::PreRouting, NfHook::LocalOut] {
            self.add(hook, NfPriority::CONNTRACK, HookOp::Conntrack);
        }
        for hook in [NfHook::LocalIn, NfHook::PostRouting] {
            self.add(hook, NfPriority::CONNTRACK_CONFIRM, HookOp::Confirm);
        }
    }

    pub(crate) fn add_table(&mut self, table: Table) {
        for &hook in table.hooks() {
            let (priority, op) = match table {
                Table::Raw => (NfPriority::RAW, HookOp::Table(table)),
                Table::Mangle => (NfPriority::MANGLE, HookOp::Table(table)),
                Table::Filter => (NfPriority::FILTER, HookOp::Table(table)),
                Table::Nat => match Manip::of(hook) {
                    Manip::Dst => (NfPriority::NAT_DST, HookOp::Nat),
                    Manip::Src => (NfPriority::NAT_SRC, HookOp::Nat),
                },
            };
            self.add(hook, priority, op);
        }
    }

    pub(crate) fn is_empty(&self, hook: NfHook) -> bool {
        self.hooks[hook as usize].is_empty()
    }

    /// A packet passes the functions of a hook until one stops it (`nf_hook_slow`).
    pub(crate) fn run(
        &mut self,
        skb: &mut SkBuff,
        state: &NfHookState,
        conntrack: &mut Conntrack,
        tables: &mut Tables,
        prng: &mut Prng,
        env: &NfEnv<'_>,
    ) -> HookVerdict {
        for (_, op) in &mut self.hooks[state.hook as usize] {
            let passes = match op {
                HookOp::Conntrack => conntrack.nf_conntrack_in(skb, state.hook == NfHook::LocalOut, env.now),
                HookOp::Confirm => conntrack.nf_conntrack_confirm(skb, env.now),
                HookOp::Nat => conntrack.nf_nat_inet_fn(state.hook, skb, state.oif, prng, |skb| {
                    tables.nat_decision(skb, state, env)
                }),
                HookOp::User(_, function) => function.hook(skb, state) == NfVerdict::Accept,
                HookOp::Table(table) => match tables.do_table(*table, skb, state, env) {
                    TableVerdict::Accept | TableVerdict::Nat(..) => true,
                    TableVerdict::Drop => false,
                    TableVerdict::Reject(with) => return HookVerdict::Reject(with),
                },
            };
            if !passes {
                return HookVerdict::Drop;
            }
        }
        HookVerdict::Accept
    }
}
