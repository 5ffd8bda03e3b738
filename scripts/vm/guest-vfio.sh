# Our driver on the kernel's VFIO: on the card, and unchanged on QEMU's own virtio-net-pci, which has a neighbour in its
# IOMMU group.
refused "load it: modprobe vfio-pci" hematite bind "${CARDS%% *}"
modules irqbypass vfio vfio_iommu_type1 vfio-pci-core vfio-pci
# Each: function, own address with prefix length, peer, port of its echo server, the neighbour.
while read -r card ip peer port neighbour; do
    card() { hematite --device "$card" --ip "$ip" "$@"; }
    # With a limit of locked memory in KiB.
    as_nobody() { (ulimit -l "$1" && su -s /bin/sh nobody -c "hematite --device $card --ip $ip ping $peer -c 1"); }
    [ -e /sys/bus/pci/devices/"$card" ] || fail "no function $card"
    # Whatever is in the way is named with what to do.
    refused "hematite bind $card" card ping "$peer" -c 1
    refused "root is needed" su -s /bin/sh nobody -c "hematite bind $card"
    check hematite bind "$card"
    if [ -n "$neighbour" ]; then
        refused "$neighbour (virtio-pci) must be bound to vfio-pci" card ping "$peer" -c 1
        check hematite bind "$neighbour"
    fi
    group=/dev/vfio/$(basename "$(readlink /sys/bus/pci/devices/"$card"/iommu_group)")
    refused "no permission to open $group" as_nobody unlimited
    chown nobody "$group"
    refused "the limit of locked memory is 64 KiB" as_nobody 64
    check as_nobody unlimited

    check card ping "$peer" -c 5 --timeout 20000
    check card udp "$peer" --port "$port" --bytes "$BYTES" --timeout 30000
    check card tcp "$peer" --port "$port" --bytes "$BYTES" --timeout 60000

    # Hugepages are used when there are some, by one process at a time. Told to end, it leaves the function quiet: bus
    # mastering (bit 2 of the command register) is off, and the memory is free.
    free() { sed -n 's/^HugePages_Free: *//p' /proc/meminfo; }
    echo 4 >/proc/sys/vm/nr_hugepages
    before=$(free)
    for signal in TERM INT KILL; do
        hematite up "$card" --ip "$ip" &
        up=$!
        await "[ \$(grep -c vfio-msix /proc/interrupts) -gt 0 ]"
        [ "$before" = 4 ] && { [ "$(free)" = 0 ] || fail "$(free) hugepages are free while the driver runs"; }
        refused "another process has it open" card ping "$peer" -c 1
        kill -$signal $up
        wait $up || [ $signal = KILL ] || fail "hematite up did not end well"
        command=$(hexdump -s 4 -n 2 -e '1/2 "%u"' /sys/bus/pci/devices/"$card"/config)
        [ $((command & 4)) = 0 ] || fail "bus mastering is still on after SIG$signal: command $command"
        grep -q vfio-msix /proc/interrupts && fail "interrupts are still on after SIG$signal"
        [ "$(free)" = "$before" ] || fail "DMA memory is still held after SIG$signal"
    done
    echo 0 >/proc/sys/vm/nr_hugepages
    check card ping "$peer" -c 1 --timeout 20000
    check hematite unbind "$card"
    [ -z "$neighbour" ] || check hematite unbind "$neighbour"
    echo "OK $card"
done <<END
$CARDS
END
