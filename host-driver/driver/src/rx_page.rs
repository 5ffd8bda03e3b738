//! The buffers of one received packet, and how they are lent to the stack (`page_pool`).
//!
//! A packet that fills its buffers is not copied: they go up with it, others take their place in the ring, and they come
//! back when the stack is done with the packet, wherever and on whatever thread that is.

use std::sync::mpsc::{Receiver, Sender, channel};

use hematite_bus::{Cpu, DmaBuf, OutOfBounds};
use hematite_netstack::DevicePage;

/// Buffers of one packet, in order, with the bytes used of each.
#[derive(Default)]
pub(crate) struct Parts(pub(crate) Vec<(DmaBuf<Cpu>, usize)>);

impl Parts {
    /// Bytes used.
    fn len(&self) -> usize {
        self.0.iter().map(|(_, len)| len).sum()
    }

    /// Bytes of the buffers.
    pub(crate) fn truesize(&self) -> usize {
        self.0.iter().map(|(buffer, _)| buffer.len()).sum()
    }

    /// Copies the packet's bytes from `offset` on, as many as fit, or as there are.
    pub(crate) fn read(&self, mut offset: usize, mut to: &mut [u8]) -> Result<(), OutOfBounds> {
        for (buffer, len) in &self.0 {
            if to.is_empty() {
                break;
            }
            let Some(left) = len.checked_sub(offset) else {
                offset -= len;
                continue;
            };
            let (now, later) = to.split_at_mut(left.min(to.len()));
            buffer.copy_to_slice(offset, now)?;
            (offset, to) = (0, later);
        }
        Ok(())
    }
}

/// Lends the buffers of packets, up to a number of buffers.
pub(crate) struct Lender {
    home: Sender<Parts>,
    returned: Receiver<Parts>,
    lent: usize,
    /// So many at most.
    pub(crate) most: usize,
    /// Lists without buffers, to be used again.
    empty: Vec<Parts>,
}

impl Lender {
    pub(crate) fn new() -> Self {
        let (home, returned) = channel();
        Self {
            home,
            returned,
            lent: 0,
            most: 0,
            empty: Vec::new(),
        }
    }

    /// Whether so many more may be lent.
    pub(crate) fn may_lend(&self, buffers: usize) -> bool {
        self.lent + buffers <= self.most
    }

    /// Appends what came back to `spare`.
    pub(crate) fn collect(&mut self, spare: &mut Vec<DmaBuf<Cpu>>) {
        while let Ok(mut parts) = self.returned.try_recv() {
            self.lent -= parts.0.len();
            spare.extend(parts.0.drain(..).map(|(buffer, _)| buffer));
            self.empty.push(parts);
        }
    }

    /// Lends the buffers of a packet; `parts` is empty then.
    pub(crate) fn lend(&mut self, parts: &mut Parts) -> Box<dyn DevicePage> {
        let parts = std::mem::replace(parts, self.empty.pop().unwrap_or_default());
        self.lent += parts.0.len();
        Box::new(Loan {
            len: parts.len(),
            parts,
            home: self.home.clone(),
        })
    }
}

/// A packet's buffers in the stack's hands. Dropped, they go home, or are freed if nobody is there any more.
struct Loan {
    parts: Parts,
    len: usize,
    home: Sender<Parts>,
}

impl DevicePage for Loan {
    fn len(&self) -> usize {
        self.len
    }

    fn truesize(&self) -> usize {
        self.parts.truesize()
    }

    fn read(&self, offset: usize, to: &mut [u8]) {
        // Cannot fail: no part is longer than its buffer.
        let _ = self.parts.read(offset, to);
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // An error is the list itself, whose buffers are freed with it.
        drop(self.home.send(std::mem::take(&mut self.parts)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hematite_bus::DmaSpace;

    /// A packet of the bytes 0, 1, 2 ... in buffers of 64 bytes that are used to these lengths.
    fn packet(space: &DmaSpace, lens: &[usize]) -> Parts {
        let mut next = 0u8;
        let part = |&len: &usize| {
            let mut buffer = DmaBuf::new(space, 64).unwrap();
            let bytes: Vec<u8> = (next..).take(len).collect();
            next += len as u8;
            buffer.copy_from_slice(0, &bytes).unwrap();
            (buffer, len)
        };
        Parts(lens.iter().map(part).collect())
    }

    #[test]
    fn any_bytes_of_a_packet_are_read() {
        let space = DmaSpace::new().unwrap();
        let parts = packet(&space, &[64, 1, 0, 30]);
        for offset in 0..100usize {
            for len in 0..100 {
                let mut to = vec![0xff; len];
                parts.read(offset, &mut to).unwrap();
                let there = len.min(95usize.saturating_sub(offset));
                assert!(to[..there].iter().copied().eq((offset as u8..).take(there)));
                assert!(to[there..].iter().all(|&byte| byte == 0xff), "behind the packet");
            }
        }
    }

    #[test]
    fn lent_buffers_come_back_from_any_thread() {
        let space = DmaSpace::new().unwrap();
        let mut lender = Lender::new();
        lender.most = 3;
        let mut parts = packet(&space, &[64, 7]);
        assert!(lender.may_lend(3) && !lender.may_lend(4));
        let page = lender.lend(&mut parts);
        assert!(parts.0.is_empty() && !lender.may_lend(2));
        assert_eq!((page.len(), page.truesize()), (71, 128));
        let page = std::thread::spawn(move || {
            let mut last = [0; 2];
            page.read(69, &mut last);
            assert_eq!(last, [69, 70]);
            page
        });
        let mut spare = Vec::new();
        lender.collect(&mut spare);
        assert!(spare.is_empty());
        drop(page.join().unwrap());
        lender.collect(&mut spare);
        assert_eq!((spare.len(), lender.may_lend(3)), (2, true));
    }

    #[test]
    fn buffers_without_a_home_are_freed() {
        let space = DmaSpace::new().unwrap();
        let mut lender = Lender::new();
        let page = lender.lend(&mut packet(&space, &[64, 64]));
        drop(lender);
        assert_eq!(space.stats().allocations, 2);
        drop(page);
        assert_eq!(space.stats().allocations, 0);
    }
}
