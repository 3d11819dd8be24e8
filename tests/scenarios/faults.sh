#!/bin/sh
# xl is refused things, and is killed, at steps of create, block-attach and destroy (OXEN_FAIL, docs/robustness.md): nothing is left
# behind, or what there is can be destroyed and nothing is left then. The domain beside it does not notice.
# nightly: --tools oxen
# tiny: hello
. /oxen/lib.sh

dd if=/dev/zero of=/tmp/f.img bs=1M count=1 2> /dev/null
dd if=/dev/zero of=/tmp/more.img bs=1M count=1 2> /dev/null
tiny_config f hello 'disk = [ "/tmp/f.img,raw,xvda,rw" ]'
tiny_config beside hello
# Words, not functions: a shell need not hand its variables on to what a function starts.
create='xl create -q -p -e /tmp/f.cfg'
attach='xl block-attach f /tmp/more.img,raw,xvdb,r'
destroy='xl destroy f'

# All that commands have an effect on, but for free memory, which comes back in the background.
everything() {
    xl list | awk 'NR > 1 { print $1, $2 }'
    xenstore-ls
    cat /sys/block/loop*/loop/backing_file 2> /dev/null
    ls /var/lib/xen
}
# The hypervisor's own count in KiB (debug key m).
free_kib() {
    xl dmesg -c > /dev/null
    xl debug-keys m
    xl dmesg -c | sed -n 's/.*Dom heap: *\([0-9]*\)kB free.*/\1/p'
}
# as_before NAME TEXT: whether all is as it was when `remember NAME` was called.
remember() {
    everything > "/tmp/everything.$1"
    free_kib > "/tmp/free.$1"
    [ -s "/tmp/free.$1" ] || die "debug key m does not show the free memory (Dom heap: NkB free)"
}
same_memory() { [ "$(free_kib)" = "$(cat "/tmp/free.$1")" ]; }
as_before() {
    everything > /tmp/everything
    cmp -s /tmp/everything "/tmp/everything.$1" || die "$2: $(diff "/tmp/everything.$1" /tmp/everything)"
    wait_until 30 same_memory "$1" || die "$2: free memory was $(cat "/tmp/free.$1") KiB and is $(free_kib) KiB"
}

# Numbers from a seed that is in the log.
seed=$(date +%s)
echo "seed $seed"
random() { # BELOW
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    number=$((seed / 16 % $1))
}
# asked KIND COMMAND: how many things of a kind a command asks for; it succeeds.
asked() {
    OXEN_FAIL=$1:999999 $2 > /tmp/asked 2>&1 || die "$2: $(cat /tmp/asked)"
    count=$(sed -n 's/.*nothing failed; \([0-9]*\) were asked for.*/\1/p' /tmp/asked)
    [ "$count" -gt 0 ] || die "$2 asks for nothing of the kind $1: $(cat /tmp/asked)"
}
# fail_once KIND COMMAND: lets it fail at some step. The status of the command, which must name the step if it fails.
fail_once() {
    random "$count"
    step="$2, OXEN_FAIL=$1:$number"
    OXEN_FAIL=$1:$number $2 > /tmp/failed 2>&1
    status=$?
    what=$(sed -n 's/.*made to fail: //p' /tmp/failed)
    [ -n "$what" ] || die "$step: nothing was made to fail: $(cat /tmp/failed)"
    step="$step ($what)"
    echo "$step: status $status"
    [ $status = 0 ] || [ "$(grep -c -F "$what" /tmp/failed)" -gt 1 ] || die "$step: the message does not say so: $(cat /tmp/failed)"
}
# kill_once COMMAND: kills it at some step.
kill_once() {
    random "$count"
    step="$1, OXEN_FAIL=any:$number:kill"
    OXEN_FAIL=any:$number:kill $1 > /tmp/failed 2>&1
    status=$?
    echo "$step: status $status"
    [ $status = 137 ] || die "$step: ended with status $status: $(cat /tmp/failed)"
}

xl create -q -p -e /tmp/beside.cfg || die "create beside"
# What only grows has grown after this.
$create && $attach && $destroy || die "create, block-attach and destroy"
remember empty

# Refused.
for kind in hypercall map store host; do
    asked $kind "$create"
    $destroy || die "destroy"
    for round in 1 2; do
        fail_once $kind "$create"
        if [ $status = 0 ]; then $destroy || die "destroy after $step"; fi
        as_before empty "$step"
    done
done
$create || die "create"
remember one
for kind in hypercall store host; do
    asked $kind "$attach"
    xl block-detach --force f xvdb || die "block-detach"
    fail_once $kind "$attach"
    if [ $status = 0 ]; then xl block-detach --force f xvdb || die "block-detach after $step"; fi
    as_before one "$step"
done

# Killed: the domain lives on, or can be destroyed as far as there is one. It may not have its name yet, or no more.
# xl list shows "(null)" then.
lives() { xl list f > /dev/null 2>&1; }
clear() {
    for id in $(xl list | awk 'NR > 1 && $1 != "beside" && $2 != 0 { print $2 }'); do
        xl destroy "$id" || die "destroy $id after $step"
    done
}
asked any "$attach"
for round in 1 2; do
    kill_once "$attach"
    lives || die "$step: the domain is gone"
    clear
    as_before empty "$step"
    $create || die "create after $step"
done
asked any "$destroy"
for round in 1 2; do
    $create || die "create"
    kill_once "$destroy"
    clear
    as_before empty "$step"
done
asked any "$create"
$destroy || die "destroy"
for round in 1 2 3; do
    kill_once "$create"
    clear
    as_before empty "$step"
done

case $(state beside) in *p*) ;; *) die "the domain beside it is not what it was: $(state beside)" ;; esac
xl destroy beside || die "destroy beside"
rm /tmp/f.img /tmp/more.img
