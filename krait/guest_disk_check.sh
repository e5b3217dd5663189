#!/bin/sh
# disk-check DEVICE FILES: makes a file system, fills it, and after a reboot finds every byte again. In the initial file system
# of Linux guests with disks. The first life ends by a reboot, the second prints "disk-check: ok".
device=$1 files=$2
mkdir -p /mnt
if mount -t ext4 "$device" /mnt 2>/dev/null; then
    cd /mnt || exit 1
    md5sum -c sums >/tmp/bad 2>&1 || { grep -v OK /tmp/bad; echo "disk-check: sums differ"; exit 1; }
    echo "disk-check: ok, $(wc -l <sums) files"
    cd / && umount /mnt
    exit 0
fi
/sbin/mke2fs -q -t ext4 "$device" || exit 1
mount -t ext4 "$device" /mnt && cd /mnt || exit 1
i=0
while [ $i -lt "$files" ]; do
    head -c $((i * 7919 % 200000 + 1)) /dev/urandom >file$i
    i=$((i + 1))
done
md5sum file* >sums
sync
echo "disk-check: written"
reboot -f
