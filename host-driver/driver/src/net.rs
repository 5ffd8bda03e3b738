//! The interface: probe, open, stop, remove, and what happens when the device breaks (Linux's
//! `virtio_net.c`).
//!
//! ```text
//! probe -> Down -> open -> Up -> stop -> Down -> remove
//!           any device fault -> Failed -> reset_and_restore -> as before
//! ```
//! The life of packets is in `poll.rs` (receive, completions) and `netdev.rs` (transmit).

use hematite_bus::{PciFunction, pci};
use hematite_netstack::{Features, MacAddr};
use virtio_spec::net;

use crate::channels::{RssLimits, RxFlowHash};
use crate::ctrl::CtrlQueue;
use crate::dim::Dim;
use crate::error::Error;
use crate::ethtool::{CoalesceParam, EthtoolStats, IrqStats, RingParam};
use crate::features::GRO_HW;
use crate::napi::{NapiParms, NetdevBudget, Softnet};
use crate::port::PauseParam;
use crate::rx::{MERGEABLE_LEN, RxQueue, RxStats, merged_len};
use crate::rx_mode::RxFilter;
use crate::transport::VirtioPci;
use crate::tx::{TxQueue, TxStats};
use crate::vnet_hdr;
use crate::xdp::XdpProgram;

/// Index of the first receive queue (virtio 1.3, 5.1.2); that of pair n is `2 * n`.
pub const RX_QUEUE: u16 = 0;
/// Index of the first transmit queue; that of pair n is `2 * n + 1`.
pub const TX_QUEUE: u16 = 1;
/// Pairs of queues that are used at most.
pub const MAX_PAIRS: usize = 8;
/// Smallest ring: one chain of the most elements that Linux sends, and room to move.
pub const MIN_RING: u16 = 32;
/// Largest ring.
pub const MAX_RING: u16 = 4096;
/// MSI-X vector of configuration changes.
pub const CONFIG_VECTOR: u16 = 0;

/// MSI-X vectors of a pair of queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Vectors {
    pub(crate) rx: u16,
    pub(crate) tx: u16,
}

/// Bytes of an Ethernet header: nothing shorter is a frame.
pub(crate) const ETH_HLEN: usize = 14;
/// Bytes of a VLAN tag.
pub(crate) const VLAN_HLEN: usize = 4;
/// Ethernet header and one VLAN tag: what a frame has beyond the MTU.
pub(crate) const FRAME_OVERHEAD: usize = ETH_HLEN + VLAN_HLEN;
/// The longest packet that a device makes of segments: IPv6's largest payload behind its header, and
/// [`FRAME_OVERHEAD`].
pub(crate) const PACKET_MAX_LEN: usize = FRAME_OVERHEAD + 40 + u16::MAX as usize;
/// MTU without the `MTU` feature (`ETH_DATA_LEN`).
pub(crate) const ETH_DATA_LEN: u16 = 1500;
/// Least MTU (`ETH_MIN_MTU`).
pub(crate) const ETH_MIN_MTU: u16 = 68;

/// What a user may choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Name of the interface.
    pub name: String,
    /// Receive ring in descriptors, 32 to 4096; less when the device has less.
    pub rx_ring: u16,
    /// Transmit ring in descriptors, likewise.
    pub tx_ring: u16,
    /// Limits of a NAPI round.
    pub budget: NetdevBudget,
    /// Deferred interrupts and held packets.
    pub napi: NapiParms,
    /// CPUs that interrupts are spread over; their affinity can be changed
    /// ([`Softnet::set_affinity`](crate::napi::Softnet::set_affinity)).
    pub cpus: usize,
    /// Pairs of queues to use (`ethtool -L combined`), fewer if the device has fewer; `None` for one for each CPU.
    pub channels: Option<usize>,
    /// The MTU to begin with; `None` for 1500, or less on a device that takes no more.
    pub mtu: Option<u16>,
    /// Have the device tell each received packet's hash (`HASH_REPORT`, `NETIF_F_RXHASH`), if it can: eight bytes more a
    /// packet, both ways. `None` for when there are several CPUs, over which packets are spread by it (RPS, RFS).
    pub receive_hash: Option<bool>,
    /// The address of a device that has none of its own.
    pub fallback_mac: MacAddr,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "eth0".into(),
            rx_ring: 256,
            tx_ring: 256,
            budget: NetdevBudget::default(),
            napi: NapiParms::default(),
            cpus: 1,
            channels: None,
            mtu: None,
            receive_hash: None,
            fallback_mac: MacAddr([0x02, 0, 0, 0, 0, 1]),
        }
    }
}

/// Whether the interface is up (`IFF_UP`, and whether its device still works).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Administratively down; the device runs.
    Down,
    /// Packets flow.
    Up,
    /// The device broke and was reset; [`VirtioNet::reset_and_restore`] brings it back.
    Failed(Error),
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
            Self::Failed(_) => "failed",
        }
    }
}

/// What the device said about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceInfo {
    pub(crate) mac: MacAddr,
    pub(crate) max_mtu: u16,
    pub(crate) link_up: bool,
    pub(crate) rx_max: u16,
    pub(crate) tx_max: u16,
    /// Pairs of queues, at most [`MAX_PAIRS`]; all are set up.
    pub(crate) pairs: usize,
    /// Index of the control queue: behind all the device has (5.1.2).
    pub(crate) ctrl_queue: u16,
    /// Of each pair.
    pub(crate) vectors: [Vectors; MAX_PAIRS],
    pub(crate) rss: RssLimits,
}

/// A receive and a transmit queue.
pub(crate) struct Pair {
    pub(crate) rx: RxQueue,
    pub(crate) tx: TxQueue,
}

pub(crate) struct Queues {
    /// At least one.
    pub(crate) pairs: Vec<Pair>,
    /// With `CTRL_VQ`.
    pub(crate) ctrl: Option<CtrlQueue>,
    /// On the hook before the skb, of whichever queue is polled.
    pub(crate) xdp: Option<Box<dyn XdpProgram>>,
}

/// A virtio network interface on a PCI function.
///
/// Dropping it leaves the device running and quarantines its memory; [`remove`](Self::remove) shuts it down.
pub struct VirtioNet<F> {
    pub(crate) transport: VirtioPci<F>,
    pub(crate) options: Options,
    pub(crate) features: net::F,
    /// What the user wants the device to do (`netdev->wanted_features`).
    pub(crate) wanted_features: Features,
    /// Whether the device merges received segments, of the features that allow it.
    pub(crate) gro_hw: bool,
    pub(crate) info: DeviceInfo,
    pub(crate) mtu: u16,
    /// Flow control as the user set it.
    pub(crate) pause: PauseParam,
    pub(crate) state: State,
    /// What to return to after a failure.
    admin_up: bool,
    /// `None` while the device is reset.
    pub(crate) queues: Option<Queues>,
    pub(crate) softnet: Softnet,
    pub(crate) config_pending: bool,
    /// A fault met where no error can be returned; reported by the next round.
    pub(crate) pending_fault: Option<Error>,
    pub(crate) irq: IrqStats,
    pub(crate) rearm_races: u64,
    pub(crate) link_changes: u64,
    /// Pairs of queues in use.
    pub(crate) channels: usize,
    /// What was set; the device forgets it when it is reset.
    pub(crate) coalesce: CoalesceParam,
    /// What is wanted of it besides its own address.
    pub(crate) filter: RxFilter,
    pub(crate) rxfh: Option<RxFlowHash>,
    /// With `adaptive_rx`.
    pub(crate) dim: Option<Dim>,
    /// Counters of queues that are gone, by pair.
    pub(crate) past: [(RxStats, TxStats); MAX_PAIRS],
    device_faults: u64,
    restores: u64,
}

impl<F: PciFunction> VirtioNet<F> {
    /// NAPI contexts: receive and transmit of each pair.
    const CONTEXTS: usize = 2 * MAX_PAIRS;

    /// Brings the device to `DRIVER_OK` with its queues enabled (`virtnet_probe`); the interface is down.
    ///
    /// # Errors
    /// [`Error`]; then the device was told `FAILED` and reset.
    pub fn probe(function: F, options: Options) -> Result<Self, Error> {
        for size in [options.rx_ring, options.tx_ring] {
            check_ring(size, MAX_RING)?;
        }
        let info = DeviceInfo {
            mac: options.fallback_mac,
            max_mtu: ETH_DATA_LEN,
            link_up: true,
            rx_max: MAX_RING,
            tx_max: MAX_RING,
            pairs: 1,
            ctrl_queue: 2,
            vectors: [Vectors::default(); MAX_PAIRS],
            rss: RssLimits::default(),
        };
        let mut softnet = Softnet::with_cpus(Self::CONTEXTS, options.cpus);
        softnet.set_parms(options.napi);
        let mut this = Self {
            transport: VirtioPci::probe(function)?,
            options,
            features: net::F::empty(),
            wanted_features: Features::all(),
            gro_hw: false,
            info,
            mtu: ETH_DATA_LEN,
            pause: PauseParam::default(),
            state: State::Down,
            admin_up: false,
            queues: None,
            softnet,
            config_pending: false,
            pending_fault: None,
            irq: IrqStats::default(),
            rearm_races: 0,
            link_changes: 0,
            channels: 1,
            coalesce: CoalesceParam::default(),
            filter: RxFilter::default(),
            rxfh: None,
            dim: None,
            past: Default::default(),
            device_faults: 0,
            restores: 0,
        };
        this.init()?;
        let mtu = this.options.mtu.unwrap_or(this.info.max_mtu.min(ETH_DATA_LEN));
        this.set_mtu(mtu)?;
        Ok(this)
    }

    /// `ndo_open`: posts receive buffers, polls and interrupts begin. Nothing to do when it is up.
    ///
    /// # Errors
    /// [`Error::State`] after a failure; [`Error::Dma`] when there is no memory for a single buffer; bus
    /// errors.
    pub fn open(&mut self) -> Result<(), Error> {
        match self.state {
            State::Up => Ok(()),
            State::Failed(_) => Err(Error::State("failed")),
            State::Down => {
                self.admin_up = true;
                self.start().map_err(|error| self.fail(error))
            }
        }
    }

    /// `ndo_stop`: no packet goes up or down any more. Writes nothing to the device: it keeps the posted
    /// buffers.
    pub fn stop(&mut self) {
        self.admin_up = false;
        if self.state == State::Up {
            self.state = State::Down;
            self.quiet();
        }
    }

    /// Resets the device, frees everything and gives the function back (`virtnet_remove`).
    ///
    /// # Errors
    /// What the reset reported. The function is returned in any case; memory that the device may still write
    /// to stays quarantined.
    pub fn remove(mut self) -> (F, Result<(), Error>) {
        let result = self.shutdown();
        (self.transport.into_function(), result)
    }

    /// Resets the device, negotiates again and returns to where the interface was: up or down
    /// (`virtnet_freeze`/`restore`). The way back from [`State::Failed`]; also resets a working device.
    ///
    /// # Errors
    /// [`Error`]; the state is then [`State::Failed`].
    pub fn reset_and_restore(&mut self) -> Result<(), Error> {
        self.quiet();
        self.release();
        self.pending_fault = None;
        let restored = self
            .init()
            .and_then(|()| if self.admin_up { self.start() } else { Ok(()) });
        match restored {
            Ok(()) => {
                self.restores += 1;
                Ok(())
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Interface state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The accepted features.
    pub fn negotiated(&self) -> net::F {
        self.features
    }

    /// Whether the device sees a link; `true` when it doesn't say (no `STATUS` feature).
    pub fn link_up(&self) -> bool {
        self.info.link_up
    }

    /// Changes the MTU: at least 68, at most what the device allows.
    ///
    /// # Errors
    /// [`Error::Mtu`].
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        let max = self.info.max_mtu;
        if !(ETH_MIN_MTU..=max).contains(&mtu) {
            return Err(Error::Mtu { mtu, max });
        }
        self.mtu = mtu;
        Ok(())
    }

    /// Ring sizes (`ethtool -g`).
    pub fn ringparam(&self) -> RingParam {
        let [rx, tx] = self.ring_sizes();
        RingParam {
            rx_max: self.info.rx_max,
            tx_max: self.info.tx_max,
            rx,
            tx,
        }
    }

    /// Changes ring sizes (`ethtool -G`): by queue reset where the device can (`RING_RESET`), else by a reset
    /// of the device. Frames in flight in a resized transmit ring are lost and counted.
    ///
    /// # Errors
    /// [`Error::RingSize`], [`Error::State`] after a failure; else the state is [`State::Failed`].
    pub fn set_ringparam(&mut self, rx: u16, tx: u16) -> Result<(), Error> {
        check_ring(rx, self.info.rx_max)?;
        check_ring(tx, self.info.tx_max)?;
        if matches!(self.state, State::Failed(_)) {
            return Err(Error::State(self.state.name()));
        }
        let old = self.ring_sizes();
        (self.options.rx_ring, self.options.tx_ring) = (rx, tx);
        if !self.features.contains(net::F::RING_RESET) {
            return self.reset_and_restore();
        }
        self.quiet();
        let resized = self.resize(old).and_then(|()| match self.state {
            State::Up => self.start(),
            _ => Ok(()),
        });
        resized.map_err(|error| self.fail(error))
    }

    /// All counters (`ethtool -S`).
    pub fn ethtool_stats(&self) -> EthtoolStats {
        EthtoolStats {
            rx: self
                .queue_stats()
                .fold(RxStats::default(), |sum, (rx, _)| sum + rx),
            tx: self
                .queue_stats()
                .fold(TxStats::default(), |sum, (_, tx)| sum + tx),
            irq: self.irq,
            napi: self.softnet.stats(),
            rearm_races: self.rearm_races,
            device_faults: self.device_faults,
            restores: self.restores,
            link_changes: self.link_changes,
        }
    }

    /// Counters of each pair of queues that the device has.
    pub fn queue_stats(&self) -> impl Iterator<Item = (RxStats, TxStats)> {
        let pairs = self
            .queues
            .as_ref()
            .map_or(&[][..], |queues| queues.pairs.as_slice());
        let now = pairs.iter().map(|pair| (pair.rx.stats(), pair.tx.stats()));
        now.chain(self.past.iter().copied().skip(pairs.len()))
            .take(self.info.pairs)
    }

    /// The PCI function underneath.
    pub fn function(&mut self) -> &mut F {
        self.transport.function()
    }

    /// Posts buffers and lets interrupts through.
    fn start(&mut self) -> Result<(), Error> {
        let len = self.rx_buffer_len();
        let Some(queues) = &mut self.queues else {
            return Err(Error::State("failed"));
        };
        // The device gives queues that are not in use nothing (5.1.6.3.1).
        for pair in queues.pairs.iter_mut().take(self.channels) {
            pair.rx.fill(&mut self.transport, len)?;
        }
        self.softnet.enable();
        self.state = State::Up;
        // Packets may have come while interrupts were off.
        self.rearm_all()
    }

    /// Length of a posted buffer.
    pub(crate) fn rx_buffer_len(&self) -> usize {
        let merged = self.features.intersects(GRO_HW);
        let longest = vnet_hdr::hdr_len(self.features)
            + if merged {
                PACKET_MAX_LEN
            } else {
                FRAME_OVERHEAD + usize::from(self.info.max_mtu)
            };
        // Without mergeable buffers, one holds the longest frame; with them, all of them do (5.1.4.2). Either way it
        // is no shorter than an ordinary frame (5.1.6.3.1).
        let buffers = match &self.queues {
            Some(queues) if self.features.contains(net::F::MRG_RXBUF) => ring_size(queues).0.into(),
            _ => 1,
        };
        let least = if merged {
            let window = self.transport.function_ref().dma().window();
            let pairs = self.queues.as_ref().map_or(1, |queues| queues.pairs.len());
            merged_len(window.end - window.start, buffers * pairs)
        } else {
            MERGEABLE_LEN
        };
        longest.div_ceil(buffers.max(1)).next_multiple_of(64).max(least)
    }

    /// Polls nothing and asks for no interrupts.
    fn quiet(&mut self) {
        self.softnet.disable();
        for pair in self.queues.iter_mut().flat_map(|queues| &mut queues.pairs) {
            // Can't fail, and a ring that is about to go doesn't matter.
            let _ = pair.rx.vq.ring.disable_cb();
            let _ = pair.tx.vq.ring.disable_cb();
        }
    }

    /// Sizes of the rings as they are.
    fn ring_sizes(&self) -> [u16; 2] {
        match &self.queues {
            Some(queues) => ring_size(queues).into(),
            None => [self.options.rx_ring, self.options.tx_ring],
        }
    }

    /// Queue by queue, those whose size changes (2.6.1). The new ring is there before the old one goes.
    fn resize(&mut self, old: [u16; 2]) -> Result<(), Error> {
        for n in 0..self.info.pairs {
            let index = 2 * n as u16;
            if self.options.rx_ring != old[0] {
                self.transport.reset_queue(RX_QUEUE + index)?;
                let new = self.setup_rx(n)?;
                if let Some(pair) = self.queues.as_mut().and_then(|queues| queues.pairs.get_mut(n)) {
                    self.past[n].0 = std::mem::replace(&mut pair.rx, new).detach();
                    pair.rx.resume_stats(self.past[n].0);
                }
                self.transport.enable_queue(RX_QUEUE + index)?;
            }
            if self.options.tx_ring != old[1] {
                self.transport.reset_queue(TX_QUEUE + index)?;
                let new = self.setup_tx(n)?;
                if let Some(pair) = self.queues.as_mut().and_then(|queues| queues.pairs.get_mut(n)) {
                    self.past[n].1 = std::mem::replace(&mut pair.tx, new).detach();
                    pair.tx.resume_stats(self.past[n].1);
                }
                self.transport.enable_queue(TX_QUEUE + index)?;
            }
        }
        Ok(())
    }

    /// Stops everything after `error`, resets the device and remembers why.
    pub(crate) fn fail(&mut self, error: Error) -> Error {
        tracing::warn!(interface = %self.options.name, %error, "device failed; resetting it");
        self.device_faults += u64::from(matches!(error, Error::Device { .. }));
        self.softnet.disable();
        self.release();
        self.state = State::Failed(error.clone());
        error
    }

    fn shutdown(&mut self) -> Result<(), Error> {
        self.softnet.disable();
        let reset = self.quiesce();
        if let Some(queues) = self.queues.take().filter(|_| reset.is_ok()) {
            for (pair, past) in queues.pairs.into_iter().zip(&mut self.past) {
                *past = (pair.rx.detach(), pair.tx.detach());
            }
            if let Some(ctrl) = queues.ctrl {
                ctrl.detach();
            }
        }
        reset
    }

    /// As [`shutdown`](Self::shutdown), where nobody hears its error: a device that doesn't reset loses its
    /// memory to quarantine.
    pub(crate) fn release(&mut self) {
        if let Err(error) = self.shutdown() {
            tracing::warn!(interface = %self.options.name, %error, "reset failed; DMA memory is quarantined");
        }
    }

    /// Makes sure that the device touches no memory: device reset, and where that fails a function-level
    /// reset.
    fn quiesce(&mut self) -> Result<(), Error> {
        let reset = self
            .transport
            .reset()
            .or_else(|_| self.transport.function().reset().map_err(Error::from));
        // Best effort: a function that was reset has them off.
        let _ = self.transport.function().disable_msix();
        if reset.is_err() {
            let _ = pci::clear_master(self.transport.function());
        }
        reset
    }
}

/// Sizes of the receive and of the transmit rings.
fn ring_size(queues: &Queues) -> (u16, u16) {
    queues
        .pairs
        .first()
        .map_or((0, 0), |pair| (pair.rx.vq.ring.size(), pair.tx.vq.ring.size()))
}

fn check_ring(size: u16, max: u16) -> Result<(), Error> {
    if (MIN_RING..=max).contains(&size) {
        return Ok(());
    }
    Err(Error::RingSize {
        size,
        min: MIN_RING,
        max,
    })
}
