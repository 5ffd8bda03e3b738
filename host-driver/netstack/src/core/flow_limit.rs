//! Flow limit (`skb_flow_limit` in net/core/dev.c; "RPS Flow Limit" in Documentation/networking/scaling.rst): when the
//! backlog of a CPU fills up, flows that most of it is of lose packets before others do.

use super::rps::CpuMask;
use super::softnet::CpuId;
use crate::errno::Errno;
use crate::stack::Stack;

/// Packets that are remembered (`FLOW_LIMIT_HISTORY`). A flow that half of them are of is over the limit.
const FLOW_LIMIT_HISTORY: usize = 128;

/// Of which flows the last packets of one CPU were, told apart by a hash (`struct sd_flow_limit`).
#[derive(Debug)]
pub(super) struct FlowLimit {
    history: [Option<u32>; FLOW_LIMIT_HISTORY],
    head: usize,
    /// A power of two of them: packets in the history.
    buckets: Vec<u8>,
}

impl FlowLimit {
    /// With so many buckets at least.
    fn new(table_len: usize) -> Self {
        Self {
            history: [None; FLOW_LIMIT_HISTORY],
            head: 0,
            buckets: vec![0; table_len.next_power_of_two()],
        }
    }

    /// Whether the flow of another packet is over the limit.
    pub(super) fn is_over(&mut self, hash: u32) -> bool {
        let new = hash & (self.buckets.len() - 1) as u32;
        if let Some(old) = self.history[self.head].replace(new) {
            self.buckets[old as usize] -= 1;
        }
        self.head = (self.head + 1) % FLOW_LIMIT_HISTORY;
        self.buckets[new as usize] += 1;
        usize::from(self.buckets[new as usize]) > FLOW_LIMIT_HISTORY / 2
    }
}

impl Stack {
    /// The CPUs with a flow limit (net.core.flow_limit_cpu_bitmap); none, the default. Those that had one keep their
    /// history; others begin with one of net.core.flow_limit_table_len.
    ///
    /// # Errors
    /// [`Errno::Inval`] with a CPU that does not exist.
    pub fn set_flow_limit_cpus(&mut self, cpus: CpuMask) -> Result<(), Errno> {
        if cpus.iter().any(|cpu| cpu.0 >= self.softnet.len()) {
            return Err(Errno::Inval);
        }
        let table_len = self.config.flow_limit_table_len;
        for cpu in 0..self.softnet.len() {
            let Some(limit) = self.softnet.flow_limit(CpuId(cpu)) else {
                continue;
            };
            if cpus.iter().all(|c| c.0 != cpu) {
                *limit = None;
            } else if limit.is_none() {
                *limit = Some(FlowLimit::new(table_len));
            }
        }
        Ok(())
    }

    /// See [`Stack::set_flow_limit_cpus`].
    pub fn flow_limit_cpus(&mut self) -> CpuMask {
        let cpus = 0..self.softnet.len();
        let limited = cpus.filter(|cpu| {
            let limit = self.softnet.flow_limit(CpuId(*cpu));
            limit.is_some_and(|l| l.is_some())
        });
        CpuMask(limited.fold(0, |mask, cpu| mask | 1 << cpu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::config())]
        /// Against a count of the last packets.
        #[test]
        fn a_flow_is_over_when_half_of_the_last_packets_are_of_it(
            hashes in proptest::collection::vec(prop_oneof![3 => Just(5u32), 2 => any::<u32>()], 0..600),
        ) {
            let mut limit = FlowLimit::new(60);
            let mut history = Vec::new();
            for hash in hashes {
                history.push(hash & 63);
                let last = &history[history.len().saturating_sub(FLOW_LIMIT_HISTORY)..];
                let count = last.iter().filter(|h| **h == hash & 63).count();
                prop_assert_eq!(limit.is_over(hash), count > FLOW_LIMIT_HISTORY / 2);
            }
        }
    }
}
