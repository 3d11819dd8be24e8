//! A set of interrupt vectors, as a local APIC keeps three of: requested, in service, level-triggered.
//!
//! Anyone may add to a set at any time, so it is made of atomics.

use core::sync::atomic::{AtomicU32, Ordering};

/// 256 bits in the layout of the registers: word 0 is vectors 0 to 31.
#[derive(Debug, Default)]
pub struct Vectors([AtomicU32; 8]);

impl Vectors {
    /// None.
    pub const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; 8])
    }

    #[inline]
    fn word(&self, vector: u8) -> (&AtomicU32, u32) {
        // A vector has eight bits, so its upper three are an index below 8.
        (&self.0[usize::from(vector >> 5)], 1 << (vector & 31))
    }

    /// Adds a vector; true if it was not in.
    #[inline]
    pub fn insert(&self, vector: u8) -> bool {
        let (word, bit) = self.word(vector);
        word.fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    /// Takes a vector out; true if it was in.
    #[inline]
    pub fn remove(&self, vector: u8) -> bool {
        let (word, bit) = self.word(vector);
        word.fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }

    /// Whether a vector is in.
    #[inline]
    pub fn contains(&self, vector: u8) -> bool {
        let (word, bit) = self.word(vector);
        word.load(Ordering::Acquire) & bit != 0
    }

    /// The highest vector.
    #[inline]
    pub fn highest(&self) -> Option<u8> {
        for (index, word) in (0u8..8).zip(&self.0).rev() {
            let bits = word.load(Ordering::Acquire);
            if let Some(bit) = bits.checked_ilog2() {
                return Some(index << 5 | (bit & 31) as u8);
            }
        }
        None
    }

    /// Takes all out.
    pub fn clear(&self) {
        for word in &self.0 {
            word.store(0, Ordering::Release);
        }
    }

    /// One of the eight registers.
    pub fn register(&self, index: usize) -> u32 {
        self.0.get(index).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Sets one of the eight registers (restoring a saved state).
    pub fn set_register(&self, index: usize, value: u32) {
        if let Some(word) = self.0.get(index) {
            word.store(value, Ordering::Release);
        }
    }
}
