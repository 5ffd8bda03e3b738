//! A hook before the skb exists (`net/core/xdp.c`, `virtnet_xdp_handler`): a program sees each received frame,
//! may change it, and says what becomes of it. What it drops costs neither an skb nor a way through the stack.

/// Room before and behind the frame for a program to grow it into (`XDP_PACKET_HEADROOM`).
pub const XDP_PACKET_HEADROOM: usize = 256;

/// What becomes of a frame (`enum xdp_action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpAction {
    /// The program failed: dropped, and told to whoever traces (`trace_xdp_exception`).
    Aborted,
    /// Dropped.
    Drop,
    /// On to the stack, as the program left it.
    Pass,
    /// Back out of the interface that it came by.
    Tx,
    /// Out of another interface, by a number that the owner of the driver understands.
    Redirect(u32),
}

/// A frame, Ethernet header first (`struct xdp_buff`).
#[derive(Debug, Default)]
pub struct XdpBuff {
    memory: Vec<u8>,
    data: usize,
    data_end: usize,
}

/// A program wants more room than there is, or less frame than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room to move the edge of the frame")]
pub struct XdpAdjustError;

impl XdpBuff {
    /// Makes room for a frame of `len` bytes and returns it, with old content. Memory is kept from frame to
    /// frame.
    pub(crate) fn prepare(&mut self, len: usize) -> &mut [u8] {
        self.memory.resize(len + 2 * XDP_PACKET_HEADROOM, 0);
        (self.data, self.data_end) = (XDP_PACKET_HEADROOM, XDP_PACKET_HEADROOM + len);
        self.data_mut()
    }

    /// The frame.
    pub fn data(&self) -> &[u8] {
        self.memory.get(self.data..self.data_end).unwrap_or(&[])
    }

    /// The frame, to be changed.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.data..self.data_end).unwrap_or(&mut [])
    }

    /// Moves the beginning of the frame: back into the room before it, or forward (`bpf_xdp_adjust_head`).
    ///
    /// # Errors
    /// [`XdpAdjustError`] beyond the room or the end; nothing is changed.
    pub fn adjust_head(&mut self, delta: isize) -> Result<(), XdpAdjustError> {
        let data = self
            .data
            .checked_add_signed(delta)
            .filter(|&at| at <= self.data_end);
        self.data = data.ok_or(XdpAdjustError)?;
        Ok(())
    }

    /// Moves the end of the frame: forward into the room behind it, or back (`bpf_xdp_adjust_tail`).
    ///
    /// # Errors
    /// [`XdpAdjustError`] beyond the room or the beginning; nothing is changed.
    pub fn adjust_tail(&mut self, delta: isize) -> Result<(), XdpAdjustError> {
        let end = self.data_end.checked_add_signed(delta);
        let end = end.filter(|&at| at >= self.data && at <= self.memory.len());
        self.data_end = end.ok_or(XdpAdjustError)?;
        Ok(())
    }
}

/// A program on the hook. Closures are programs.
pub trait XdpProgram: Send {
    /// A frame came in.
    fn run(&mut self, xdp: &mut XdpBuff) -> XdpAction;
}

impl<F: FnMut(&mut XdpBuff) -> XdpAction + Send> XdpProgram for F {
    fn run(&mut self, xdp: &mut XdpBuff) -> XdpAction {
        self(xdp)
    }
}

/// Counters of the hook, as `ethtool -S` has them for virtio_net.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct XdpStats {
    /// Frames that the program saw.
    pub packets: u64,
    /// Frames that it dropped, or on which it failed.
    pub drops: u64,
    /// Those of them on which it failed.
    pub aborted: u64,
    /// Frames sent back.
    pub tx: u64,
    /// Frames to be sent back for which there was no room.
    pub tx_drops: u64,
    /// Frames redirected.
    pub redirects: u64,
    /// Frames to be redirected that nobody took.
    pub redirect_errors: u64,
}

impl std::ops::Add for XdpStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            drops: self.drops + other.drops,
            aborted: self.aborted + other.aborted,
            tx: self.tx + other.tx,
            tx_drops: self.tx_drops + other.tx_drops,
            redirects: self.redirects + other.redirects,
            redirect_errors: self.redirect_errors + other.redirect_errors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_move_within_the_room_only() {
        let mut xdp = XdpBuff::default();
        xdp.prepare(4).copy_from_slice(b"abcd");
        assert_eq!(xdp.adjust_head(1), Ok(()));
        assert_eq!(xdp.adjust_tail(-1), Ok(()));
        assert_eq!(xdp.data(), b"bc");
        assert_eq!(xdp.adjust_head(3), Err(XdpAdjustError));
        assert_eq!(xdp.adjust_head(-258), Err(XdpAdjustError));
        assert_eq!(xdp.adjust_tail(isize::MAX), Err(XdpAdjustError));
        assert_eq!(xdp.adjust_head(-257), Ok(()));
        assert_eq!(xdp.adjust_tail(257), Ok(()));
        assert_eq!(xdp.data().len(), 4 + 2 * XDP_PACKET_HEADROOM);
        assert_eq!(&xdp.data()[256..260], b"abcd");
    }
}
