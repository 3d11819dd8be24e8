//! A machine for tests: RAM is an array, exits are scripted, the TLB keeps stale entries.
