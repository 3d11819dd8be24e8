//! Machine code that the tests execute, by the names of the instructions (AMD APM volume 3).

/// CPUID.
pub const CPUID: &[u8] = &[0x0f, 0xa2];
/// VMMCALL.
pub const VMMCALL: &[u8] = &[0x0f, 0x01, 0xd9];
/// MOV CR0, RAX.
pub const SET_CR0: &[u8] = &[0x0f, 0x22, 0xc0];
/// MOV CR3, RAX.
pub const SET_CR3: &[u8] = &[0x0f, 0x22, 0xd8];
/// MOV CR4, RAX.
pub const SET_CR4: &[u8] = &[0x0f, 0x22, 0xe0];
/// MOV RAX, CR8.
pub const GET_CR8: &[u8] = &[0x44, 0x0f, 0x20, 0xc0];
/// MOV CR8, RAX.
pub const SET_CR8: &[u8] = &[0x44, 0x0f, 0x22, 0xc0];
/// CLTS.
pub const CLTS: &[u8] = &[0x0f, 0x06];
/// LMSW AX.
pub const LMSW: &[u8] = &[0x0f, 0x01, 0xf0];
/// SMSW RAX.
pub const SMSW: &[u8] = &[0x48, 0x0f, 0x01, 0xe0];
/// XGETBV.
pub const XGETBV: &[u8] = &[0x0f, 0x01, 0xd0];
/// XSETBV.
pub const XSETBV: &[u8] = &[0x0f, 0x01, 0xd1];
/// HLT.
pub const HLT: &[u8] = &[0xf4];
/// RDMSR.
pub const RDMSR: &[u8] = &[0x0f, 0x32];
/// WRMSR.
pub const WRMSR: &[u8] = &[0x0f, 0x30];
/// RET.
pub const RET: u8 = 0xc3;
