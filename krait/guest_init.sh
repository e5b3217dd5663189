#!/bin/sh
# What the Linux guest does before its shell; init runs it, from the initial file system that `krait build` makes.
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox grep -q ' /dev ' /proc/mounts || /bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
export PATH=/bin HOME=/
hostname linux

if [ ! -e /sys/bus/virtio ] && grep -q 0x1af4 /sys/bus/pci/devices/*/vendor 2>/dev/null; then
    for module in /lib/modules/*.ko; do insmod "$module"; done
fi

if [ -c /dev/hvc0 ] && grep -qw console=hvc0 /proc/cmdline; then exec </dev/hvc0 >/dev/hvc0 2>&1; fi

echo "krait-guest: user space reached"
echo "krait-guest: $(uname -srm), $(sed -n 's/^MemTotal: *//p' /proc/meminfo), up $(cut -d' ' -f1 /proc/uptime) s"

for word in $(cat /proc/cmdline); do
    case $word in
        krait.run=*) echo "krait-guest: run ${word#krait.run=}"; sh -c "$(echo "${word#krait.run=}" | tr , ' ')"; echo "krait-guest: run ended with $?" ;;
    esac
done

case " $(cat /proc/cmdline) " in
    *" krait.end=poweroff "*) echo "krait-guest: powering off"; poweroff -f ;;
    *" krait.end=reboot "*) echo "krait-guest: rebooting"; reboot -f ;;
esac
