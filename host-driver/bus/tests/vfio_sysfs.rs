//! Every reason why a function can't be opened, on a made-up sysfs: each says what to do.
#![cfg(target_os = "linux")]

use hematite_bus::vfio::OpenError;
use hematite_bus::vfio::sysfs::{Ready, Sysfs};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const CARD: &str = "0000:01:00.0";
const NEIGHBOUR: &str = "0000:01:00.1";

/// A kernel with two functions in one IOMMU group, the first with a driver.
struct Kernel {
    root: tempfile::TempDir,
}

impl Kernel {
    fn new() -> Self {
        let kernel = Kernel {
            root: tempfile::tempdir().expect("a directory"),
        };
        for directory in ["drivers/virtio-pci", "drivers/vfio-pci"] {
            fs::create_dir_all(kernel.bus().join(directory)).expect("made");
        }
        let group = kernel.root.path().join("sys/kernel/iommu_groups/7/devices");
        fs::create_dir_all(&group).expect("made");
        for function in [CARD, NEIGHBOUR] {
            let device = kernel.device(function);
            fs::create_dir_all(&device).expect("made");
            symlink(
                kernel.root.path().join("sys/kernel/iommu_groups/7"),
                device.join("iommu_group"),
            )
            .expect("made");
            symlink(&device, group.join(function)).expect("made");
        }
        kernel
    }

    fn bus(&self) -> PathBuf {
        self.root.path().join("sys/bus/pci")
    }

    fn device(&self, function: &str) -> PathBuf {
        self.bus().join("devices").join(function)
    }

    fn sysfs(&self) -> Sysfs {
        Sysfs::at(self.root.path())
    }

    fn set_driver(&self, function: &str, driver: &str) {
        let link = self.device(function).join("driver");
        let _ = fs::remove_file(&link);
        symlink(self.bus().join("drivers").join(driver), link).expect("made");
    }

    fn make_vfio_files(&self) {
        let directory = self.root.path().join("dev/vfio");
        fs::create_dir_all(&directory).expect("made");
        for file in ["vfio", "7"] {
            fs::write(directory.join(file), "").expect("made");
        }
    }

    fn message(&self, function: &str) -> String {
        let error: OpenError = self.sysfs().check(function).expect_err("not ready");
        error.to_string()
    }
}

#[test]
fn every_obstacle_is_named_with_the_way_around_it() {
    let kernel = Kernel::new();
    assert!(kernel.message("eth0").contains("lspci -D"));
    assert!(kernel.message("0000:01:00.8").contains("is not a PCI address"));
    assert!(kernel.message("0000:02:00.0").contains("no such PCI function"));
    assert!(
        kernel.message(CARD).contains("hematite bind 0000:01:00.0"),
        "no driver"
    );
    kernel.set_driver(CARD, "virtio-pci");
    let bound = kernel.message(CARD);
    assert!(
        bound.contains("`virtio-pci` has it") && bound.contains("hematite bind 0000:01:00.0"),
        "{bound}"
    );
    kernel.set_driver(CARD, "vfio-pci");
    assert!(kernel.message(CARD).contains("modprobe vfio-pci"));
    kernel.make_vfio_files();
    let ready = kernel.sysfs().check(CARD).expect("ready");
    let device = kernel.root.path().join("dev/vfio/7");
    assert_eq!(
        ready,
        Ready {
            path: kernel.device(CARD),
            group: 7,
            device
        }
    );
    fs::remove_file(kernel.device(CARD).join("iommu_group")).expect("removed");
    assert!(kernel.message(CARD).contains("intel_iommu=on"));
}

#[test]
fn what_keeps_a_group_from_being_viable_is_named() {
    let kernel = Kernel::new();
    kernel.set_driver(CARD, "vfio-pci");
    assert!(
        kernel.sysfs().in_the_way(CARD).is_empty(),
        "a function without a driver is harmless"
    );
    kernel.set_driver(NEIGHBOUR, "virtio-pci");
    let others = kernel.sysfs().in_the_way(CARD);
    assert_eq!(others, ["0000:01:00.1 (virtio-pci)"]);
    let message = OpenError::GroupNotViable { group: 7, others }.to_string();
    assert!(
        message.contains("0000:01:00.1 (virtio-pci) must be bound to vfio-pci"),
        "{message}"
    );
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn bind_and_unbind_write_what_the_kernel_expects() {
    let kernel = Kernel::new();
    kernel.set_driver(CARD, "virtio-pci");
    // Nobody acts on what is written here, so the function stays where it is, and that is reported.
    let error = kernel.sysfs().bind(CARD).expect_err("still bound");
    assert!(error.to_string().contains("`virtio-pci` has it"), "{error}");
    assert_eq!(read(&kernel.device(CARD).join("driver_override")), "vfio-pci");
    assert_eq!(read(&kernel.bus().join("drivers/virtio-pci/unbind")), CARD);
    assert_eq!(read(&kernel.bus().join("drivers_probe")), CARD);
    // Bound already: nothing to do.
    kernel.set_driver(CARD, "vfio-pci");
    assert_eq!(
        kernel.sysfs().bind(CARD).expect("bound").as_deref(),
        Some("vfio-pci")
    );
    // Given back.
    kernel.sysfs().unbind(CARD).expect("written");
    assert_eq!(read(&kernel.device(CARD).join("driver_override")), "\n");
    assert_eq!(read(&kernel.bus().join("drivers/vfio-pci/unbind")), CARD);
    // Without the driver there is nothing to bind to.
    fs::remove_dir_all(kernel.bus().join("drivers/vfio-pci")).expect("removed");
    kernel.set_driver(CARD, "virtio-pci");
    let error = kernel.sysfs().bind(CARD).expect_err("no vfio-pci");
    assert!(error.to_string().contains("modprobe vfio-pci"), "{error}");
}

#[test]
fn shared_memory_can_not_shrink_and_is_what_the_device_sees() {
    let space = hematite_bus::DmaSpace::shared(0x1000_0000, 2 << 20).expect("memory");
    let region = space.alloc(4096, 4096).expect("room");
    region.write_u64(8, 0x0123_4567_89ab_cdef).expect("in bounds");
    let file = fs::File::from(
        space
            .file()
            .expect("shared")
            .try_clone_to_owned()
            .expect("a descriptor"),
    );
    let mut bytes = [0; 8];
    let offset = region.iova() - space.window().start + 8;
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, offset).expect("there");
    assert_eq!(u64::from_le_bytes(bytes), 0x0123_4567_89ab_cdef);
    assert!(file.set_len(0).is_err());
    assert!(hematite_bus::DmaSpace::new().expect("memory").file().is_none());
}
