//! Why a function can't be opened, and what its user can do about it.

use std::io;
use std::path::PathBuf;

use crate::BusError;

/// Each message ends with what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Nobody listens at the vfio-user socket.
    #[error("{path}: no vfio-user server is listening there; start one: hematite-sim serve --socket {path}")]
    NoServer {
        /// The socket.
        path: PathBuf,
    },
    /// The vfio-user server hung up in the handshake.
    #[error(
        "{path}: the server hung up: it serves one client at a time and another one is connected; end that first"
    )]
    ServerBusy {
        /// The socket.
        path: PathBuf,
    },
    /// The vfio-user connection failed.
    #[error("{path}: {error}; check that a vfio-user server of a PCI device is at the other end")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the library said.
        error: io::Error,
    },
    /// Not `domain:bus:device.function`.
    #[error("`{0}` is not a PCI address; write it like 0000:01:00.0 (`lspci -D` lists them)")]
    BadAddress(String),
    /// There is no such function.
    #[error("{0}: no such PCI function; `lspci -D` lists those that there are")]
    NoFunction(String),
    /// The function is in no IOMMU group.
    #[error(
        "{0}: no IOMMU protects memory from it; turn VT-d or AMD-Vi on in the firmware, boot with intel_iommu=on \
         (or amd_iommu=on), and look for `DMAR` or `AMD-Vi` in dmesg"
    )]
    NoIommu(String),
    /// Another driver has the function.
    #[error("{bdf}: the driver `{driver}` has it; take it away: hematite bind {bdf}")]
    BoundElsewhere {
        /// The function.
        bdf: String,
        /// The driver's name.
        driver: String,
    },
    /// No driver has the function.
    #[error("{0}: no driver has it; give it to vfio-pci: hematite bind {0}")]
    NotBound(String),
    /// `vfio-pci` isn't there.
    #[error("the kernel's vfio-pci driver is not loaded; load it: modprobe vfio-pci")]
    NoVfioPci,
    /// Other functions of the group have other drivers.
    #[error("IOMMU group {group} is not viable: {} must be bound to vfio-pci or to nothing too; hematite bind each of them", others.join(", "))]
    GroupNotViable {
        /// Number of the group.
        group: u32,
        /// The functions in the way, with their drivers.
        others: Vec<String>,
    },
    /// The group's device file may not be opened.
    #[error("no permission to open {path}; run as root, or let your user have it: chown $USER {path}")]
    Permission {
        /// The file.
        path: PathBuf,
    },
    /// The IOMMU can't keep the function from raising other devices' interrupts (`vfio_iommu_type1_attach_group`).
    #[error(
        "{0}: the IOMMU does not remap interrupts, so the kernel keeps the function to itself; turn interrupt \
         remapping (x2APIC) on in the firmware, or trust the device: \
         echo 1 >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
    )]
    NoInterruptRemapping(String),
    /// Another process has the group open.
    #[error("{path}: another process has it open; end that first")]
    GroupBusy {
        /// The file.
        path: PathBuf,
    },
    /// Memory can't be pinned.
    #[error(
        "the limit of locked memory is {} KiB and DMA needs {} KiB; raise it (ulimit -l {}, or LimitMEMLOCK= of the \
         service) or run as root", limit / 1024, needed / 1024, needed / 1024
    )]
    LockedMemory {
        /// `RLIMIT_MEMLOCK` in bytes.
        limit: u64,
        /// Bytes to be pinned.
        needed: u64,
    },
    /// A configuration file of the kernel's can't be written.
    #[error("cannot write {path}: {error}; root is needed")]
    Sysfs {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// VFIO failed otherwise.
    #[error("VFIO: {0}; dmesg may say more")]
    Vfio(#[from] vfio_ioctls::VfioError),
    /// No memory for DMA.
    #[error("DMA memory: {0}; free some, or ask for less")]
    Memory(io::Error),
    /// The function doesn't answer as a PCI function should.
    #[error("{0}; the device may need a power cycle")]
    Bus(#[from] BusError),
}
