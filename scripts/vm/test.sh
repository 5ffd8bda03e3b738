#!/usr/bin/env bash
# make vm-test: software that nobody here wrote drives the card, and our driver drives a card that nobody here wrote.
#   linux  a stock Debian kernel's virtio_net on the simulated card: link, ping, checked transfers; each offload off and
#          on again (ethtool -K), interrupt moderation (-C), receive modes, another address; the counters of both
#   churn  the same with rings, interface, driver and function reset in the middle of traffic, ROUNDS times
#   vfio   the hematite command on the kernel's VFIO with an IOMMU: on the simulated card and on QEMU's virtio-net-pci;
#          what it says when something is in the way; what it leaves behind
#   tap    as linux, with another kernel's stack (this machine's, in a network namespace) at the far end: UDP and TCP;
#          and `hematite up` on the card; needs root
# Usage: test.sh [linux] [tap] [churn] [vfio]. Consoles and captures stay in target/vm. BYTES of each transfer, ROUNDS,
# SEED of the card, VM_TIMEOUT in seconds for one guest (churn has three times that), BUILT=1 when the host's binaries are
# there already.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
vm=$target/vm
tests=("$@")
[ ${#tests[@]} -gt 0 ] || tests=(linux tap churn vfio)
bytes=${BYTES:-400000}
rounds=${ROUNDS:-20}

skip() { echo "vm-test: skipped: $*"; exit 0; }
scripts/vm/setup.sh || { [ $? = 77 ] && skip "see above"; exit 1; }
musl=x86_64-unknown-linux-musl
cargo=${CARGO:-cargo}
if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$musl" ]; then
    command -v rustup >/dev/null && rustup target add $musl ||
        skip "Rust's $musl target is not installed and can't be (rustup target add $musl)"
fi
[ -n "${BUILT:-}" ] || $cargo build --quiet --package hematite-sim --package hematite-cli
$cargo build --quiet --target $musl --package hematite-cli
export GUEST_FILES=$target/$musl/debug/hematite

work=$(mktemp -d)
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT

# await_line TEXT FILE: for at most 10 s.
await_line() {
    for _ in $(seq 100); do
        grep -qs "$1" "$2" && return
        sleep 0.1
    done
    echo "vm-test: $2 doesn't say \"$1\":"
    cat "$2"
    exit 1
}
# serve NAME: the card behind a vfio-user socket, with the in-process peer on its wire.
serve() {
    ${2:-} "$target/debug/hematite-sim" serve --socket "$work/$1" --seed "${SEED:-1}" --wire "${3:-peer}" \
        --capture "$vm/$1.pcapng" >"$vm/$1.server" 2>&1 &
    server=$!
    pids+=("$server")
    await_line '^serving' "$vm/$1.server"
    card=("-device" "pcie-root-port,id=port0,chassis=1,slot=1"
        "-device" '{"driver":"vfio-user-pci","bus":"port0","x-msg-timeout":60000,"socket":{"type":"unix","path":"'"$work/$1"'"}}')
}
# stop_server NAME: ends it and looks at what it says.
stop_server() {
    kill "$server"
    if ! wait "$server"; then
        echo "vm-test: $1: the card broke rules:"
        tail -20 "$vm/$1.server"
        return 1
    fi
}
report() {
    if [ "$2" = 0 ]; then
        grep -E '^OK' "$vm/$1.console" | sed "s/^/vm-test: $1: /"
        return
    fi
    echo "vm-test: $1: FAILED ($2), the guest said:"
    tail -80 "$vm/$1.console"
    echo "the server said:"
    tail -20 "$vm/$1.server" 2>/dev/null
    # Once more, where whoever sees only the end of a log sees it.
    grep '^FAILED' "$vm/$1.console" | sed "s/^/vm-test: $1: /"
    exit 1
}
# The card's counters in the order of its registers, for a guest that reads them there.
counters=$(sed -n 's/^    [A-Z0-9_]* "\([a-z0-9_]*\)" ".*/\1/p' hdl/abi/src/counter.rs | tr '\n' ' ')
linux_settings="MAC=02:48:65:6d:61:31 BYTES=$bytes COUNTERS='$counters' IPV6=yes"
# The value of a counter in the server's last report, which leaves out those that are 0.
counter() {
    [[ " $counters" == *" $1 "* ]] || { echo "vm-test: the card has no counter $1" >&2; return 1; }
    sed -n 's/^card: //p' "$vm/linux.server" | tr ',' '\n' | awk -v name="$1" '$1 == name { n = $2 } END { print n + 0 }'
}

for test in "${tests[@]}"; do
    status=0
    # What an earlier run left would be taken for what this one says.
    rm -f "$vm/$test".* "$vm"/*."$test"
    case $test in
    linux)
        serve linux
        GUEST_SETTINGS=$linux_settings KERNEL_ARGUMENTS=iomem=relaxed GUEST_CPUS=2 \
            scripts/vm/boot.sh linux scripts/vm/guest-linux.sh "${card[@]}" || status=$?
        stop_server linux || status=1
        report linux $status
        read -r _ _ rx _ tx _ errors < <(grep '^COUNTERS' "$vm/linux.console")
        # The kernel counts a packet once that the card cuts into segments, or has made of several frames.
        card_rx=$(($(counter rx_delivered) - $(counter rx_gro_joined)))
        card_tx=$(($(counter tx_good) - $(counter tx_tso_segments) + $(counter tx_tso_packets)))
        if [ "$rx $tx $errors" != "$card_rx $card_tx 0" ]; then
            echo "vm-test: linux: FAILED: the guest counts rx $rx, tx $tx, errors $errors; the card $card_rx and $card_tx"
            exit 1
        fi
        echo "vm-test: linux: counters agree: rx $rx, tx $tx"
        ;;
    tap)
        if [ "$(id -u)" != 0 ] || ! [ -c /dev/net/tun ] || ! unshare --net true 2>/dev/null; then
            echo "vm-test: tap: skipped: a TAP device needs root, /dev/net/tun and a network namespace"
            continue
        fi
        # The namespace is the server's, and goes with it; the echo server joins it.
        serve tap "unshare --net --" tap:card
        nsenter --target "$server" --net "$target/debug/hematite" --device system up >"$vm/echo.tap" 2>&1 &
        pids+=($!)
        await_line 'echoing on port' "$vm/echo.tap"
        # Nobody answers ff02::1 from the namespace; IPv6 is the other guest's to test.
        GUEST_SETTINGS="$linux_settings IPV6=no" KERNEL_ARGUMENTS=iomem=relaxed GUEST_CPUS=2 \
            scripts/vm/boot.sh tap scripts/vm/guest-linux.sh "${card[@]}" || status=$?
        # The other way round: our driver and stack on the card, found and spoken to by this machine's kernel.
        if [ $status = 0 ]; then
            "$target/debug/hematite" --device "vfio-user:$work/tap" --ip 10.0.0.1/24 up >"$vm/up.tap" 2>&1 &
            up=$!
            await_line 'link up' "$vm/up.tap"
            nsenter --target "$server" --net "$target/debug/hematite" --device system udp 10.0.0.1 \
                --bytes "$bytes" --timeout 30000 || status=$?
            if command -v ping >/dev/null; then
                nsenter --target "$server" --net ping -c 3 -W 10 10.0.0.1 || status=$?
            fi
            kill $up
            wait $up || status=$?
            grep '^echoed' "$vm/up.tap" || status=1
        fi
        stop_server tap || status=1
        report tap $status
        ;;
    churn)
        serve churn
        GUEST_SETTINGS="ROUNDS=$rounds" VM_TIMEOUT=$((3 * ${VM_TIMEOUT:-400})) \
            scripts/vm/boot.sh churn scripts/vm/guest-churn.sh "${card[@]}" || status=$?
        stop_server churn || status=1
        report churn $status
        ;;
    vfio)
        serve vfio
        # On a port of its own: another run's would end in the midst of this one's transfers.
        "$target/debug/hematite" --device system up --port 0 >"$vm/echo.vfio" 2>&1 &
        pids+=($!)
        await_line 'echoing on port' "$vm/echo.vfio"
        port=$(sed -n 's/^echoing on port //p' "$vm/echo.vfio")
        # Both behind the IOMMU; QEMU's own device with packed rings, and a second function beside it.
        port1=bus=port1,addr=0x0
        modern=iommu_platform=on,disable-legacy=on
        GUEST_SETTINGS="BYTES=$bytes CARDS='0000:01:00.0 10.0.0.1/24 10.0.0.2 7
0000:02:00.0 10.0.2.15/24 10.0.2.2 $port 0000:02:00.1'" KERNEL_ARGUMENTS=intel_iommu=on \
            scripts/vm/boot.sh vfio scripts/vm/guest-vfio.sh \
            -device intel-iommu,intremap=on,caching-mode=on "${card[@]}" \
            -device pcie-root-port,id=port1,chassis=2,slot=2 -netdev user,id=net0 \
            -object filter-dump,id=dump0,netdev=net0,file="$vm/vfio-qemu.pcap" \
            -device "virtio-net-pci,$port1.0,multifunction=on,netdev=net0,packed=on,$modern,romfile=" \
            -device "virtio-rng-pci,$port1.1,$modern" || status=$?
        stop_server vfio || status=1
        report vfio $status
        # What is asked of a machine whose IOMMU remaps no interrupts.
        KERNEL_ARGUMENTS=intel_iommu=on scripts/vm/boot.sh vfio-intremap scripts/vm/guest-intremap.sh \
            -device intel-iommu,intremap=off,caching-mode=on \
            -device "virtio-net-pci,packed=on,$modern,romfile=" || status=$?
        report vfio-intremap $status
        ;;
    *)
        echo "vm-test: there is no test $test"
        exit 1
        ;;
    esac
done
