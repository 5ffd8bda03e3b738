//! The states of a connection and of what keeps it going.

use bitflags::bitflags;

/// State of a connection (RFC 9293 section 3.3.2), with Linux's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TcpState {
    /// Data flows.
    Established = 1,
    /// We began a handshake.
    SynSent = 2,
    /// The peer began one, or both did.
    SynRecv = 3,
    /// We have finished.
    FinWait1 = 4,
    /// We have finished, and the peer knows.
    FinWait2 = 5,
    /// Both have finished; old segments die out.
    TimeWait = 6,
    /// No connection.
    #[default]
    Close = 7,
    /// The peer has finished.
    CloseWait = 8,
    /// The peer has finished, then we.
    LastAck = 9,
    /// Handshakes are welcome.
    Listen = 10,
    /// Both have finished, and we do not know that the peer knows.
    Closing = 11,
}

bitflags! {
    /// Halves that are shut down (`sk->sk_shutdown`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct Shut: u8 {
        const RCV = 1;
        const SEND = 2;
    }
}

/// State of congestion control (`enum tcp_ca_state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum CaState {
    /// Nothing unusual.
    #[default]
    Open,
    /// Something is out of order.
    Disorder,
    /// The window is being reduced, without a loss.
    Cwr,
    /// A loss is being repaired.
    Recovery,
    /// A timeout is being repaired.
    Loss,
}

/// What F-RTO knows of a timeout (RFC 5682 section 2.1 and 3.1; `tp->frto`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Frto {
    /// Nothing to find out.
    #[default]
    Off,
    /// The first segment was sent again (step 1).
    FirstSent,
    /// It was acknowledged, and new data shall tell (step 2b).
    NewData,
}

/// What the retransmission timer is armed for (`icsk_pending`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimerKind {
    /// `ICSK_TIME_RETRANS`.
    Retrans,
    /// `ICSK_TIME_PROBE0`: the peer's window is closed.
    Probe0,
    /// `ICSK_TIME_LOSS_PROBE` (RFC 8985 section 7).
    LossProbe,
    /// `ICSK_TIME_REO_TIMEOUT` (RFC 8985 section 6.3).
    ReoTimeout,
}
