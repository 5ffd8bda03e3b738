#!/usr/bin/env bash
# boot.sh NAME GUEST_SCRIPT [qemu options...]: boots the guest of target/vm, runs GUEST_SCRIPT in it as the last part of
# init and exits with the guest's status; the console is in target/vm/NAME.console. Files named in GUEST_FILES go to the
# guest's /bin, GUEST_SETTINGS are assignments in front of the script, GUEST_CPUS is how many CPUs it has.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
vm=$target/vm
name=$1 script=$2
shift 2
work=$(mktemp -d "$vm/run.XXXXXX")
trap 'rm -rf "$work"' EXIT
console=$vm/$name.console

mkdir -p "$work"/root/{bin,proc,sys,dev,tmp,modules}
cp -r "$vm"/root/. "$work/root/"
cp "$vm/busybox" "$work/root/bin/"
cp "$vm"/modules/*.ko "$work/root/modules/"
for file in ${GUEST_FILES:-}; do cp "$file" "$work/root/bin/"; done
{
    cat scripts/vm/guest-init.sh
    echo "${GUEST_SETTINGS:-}"
    cat "$script"
    echo 'finish 0'
} >"$work/root/init"
chmod +x "$work/root/init"
(cd "$work/root" && find . | "$vm/busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initrd"

# The guest's time is that of the ACPI timer: its TSC is the host's, and a guest that measures it at boot beside a busy
# host can get it wrong many times over. A kernel that doesn't come up must not hang the test; a console that runs over
# must not fill the disk.
timeout "${VM_TIMEOUT:-400}" "$vm/qemu" \
    -machine q35,accel=tcg,kernel-irqchip=split,memory-backend=mem,sata=off,smbus=off,hpet=off,i8042=off,vmport=off \
    -object memory-backend-memfd,id=mem,size=256M,share=on -m 256 -smp ${GUEST_CPUS:-1} \
    -nographic -no-reboot -nodefaults -no-user-config -serial stdio \
    "$@" -kernel "$vm/vmlinuz" -initrd "$work/initrd" \
    -append "console=ttyS0 quiet panic=-1 nokaslr mitigations=off no_timer_check tsc=unstable clocksource=acpi_pm audit=0 cryptomgr.notests ${KERNEL_ARGUMENTS:-}" \
    2>&1 </dev/null | sed -u 's/\r//g' | head -c 4000000 >"$console" || true
status=$(sed -n 's/^GUEST-STATUS //p' "$console" | tail -1)
exit "${status:-125}"
