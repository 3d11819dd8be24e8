#!/bin/busybox sh
# In the guest that `toolstack.sh` boots: its init has been reached.
/mark-end
echo BENCH-INIT
