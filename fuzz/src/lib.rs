//! What all fuzz targets share: an allocator that knows how much memory one call took.
//!
//! A target that checks memory puts [`CountingAllocator`] in the place of the global allocator and
//! asks [`peak_bytes_of`] about the call under test.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator with a count of bytes in use.
pub struct CountingAllocator;

/// Bytes in use now.
static IN_USE_BYTES: AtomicUsize = AtomicUsize::new(0);
/// Most bytes in use since it was last set.
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let in_use = IN_USE_BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK_BYTES.fetch_max(in_use, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What a call returned, and how many bytes more than before were in use at its height.
///
/// Right only where [`CountingAllocator`] is the global allocator and one thread runs.
pub fn peak_bytes_of<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let before = IN_USE_BYTES.load(Ordering::Relaxed);
    PEAK_BYTES.store(before, Ordering::Relaxed);
    let result = call();
    (
        result,
        PEAK_BYTES.load(Ordering::Relaxed).saturating_sub(before),
    )
}

/// Refuses a decoder that takes more memory than its input justifies.
///
/// # Panics
/// If `peak_bytes` is above 8 × input + 4 KiB.
pub fn assert_memory_bounded(peak_bytes: usize, input_bytes: usize) {
    let bound_bytes = 8 * input_bytes + 4_096;
    assert!(
        peak_bytes <= bound_bytes,
        "{peak_bytes} bytes for an input of {input_bytes}, bound {bound_bytes}"
    );
}
