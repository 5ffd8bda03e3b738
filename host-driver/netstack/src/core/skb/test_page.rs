//! A [`DevicePage`] for tests.

use super::DevicePage;

/// Memory of a device.
pub(crate) struct TestPage(pub(crate) Vec<u8>);

impl TestPage {
    /// What each costs, however short.
    pub(crate) const TRUESIZE: usize = 4096;
}

impl DevicePage for TestPage {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn truesize(&self) -> usize {
        Self::TRUESIZE
    }

    fn read(&self, offset: usize, to: &mut [u8]) {
        let from = self.0.get(offset..).unwrap_or(&[]);
        let len = from.len().min(to.len());
        to[..len].copy_from_slice(&from[..len]);
    }
}
