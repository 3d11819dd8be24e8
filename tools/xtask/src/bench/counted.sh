# What the scenes that the plugin counts begin with: toolstack.sh, life.sh and devices.sh, in the control domain. `ROW KEY` in /tests/log,
# in the order of the markers, says what each row of the plugin's report is. `xl` is the toolstack that is measured.
. /oxen/lib.sh
cd /tests || exit 1
cat /guest/initrd marks.cpio > initrd

row() { ./mark-row && echo "ROW $1" | tee -a log; }
begin() { ./mark-begin; }
end() { ./mark-end; }

# A poll in a sample is part of its cost, so there are few: time passes at once while all sleep.
# rarely COMMAND...: repeats COMMAND every five seconds until it succeeds, for ten minutes at most; sleeps first.
rarely() {
    for _ in $(seq 120); do
        sleep 5
        if "$@"; then return 0; fi
    done
    echo "never true: $*" >&2
    return 1
}

# linux_config NAME KERNEL EXTRA LINE...
linux_config() {
    printf 'name = "%s"\ntype = "pvh"\nkernel = "%s"\nramdisk = "/tests/initrd"\nextra = "console=hvc0 %s"\n' "$1" "$2" "$3" > "$1.cfg"
    printf 'memory = 128\nvcpus = 1\ntsc_mode = "native"\n' >> "$1.cfg"
    linux_config_name=$1
    shift 3
    for linux_config_line in "$@"; do echo "$linux_config_line" >> "$linux_config_name.cfg"; done
}

row toolstack-nothing
for _ in 1 2 3; do begin; end; done

