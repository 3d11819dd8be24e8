#!/bin/busybox sh
# In the guest that `life.sh` boots: its init has been reached.
/mark-end
echo BENCH-INIT
