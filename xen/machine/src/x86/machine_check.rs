//! A machine check that interrupted a guest: what the hardware has noted goes to the log and out of the banks, so that the
//! next one can be reported, too. (AMD APM volume 2, chapter 9.) One that interrupted the hypervisor is a panic: `traps`.

use super::svm::{read_msr, write_msr};
use crate::codec::registers::msr;

/// MCG_CAP: the number of banks.
const BANKS: u64 = 0xff;
/// Bits of a bank's status: there is something, its address register counts, the processor's state is corrupt.
const VALID: u64 = 1 << 63;
const HAS_ADDRESS: u64 = 1 << 58;
const CONTEXT_CORRUPT: u64 = 1 << 57;

/// Reads, logs and clears the banks. The guest is the core's to end.
///
/// Panics if the state of the processor itself is corrupt: the hypervisor runs on it.
#[cold]
pub(super) fn interrupted_guest() {
    let global = read_msr(msr::MCG_STATUS);
    crate::log!(Error, "machine check, status {global:#x}");
    let mut is_corrupt = false;
    for bank in 0..(read_msr(msr::MCG_CAP) & BANKS) as u32 {
        let first = msr::MC0_CTL + bank * 4;
        let status = read_msr(first + 1);
        if status & VALID == 0 {
            continue;
        }
        let address = if status & HAS_ADDRESS != 0 { read_msr(first + 2) } else { 0 };
        crate::log!(Error, "machine check bank {bank}: status {status:#x}, address {address:#x}");
        is_corrupt |= status & CONTEXT_CORRUPT != 0;
        write_msr(first + 1, 0);
    }
    assert!(!is_corrupt, "a machine check has corrupted the processor's state");
    // Not in progress any more: while this register says so, the next machine check is a shutdown.
    write_msr(msr::MCG_STATUS, 0);
}
