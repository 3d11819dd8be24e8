#!/bin/sh
# Two toolstacks on one host: each lists, attaches to, pauses, shuts down and destroys what the other has made.
# shared: 600
# tiny: hello
# run: --tools oxen
# run: --daemons oxen --tools oxen
# run: --hypervisor xen --tools oxen
# checks debian-xl: create list pause unpause console shutdown destroy
# checks oxen-xl: create list pause unpause console shutdown destroy
. /oxen/lib.sh

both() { # MAKER OTHER
    name=by-$1
    config "$name" -
    "$1-xl" create "/tmp/$name.cfg" || die "$1-xl create"
    wait_for 250 GUEST-READY "$(console_log "$name")" || die "no greeting of $name"
    "$2-xl" list "$name" || die "$2-xl list"
    "$1-xl" list -l "$name" > /tmp/its-own
    "$2-xl" list -l "$name" > /tmp/the-others
    diff /tmp/its-own /tmp/the-others || die "xl list -l differs"
    "$2-xl" pause "$name" || die "$2-xl pause"
    case $("$1-xl" list "$name" | awk 'NR == 2 { print $5 }') in *p*) ;; *) die "$1-xl does not see the pause" ;; esac
    "$1-xl" unpause "$name" || die "$1-xl unpause"
    "$2-xl" console "$name" > /tmp/attached &
    attached=$!
    type_into "$name" 'echo ANSWER $((6 * 7))'
    wait_for 60 'ANSWER 42' /tmp/attached || die "$2-xl console shows no answer"
    kill $attached
    "$2-xl" shutdown -w "$name" || die "$2-xl shutdown -w ended with status $?"
    # The maker's monitor cleans up.
    wait_until 60 gone "$name" || die "$name is still there after its shutdown"
    # Its last words come after the domain has gone.
    wait_for 60 'Exiting now' "/var/log/xen/xl-$name.log" || die "the monitor of $1-xl did not end well"

    tiny_config "$name" hello
    "$1-xl" create -p "/tmp/$name.cfg" || die "$1-xl create -p"
    "$2-xl" create -p "/tmp/$name.cfg" 2> /dev/null && die "$2-xl makes a second domain of the same name"
    "$2-xl" destroy "$name" || die "$2-xl destroy"
    wait_until 60 gone "$name" || die "$name is still there after its destruction"
    [ -z "$(ls /var/lib/xen/userdata-*by-* 2> /dev/null)" ] || die "a file is left of $name"
}
both debian oxen
both oxen debian
