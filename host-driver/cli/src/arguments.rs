//! The command line.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use hematite_netstack::Ipv4Cidr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::path::Path;

/// Driver and IP stack of the Hematite network card (or any virtio-net device with packed rings) in user space.
#[derive(Parser)]
#[command(name = "hematite", version)]
pub struct Arguments {
    /// The device: a PCI function bound to vfio-pci (0000:01:00.0), `vfio-user:SOCKET`, or `system`: no card, the
    /// operating system's own sockets, for comparison.
    #[arg(long, global = true)]
    device: Option<String>,
    /// The interface's address and prefix length.
    #[arg(long, global = true, value_name = "ADDRESS/PREFIX")]
    ip: Option<String>,
    /// The interface's MTU, bytes; jumbo frames as far as the device has them.
    #[arg(long, global = true, value_name = "BYTES")]
    pub mtu: Option<u16>,
    /// CPUs that share the work, each a thread: interrupts are spread over them, and received packets by their flow.
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub cpus: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Brings the interface up: answers pings and echoes UDP datagrams (with `--device system` TCP streams too) until SIGTERM or SIGINT.
    Up {
        /// The device, as of --device.
        #[arg(value_name = "DEVICE")]
        of: Option<String>,
        /// Ends after this time.
        #[arg(long)]
        seconds: Option<u64>,
        /// The echo server's port.
        #[arg(long, default_value_t = 7)]
        port: u16,
    },
    /// Echo requests, checked byte by byte.
    Ping(PingOptions),
    /// Datagrams to an echo server (RFC 862) and back, checked byte by byte.
    Udp(TransferOptions),
    /// A byte stream to an echo server and back, checked byte by byte.
    Tcp(TransferOptions),
    /// Settings and counters, as of ethtool: the link, or -k -K (features), -c -C (coalescing), -g -G (rings), -a -A (pause),
    /// -S (statistics), -i (driver), -t (test); several in turn, as in `ethtool -C rx-usecs 8 -c`.
    Ethtool {
        /// Options and what belongs to them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Takes a PCI function from its kernel driver and gives it to vfio-pci.
    Bind {
        /// Domain, bus, device, function: 0000:01:00.0
        bdf: String,
    },
    /// Gives it back to the kernel.
    Unbind {
        /// Domain, bus, device, function: 0000:01:00.0
        bdf: String,
    },
}

#[derive(clap::Args)]
pub struct PingOptions {
    /// Whom.
    pub host: Ipv4Addr,
    /// How many.
    #[arg(short, long, default_value_t = 5)]
    pub count: u16,
    /// Bytes of data.
    #[arg(short, long, default_value_t = 56)]
    pub size: usize,
    /// How long to wait for an answer, milliseconds.
    #[arg(short, long, default_value_t = 5000)]
    pub timeout: u64,
}

#[derive(clap::Args)]
pub struct TransferOptions {
    /// The echo server. Over the card an IPv4 address; of the system's a link-local one is fe80::1%eth0.
    #[arg(value_parser = host)]
    pub host: SocketAddr,
    /// Its port.
    #[arg(long, default_value_t = 7)]
    pub port: u16,
    /// Bytes to send; as many must come back.
    #[arg(long, default_value_t = 1_000_000)]
    pub bytes: u64,
    /// What the bytes are made from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Without progress for so long the transfer has failed, milliseconds.
    #[arg(long, default_value_t = 10_000)]
    pub timeout: u64,
}

/// An address, which may have a `%` and its interface, with port 0.
fn host(text: &str) -> Result<SocketAddr, String> {
    let (address, _) = text.split_once('%').unwrap_or((text, ""));
    address.parse::<IpAddr>().map_err(|error| error.to_string())?;
    let mut found = (text, 0).to_socket_addrs().map_err(|error| error.to_string())?;
    found.next().ok_or_else(|| "no such address".to_owned())
}

impl TransferOptions {
    /// Where the echo server listens.
    pub fn server(&self) -> SocketAddr {
        let mut server = self.host;
        server.set_port(self.port);
        server
    }

    /// The same over the card.
    pub fn server_v4(&self) -> Result<SocketAddrV4> {
        match self.server() {
            SocketAddr::V4(server) => Ok(server),
            SocketAddr::V6(_) => bail!("over the card transfers take IPv4, over --device system IPv6 too"),
        }
    }
}

/// What `--device` names.
pub enum Device<'a> {
    VfioUser(&'a Path),
    Function(&'a str),
    System,
}

impl Arguments {
    /// Where it was named. Twice is once too often.
    fn named(&self) -> Result<Option<&str>> {
        let of = match &self.command {
            Command::Up { of, .. } => of.as_deref(),
            _ => None,
        };
        match (self.device.as_deref(), of) {
            (Some(first), Some(second)) if first != second => {
                bail!("which device, {first} or {second}? Name one")
            }
            (device, of) => Ok(device.or(of)),
        }
    }

    pub fn device(&self) -> Result<Device<'_>> {
        let device = self.named()?.context(
            "which device? --device 0000:01:00.0 (bound to vfio-pci), --device vfio-user:SOCKET or --device system",
        )?;
        Ok(match device.strip_prefix("vfio-user:") {
            Some(path) => Device::VfioUser(Path::new(path)),
            None if device == "system" => Device::System,
            None => Device::Function(device),
        })
    }

    /// Where the device is.
    pub fn bus(&self) -> &str {
        self.device.as_deref().unwrap_or_default()
    }

    pub fn address(&self) -> Result<Ipv4Cidr> {
        let text = self.ip.as_deref().context("which address? --ip 10.0.0.1/24")?;
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            let address: Ipv4Addr = address.parse().ok()?;
            Ipv4Cidr::new(address, prefix.parse().ok()?).ok()
        });
        parsed.with_context(|| format!("`{text}` is not an address with a prefix length, as in 10.0.0.1/24"))
    }
}
