# How much memory the hypervisor takes: for itself, and for a PVH guest of 128 MiB. Lines "FIGURE NAME VALUE" go to /tests/log.
#
# Pages of a guest are those that are free before it is created and not afterwards, without its own memory. Both
# hypervisors tell with debug key m how much is free; Oxen also tells there what it takes for itself.
. /oxen/lib.sh

# pressed KEY: what the hypervisor prints for a debug key.
pressed() {
    xl dmesg -c > /dev/null
    xl debug-keys "$1"
    xl dmesg
}

# The words around the number differ: "Physical memory: N KiB of RAM, FREE KiB free" and "    Dom heap: FREEkB free".
free_pages() {
    pressed m | tr -d '\r' | sed -n -e 's/.*of RAM, \([0-9]*\) KiB free.*/\1/p' -e 's/.*Dom heap: \([0-9]*\)kB free.*/\1/p' |
        awk '{ print $1 / 4 }' | tail -n 1
}

# own_pages NAME: what a domain has as RAM.
own_pages() {
    pressed q | tr -d '\r' | awk -v id="$(xl domid "$1")" '
        /General information for domain / { sub(/.*domain /, ""); sub(/:.*/, ""); current = $0 }
        current == id && match($0, /nr_pages=[0-9]+/) { print substr($0, RSTART + 9, RLENGTH - 9); exit }'
}

# figure NAME VALUE
figure() { echo "FIGURE $1 $2" | tee -a /tests/log; }

pressed m | tr -d '\r' | sed -n 's/.*own memory: \([0-9]*\) bytes beside a frame table of \([0-9]*\) bytes a page.*/\1 \2/p' |
    while read -r own entry; do
        figure hypervisor-bytes "$own"
        figure frame-table-entry "$entry"
    done

# What is neither free nor dom0's: the hypervisor's own, with its frame table. Only `xl info` tells the total of both, in MiB.
total=$(xl info | awk '$1 == "total_memory" { print $3 * 256 }')
figure taken-bytes $(((total - $(free_pages) - $(own_pages Domain-0)) * 4096))

cat > /tests/linux.cfg << END
name = "linux"
type = "pvh"
kernel = "/guest/vmlinux"
ramdisk = "/guest/initrd"
extra = "console=hvc0"
memory = 128
vcpus = 1
tsc_mode = "native"
END
before=$(free_pages)
xl create -q -p /tests/linux.cfg || die "xl cannot create the guest"
created=$(free_pages)
figure pages-created $((before - created - $(own_pages linux)))
xl unpause linux
wait_for 300 GUEST-READY "$(console_log linux)" || die "the guest does not come up"
booted=$(free_pages)
figure pages-booted $((before - booted - $(own_pages linux)))
xl destroy linux
wait_until 60 gone linux

# A hundred small domains: paused, then all of them alive.
printf 'type = "pvh"\nkernel = "/tests/idle"\nmemory = 8\nvcpus = 1\ntsc_mode = "native"\n' > /tests/small.cfg
before=$(free_pages)
for n in $(seq 100); do xl create -q -p /tests/small.cfg "name=\"small-$n\"" || die "xl cannot create small-$n"; done
# pages_of_small: RAM of all of them.
pages_of_small() { xl list | awk '$1 ~ /^small-/ { sum += $3 * 256 } END { print sum }'; }
figure pages-100-paused $((before - $(free_pages) - $(pages_of_small)))
for n in $(seq 100); do xl unpause "small-$n" || die "xl cannot unpause small-$n"; done
wait_until 300 sh -c '[ "$(xl list | grep -c "^small-.*-b----")" = 100 ]' || echo "not all of them sleep"
figure domains-alive "$(xl list | grep -c '^small-.*-b----')"
figure pages-100-alive $((before - $(free_pages) - $(pages_of_small)))
for n in $(seq 100); do xl destroy "small-$n" || die "xl cannot destroy small-$n"; done
# no_small: none is left.
no_small() { ! xl list | grep -q '^small-'; }
wait_until 300 no_small || die "small domains are left"
[ "$(free_pages)" = "$before" ] || echo "pages are missing: $before before, $(free_pages) now"
