# Functions for scenario scripts; a script reads them with ". /oxen/lib.sh".

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

# gone NAME: whether no domain of that name exists any more.
gone() { ! xl domid "$1" > /dev/null 2>&1; }

# console_log NAME: the file in which xenconsoled keeps the output of the domain's console.
console_log() { echo "/var/log/xen/console/guest-$1.log"; }

# type_into NAME TEXT: types a line on the domain's console. (xl console reads no keys unless it is on a terminal.)
type_into() {
    echo "$2" > "$(xenstore-read "/local/domain/$(xl domid "$1")/console/tty")"
}

# die TEXT: ends the script as failed.
die() {
    echo "FAILED: $*" >&2
    exit 1
}
