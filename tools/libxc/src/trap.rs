//! The way down: what a toolstack needs from whatever carries its hypercalls.
//!
//! On Linux that is /dev/xen/privcmd ([`crate::linux`]); in host tests it is a fake machine. Neither gives references to
//! memory that others can write: a [`Buf`] and a [`Foreign`] are read and written at offsets, by copy. [`crate::Handle`]
//! turns this into typed verbs.

use std::fs::File;
use std::os::unix::fs::FileExt;

use public_abi::Errno;
use public_abi::memory::Resource;
use public_abi::virq::Virq;

use crate::error::Result;

/// Memory that a hypercall can point at: it stays where it is, and present, while it exists.
pub trait Buf {
    /// The address to put into a hypercall's arguments.
    fn address(&self) -> u64;

    /// Its length in bytes.
    fn len(&self) -> usize;

    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes out. Panics if they do not lie in it: ranges are the caller's own arithmetic.
    fn read_at(&self, offset: usize, bytes: &mut [u8]);

    /// Copies bytes in. Panics if they do not lie in it.
    fn write_at(&mut self, offset: usize, bytes: &[u8]);

    /// Whether all of `count` bytes are zero; it may say no where that is dear to find out. Panics if they do not lie in it.
    fn is_zero(&self, offset: usize, count: usize) -> bool {
        let mut bytes = vec![0; count];
        self.read_at(offset, &mut bytes);
        bytes.iter().all(|byte| *byte == 0)
    }

    /// Copies `count` bytes of a file to the beginning, from `at` on. Panics if there is no room for them.
    ///
    /// # Errors
    /// The file system's, or the file is shorter.
    fn read_file(&mut self, file: &File, at: u64, count: usize) -> std::io::Result<()> {
        let mut bytes = vec![0; count];
        file.read_exact_at(&mut bytes, at)?;
        self.write_at(0, &bytes);
        Ok(())
    }
}

/// Whether all words are zero.
pub(crate) fn is_zero(words: &[u128]) -> bool {
    // Enough at a time for the processor's wide registers; most pages that are not zero are not from their start.
    let (chunks, rest) = words.as_chunks::<32>();
    let all = |chunk: &[u128; 32]| {
        let mut lanes = [0; 4];
        for block in chunk.as_chunks::<4>().0 {
            for (lane, word) in lanes.iter_mut().zip(block) {
                *lane |= word;
            }
        }
        lanes.iter().fold(0, |all, lane| all | lane)
    };
    words.first().is_none_or(|word| *word == 0)
        && chunks.iter().all(|chunk| all(chunk) == 0)
        && rest.iter().all(|word| *word == 0)
}

/// Pages of another domain. It is unmapped when dropped.
pub trait Foreign {
    /// Its length in bytes.
    fn len(&self) -> usize;

    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes out. Panics if they do not lie in it.
    fn read_at(&self, offset: usize, bytes: &mut [u8]);

    /// Copies bytes in. Panics if they do not lie in it.
    fn write_at(&mut self, offset: usize, bytes: &[u8]);

    /// Sets bytes to zero. Panics if they do not lie in it.
    fn clear_at(&mut self, offset: usize, length: usize);

    /// Reads an aligned 32-bit word that the domain may be writing. Panics if it does not lie in it.
    fn load(&self, offset: usize) -> u32 {
        let mut word = [0; 4];
        self.read_at(offset, &mut word);
        u32::from_le_bytes(word)
    }

    /// Writes an aligned 32-bit word that the domain may be reading. Panics if it does not lie in it.
    fn store(&mut self, offset: usize, word: u32) {
        self.write_at(offset, &word.to_le_bytes());
    }
}

/// Event channels of the calling domain that deliver to this process.
pub trait Events {
    /// Binds to a port that another domain has opened for us. Our port.
    fn bind_interdomain(&self, domain: u16, remote_port: u32) -> Result<u32>;

    /// Binds to a virtual interrupt. Our port.
    fn bind_virq(&self, virq: Virq) -> Result<u32>;

    /// Closes a port.
    fn unbind(&self, port: u32) -> Result<()>;

    /// Notifies the other end.
    fn notify(&self, port: u32) -> Result<()>;

    /// Waits until a port has an event, and takes it.
    fn wait(&self) -> Result<u32>;
}

/// The trap.
pub trait Trap {
    /// Hypercall buffers.
    type Buf: Buf;
    /// Mappings of other domains' pages.
    type Foreign: Foreign;
    /// Event channels.
    type Events: Events;

    /// Memory for hypercall arguments, zeroed, of at least `bytes` bytes.
    fn alloc(&self, bytes: usize) -> Result<Self::Buf>;

    /// Makes a hypercall.
    fn hypercall(&self, number: u64, arguments: [u64; 5]) -> std::result::Result<u64, Errno>;

    /// Maps pages of a domain, in the order of the list.
    fn foreign(&self, domain: u16, gfns: &[u64]) -> Result<Self::Foreign>;

    /// Maps frames of a resource of a domain.
    fn resource(&self, domain: u16, kind: Resource, id: u32, frame: u64, frames: usize) -> Result<Self::Foreign>;

    /// Opens event channels.
    fn events(&self) -> Result<Self::Events>;
}
