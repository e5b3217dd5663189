#!/bin/sh
# For the Linux guests of `krait bench isolation`: `isolation job AT`, a fixed job from AT ms after the start on, whose time it prints;
# `isolation bomb AT`, processes that fork without end. Until AT it spins: a guest that slept would leave its share to the PV guests,
# whose time begins before that of Linux (whose clock starts once it is unpacked), and they would be measured with fewer neighbours.
now() { sed -n 's/^now at \([0-9]*\) nsecs$/\1/p' /proc/timer_list; }
bomb() { [ "$1" -gt 0 ] && { bomb $(($1 - 1)) & bomb $(($1 - 1)) & wait; }; }

dd if=/dev/zero of=/tmp/work bs=64k count=64 2>/dev/null
md5sum /tmp/work >/dev/null
while [ "$(now)" -lt "$2"000000 ]; do :; done
case $1 in
    job)
        from=$(now)
        md5sum /tmp/work /tmp/work /tmp/work /tmp/work >/dev/null
        echo "job: $(($(now) - from))"
        while :; do :; done ;;
    bomb) while :; do bomb 7; done ;;
esac
