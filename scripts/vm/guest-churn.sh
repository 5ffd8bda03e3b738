# Interface down and up, unbind and bind, function-level reset, in the middle of traffic: ROUNDS times.
card=$(function_of 0x1af4 0x1041)
[ -n "$card" ] || fail "no virtio network function on the bus"
modules failover net_failover virtio_net
driver=/sys/bus/virtio/drivers/virtio_net
up() {
    await '[ -e /sys/class/net/eth0 ]'
    ip addr add 10.0.0.1/24 dev eth0
    ip link set eth0 up
}
up
check ping -c 2 -W 10 10.0.0.2
round=0
while [ $round -lt "$ROUNDS" ]; do
    round=$((round + 1))
    # The transfer is cut: only that it ends matters.
    hematite --device system udp 10.0.0.2 --bytes 100000000 --timeout 500 >/dev/null 2>&1 &
    load=$!
    usleep 200000
    ip link set eth0 down
    ip link set eth0 up
    check ping -c 1 -W 10 10.0.0.2
    usleep 100000
    device=$(basename "$(readlink -f /sys/class/net/eth0/device)")
    echo "$device" >$driver/unbind
    kill $load 2>/dev/null
    wait $load
    # The bus driver goes too, the function is reset, and both come back.
    echo "$card" >/sys/bus/pci/drivers/virtio-pci/unbind
    echo 1 >/sys/bus/pci/devices/"$card"/reset || fail "function-level reset"
    echo "$card" >/sys/bus/pci/drivers/virtio-pci/bind || fail "bind"
    up
    check ping -c 2 -W 10 10.0.0.2
    echo "OK round $round"
done
check hematite --device system udp 10.0.0.2 --bytes 100000 --timeout 30000
