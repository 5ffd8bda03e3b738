//! However a function's owner ends, it is quiet afterwards.

use super::*;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// What was done, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    MasterOff,
    MsixOff,
    Unmapped,
}

/// A device of configuration space alone.
struct Fake {
    config: [u8; 256],
    log: Rc<RefCell<Vec<Done>>>,
    /// The device is gone: nothing works.
    gone: bool,
}

impl Fake {
    fn log(&self, what: Done) -> Result<(), BusError> {
        self.log.borrow_mut().push(what);
        if self.gone { Err(BusError::Gone) } else { Ok(()) }
    }
}

impl Port for Fake {
    fn region_size(&self, region: u32) -> u64 {
        u64::from(region == VFIO_PCI_CONFIG_REGION_INDEX) * 256
    }
    fn region_read(&mut self, _region: u32, offset: u64, to: &mut [u8]) -> Result<(), BusError> {
        let at = offset as usize;
        to.copy_from_slice(&self.config[at..at + to.len()]);
        Ok(())
    }
    fn region_write(&mut self, _region: u32, offset: u64, from: &[u8]) -> Result<(), BusError> {
        let at = offset as usize;
        self.config[at..at + from.len()].copy_from_slice(from);
        let command = u16::from_le_bytes([self.config[4], self.config[5]]);
        if at == usize::from(pci::reg::COMMAND) && command & pci::COMMAND_BUS_MASTER == 0 {
            return self.log(Done::MasterOff);
        }
        Ok(())
    }
    fn msix_vectors(&self) -> u16 {
        3
    }
    fn enable_msix(&mut self, _eventfds: &[EventFd]) -> Result<(), BusError> {
        Ok(())
    }
    fn disable_msix(&mut self) -> Result<(), BusError> {
        self.log(Done::MsixOff)
    }
    fn reset(&mut self) -> Result<(), BusError> {
        Ok(())
    }
    fn unmap(&mut self, _space: &DmaSpace) -> Result<(), BusError> {
        self.log(Done::Unmapped)
    }
}

/// A function in use, and what is done to it.
fn in_use(gone: bool) -> (VfioFunction<Fake>, Rc<RefCell<Vec<Done>>>) {
    let log = Rc::new(RefCell::new(Vec::new()));
    let fake = Fake {
        config: [0; 256],
        log: log.clone(),
        gone,
    };
    let dma = DmaSpace::with_window(4096, 4096).expect("memory");
    let mut function = VfioFunction::new(fake, dma);
    pci::enable(&mut function).expect("a function");
    function.enable_msix(3).expect("vectors");
    assert!(log.borrow().is_empty());
    (function, log)
}

/// No requests any more, then no interrupts, and only then is the memory gone.
const QUIET: [Done; 3] = [Done::MasterOff, Done::MsixOff, Done::Unmapped];

#[test]
fn dropped_it_is_quiet() {
    let (function, log) = in_use(false);
    drop(function);
    assert_eq!(*log.borrow(), QUIET);
}

#[test]
fn a_panic_leaves_it_quiet() {
    let (function, log) = in_use(false);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _function = function;
        panic!("of the test");
    }));
    assert!(panicked.is_err());
    assert_eq!(*log.borrow(), QUIET);
}

#[test]
fn what_fails_does_not_keep_the_rest_from_being_done() {
    let (function, log) = in_use(true);
    drop(function);
    assert_eq!(*log.borrow(), QUIET);
}
