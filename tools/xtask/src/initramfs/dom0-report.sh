# Messages to the harness (console/protocol.rs lists them), and how a run's script is run. Read by dom0-init.sh and disk-run.sh after
# /oxen/run.conf, with the console as standard output and, open for reading, as descriptor 3.

# The marker may follow half a line of someone else: it begins a new line.
tell() { echo "$MARK $* ;"; }
uptime_now() { read -r up rest < /proc/uptime; echo "$up"; }
milestone() { tell milestone "$1" "$(uptime_now)"; }

send_file() { # INDEX PATH
    if [ ! -f "$2" ]; then
        tell file "$1" missing
        return
    fi
    tell file "$1" begin
    gzip -c "$2" | base64 -w 160 | awk -v head="$MARK file $1" '
        { print head " line " NR " " $0 " ;" }
        END { print head " end " NR " ;" }'
}

send_wanted() { # INDEX... or nothing for all
    index=0
    while IFS= read -r path; do
        case " ${*:-$index} " in *" $index "*) send_file "$index" "$path" ;; esac
        index=$((index + 1))
    done < /oxen/get.list
}

# Sends all files and, while the harness says that some were damaged, those again.
deliver() {
    again=
    while :; do
        # shellcheck disable=SC2086
        send_wanted $again
        tell await
        # Without an answer the console has no input; the files are out anyway.
        read -r -t 10 word again <&3 || return
        [ "$word" = again ] || return
    done
}

# Runs the script, and gives its status. It has no input and a session of its own, so that the harness can stop it whole and dom0 stays.
# READER is who listens to the harness meanwhile.
run_script() {
    stty -echo <&3
    setsid sh /oxen/script < /dev/null 3<&- &
    SCRIPT=$!
    {
        while read -r word; do
            [ "$word" != stop ] || kill -KILL -$SCRIPT
        done
    } <&3 &
    READER=$!
    milestone script
    wait $SCRIPT
}
