# Our driver on the kernel's VFIO: on the card, and unchanged on QEMU's own virtio-net-pci.
modules irqbypass vfio vfio_iommu_type1 vfio-pci-core vfio-pci
# Each: function, own address with prefix length, peer, port of its echo server.
while read -r card ip peer port; do
    card() { hematite --device "$card" --ip "$ip" "$@"; }
    [ -e /sys/bus/pci/devices/"$card" ] || fail "no function $card"
    card ping "$peer" -c 1 && fail "opened a function that vfio-pci does not have"
    check hematite bind "$card"
    check card ping "$peer" -c 5 --timeout 20000
    check card udp "$peer" --port "$port" --bytes "$BYTES" --timeout 30000
    [ "${TCP:-0}" = 1 ] && check card tcp "$peer" --port "$port" --bytes "$BYTES" --timeout 60000
    # Told to end, it leaves the function quiet: bus mastering (bit 2 of the command register) is off.
    hematite --device "$card" --ip "$ip" up &
    sleep 2
    up=$!
    kill $up
    wait $up || fail "hematite up did not end well"
    command=$(hexdump -s 4 -n 2 -e '1/2 "%u"' /sys/bus/pci/devices/"$card"/config)
    [ $((command & 4)) = 0 ] || fail "bus mastering is still on: command $command"
    check hematite unbind "$card"
    echo "OK $card"
done <<END
$CARDS
END
