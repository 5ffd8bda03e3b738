//! A Linux TAP device at the far end of the wire: the kernel's own stack is the peer (needs root).
//!
//! The kernel lives in real time, so a run with a TAP is not reproducible.

use super::{Frame, WireEndpoint};
use crate::time::SimTime;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

/// Virtual time between looks at the device while it has nothing: a system call per byte time would dominate the run.
const POLL_INTERVAL: SimTime = SimTime::from_ns(1024);

/// Moves the calling thread, and the processes it starts, into a network namespace of its own. The kernel removes the
/// namespace, with every device in it, when the last thread in it ends: nothing is left behind, however the run ends.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub fn enter_new_network_namespace() -> io::Result<()> {
    // SAFETY: `unshare` takes a flag word and touches no memory of ours.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

/// A TAP device and the frames that cross it.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
    next_poll: SimTime,
    to_card: u64,
    from_card: u64,
    refused: u64,
}

impl Tap {
    /// Creates the device `name` (at most 15 bytes), without the packet-information header.
    ///
    /// # Errors
    /// What the kernel says: `ENOENT` without `/dev/net/tun`, `EPERM` without CAP_NET_ADMIN.
    pub fn create(name: &str) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
        let file = options.open("/dev/net/tun")?;
        let mut request = interface_request(name)?;
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request)?;
        Ok(Tap {
            file,
            name: name.to_owned(),
            next_poll: SimTime::ZERO,
            to_card: 0,
            from_card: 0,
            refused: 0,
        })
    }

    /// Gives the kernel's side an address and brings it up.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn configure(&self, address: Ipv4Addr, netmask: Ipv4Addr) -> io::Result<()> {
        // Router solicitations and multicast reports would only be noise; a kernel without IPv6 has no such file.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", self.name), "1");
        let control = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
        let mut request = interface_request(&self.name)?;
        request.ifr_ifru.ifru_addr = socket_address(address);
        ioctl(control.as_raw_fd(), libc::SIOCSIFADDR, &mut request)?;
        request.ifr_ifru.ifru_netmask = socket_address(netmask);
        ioctl(control.as_raw_fd(), libc::SIOCSIFNETMASK, &mut request)?;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        ioctl(control.as_raw_fd(), libc::SIOCSIFFLAGS, &mut request)
    }

    /// Gives the kernel's side, which must be up, an IPv6 address as well, without duplicate address detection.
    ///
    /// # Errors
    /// What the kernel says; `ENOENT` or `EAFNOSUPPORT` from one without IPv6.
    pub fn configure_ipv6(&self, address: Ipv6Addr, prefix: u8) -> io::Result<()> {
        let conf = format!("/proc/sys/net/ipv6/conf/{}", self.name);
        for (setting, value) in [
            ("accept_dad", "0"),
            ("router_solicitations", "0"),
            ("disable_ipv6", "0"),
        ] {
            std::fs::write(format!("{conf}/{setting}"), value)?;
        }
        let control = socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)?;
        let mut request = interface_request(&self.name)?;
        ioctl(control.as_raw_fd(), libc::SIOCGIFINDEX, &mut request)?;
        let mut request = libc::in6_ifreq {
            ifr6_addr: libc::in6_addr {
                s6_addr: address.octets(),
            },
            ifr6_prefixlen: prefix.into(),
            // SAFETY: SIOCGIFINDEX has filled this member.
            ifr6_ifindex: unsafe { request.ifr_ifru.ifru_ifindex },
        };
        // SAFETY: on an AF_INET6 socket this code takes a `struct in6_ifreq *`, which lives through the call.
        check(unsafe {
            libc::ioctl(
                control.as_raw_fd(),
                libc::SIOCSIFADDR as _,
                std::ptr::from_mut(&mut request),
            )
        })
    }

    /// Frames from the kernel, frames to the kernel, and those of the latter that it refused.
    pub fn counters(&self) -> (u64, u64, u64) {
        (self.to_card, self.from_card, self.refused)
    }
}

impl AsRawFd for Tap {
    /// Readable when the kernel has a frame.
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl WireEndpoint for Tap {
    fn transmit(&mut self, now: SimTime, frame: &mut Frame) -> bool {
        if now < self.next_poll {
            return false;
        }
        frame.bytes.resize(9018, 0);
        match self.file.read(&mut frame.bytes) {
            Ok(len) if len > 0 => {
                frame.bytes.truncate(len);
                self.to_card += 1;
                true
            }
            _ => {
                frame.bytes.clear();
                self.next_poll = now + POLL_INTERVAL;
                false
            }
        }
    }

    fn receive(&mut self, _now: SimTime, frame: &[u8]) {
        match self.file.write_all(frame) {
            Ok(()) => self.from_card += 1,
            Err(_) => self.refused += 1,
        }
    }
}

/// A raw ICMP socket of the kernel, non-blocking. Received datagrams begin with the IPv4 header.
///
/// # Errors
/// `EPERM` without CAP_NET_RAW.
pub fn icmp_socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::from(socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)?);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: `socket` takes three numbers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    check(fd)?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: `ifreq` is plain integers and a union of such; all zero is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() || name.is_empty() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    // `struct sockaddr_in` (ip(7)): the port in the first two bytes of `sa_data`, the address in the next four.
    let mut data = [0 as libc::c_char; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: data,
    }
}

fn ioctl(fd: RawFd, code: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: every code used here takes a `struct ifreq *`, which lives through the call.
    check(unsafe { libc::ioctl(fd, code as _, std::ptr::from_mut(request)) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
