# Functions for scenario scripts; a script reads them with ". /oxen/lib.sh". Their variables begin with their names.

# busybox has this; Debian's own programs have not.
command -v usleep > /dev/null || usleep() { sleep "$(printf '%d.%06d' $(($1 / 1000000)) $(($1 % 1000000)))"; }

# wait_for SECONDS PATTERN FILE: waits until a line of FILE matches PATTERN and prints that line.
wait_for() {
    wait_end=$(($(date +%s) + $1))
    until [ -e "$3" ] && grep -a -m 1 -e "$2" "$3"; do
        if [ "$(date +%s)" -gt "$wait_end" ]; then
            echo "no line with '$2' in $3 after $1 s; its end:" >&2
            tail -n 20 "$3" >&2
            return 1
        fi
        usleep 50000
    done
}

# wait_until SECONDS COMMAND...: repeats COMMAND until it succeeds.
wait_until() {
    wait_end=$(($(date +%s) + $1))
    wait_limit=$1
    shift
    until "$@"; do
        if [ "$(date +%s)" -gt "$wait_end" ]; then
            echo "not true after $wait_limit s: $*" >&2
            return 1
        fi
        usleep 50000
    done
}

# load_drivers: loads the drivers of the machine's devices (disks, network cards, the power button).
load_drivers() {
    while read -r load_drivers_name; do
        [ -d "/sys/module/$(echo "$load_drivers_name" | tr - _)" ] || insmod "/oxen/modules/$load_drivers_name.ko" || return 1
    done < /oxen/modules/drivers
}

# gone NAME: whether no domain of that name exists any more.
gone() { ! xl domid "$1" > /dev/null 2>&1; }

# console_log NAME: the file in which xenconsoled keeps the output of the domain's console.
console_log() { echo "/var/log/xen/console/guest-$1.log"; }

# type_into NAME TEXT: types a line on the domain's console. (xl console reads no keys unless it is on a terminal.)
type_into() {
    echo "$2" > "$(xenstore-read "/local/domain/$(xl domid "$1")/console/tty")"
}

# config NAME THEN LINE...: makes /tmp/NAME.cfg, the example's configuration under that name; THEN is what the guest does after
# its greeting (guest-init.sh; "-" for nothing), and lines are added.
config() {
    config_file=/tmp/$1.cfg
    sed -e "s/^name = .*/name = \"$1\"/" -e "s/console=hvc0/console=hvc0 oxen.then=$2/" /guest/pvh.cfg > "$config_file"
    shift 2
    for config_line in "$@"; do echo "$config_line" >> "$config_file"; done
}

# tiny_config NAME PROGRAM LINE...: makes /tmp/NAME.cfg for the tiny guest /tests/PROGRAM.
tiny_config() {
    config_file=/tmp/$1.cfg
    printf 'name = "%s"\ntype = "pvh"\nkernel = "/tests/%s"\nmemory = 64\ntsc_mode = "native"\n' "$1" "$2" > "$config_file"
    shift 2
    for config_line in "$@"; do echo "$config_line" >> "$config_file"; done
}

# state NAME: the six letters of a domain's state in xl list.
state() { xl list "$1" | awk 'NR == 2 { print $5 }'; }

# answer NAME PATTERN TEXT [SECONDS]: types TEXT on a guest's console, waits for a line that matches PATTERN, and prints it.
answer() {
    type_into "$1" "$3"
    wait_for "${4:-120}" "$2" "$(console_log "$1")" || die "$1: no answer to '$3'"
}

# loops: the files behind dom0's loop devices.
loops() { for loop in /sys/block/loop*/loop/backing_file; do [ ! -e "$loop" ] || cat "$loop"; done; }

# fails CODE COMMAND...: the command must end with that exit code, and say why on its standard error.
fails() {
    fails_wanted=$1
    shift
    "$@" > /tmp/fails.out 2> /tmp/fails.err
    fails_code=$?
    [ $fails_code = "$fails_wanted" ] || die "$* ended with status $fails_code instead of $fails_wanted: $(cat /tmp/fails.out /tmp/fails.err)"
    [ -s /tmp/fails.err ] || die "$* failed without a word"
}

# die TEXT: ends the script as failed.
die() {
    echo "FAILED: $*" >&2
    exit 1
}
