//! What the kernel says about a PCI function, and giving it to `vfio-pci` or back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::open::OpenError;

/// The driver that hands functions to user space.
pub const VFIO_PCI: &str = "vfio-pci";

/// The kernel's PCI bus.
#[derive(Debug, Clone)]
pub struct Sysfs {
    bus: PathBuf,
    vfio: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::at(Path::new("/"))
    }
}

/// A function that can be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Its directory.
    pub path: PathBuf,
    /// Its IOMMU group.
    pub group: u32,
    /// The group's device file.
    pub device: PathBuf,
}

impl Sysfs {
    /// A kernel's files below another root, for tests.
    pub fn at(root: &Path) -> Self {
        Self {
            bus: root.join("sys/bus/pci"),
            vfio: root.join("dev/vfio"),
        }
    }

    /// Whether the function can be opened, and if not, why.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn check(&self, bdf: &str) -> Result<Ready, OpenError> {
        let path = self.function(bdf)?;
        let group = self.group(bdf, &path)?;
        match driver(&path) {
            Some(driver) if driver == VFIO_PCI => {}
            Some(driver) => {
                return Err(OpenError::BoundElsewhere {
                    bdf: bdf.to_owned(),
                    driver,
                });
            }
            None => return Err(OpenError::NotBound(bdf.to_owned())),
        }
        let device = self.vfio.join(group.to_string());
        for file in [self.vfio.join("vfio"), device.clone()] {
            match fs::OpenOptions::new().read(true).write(true).open(&file) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(OpenError::Permission { path: file });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(OpenError::NoVfioPci),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    return Err(OpenError::GroupBusy { path: file });
                }
                Err(error) => return Err(OpenError::Sysfs { path: file, error }),
            }
        }
        Ok(Ready { path, group, device })
    }

    /// The other functions of a group that keep it from being viable: those with a driver other than `vfio-pci`.
    /// Bridges' drivers don't count.
    pub fn in_the_way(&self, bdf: &str) -> Vec<String> {
        let Ok(path) = self.function(bdf) else {
            return Vec::new();
        };
        let Ok(entries) = fs::read_dir(path.join("iommu_group/devices")) else {
            return Vec::new();
        };
        let mut others: Vec<String> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let driver = driver(&entry.path())?;
                let harmless = [VFIO_PCI, "pcieport", "pci-stub"].contains(&driver.as_str());
                (name != bdf && !harmless).then(|| format!("{name} ({driver})"))
            })
            .collect();
        others.sort();
        others
    }

    /// Takes the function from its driver and gives it to `vfio-pci`. The driver that it had.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::NoIommu`] too, as it could not be used then.
    pub fn bind(&self, bdf: &str) -> Result<Option<String>, OpenError> {
        let path = self.function(bdf)?;
        self.group(bdf, &path)?;
        if !self.bus.join("drivers").join(VFIO_PCI).is_dir() {
            return Err(OpenError::NoVfioPci);
        }
        let had = driver(&path);
        if had.as_deref() == Some(VFIO_PCI) {
            return Ok(had);
        }
        write(&path.join("driver_override"), VFIO_PCI)?;
        if had.is_some() {
            write(&path.join("driver/unbind"), bdf)?;
        }
        write(&self.bus.join("drivers_probe"), bdf)?;
        match driver(&path) {
            Some(driver) if driver == VFIO_PCI => Ok(had),
            Some(driver) => Err(OpenError::BoundElsewhere {
                bdf: bdf.to_owned(),
                driver,
            }),
            None => Err(OpenError::NotBound(bdf.to_owned())),
        }
    }

    /// Gives the function back to the kernel's own choice of driver, which is returned.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn unbind(&self, bdf: &str) -> Result<Option<String>, OpenError> {
        let path = self.function(bdf)?;
        write(&path.join("driver_override"), "\n")?;
        if driver(&path).is_some_and(|driver| driver == VFIO_PCI) {
            write(&path.join("driver/unbind"), bdf)?;
        }
        write(&self.bus.join("drivers_probe"), bdf)?;
        Ok(driver(&path))
    }

    fn function(&self, bdf: &str) -> Result<PathBuf, OpenError> {
        if !is_address(bdf) {
            return Err(OpenError::BadAddress(bdf.to_owned()));
        }
        let path = self.bus.join("devices").join(bdf);
        if path.is_dir() {
            Ok(path)
        } else {
            Err(OpenError::NoFunction(bdf.to_owned()))
        }
    }

    fn group(&self, bdf: &str, path: &Path) -> Result<u32, OpenError> {
        let link = fs::read_link(path.join("iommu_group")).ok();
        link.as_deref()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str()?.parse().ok())
            .ok_or_else(|| OpenError::NoIommu(bdf.to_owned()))
    }
}

/// `0000:01:00.0`: domain, bus, device, function.
fn is_address(bdf: &str) -> bool {
    let bytes = bdf.as_bytes();
    bytes.len() == 12
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b':',
            10 => *byte == b'.',
            11 => (b'0'..=b'7').contains(byte),
            _ => byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase(),
        })
}

fn driver(path: &Path) -> Option<String> {
    let link = fs::read_link(path.join("driver")).ok()?;
    Some(link.file_name()?.to_str()?.to_owned())
}

fn write(path: &Path, value: &str) -> Result<(), OpenError> {
    fs::write(path, value).map_err(|error| OpenError::Sysfs {
        path: path.to_owned(),
        error,
    })
}
