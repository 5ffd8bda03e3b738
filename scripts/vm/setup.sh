#!/usr/bin/env bash
# What `make vm-test` boots: QEMU with the vfio-user-pci device, a stock Debian cloud kernel with its modules, busybox and
# ethtool, unpacked under target/vm. Nothing is installed and root is not needed; about 80 MB from the mirror that
# this machine's own apt uses, once. Runs again only when this file changes.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(realpath -m "${CARGO_TARGET_DIR:-target}")/vm
stamp=$(sha256sum scripts/vm/setup.sh | sha256sum | cut -c1-16)
[ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ] && exit 0

skip() { echo "vm-setup: skipped: $*" >&2; exit 77; }
[ "$(uname -m)" = x86_64 ] || skip "the guest's kernel and QEMU are fetched for x86-64 only"
for tool in apt-get apt-cache dpkg-deb xz; do
    command -v $tool >/dev/null || skip "$tool is not here; this needs a Debian machine"
done
# The mirror of this machine's Debian suites, in either of apt's formats.
mirror=$(cat /etc/apt/sources.list.d/debian.sources 2>/dev/null | awk '/^URIs:/ { print $2; exit }')
[ -n "$mirror" ] || mirror=$(grep -rhoE '^deb (\[[^]]*\] )?[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null |
    sed -E 's/^deb (\[[^]]*\] )?//; s/ $//' | head -1)
[ -n "$mirror" ] || skip "no Debian mirror in this machine's apt sources"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f $keyring ] || skip "$keyring is missing (package debian-archive-keyring)"

rm -rf "$out"
mkdir -p "$out"
work=$out/work
apt=$work/apt
mkdir -p "$work/deb" "$apt/etc/apt/apt.conf.d" "$apt/etc/apt/preferences.d" "$apt/var/lib/apt/lists/partial" \
    "$apt/var/cache/apt/archives/partial" "$apt/var/lib/dpkg"
: >"$apt/var/lib/dpkg/status"
# This machine's own apt settings (proxies), if any.
cp /etc/apt/apt.conf.d/* "$apt/etc/apt/apt.conf.d/" 2>/dev/null || true
# vfio-user-pci came with QEMU 10.1: newer than bookworm's, newer than trixie's own.
for suite in trixie trixie-backports; do
    echo "deb [signed-by=$keyring] $mirror $suite main"
done >"$apt/etc/apt/sources.list"
options=(-qq -o "Dir=$apt" -o "Dir::State::status=$apt/var/lib/dpkg/status" -o APT::Install-Recommends=false
    -o APT::Sandbox::User=root -o Acquire::Languages=none)
echo "vm-setup: package lists" >&2
apt-get "${options[@]}" update || skip "the mirror can't be reached"
echo "vm-setup: QEMU" >&2
apt-get "${options[@]}" -y -t trixie-backports --download-only install qemu-system-x86 seabios >/dev/null ||
    skip "QEMU of trixie-backports can't be had"
kernel=$(apt-cache "${options[@]}" depends -t trixie linux-image-cloud-amd64 | awk '/Depends: linux-image-6/ { print $2; exit }')
[ -n "$kernel" ] || skip "no cloud kernel in trixie"
echo "vm-setup: $kernel" >&2
(cd "$work/deb" && apt-get "${options[@]}" download "$kernel" busybox-static ethtool libmnl0 libc6) ||
    skip "the guest's packages can't be had"

for package in "$apt"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$work/host"; done
for package in "$work"/deb/*.deb; do dpkg-deb -x "$package" "$work/guest"; done

# QEMU runs from here through the loader and the libraries that it was built with.
mkdir -p "$out"/{lib,share,modules}
libraries=$work/host/usr/lib/x86_64-linux-gnu
binary=$work/host/usr/bin/qemu-system-x86_64
"$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" --list "$binary" |
    awk '$3 ~ /^\// { print $3 }' | xargs cp -Lt "$out/lib"
cp -L "$libraries/ld-linux-x86-64.so.2" "$out/lib/"
cp "$binary" "$out/"
for firmware in bios-256k.bin kvmvapic.bin linuxboot_dma.bin; do
    find "$work/host/usr/share" -name $firmware -exec cp -L {} "$out/share/" \;
done
cat >"$out/qemu" <<'END'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
exec "$here/lib/ld-linux-x86-64.so.2" --library-path "$here/lib" "$here/qemu-system-x86_64" -L "$here/share" "$@"
END
chmod +x "$out/qemu"

cp "$work"/guest/boot/vmlinuz-* "$out/vmlinuz"
cp "$(find "$work/guest" -path '*/bin/busybox' -type f)" "$out/busybox"
# ethtool is linked dynamically: its loader and libraries go where it looks for them.
mkdir -p "$out/root/bin" "$out/root/lib64" "$out/root/lib/x86_64-linux-gnu"
cp "$(find "$work/guest" -name ethtool -path '*bin/*')" "$out/root/bin/"
guest_libraries=$work/guest/usr/lib/x86_64-linux-gnu
cp -L "$guest_libraries/ld-linux-x86-64.so.2" "$out/root/lib64/"
cp -L "$guest_libraries"/{libc.so.6,libm.so.6,libmnl.so.0} "$out/root/lib/x86_64-linux-gnu/"
for module in failover net_failover virtio_net llc stp mrp garp 8021q irqbypass vfio vfio_iommu_type1 vfio-pci-core vfio-pci; do
    file=$(find "$work/guest" -name "$module.ko.xz")
    [ -n "$file" ] && xz -dc "$file" >"$out/modules/$module.ko"
done
"$out/qemu" -device help 2>/dev/null | grep -q '"vfio-user-pci"' || skip "this QEMU has no vfio-user-pci"
rm -rf "$work"
echo "$stamp" >"$out/stamp"
