//! `hematite bind` and `hematite unbind`.

use anyhow::Result;
use hematite_bus::vfio::sysfs::Sysfs;

pub fn bind(bdf: &str) -> Result<bool> {
    let sysfs = Sysfs::default();
    let had = sysfs.bind(bdf)?;
    println!("{bdf}: vfio-pci (was: {})", had.as_deref().unwrap_or("no driver"));
    let others = sysfs.in_the_way(bdf);
    if !others.is_empty() {
        println!("of the same IOMMU group, to be bound too: {}", others.join(", "));
    }
    Ok(true)
}

pub fn unbind(bdf: &str) -> Result<bool> {
    let now = Sysfs::default().unbind(bdf)?;
    println!("{bdf}: {}", now.as_deref().unwrap_or("no driver"));
    Ok(true)
}
