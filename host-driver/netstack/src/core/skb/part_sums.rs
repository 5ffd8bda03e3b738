//! Checksums of what is in a page, taken when it was written, since its bytes are at hand then and hardly later
//! (`csum_and_copy_from_user`).

use crate::core::checksum::Sum;

/// Sums of parts of a page, in their order.
#[derive(Debug, Default)]
pub(super) struct PartSums(Vec<PartSum>);

#[derive(Debug, Clone, Copy)]
struct PartSum {
    start: u32,
    end: u32,
    sum: Sum,
}

/// Bytes of a part at least, as a rule; a page has room for the sums of so many from the beginning.
const PART: usize = 1024;

impl PartSums {
    /// Those of a page of `size` bytes.
    pub(super) fn of_page(size: usize) -> Self {
        Self(Vec::with_capacity(size / PART + 2))
    }

    /// Forgets what is written over from `start` on.
    pub(super) fn truncate(&mut self, start: u32) {
        let kept = self.0.partition_point(|part| part.end <= start);
        self.0.truncate(kept);
    }

    /// Notes the sum of the part from `start` to `end`, which is behind those that are known.
    pub(super) fn push(&mut self, start: u32, end: u32, sum: Sum) {
        self.0.push(PartSum { start, end, sum });
    }

    /// The sum of the bytes from `start` to `end`, if they are a part. `near` is where it may be, and then where the next
    /// one is.
    #[inline(always)]
    pub(super) fn get(&self, start: u32, end: u32, near: &mut usize) -> Option<Sum> {
        let sum = self.at(*near, start, end);
        if sum.is_some() {
            *near += 1;
            return sum;
        }
        self.find(start, end, near)
    }

    #[inline(always)]
    fn at(&self, at: usize, start: u32, end: u32) -> Option<Sum> {
        let part = self.0.get(at)?;
        (part.start == start && part.end == end).then_some(part.sum)
    }

    #[inline(never)]
    fn find(&self, start: u32, end: u32, near: &mut usize) -> Option<Sum> {
        let at = self.0.partition_point(|part| part.start < start);
        *near = at + 1;
        self.at(at, start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_and_nothing_else() {
        let mut sums = PartSums::default();
        for (start, end) in [(0, 3), (3, 8), (8, 10)] {
            sums.push(start, end, Sum::from_folded(end as u16));
        }
        for near in 0..5 {
            let get = |start, end| sums.get(start, end, &mut { near }).map(|sum| sum.folded());
            assert_eq!((get(0, 3), get(3, 8), get(8, 10)), (Some(3), Some(8), Some(10)));
            assert_eq!(
                (get(0, 8), get(3, 7), get(4, 8), get(10, 12), get(8, 8)),
                (None, None, None, None, None)
            );
        }
        let mut near = 0;
        assert!(sums.get(3, 8, &mut near).is_some());
        assert_eq!(near, 2, "the next one is there");
        sums.truncate(9);
        assert_eq!((sums.get(8, 10, &mut 0), sums.0.len()), (None, 2));
    }
}
