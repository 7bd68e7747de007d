#!/bin/bash
# Boots a Linux in qemu with a network device of several queues, runs a command there and another beside it.
#
#   bench/guest.sh MODULES QUEUES CPUS DEVICE 'COMMAND IN THE GUEST' 'COMMAND BESIDE IT'
#
# MODULES is the kernel's directory of modules, unpacked from its packages, with its vmlinuz (or say VMLINUZ=). DEVICE is qemu's, such as
# virtio-net-pci,iommu_platform=on,disable-legacy=on (zero copy needs both) or igb. This host's files are the guest's, for reading; what
# it writes is gone with it. Its device is `nic`, 10.77.0.2 and fd77::2; beside it, in a network namespace that goes with the script, is
# 10.77.0.1. The command beside begins when the one in the guest has printed a line that begins with "ready"; when it ends, all ends.
# ACCEL=kvm where the host has it; QEMU and QEMU_ARGS choose another qemu. Needs root, busybox-static, qemu-system-x86, xz.
# docs/experiments/zero-copy.md has what was seen by it.
set -euo pipefail

[ $# = 6 ] || { sed -n '2,/^set/{/^#/p}' "$0" >&2; exit 2; }
if [ -z "${MIDMILE_GUEST_INSIDE:-}" ]; then
    MIDMILE_GUEST_INSIDE=1 exec unshare --net "$0" "$@"
fi
modules=$1 queues=$2 cpus=$3 device=$4 inside=$5 beside=$6
scratch=$(mktemp -d)
guest=
trap '[ -z "$guest" ] || kill "$guest" 2>/dev/null || true; cat "$scratch/console" || true; rm -rf "$scratch"' EXIT
mkdir -p "$scratch/root/modules"

# Puts a module and what it needs into the initramfs, numbered in the order of loading.
number=100
add() {
    local name=$1 file need
    compgen -G "$scratch/root/modules/*-$name.ko" >/dev/null && return
    file=$(find "$modules/kernel" -name "${name//[_-]/[_-]}.ko*" -print -quit)
    # It's built in, or this kernel hasn't got it.
    [ -n "$file" ] || return 0
    case $file in
    *.xz) xz --decompress --stdout "$file" ;;
    *.zst) zstd --quiet --decompress --stdout "$file" ;;
    *) cat "$file" ;;
    esac >"$scratch/$name.ko"
    for need in $(tr '\0' '\n' <"$scratch/$name.ko" | sed -n 's/^depends=//p' | tr , ' '); do add "$need"; done
    number=$((number + 1))
    mv "$scratch/$name.ko" "$scratch/root/modules/$number-$name.ko"
}
for module in 9pnet_virtio 9p overlay virtio_net igb; do add "$module"; done

cp "$(command -v busybox)" "$scratch/root/busybox"
cat >"$scratch/root/init" <<INIT
#!/busybox sh
b=/busybox
\$b mkdir -p /proc /sys /dev /below /above /root
\$b mount -t proc proc /proc
\$b mount -t sysfs sys /sys
\$b mount -t devtmpfs dev /dev
for module in /modules/*; do \$b insmod \$module; done
\$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose host /below
\$b mount -t tmpfs above /above
\$b mkdir /above/files /above/work
\$b mount -t overlay -o lowerdir=/below,upperdir=/above/files,workdir=/above/work root /root
for place in proc sys dev; do \$b mount --move /\$place /root/\$place; done
exec \$b switch_root /root /bin/bash $scratch/inside
INIT
chmod +x "$scratch/root/init"
cat >"$scratch/inside" <<INSIDE
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
ulimit -l unlimited
ip link set lo up
ip link set eth0 name nic
ip address add 10.77.0.2/24 dev nic
ip -6 address add fd77::2/64 dev nic nodad
ip link set nic up
until [ "\$(cat /sys/class/net/nic/carrier)" = 1 ]; do sleep 0.1; done
$inside
echo "the command in the guest ended: \$?"
sleep infinity
INSIDE
(cd "$scratch/root" && find . | busybox cpio -o -H newc 2>/dev/null) | gzip -1 >"$scratch/initramfs"

many='' tap_queues=''
if [ "$queues" -gt 1 ]; then
    many=multi_queue tap_queues=,queues=$queues
    device=$device,mq=on,vectors=$((2 * queues + 2))
fi
ip link set lo up
# shellcheck disable=SC2086 # no word where there's one queue
ip tuntap add nic-host mode tap vnet_hdr $many
ip address add 10.77.0.1/24 dev nic-host
ip -6 address add fd77::1/64 dev nic-host nodad
ip link set nic-host up

# shellcheck disable=SC2086 # several words
"${QEMU:-qemu-system-x86_64}" ${QEMU_ARGS:-} -machine q35 -accel "${ACCEL:-tcg,thread=multi}" -cpu max -smp "$cpus" -m 2G \
    -nodefaults -no-reboot -display none -serial "file:$scratch/console" \
    -kernel "${VMLINUZ:-$modules/vmlinuz}" -initrd "$scratch/initramfs" -append 'console=ttyS0 panic=-1 mitigations=off quiet' \
    -fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap \
    -device virtio-9p-pci,fsdev=host,mount_tag=host \
    -netdev "tap,id=net,ifname=nic-host,script=no,downscript=no$tap_queues" \
    -device "$device,netdev=net,addr=0x10,romfile=" &
guest=$!
until grep -qs -e '^ready' -e 'the command in the guest ended' "$scratch/console"; do
    kill -0 "$guest" || exit 1
    sleep 0.2
done
bash -c "$beside"
