//! Rule tables (net/netfilter/x_tables.c, net/ipv4/netfilter/ip_tables.c): tables of chains of rules, one set
//! for both families.

mod rule;

use std::fmt;

use bitflags::bitflags;
use thiserror::Error;
use tracing::info;

pub use rule::{CtStates, Match, Prefix, PrefixError, RejectWith, Rule, Target};

use super::NfHook;
use super::conntrack::{Counter, NfCt};
use super::core::{NfEnv, NfHookState};
use super::nat::{NatDecision, NatRange};
use super::packet::IpView;
use crate::core::skb::SkBuff;

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Before connection tracking.
    Raw,
    /// Changes to packets.
    Mangle,
    /// Address translation; only the first packet of a connection comes here.
    Nat,
    /// What may pass.
    Filter,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Mangle, Self::Nat, Self::Filter];

    /// The hooks that the table has chains for.
    pub const fn hooks(self) -> &'static [NfHook] {
        use NfHook::{Forward, LocalIn, LocalOut, PostRouting, PreRouting};
        match self {
            Self::Raw => &[PreRouting, LocalOut],
            Self::Mangle => &[PreRouting, LocalIn, Forward, LocalOut, PostRouting],
            Self::Nat => &[PreRouting, LocalIn, LocalOut, PostRouting],
            Self::Filter => &[LocalIn, Forward, LocalOut],
        }
    }

    /// Name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }
}

/// A chain of the user's, from [`Netfilter::new_chain`](super::Netfilter::new_chain).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainId(u32);

/// A chain of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Chain {
    /// The one that a hook begins with.
    Base(NfHook),
    /// One that rules jump to.
    User(ChainId),
}

impl From<NfHook> for Chain {
    fn from(hook: NfHook) -> Self {
        Self::Base(hook)
    }
}

impl From<ChainId> for Chain {
    fn from(id: ChainId) -> Self {
        Self::User(id)
    }
}

/// What happens to a packet that no rule of a base chain decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// It passes.
    #[default]
    Accept,
    /// It is dropped.
    Drop,
}

/// A change of the rules that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TableError {
    /// The table has no such chain.
    #[error("no such chain in the table")]
    NoChain,
    /// The chain has no such rule.
    #[error("no such rule in the chain")]
    NoRule,
    /// The name is taken.
    #[error("a chain of the name exists")]
    Exists,
    /// Rules jump to the chain.
    #[error("the chain is in use")]
    InUse,
    /// A jump would lead back to its own chain.
    #[error("the jump makes a loop")]
    Loop,
    /// The target does not work in a table or at a hook from where the rule is reached.
    #[error("the target is not valid here")]
    Target,
    /// Only base chains have a policy, and in the nat table it must be to accept.
    #[error("the chain has no policy to set")]
    Policy,
}

bitflags! {
    /// Hooks from which a chain is reached.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Hooks: u8 {
        const ALL = 0b1_1111;
    }
}

impl Hooks {
    const fn of(hook: NfHook) -> Self {
        Self::from_bits_retain(1 << hook as u8)
    }
}

#[derive(Debug)]
struct ChainRules {
    table: Table,
    hook: Option<NfHook>,
    name: Box<str>,
    policy: Policy,
    /// Packets that the policy decided on.
    counter: Counter,
    rules: Vec<Rule>,
}

/// All chains of all tables.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// A removed chain leaves an empty place.
    chains: Vec<Option<ChainRules>>,
    /// Where to go on after jumps, kept to be used again.
    returns: Vec<(usize, usize)>,
}

/// What a table says about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TableVerdict {
    Accept,
    Drop,
    Reject(RejectWith),
    Nat(NatRange, Masquerade),
}

/// Whether the translated address comes from the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Masquerade {
    No,
    Yes,
}

impl Tables {
    fn find(&self, table: Table, chain: Chain) -> Result<usize, TableError> {
        let found = match chain {
            Chain::Base(hook) => self.chains.iter().position(|c| {
                c.as_ref()
                    .is_some_and(|c| c.table == table && c.hook == Some(hook))
            }),
            Chain::User(ChainId(id)) => Some(id as usize).filter(|&id| {
                let chain = self.chains.get(id).and_then(Option::as_ref);
                chain.is_some_and(|c| c.table == table)
            }),
        };
        found.ok_or(TableError::NoChain)
    }

    fn chain(&self, table: Table, chain: Chain) -> Result<&ChainRules, TableError> {
        let at = self.find(table, chain)?;
        self.chains
            .get(at)
            .and_then(Option::as_ref)
            .ok_or(TableError::NoChain)
    }

    fn chain_mut(&mut self, table: Table, chain: Chain) -> Result<&mut ChainRules, TableError> {
        let at = self.find(table, chain)?;
        self.chains
            .get_mut(at)
            .and_then(Option::as_mut)
            .ok_or(TableError::NoChain)
    }

    /// The base chains of a table exist from its first use on. True if they are new.
    pub(crate) fn ensure(&mut self, table: Table) -> bool {
        if self.chains.iter().flatten().any(|c| c.table == table) {
            return false;
        }
        for &hook in table.hooks() {
            self.chains.push(Some(ChainRules {
                table,
                hook: Some(hook),
                name: hook.chain_name().into(),
                policy: Policy::Accept,
                counter: Counter::default(),
                rules: Vec::new(),
            }));
        }
        true
    }

    pub(crate) fn new_chain(&mut self, table: Table, name: &str) -> Result<ChainId, TableError> {
        if self
            .chains
            .iter()
            .flatten()
            .any(|c| c.table == table && &*c.name == name)
        {
            return Err(TableError::Exists);
        }
        self.chains.push(Some(ChainRules {
            table,
            hook: None,
            name: name.into(),
            policy: Policy::Accept,
            counter: Counter::default(),
            rules: Vec::new(),
        }));
        Ok(ChainId((self.chains.len() - 1) as u32))
    }

    pub(crate) fn delete_chain(&mut self, table: Table, id: ChainId) -> Result<(), TableError> {
        let at = self.find(table, Chain::User(id))?;
        let jumps = self.chains.iter().flatten().flat_map(|c| &c.rules);
        if jumps.into_iter().any(|r| *r.target() == Target::Jump(id)) {
            return Err(TableError::InUse);
        }
        match self.chains.get_mut(at) {
            Some(chain) if chain.as_ref().is_some_and(|c| c.hook.is_none()) => {
                *chain = None;
                Ok(())
            }
            _ => Err(TableError::NoChain),
        }
    }

    /// Inserts a rule before that at `at`, or at the end.
    pub(crate) fn insert(
        &mut self,
        table: Table,
        chain: Chain,
        at: Option<usize>,
        rule: Rule,
    ) -> Result<(), TableError> {
        let rules = &mut self.chain_mut(table, chain)?.rules;
        let at = at.unwrap_or(rules.len());
        if at > rules.len() {
            return Err(TableError::NoRule);
        }
        rules.insert(at, rule);
        let checked = self.check(table);
        if checked.is_err()
            && let Ok(chain) = self.chain_mut(table, chain)
        {
            chain.rules.remove(at);
        }
        checked
    }

    pub(crate) fn delete(&mut self, table: Table, chain: Chain, at: usize) -> Result<Rule, TableError> {
        let rules = &mut self.chain_mut(table, chain)?.rules;
        if at >= rules.len() {
            return Err(TableError::NoRule);
        }
        Ok(rules.remove(at))
    }

    pub(crate) fn flush(&mut self, table: Table, chain: Chain) -> Result<(), TableError> {
        self.chain_mut(table, chain)?.rules.clear();
        Ok(())
    }

    pub(crate) fn set_policy(
        &mut self,
        table: Table,
        hook: NfHook,
        policy: Policy,
    ) -> Result<(), TableError> {
        if table == Table::Nat && policy == Policy::Drop {
            return Err(TableError::Policy);
        }
        self.chain_mut(table, hook.into())?.policy = policy;
        Ok(())
    }

    pub(crate) fn rules(&self, table: Table, chain: Chain) -> Result<&[Rule], TableError> {
        Ok(&self.chain(table, chain)?.rules)
    }

    pub(crate) fn policy(&self, table: Table, hook: NfHook) -> Result<(Policy, Counter), TableError> {
        self.chain(table, hook.into()).map(|c| (c.policy, c.counter))
    }

    pub(crate) fn zero(&mut self) {
        for chain in self.chains.iter_mut().flatten() {
            chain.counter = Counter::default();
            for rule in &mut chain.rules {
                rule.counter = Counter::default();
            }
        }
    }

    /// No loops, and every target valid at every hook that reaches it (`mark_source_chains`).
    fn check(&self, table: Table) -> Result<(), TableError> {
        for (at, chain) in self.chains.iter().enumerate() {
            let Some(chain) = chain.as_ref().filter(|c| c.table == table) else {
                continue;
            };
            // A chain that nothing reaches yet is checked for what its table allows anywhere.
            let hooks = chain.hook.map_or(Hooks::ALL, Hooks::of);
            self.check_chain(at, table, hooks, chain.hook.is_some(), 0)?;
        }
        Ok(())
    }

    fn check_chain(
        &self,
        at: usize,
        table: Table,
        hooks: Hooks,
        reached: bool,
        depth: usize,
    ) -> Result<(), TableError> {
        // Longer than all chains in a row: some chain comes twice.
        if depth > self.chains.len() {
            return Err(TableError::Loop);
        }
        let Some(chain) = self.chains.get(at).and_then(Option::as_ref) else {
            return Err(TableError::NoChain);
        };
        for rule in &chain.rules {
            if let Target::Jump(id) = rule.target() {
                let next = self.find(table, Chain::User(*id))?;
                self.check_chain(next, table, hooks, reached, depth + 1)?;
                continue;
            }
            let (tables, valid) = valid_at(rule.target());
            let here = if reached {
                valid.contains(hooks)
            } else {
                valid.intersects(hooks)
            };
            if !tables.contains(&table) || !here {
                return Err(TableError::Target);
            }
        }
        Ok(())
    }

    /// A packet goes through a table (`ipt_do_table`).
    pub(crate) fn do_table(
        &mut self,
        table: Table,
        skb: &mut SkBuff,
        state: &NfHookState,
        env: &NfEnv<'_>,
    ) -> TableVerdict {
        let Some(view) = IpView::of_skb(skb) else {
            // What cannot be read cannot be judged.
            return TableVerdict::Drop;
        };
        let Ok(base) = self.find(table, Chain::Base(state.hook)) else {
            return TableVerdict::Accept;
        };
        self.returns.clear();
        let (mut at, mut next) = (base, 0);
        loop {
            let rule = match self.chains.get_mut(at).and_then(Option::as_mut) {
                Some(chain) => chain.rules.get_mut(next),
                None => None,
            };
            next += 1;
            let Some(rule) = rule else {
                // The end of the chain.
                match self.returns.pop() {
                    Some(back) => (at, next) = back,
                    None => return self.policy_verdict(base, skb),
                }
                continue;
            };
            if !rule.applies(skb, &view, state) {
                continue;
            }
            rule.counter.count(skb.len());
            match rule.target() {
                Target::Accept => return TableVerdict::Accept,
                Target::Drop => return TableVerdict::Drop,
                Target::Reject(with) => return TableVerdict::Reject(*with),
                Target::Dnat(range) | Target::Snat(range) if range.fits(view.family()) => {
                    return TableVerdict::Nat(range.clone(), Masquerade::No);
                }
                // A rule for the other family.
                Target::Dnat(_) | Target::Snat(_) => {}
                Target::Masquerade(ports) => {
                    let Some(addr) = env.masquerade_addr(state, &view) else {
                        return TableVerdict::Drop;
                    };
                    let ports = ports.clone();
                    let addrs = Some((addr, addr));
                    return TableVerdict::Nat(NatRange { addrs, ports }, Masquerade::Yes);
                }
                Target::Redirect(ports) => {
                    let Some(addr) = env.redirect_addr(state, &view) else {
                        return TableVerdict::Drop;
                    };
                    let ports = ports.clone();
                    let addrs = Some((addr, addr));
                    return TableVerdict::Nat(NatRange { addrs, ports }, Masquerade::No);
                }
                Target::NoTrack => skb.set_nfct(Some(NfCt::Untracked)),
                Target::Mark { value, mask } => skb.set_mark(skb.mark() & !mask | value & mask),
                Target::Log(prefix) => info!(
                    target: "hematite_netstack::netfilter",
                    prefix = %prefix, hook = state.hook.chain_name(), iif = ?state.iif, oif = ?state.oif,
                    saddr = %view.saddr, daddr = %view.daddr, protocol = view.protocol, len = skb.len(),
                ),
                Target::Jump(ChainId(id)) => {
                    let id = *id as usize;
                    self.returns.push((at, next));
                    (at, next) = (id, 0);
                }
                Target::Return => match self.returns.pop() {
                    Some(back) => (at, next) = back,
                    None => return self.policy_verdict(base, skb),
                },
            }
        }
    }

    fn policy_verdict(&mut self, base: usize, skb: &SkBuff) -> TableVerdict {
        match self.chains.get_mut(base).and_then(Option::as_mut) {
            Some(chain) => {
                chain.counter.count(skb.len());
                match chain.policy {
                    Policy::Accept => TableVerdict::Accept,
                    Policy::Drop => TableVerdict::Drop,
                }
            }
            None => TableVerdict::Accept,
        }
    }

    /// What the nat table says about a first packet.
    pub(crate) fn nat_decision(
        &mut self,
        skb: &mut SkBuff,
        state: &NfHookState,
        env: &NfEnv<'_>,
    ) -> NatDecision {
        match self.do_table(Table::Nat, skb, state, env) {
            TableVerdict::Accept => NatDecision::Nothing,
            TableVerdict::Nat(range, masquerade) => {
                let oif = state.oif.filter(|_| masquerade == Masquerade::Yes);
                NatDecision::Translate(range, oif)
            }
            TableVerdict::Drop | TableVerdict::Reject(_) => NatDecision::Drop,
        }
    }
}

/// Tables and hooks that a target works in (`xt_target.table`, `.hooks`).
fn valid_at(target: &Target) -> (&'static [Table], Hooks) {
    let before = Hooks::of(NfHook::PreRouting).union(Hooks::of(NfHook::LocalOut));
    let after = Hooks::of(NfHook::PostRouting).union(Hooks::of(NfHook::LocalIn));
    let filtered = Hooks::of(NfHook::LocalIn)
        .union(Hooks::of(NfHook::Forward))
        .union(Hooks::of(NfHook::LocalOut));
    match target {
        Target::Dnat(range) if range.is_valid() => (&[Table::Nat], before),
        Target::Snat(range) if range.is_valid() => (&[Table::Nat], after),
        Target::Dnat(_) | Target::Snat(_) => (&[], Hooks::empty()),
        Target::Redirect(_) => (&[Table::Nat], before),
        Target::Masquerade(_) => (&[Table::Nat], Hooks::of(NfHook::PostRouting)),
        Target::NoTrack => (&[Table::Raw], before),
        Target::Mark { .. } => (&[Table::Mangle], Hooks::ALL),
        Target::Reject(_) => (&[Table::Filter], filtered),
        Target::Accept | Target::Drop | Target::Log(_) | Target::Jump(_) | Target::Return => {
            (&Table::ALL, Hooks::ALL)
        }
    }
}

impl fmt::Display for Tables {
    /// As `iptables -vnL` lists them, table by table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chain in self.chains.iter().flatten() {
            let Counter { packets, bytes } = chain.counter;
            match chain.hook {
                Some(_) => writeln!(
                    f,
                    "{} {} (policy {:?} {packets} packets, {bytes} bytes)",
                    chain.table.name(),
                    chain.name,
                    chain.policy
                )?,
                None => writeln!(f, "{} {}", chain.table.name(), chain.name)?,
            }
            for rule in &chain.rules {
                let Counter { packets, bytes } = rule.counter;
                write!(f, "{packets:>8} {bytes:>10} {}", rule.target().name())?;
                for (holds, condition) in rule.matches() {
                    write!(f, " {}{condition:?}", if holds { "" } else { "! " })?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}
