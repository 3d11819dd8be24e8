#!/bin/busybox sh
# init of the small test guest: prints one greeting line, then serves a shell on the guest's console.
# Words on the kernel command line change what it does after the greeting:
#   oxen.modules      before it: the modules for disks and networks are loaded
#   oxen.run=PROGRAM  after it: runs that program of the image
#   oxen.then=poweroff | reboot | crash | tick     (tick: a line a second, "GUEST-TICK N")
/bin/busybox mkdir -p /proc /sys /dev /tmp /run
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
export PATH=/sbin:/bin HOME=/ TERM=vt102 ENV=/etc/shrc PS1='guest# '

case " $(cat /proc/cmdline) " in
    *" oxen.modules "*)
        while read -r module; do insmod "/oxen/modules/$module.ko"; done < /oxen/modules/order
        ;;
esac

read -r uptime rest < /proc/uptime
type=$(cat /sys/hypervisor/type 2>/dev/null)/$(cat /sys/hypervisor/guest_type 2>/dev/null)
memory=$(awk '/^MemTotal/ { print $2 }' /proc/meminfo)
echo "GUEST-READY kernel=$(uname -r) type=$type cpus=$(nproc) memory_kib=$memory uptime=$uptime"

for word in $(cat /proc/cmdline); do
    case $word in
        oxen.run=*) "${word#oxen.run=}" ;;
        oxen.then=poweroff) /sbin/poweroff ;;
        oxen.then=reboot) /sbin/reboot ;;
        oxen.then=crash) echo c > /proc/sysrq-trigger ;;
        oxen.then=tick)
            n=0
            while :; do
                n=$((n + 1))
                echo "GUEST-TICK $n"
                sleep 1
            done
            ;;
    esac
done

# PID 1 must not end: each shell that ends is followed by another one.
while :; do
    setsid cttyhack sh
done
