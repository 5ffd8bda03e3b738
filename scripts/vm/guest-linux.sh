# Stock Linux drives the card: its own virtio_net, unmodified.
card=$(function_of 0x1af4 0x1041)
[ -n "$card" ] || fail "no virtio network function on the bus"
# This guest has no IOMMU, which our own driver will not do without.
refused "boot with intel_iommu=on" hematite bind "$card"
modules failover net_failover virtio_net
await '[ -e /sys/class/net/eth0 ]'
# The features that this kernel and the card both know: of the network, the rings and the transport (RING_PACKED is 34).
features="0 1 2 5 7 8 9 11 12 13 15 16 17 18 19 21 22 23 32 33 34 36 40 50 52 53 57 60 63"
negotiated=$(sed 's/./& /g' /sys/bus/virtio/devices/virtio0/features |
    awk '{ for (i = 1; i <= NF; i++) if ($i) printf "%s%d", n++ ? " " : "", i - 1 }')
[ "$negotiated" = "$features" ] || fail "the features $negotiated are negotiated, not $features"
echo "OK features $negotiated"
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

# counter NAME: one of the card's own, in its vendor registers.
bar=$(head -1 /sys/bus/pci/devices/"$card"/resource | cut -d' ' -f1)
counter() {
    index=0
    for name in $COUNTERS; do
        [ "$name" = "$1" ] && break
        index=$((index + 1))
    done
    [ "$name" = "$1" ] || fail "the card has no counter $1"
    echo $(($(devmem $((bar + 0x4200 + 8 * index)) 32)))
}
[ $(($(devmem $((bar + 0x4000)) 32))) = $((0x4f326546)) ] || fail "no vendor registers at BAR 0 ($bar)"
# works COUNTER yes|no command...: whether the card did, while the command ran, what the counter counts. For merging a yes
# may take a few runs: an echo that acknowledges each segment with a segment, as a kernel at the far end may do, leaves
# nothing to merge.
works() {
    local name=$1 expected=$2
    shift 2
    before=$(counter "$name")
    runs=1
    [ "$name" = rx_gro_packets ] && runs=$(seq 10)
    for run in $runs; do
        "$@"
        grown=$(($(counter "$name") - before))
        echo "$name grew by $grown"
        [ $expected = yes ] && [ $grown = 0 ] || break
    done
    case $expected in
    yes) [ $grown -gt 0 ] || fail "$name did not grow during: $* ($run times)" ;;
    no) [ $grown = 0 ] || fail "$name grew by $grown during: $*" ;;
    esac
}
transfer() { check hematite --device system tcp "${1:-10.0.0.2}" --bytes "$BYTES" --timeout 60000; }

if [ "$IPV6" = yes ]; then
    # Who answers on the link but this machine itself is the far end.
    own=$(ip addr show dev eth0 | sed -n 's/.*inet6 \(fe80::[^/]*\).*/\1/p')
    await 'ping -6 -c 2 -W 2 ff02::1%eth0 | grep -o "fe80::[0-9a-f:]*[0-9a-f]" | grep -vx "$own" | head -1 >/tmp/peer; [ -s /tmp/peer ]'
    peer6=$(cat /tmp/peer)%eth0
    check ping -6 -c 3 -W 10 -s 1400 "$peer6"
    check hematite --device system udp "$peer6" --bytes "$BYTES" --timeout 30000
    works tx_tso_packets yes transfer "$peer6"
    works rx_gro_packets yes transfer "$peer6"
    echo "OK IPv6: ping, udp, tcp with $peer6"
fi

offload() { ethtool -k eth0 | sed -n "s/^[[:space:]]*$1: \([a-z]*\).*/\1/p"; }
# switch WORD NAME on|off: ethtool's word for an offload, the name that -k shows.
switch() {
    check ethtool -K eth0 "$1" "$3"
    [ "$(offload "$2")" = "$3" ] || fail "$2 is not $3: $(ethtool -k eth0)"
}
# counted WORD NAME COUNTER [ADDRESS]: off and on again, with transfers to the address, as the card counts them.
counted() {
    [ "$(offload "$2")" = on ] || fail "$2 is off: $(ethtool -k eth0)"
    switch "$1" "$2" off
    works "$3" no transfer "${4:-}"
    switch "$1" "$2" on
    [ "$1" = tx ] && ethtool -K eth0 tso on
    works "$3" yes transfer "${4:-}"
    echo "OK $2: on, off, on"
}
# uncounted WORD NAME: the same where the card counts nothing of it.
uncounted() {
    [ "$(offload "$2")" = on ] || fail "$2 is off: $(ethtool -k eth0)"
    switch "$1" "$2" off
    transfer
    switch "$1" "$2" on
    echo "OK $2: on, off, on"
}
counted tx tx-checksumming tx_csum
counted tso tx-tcp-segmentation tx_tso_packets
[ "$IPV6" = yes ] && counted tx-tcp6-segmentation tx-tcp6-segmentation tx_tso_packets "$peer6"
counted rx-gro-hw rx-gro-hw rx_gro_packets
uncounted tx-tcp-ecn-segmentation tx-tcp-ecn-segmentation
uncounted sg scatter-gather

channels() { ethtool -l eth0 | sed -n 's/^Combined:[[:space:]]*//p' | tail -1; }
pairs=$(channels)
[ "$pairs" -gt 1 ] || fail "one pair of queues for two CPUs: $(ethtool -l eth0)"
check ethtool -L eth0 combined 1
[ "$(channels)" = 1 ] || fail "still $(channels) pairs of queues"
transfer
check ethtool -L eth0 combined "$pairs"
transfer
echo "OK channels: $pairs, 1, $pairs"
# Of all CPUs.
interrupts() { sed -n "s/ *PCI-MSIX.*virtio0-input.1\$//p" /proc/interrupts | cut -d: -f2 | tr -s ' ' '\n' | awk '{ n += $1 } END { print n + 0 }'; }
# Everything to the second queue, then as at first.
check ethtool -X eth0 weight 0 1
before=$(interrupts)
transfer
[ "$(interrupts)" -gt "$before" ] || fail "nothing came by the second queue: $(ethtool -x eth0)"
# Off takes the hash types along: what has no hash goes to the first queue, whatever the table says.
check ethtool -K eth0 rxhash on
switch rxhash receive-hashing off
before=$(interrupts)
transfer
[ "$(interrupts)" = "$before" ] || fail "it came by the second queue without a hash"
switch rxhash receive-hashing on
transfer
[ "$(interrupts)" -gt "$before" ] || fail "nothing came by the second queue with receive-hashing: $(ethtool -x eth0)"
check ethtool -X eth0 default
transfer
echo "OK receive-side scaling, receive-hashing: on, off, on"

moderation() { ethtool -c eth0 | sed -n "s/^$1:[[:space:]]*//p"; }
check ethtool -C eth0 rx-usecs 200 rx-frames 16 tx-usecs 100 tx-frames 32
[ "$(moderation rx-usecs) $(moderation rx-frames) $(moderation tx-usecs)" = "200 16 100" ] ||
    fail "moderation is $(ethtool -c eth0)"
transfer
# Beyond what the card's timer holds.
ethtool -C eth0 rx-usecs 100000 2>/dev/null && fail "100 ms of moderation were accepted"
[ "$(moderation rx-usecs)" = 200 ] || fail "a refused value is shown: $(moderation rx-usecs)"
check ethtool -C eth0 adaptive-rx on
transfer
check ethtool -C eth0 adaptive-rx off
check ethtool -C eth0 rx-usecs 0 rx-frames 1 tx-usecs 0 tx-frames 1
check ping -c 2 -W 10 10.0.0.2
echo "OK interrupt moderation"

# Busybox's ip knows only one of them, its ifconfig both. The flags: IFF_PROMISC and IFF_ALLMULTI.
for row in promisc:0x100 allmulti:0x200; do
    mode=${row%:*} flag=${row#*:}
    check ifconfig eth0 "$mode"
    [ $(($(cat /sys/class/net/eth0/flags) & flag)) != 0 ] || fail "$mode is not on"
    check ping -c 1 -W 10 10.0.0.2
    check ifconfig eth0 "-$mode"
    check ping -c 1 -W 10 10.0.0.2
done
other=02:00:00:0a:0b:0c
check ip link set eth0 address $other
[ "$(cat /sys/class/net/eth0/address)" = $other ] || fail "the address is still $(cat /sys/class/net/eth0/address)"
check ping -c 2 -W 10 10.0.0.2
check ip link set eth0 address "$MAC"
check ping -c 2 -W 10 10.0.0.2
modules llc stp mrp garp 8021q
check ip link add link eth0 name eth0.7 type vlan id 7
check ip link set eth0.7 up
check ip link del eth0.7
check ping -c 1 -W 10 10.0.0.2
echo "OK VLAN filter"
dmesg | grep -E "virtio_net|eth0" | grep -iE "fail|error|warn|timed out" && fail "the driver complains"
echo "OK receive modes, address"
# Nothing is on its way any more: the kernel's counters are those that the card will show.
sleep 1
statistic() { cat /sys/class/net/eth0/statistics/"$1"; }
# shown NAME: the card's counter, as the kernel shows it.
shown() { ethtool -S eth0 | sed -n "s/^ *$1: //p"; }
ethtool -S eth0 | grep _hw_
for what in packets bytes; do
    [ "$(statistic rx_$what)" = "$(shown rx_hw_$what)" ] ||
        fail "received $what: the kernel $(statistic rx_$what), the card $(shown rx_hw_$what)"
done
[ "$(shown tx_hw_packets)" -ge "$(statistic tx_packets)" ] || fail "the card sent less than the kernel"
[ "$(shown cq_hw_command_num)" -gt 10 ] || fail "control commands are not counted"
echo "OK device statistics: $(shown rx_hw_packets) packets received, for the kernel and for the card"
cat /proc/net/dev
echo "COUNTERS rx $(statistic rx_packets) tx $(statistic tx_packets) errors $(($(statistic rx_errors) + $(statistic tx_errors) + $(statistic rx_dropped)))"
