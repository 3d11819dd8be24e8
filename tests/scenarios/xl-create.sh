#!/bin/sh
# The options of xl create, and what happens to a domain that cannot be made.
# shared: 300
# tiny: hello
# interop: --hypervisor xen --tools oxen
# checks: create destroy
# checks xl=oxen: p9=
. /oxen/lib.sh

tiny_config opt hello
verdict() { grep -a 'GUEST-TEST hello PASS' "$1"; }

# -n: the configuration, and no domain.
xl create -n /tmp/opt.cfg 'vcpus=3' > /tmp/n || die "create -n"
tr -d ' \n' < /tmp/n | grep -q '"max_vcpus":3,"avail_vcpus":\[0,1,2\]' || die "create -n: $(cat /tmp/n)"
gone opt || die "create -n made a domain"

# -q and -f: silence, and the file as an option; -d: the configuration on standard error.
xl create -q -f /tmp/opt.cfg 2> /tmp/q || die "create -q -f"
grep -v 'tsc mode' /tmp/q | grep . && die "create -q is not quiet"
wait_until 60 gone opt || die "the guest does not end"
xl create -d /tmp/opt.cfg 2> /tmp/d || die "create -d"
grep -q '"name": "opt"' /tmp/d || die "create -d does not show the configuration: $(cat /tmp/d)"
grep -q 'Parsing config from /tmp/opt.cfg' /tmp/d || die "create does not say which file it reads"
wait_until 60 gone opt || die "the guest does not end"
[ -s /var/log/xen/xl-opt.log ] || die "the monitor has no log"

# -c: the console from the first line to the last.
xl create -c /tmp/opt.cfg > /tmp/c || die "create -c ended with status $?"
verdict /tmp/c || die "create -c does not show the console: $(cat /tmp/c)"
wait_until 60 gone opt || die "the guest does not end"

# -e: no monitor, so nobody destroys the domain when it has ended.
xl create -e /tmp/opt.cfg || die "create -e"
stopped() { case $(state opt) in *s*) ;; *) false ;; esac; }
wait_until 60 stopped || die "the guest does not end"
xl destroy opt || die "destroy"

# -F: xl itself is the monitor.
xl create -F /tmp/opt.cfg > /tmp/F 2>&1 || die "create -F ended with status $?"
gone opt || die "create -F came back too early"

# A folder for the guest: the nodes that say so to it and to who serves it. Debian's xl starts QEMU for that, which is not here.
if [ "$(readlink /usr/local/bin/xl)" = /usr/local/bin/oxen-xl ]; then
    tiny_config share hello 'p9 = [ "tag=home,path=/srv,security_model=none" ]'
    xl create -p /tmp/share.cfg || die "create with p9="
    id=$(xl domid share)
    front=/local/domain/$id/device/9pfs/0 back=/local/domain/0/backend/9pfs/$id/0
    node() { [ "$(xenstore-read "$1")" = "$2" ] || die "$1 is not $2: $(xenstore-ls "$front" "$back")"; }
    node "$front/tag" home
    node "$front/backend" "$back"
    node "$front/state" 1
    node "$back/path" /srv
    node "$back/security_model" none
    node "$back/frontend" "$front"
    node "$back/state" 1
    xl destroy share || die "destroy share"
    xenstore-exists "$back" && die "the share's nodes stay"
fi

# Failures leave nothing behind and name their cause.
cause() { # TEXT CODE ARGUMENT...
    text=$1
    code=$2
    shift 2
    fails "$code" xl create "$@"
    grep -q "$text" /tmp/fails.err || die "xl create $* does not name $text: $(cat /tmp/fails.err)"
    gone opt || die "xl create $* left a domain"
}
cause /nosuch.cfg 3 /nosuch.cfg
cause /nosuch 3 /tmp/opt.cfg 'kernel="/nosuch"'
tiny_config bad hello 'memory = = 1'
cause bad.cfg:6: 1 /tmp/bad.cfg
cause memory 3 /tmp/opt.cfg 'memory=900000'
cause 'pool' 6 /tmp/opt.cfg 'pool="nosuch"'
xl create -p /tmp/opt.cfg || die "create -p"
fails 3 xl create /tmp/opt.cfg
xl destroy opt || die "destroy"
