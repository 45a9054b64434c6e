//! Block-aligned memory for direct I/O.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    fmt, ptr,
};

use super::frame::BLOCK;

/// Octets at a multiple of the block size; does not move while it grows within its capacity.
pub(crate) struct AlignedBuffer {
    at: *mut u8,
    len: usize,
    capacity: usize,
}

// SAFETY: the buffer owns its memory alone.
unsafe impl Send for AlignedBuffer {}
// SAFETY: what is shared is only read.
unsafe impl Sync for AlignedBuffer {}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuffer({} of {})", self.len, self.capacity)
    }
}

impl AlignedBuffer {
    /// Room for `capacity` octets, rounded up to whole blocks.
    #[must_use]
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(BLOCK).next_multiple_of(BLOCK);
        let layout = Self::layout(capacity);
        // SAFETY: the layout is not empty.
        let at = unsafe { alloc_zeroed(layout) };
        if at.is_null() {
            handle_alloc_error(layout);
        }
        Self { at, len: 0, capacity }
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BLOCK).expect("a buffer is far smaller than the memory")
    }

    /// Octets in use.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether none is in use.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Octets it can hold before it must move.
    #[must_use]
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The octets in use.
    #[must_use]
    pub(crate) fn octets(&self) -> &[u8] {
        // SAFETY: `len <= capacity`, all of it initialised (zeroed at first).
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }

    /// The octets in use.
    pub(crate) fn octets_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }

    /// Makes the length `len`; new octets hold what was there before, zeros or remains.
    pub(crate) fn set_len(&mut self, len: usize) {
        self.reserve(len);
        self.len = len;
    }

    /// Makes the length `len`, new octets zero.
    pub(crate) fn extend_zeroed(&mut self, len: usize) {
        let from = self.len;
        self.set_len(len.max(from));
        self.octets_mut().split_at_mut(from).1.fill(0);
    }

    /// Makes room for `len` octets in all.
    pub(crate) fn reserve(&mut self, len: usize) {
        if len <= self.capacity {
            return;
        }
        let grown = Self::new(len.max(self.capacity * 2));
        // SAFETY: both are at least `self.len` long and distinct.
        unsafe { ptr::copy_nonoverlapping(self.at, grown.at, self.len) };
        let len = self.len;
        *self = grown;
        self.len = len;
    }
}

impl Default for AlignedBuffer {
    /// One block.
    fn default() -> Self {
        Self::new(BLOCK)
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(self.at, Self::layout(self.capacity)) };
    }
}
