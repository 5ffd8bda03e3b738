#!/bin/busybox sh
# The guest's init: the test's own part is appended.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
echo 1 >/proc/sys/kernel/printk_devkmsg 2>/dev/null
mkdir -p /etc
echo 'root:x:0:0::/:/bin/sh
nobody:x:65534:65534::/:/bin/sh' >/etc/passwd

finish() {
    echo "GUEST-STATUS $1"
    poweroff -f
    sleep 60
}
fail() {
    echo "FAILED: $*"
    dmesg | tail -40
    ip link; cat /proc/interrupts | grep virtio; cat /proc/net/dev
    finish 1
}
check() { "$@" || fail "$*"; }
# refused TEXT command...: the command fails, and says so.
refused() {
    text=$1
    shift
    said=$("$@" 2>&1) && fail "not refused: $*"
    case $said in
    *"$text"*) echo "OK refused: $said" ;;
    *) fail "$*: said \"$said\", not \"$text\"" ;;
    esac
}
modules() { for module in "$@"; do insmod /modules/"$module".ko || fail "insmod $module"; done; }
# The PCI address of the first function with these IDs.
function_of() {
    for path in /sys/bus/pci/devices/*; do
        [ "$(cat "$path"/vendor) $(cat "$path"/device)" = "$1 $2" ] && { basename "$path"; return; }
    done
}
# Waits for a condition, at most 20 s.
await() {
    tries=0
    until eval "$1"; do
        tries=$((tries + 1))
        [ $tries -gt 200 ] && fail "waited in vain for: $1"
        usleep 100000
    done
}
ip link set lo up
# fq_codel drops what waits for more than a few milliseconds: on a simulated card that is any burst of datagrams.
echo pfifo_fast >/proc/sys/net/core/default_qdisc
