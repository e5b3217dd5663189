#!/bin/busybox sh
# Boots from a disk: with `rdinit=/bin/boot-root root=/dev/vda` the kernel runs this first, and the disk's own /sbin/init takes over.
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
export PATH=/bin
for module in /lib/modules/*.ko; do insmod "$module"; done
for word in $(cat /proc/cmdline); do
    case $word in root=*) root=${word#root=} ;; esac
done
mkdir -p /root
mount -t ext4 "$root" /root || { echo "boot-root: no file system on $root"; poweroff -f; }
umount /proc
mount -o move /dev /root/dev
exec switch_root /root /sbin/init
