#!/bin/sh
# A file and a folder put into dom0 arrive there.
# run: --smp 1 --put boot.sh=/put/boot.sh --put ../scenarios=/put/all
. /oxen/lib.sh
[ "$(sha256sum < /put/boot.sh)" = "$(sha256sum < /put/all/boot.sh)" ] || die "the two copies differ"
grep -q 'dom0 boots' /put/boot.sh || die "not the right file"
