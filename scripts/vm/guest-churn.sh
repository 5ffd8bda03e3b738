# In the middle of traffic, ROUNDS times: rings changed (a reset of each queue) and interface down and up with virtio_net
# bound, driver unbound, function-level reset with and without a driver, bound again.
card=$(function_of 0x1af4 0x1041)
[ -n "$card" ] || fail "no virtio network function on the bus"
modules failover net_failover virtio_net
driver=/sys/bus/virtio/drivers/virtio_net
function=/sys/bus/pci/devices/$card
up() {
    await '[ -e /sys/class/net/eth0 ]'
    ip addr add 10.0.0.1/24 dev eth0
    ip link set eth0 up
}
rings() {
    check ethtool -G eth0 rx "$1" tx "$1"
    ethtool -g eth0 | grep '^RX:' | tail -1 | grep -q "[^0-9]$1\$" || fail "rings are not $1: $(ethtool -g eth0)"
}
up
check ping -c 2 -W 10 10.0.0.2
round=0
while [ $round -lt "$ROUNDS" ]; do
    round=$((round + 1))
    # The transfer is cut: only that it ends matters.
    hematite --device system udp 10.0.0.2 --bytes 100000000 --timeout 2000 >/dev/null 2>&1 &
    load=$!
    usleep 200000
    rings $((32 << round % 4))
    check ping -c 1 -W 10 10.0.0.2
    ip link set eth0 down
    ip link set eth0 up
    check ping -c 1 -W 10 10.0.0.2
    usleep 100000
    device=$(basename "$(readlink -f /sys/class/net/eth0/device)")
    if [ $((round % 2)) = 0 ]; then
        echo "$device" >$driver/unbind
    else
        # The driver doesn't expect this one. It finds a device that was reset when it is taken away. But virtio_net waits
        # for the answer to a command for as long as it takes, and a worker sets the receive mode, later: it gets time to
        # begin, and then ifconfig waits for the lock that it holds to its end (ip would see that nothing is to change).
        ip link set eth0 down
        usleep 300000
        ifconfig eth0 down
        echo 1 >"$function"/reset || fail "function-level reset with the driver bound"
    fi
    kill $load 2>/dev/null
    wait $load
    # The bus driver goes too, the function is reset, and both come back.
    echo "$card" >/sys/bus/pci/drivers/virtio-pci/unbind
    echo 1 >"$function"/reset || fail "function-level reset"
    echo "$card" >/sys/bus/pci/drivers/virtio-pci/bind || fail "bind"
    up
    check ping -c 2 -W 10 10.0.0.2
    echo "OK round $round"
done
check hematite --device system udp 10.0.0.2 --bytes 100000 --timeout 30000
