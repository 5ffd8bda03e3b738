//! Netfilter: hooks on the way of each IP packet, and what hangs on them (net/netfilter).
//!
//! ```text
//!             PRE_ROUTING            FORWARD           POST_ROUTING
//!  ip_rcv ---> raw ----- route ------> mangle ---------> mangle ---> ip_finish_output
//!              conntrack   |           filter              nat (source)
//!              mangle      v                               confirm
//!              nat (dest)  LOCAL_IN                         ^
//!                          mangle, filter                   |
//!                          nat (source), confirm         LOCAL_OUT
//!                          |                             raw, conntrack, mangle,
//!                          v                             nat (dest), filter, route again
//!                        socket ----------------------------^
//! ```
//! Nothing is registered at first, and then a hook costs one test. A table's first rule registers the table;
//! the first rule that needs connection tracking registers that.
//!
//! ```
//! use hematite_netstack::netfilter::{CtStates, Match, NfHook, Policy, Rule, Table, Target};
//! use hematite_netstack::{Stack, StackConfig};
//!
//! let mut stack = Stack::new(StackConfig::default(), 1);
//! let nf = stack.netfilter_mut();
//! let known = Match::CtState(CtStates::ESTABLISHED | CtStates::RELATED);
//! nf.append(Table::Filter, NfHook::LocalIn, Rule::new(Target::Accept).when(known))?;
//! let ssh = Rule::new(Target::Accept).when(Match::Protocol(6)).when(Match::DestinationPorts(22..=22));
//! nf.append(Table::Filter, NfHook::LocalIn, ssh)?;
//! nf.set_policy(Table::Filter, NfHook::LocalIn, Policy::Drop)?;
//! print!("{}", nf.list());
//! # Ok::<(), hematite_netstack::netfilter::TableError>(())
//! ```

pub mod conntrack;
mod core;
mod nat;
pub(crate) mod packet;
mod reject;
mod tables;

pub use conntrack::{Conn, Conntrack, ConntrackConfig, ConntrackStats, Counter};
pub use core::{NfHook, NfHookFn, NfHookHandle, NfHookState, NfPriority, NfVerdict};
pub use nat::NatRange;
pub use packet::NfProto;
pub use tables::{
    Chain, ChainId, CtStates, Match, Policy, Prefix, PrefixError, RejectWith, Rule, Table, TableError, Target,
};

pub(crate) use conntrack::NfCt;

use std::fmt;

use self::core::{HookVerdict, Hooks, NfEnv};
use crate::core::drop_reason::SkbDropReason;
use crate::core::netdevice::IfIndex;
use crate::core::skb::SkBuff;
use crate::prandom::{Prng, SeededState};
use crate::stack::Stack;
use packet::IpView;
use tables::Tables;

/// All of netfilter (`struct netns_nf`).
pub struct Netfilter {
    hooks: Hooks,
    conntrack: Conntrack,
    conntrack_registered: bool,
    tables: Tables,
    prng: Prng,
}

impl Netfilter {
    pub(crate) fn new(hash: SeededState, prng: Prng) -> Self {
        Self {
            hooks: Hooks::default(),
            conntrack: Conntrack::new(hash),
            conntrack_registered: false,
            tables: Tables::default(),
            prng,
        }
    }

    /// Puts a function on a hook (`nf_register_net_hook`), behind those of the same priority.
    pub fn register_hook(
        &mut self,
        hook: NfHook,
        priority: NfPriority,
        function: impl NfHookFn + 'static,
    ) -> NfHookHandle {
        self.hooks.register(hook, priority, Box::new(function))
    }

    /// Takes a function off its hook. False if it is not of this stack.
    pub fn unregister_hook(&mut self, handle: NfHookHandle) -> bool {
        self.hooks.unregister(&handle)
    }

    /// Begins to track connections, if no rule has done so already.
    pub fn enable_conntrack(&mut self) {
        if !self.conntrack_registered {
            self.conntrack_registered = true;
            self.hooks.add_conntrack();
        }
    }

    /// Connection tracking: counters, connections.
    pub fn conntrack(&self) -> &Conntrack {
        &self.conntrack
    }

    /// Connection tracking, to change its settings or forget connections.
    pub fn conntrack_mut(&mut self) -> &mut Conntrack {
        &mut self.conntrack
    }

    fn ensure(&mut self, table: Table) {
        if self.tables.ensure(table) {
            self.hooks.add_table(table);
            if table == Table::Nat {
                self.enable_conntrack();
            }
        }
    }

    /// Adds a rule at the end of a chain (`iptables -A`).
    ///
    /// # Errors
    /// [`TableError`] if the table has no such chain, the target does not work there, or a jump makes a loop.
    pub fn append(&mut self, table: Table, chain: impl Into<Chain>, rule: Rule) -> Result<(), TableError> {
        self.insert_at(table, chain.into(), None, rule)
    }

    /// Adds a rule before the one at `at`, counted from 0 (`iptables -I`).
    ///
    /// # Errors
    /// As [`Netfilter::append`], and [`TableError::NoRule`] if the chain is shorter.
    pub fn insert(
        &mut self,
        table: Table,
        chain: impl Into<Chain>,
        at: usize,
        rule: Rule,
    ) -> Result<(), TableError> {
        self.insert_at(table, chain.into(), Some(at), rule)
    }

    fn insert_at(
        &mut self,
        table: Table,
        chain: Chain,
        at: Option<usize>,
        rule: Rule,
    ) -> Result<(), TableError> {
        self.ensure(table);
        let needs_conntrack = rule.needs_conntrack();
        self.tables.insert(table, chain, at, rule)?;
        if needs_conntrack {
            self.enable_conntrack();
        }
        Ok(())
    }

    /// Removes the rule at `at` (`iptables -D`).
    ///
    /// # Errors
    /// [`TableError::NoChain`], [`TableError::NoRule`].
    pub fn delete(&mut self, table: Table, chain: impl Into<Chain>, at: usize) -> Result<Rule, TableError> {
        self.tables.delete(table, chain.into(), at)
    }

    /// Removes all rules of a chain (`iptables -F`).
    ///
    /// # Errors
    /// [`TableError::NoChain`].
    pub fn flush(&mut self, table: Table, chain: impl Into<Chain>) -> Result<(), TableError> {
        self.tables.flush(table, chain.into())
    }

    /// What happens to packets that no rule decides on (`iptables -P`).
    ///
    /// # Errors
    /// [`TableError::NoChain`]; [`TableError::Policy`] for a policy other than to accept in the nat table.
    pub fn set_policy(&mut self, table: Table, hook: NfHook, policy: Policy) -> Result<(), TableError> {
        self.ensure(table);
        self.tables.set_policy(table, hook, policy)
    }

    /// Makes a chain that rules can jump to (`iptables -N`).
    ///
    /// # Errors
    /// [`TableError::Exists`].
    pub fn new_chain(&mut self, table: Table, name: &str) -> Result<ChainId, TableError> {
        self.ensure(table);
        self.tables.new_chain(table, name)
    }

    /// Removes a chain with its rules (`iptables -X`).
    ///
    /// # Errors
    /// [`TableError::NoChain`]; [`TableError::InUse`] while rules jump to it.
    pub fn delete_chain(&mut self, table: Table, chain: ChainId) -> Result<(), TableError> {
        self.tables.delete_chain(table, chain)
    }

    /// The rules of a chain with their counters (`iptables -vL`).
    ///
    /// # Errors
    /// [`TableError::NoChain`].
    pub fn rules(&self, table: Table, chain: impl Into<Chain>) -> Result<&[Rule], TableError> {
        self.tables.rules(table, chain.into())
    }

    /// The policy of a base chain and what it decided on.
    ///
    /// # Errors
    /// [`TableError::NoChain`].
    pub fn policy(&self, table: Table, hook: NfHook) -> Result<(Policy, Counter), TableError> {
        self.tables.policy(table, hook)
    }

    /// Sets the counters of all rules and policies to zero (`iptables -Z`).
    pub fn zero(&mut self) {
        self.tables.zero();
    }

    /// All tables, as `iptables -vnL` lists them.
    pub fn list(&self) -> impl fmt::Display + '_ {
        &self.tables
    }

    /// Whether anything hangs on a hook.
    pub(crate) fn is_active(&self, hook: NfHook) -> bool {
        !self.hooks.is_empty(hook)
    }

    /// Whether fragments have to be put together before a hook (`nf_defrag_ipv4`).
    pub(crate) fn wants_defrag(&self) -> bool {
        self.conntrack_registered
    }
}

impl Stack {
    /// Netfilter: its rules, hooks and connections.
    pub fn netfilter(&self) -> &Netfilter {
        &self.nf
    }

    /// Netfilter, to be changed.
    pub fn netfilter_mut(&mut self) -> &mut Netfilter {
        &mut self.nf
    }

    /// A packet, from its network header on, passes a hook (`NF_HOOK`). None if it went no further; it is
    /// dropped and counted then, and its sender told if a rule wants that.
    pub(crate) fn nf_hook(
        &mut self,
        hook: NfHook,
        skb: SkBuff,
        iif: Option<IfIndex>,
        oif: Option<IfIndex>,
    ) -> Option<SkBuff> {
        if !self.nf.is_active(hook) {
            return Some(skb);
        }
        self.nf_hook_slow(hook, skb, iif, oif)
    }

    fn nf_hook_slow(
        &mut self,
        hook: NfHook,
        mut skb: SkBuff,
        iif: Option<IfIndex>,
        oif: Option<IfIndex>,
    ) -> Option<SkBuff> {
        let Some(pf) = NfProto::of_skb(&skb) else {
            return Some(skb);
        };
        let state = NfHookState { hook, pf, iif, oif };
        let env = NfEnv {
            devs: &self.devs,
            now: self.now,
        };
        let Netfilter {
            hooks,
            conntrack,
            tables,
            prng,
            ..
        } = &mut self.nf;
        match hooks.run(&mut skb, &state, conntrack, tables, prng, &env) {
            HookVerdict::Accept => return Some(skb),
            HookVerdict::Drop => {}
            HookVerdict::Reject(with) => self.nf_reject(&skb, with),
        }
        self.kfree_skb(skb, SkbDropReason::NetfilterDrop);
        None
    }

    /// What of a packet decides its route; compared before and after the hook that may change it.
    pub(crate) fn nf_route_key(skb: &SkBuff) -> Option<RouteKey> {
        let view = IpView::of_skb(skb)?;
        Some((view.saddr, view.daddr, view.tos, skb.mark()))
    }

    /// Time passes: connections end, as their timeouts say.
    pub(crate) fn nf_timers(&mut self) {
        let now = self.now;
        self.nf.conntrack.expire(now);
    }
}

/// Source, destination, type of service, mark.
pub(crate) type RouteKey = (std::net::IpAddr, std::net::IpAddr, u8, u32);
