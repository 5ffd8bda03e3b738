# An IOMMU that remaps no interrupts: the kernel gives the function away only when it is told that the device is trusted.
modules irqbypass vfio vfio_iommu_type1 vfio-pci-core vfio-pci
card=$(function_of 0x1af4 0x1041)
card() { hematite --device "$card" --ip 10.0.2.15/24 "$@"; }
check hematite bind "$card"
refused "allow_unsafe_interrupts" card ping 10.0.2.2 -c 1
# As it says.
echo 1 >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts
said=$(card ethtool -i) || fail "still refused: $said"
echo "OK trusted: $card"
