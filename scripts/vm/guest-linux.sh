# Stock Linux drives the card: its own virtio_net, unmodified.
card=$(function_of 0x1af4 0x1041)
[ -n "$card" ] || fail "no virtio network function on the bus"
# This guest has no IOMMU, which our own driver will not do without.
refused "boot with intel_iommu=on" hematite bind "$card"
modules failover net_failover virtio_net
await '[ -e /sys/class/net/eth0 ]'
echo "features $(cat /sys/bus/virtio/devices/virtio0/features)"
[ "$(cat /sys/class/net/eth0/address)" = "$MAC" ] || fail "the MAC address is $(cat /sys/class/net/eth0/address), not $MAC"
ip addr add 10.0.0.1/24 dev eth0
ip link set eth0 up
await '[ "$(cat /sys/class/net/eth0/carrier)" = 1 ]'
echo "OK interface: MAC $MAC, link up"
check ping -c 5 -W 10 10.0.0.2
check ping -c 3 -W 10 -s 1400 10.0.0.2
echo "OK ping"
check hematite --device system udp 10.0.0.2 --bytes "$BYTES" --timeout 30000
echo "OK udp"
check hematite --device system tcp 10.0.0.2 --bytes "$BYTES" --timeout 60000
echo "OK tcp"
# Nothing is on its way any more: the kernel's counters are those that the card will show.
sleep 1
statistic() { cat /sys/class/net/eth0/statistics/"$1"; }
cat /proc/net/dev
echo "COUNTERS rx $(statistic rx_packets) tx $(statistic tx_packets) errors $(($(statistic rx_errors) + $(statistic tx_errors) + $(statistic rx_dropped)))"
