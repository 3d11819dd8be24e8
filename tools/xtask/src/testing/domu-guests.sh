# Runs tiny guests one after the other as domains made by xl. Lines of /tests/list: NAME VCPUS MIB.
# Writes a line "NAME REASON-CODE VERDICT" for each into /tests/results; REASON-CODE is that of xl list -v, or "none".
. /oxen/lib.sh

reason() { xl list -v "$1" 2> /dev/null | awk 'NR == 2 && $8 != "-" { print $8 }'; }
ended() { [ -n "$(reason "$1")" ]; }

while read -r name vcpus memory; do
    cat > "/tmp/$name.cfg" << END
name = "$name"
type = "pvh"
kernel = "/tests/$name"
memory = $memory
vcpus = $vcpus
tsc_mode = "native"
on_poweroff = "preserve"
on_reboot = "preserve"
on_crash = "preserve"
END
    log=$(console_log "$name")
    code=none
    if xl create -q "/tmp/$name.cfg"; then
        if wait_until 120 ended "$name"; then code=$(reason "$name"); fi
        # The console's daemon may still be writing the last lines.
        wait_for 5 "GUEST-TEST $name" "$log" > /dev/null 2>&1
        xl destroy "$name"
        wait_until 60 gone "$name"
    fi
    verdict=$(sed -n 's/.*\(GUEST-TEST .*\)/\1/p' "$log" | tr -d '\r' | tail -n 1)
    echo "$name $code $verdict" | tee -a /tests/results
    case "$verdict" in *" PASS") ;; *) cat "$log" ;; esac
done < /tests/list
