//! The PCI function at TLP level: configuration space, completer, MSI-X, TLP arbitration.
