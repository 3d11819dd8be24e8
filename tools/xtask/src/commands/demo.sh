# The demonstration's script in dom0: a second Linux comes and goes. Run by `cargo xtask demo`.
. /oxen/lib.sh

say() { printf '\n==> %s\n' "$*"; }

say "xl create debian-pvh.cfg"
xl create /demo/debian-pvh.cfg || die "xl create ended with status $?"

say "xl console debian (until the guest's init greets)"
mkfifo /tmp/console
xl console debian > /tmp/console &
console=$!
# sed ends at the greeting, and with it the view.
timeout 300 sed '/GUEST-READY/q' /tmp/console
status=$?
kill $console 2> /dev/null
[ $status = 0 ] || die "the guest's greeting did not come"

say "xl list"
xl list || die "xl list ended with status $?"

say "xl shutdown -w debian"
xl shutdown -w debian || die "xl shutdown ended with status $?"
# Its name goes first; its memory may take a moment longer.
alone() { [ "$(xl list | wc -l)" = 2 ]; }
wait_until 60 alone || die "the guest is still there after its shutdown"
say "xl list"
xl list
