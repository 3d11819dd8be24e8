# Runs several cases one after the other in one dom0, whose boot is what takes time. Lines of /tests/list:
#   scenario NAME SECONDS     the script /tests/NAME.sh; it fails when it leaves anything behind
#   tiny NAME VCPUS MIB       the tiny guest /tests/NAME, made by xl
# Says "begin NAME" before and "case NAME RESULT" after each: the status of a script, or of a tiny guest the reason of its end
# as in xl list -v (or "none") and its verdict.
. /oxen/lib.sh
. /oxen/run.conf

# Twice, since the hypervisor may print into the middle of a line.
say() {
    echo "$MARK $* ;"
    echo "$MARK $* ;"
}

# All that a toolstack keeps of domains other than dom0.
traces() {
    xl list | awk 'NR > 1 && $2 != 0 { print "the domain " $1 " (" $2 ")" }'
    for path in /local/domain /libxl; do
        xenstore-list $path 2> /dev/null | awk -v path=$path '$1 != 0 { print path "/" $1 " in xenstore" }'
    done
    xenstore-list /vm 2> /dev/null | awk '{ print "/vm/" $1 " in xenstore" }'
    for file in /var/lib/xen/userdata-*; do
        case $file in */userdata-?.0.* | '/var/lib/xen/userdata-*') ;; *) echo "the file $file" ;; esac
    done
}
no_traces() { [ -z "$(traces)" ]; }

# Destroys what a case has left, so that the next one begins afresh.
clean_up() {
    for id in $(xl list | awk 'NR > 1 && $2 != 0 { print $2 }'); do xl destroy "$id"; done
    wait_until 30 no_traces > /dev/null 2>&1
    rm -f /var/log/xen/console/guest-*.log /var/log/xen/xl-*.log*
}

# The script has a session of its own, so that it can be stopped whole.
scenario() { # NAME SECONDS
    setsid sh "/tests/$1.sh" < /dev/null &
    child=$!
    {
        sleep "$2"
        echo "FAILED: the time limit of $2 s has passed"
        kill -KILL -$child
    } &
    guard=$!
    wait $child
    status=$?
    kill $guard 2> /dev/null
    # What the domains' monitors do may take a moment.
    if [ $status = 0 ] && ! wait_until 30 no_traces 2> /dev/null; then
        echo "FAILED: left behind:"
        traces
        status=1
    fi
    [ $status = 0 ] || xl list
    say case "$1" $status
    clean_up
}

reason() { xl list -v "$1" 2> /dev/null | awk 'NR == 2 && $8 != "-" { print $8 }'; }
ended() { [ -n "$(reason "$1")" ]; }

tiny() { # NAME VCPUS MIB
    cat > "/tmp/$1.cfg" << END
name = "$1"
type = "pvh"
kernel = "/tests/$1"
memory = $3
vcpus = $2
tsc_mode = "native"
on_poweroff = "preserve"
on_reboot = "preserve"
on_crash = "preserve"
END
    log=$(console_log "$1")
    code=none
    if xl create -q -e "/tmp/$1.cfg"; then
        if wait_until 120 ended "$1"; then code=$(reason "$1"); fi
        # The console's daemon may still be writing the last lines.
        wait_for 5 "GUEST-TEST $1" "$log" > /dev/null 2>&1
        xl destroy "$1"
    fi
    verdict=$(sed -n 's/.*\(GUEST-TEST .*\)/\1/p' "$log" | tr -d '\r' | tail -n 1)
    case "$verdict" in *" PASS") ;; *) cat "$log" ;; esac
    say case "$1" "$code $verdict"
    # Pages may be scrubbed and returned in the background.
    gone "$1" || wait_until 60 gone "$1"
    rm -f "$log"
}

while read -r kind name first second <&4; do
    echo "=== $kind $name"
    say begin "$name"
    $kind "$name" "$first" "$second"
done 4< /tests/list
