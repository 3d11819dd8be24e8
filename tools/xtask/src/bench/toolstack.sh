# xl create -p with xl destroy; runs in the control domain behind counted.sh.
linux_config elf /guest/vmlinux -
linux_config packed /guest/vmlinuz -

# create_and_destroy CONFIGURATION NAME. Before it the machine has a while in which nothing is asked of it: both hypervisors zero what
# ended domains have left when a CPU has nothing else to do.
create_and_destroy() {
    sleep 3
    begin
    xl create -q -p "$1" || die "xl cannot create $2"
    xl destroy "$2" || die "xl cannot destroy $2"
    end
    wait_until 60 gone "$2"
}
row create-destroy
for _ in 1 2 3; do create_and_destroy elf.cfg elf; done

# The kernel has 60 MB; its loading has to leave dom0's own work its turns. (tests/scenarios/big-kernel.sh shows that such words would be found.)
! dmesg | grep -i -e 'soft lockup' -e 'rcu.*stall' -e 'blocked for more' || die "dom0 was kept from its work"

# Last, because unpacking takes longer than all the rest.
row create-destroy-packed
create_and_destroy packed.cfg packed
row the-end
