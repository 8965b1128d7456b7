//! The memory of a component.
//!
//! An instance judges one transaction and is dropped. Most transactions need less than [`FIRST`] bytes, which the memory has
//! from the start: memory that grows costs the host system calls when it does and when the instance is dropped.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

use dlmalloc::{Allocator, Dlmalloc};

/// Bytes of the heap before the memory grows: what the allocator asks for at once at least.
const FIRST: usize = PAGE;
/// A page of WebAssembly.
const PAGE: usize = 64 << 10;

#[repr(align(16))]
struct Room(UnsafeCell<MaybeUninit<[u8; FIRST]>>);

// SAFETY: a component has one thread.
unsafe impl Sync for Room {}

/// No initial value: it takes no room in the code.
static ROOM: Room = Room(UnsafeCell::new(MaybeUninit::uninit()));
static ROOM_IS_GIVEN: AtomicBool = AtomicBool::new(false);

/// Where the allocator gets memory from.
struct Memory;

// SAFETY: what is given was never given before, nothing else uses it, and it is never taken back.
unsafe impl Allocator for Memory {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        if size <= FIRST && !ROOM_IS_GIVEN.swap(true, Ordering::Relaxed) {
            return (ROOM.0.get().cast(), FIRST, 0);
        }
        let pages = size.div_ceil(PAGE);
        let before = core::arch::wasm32::memory_grow::<0>(pages);
        // The very last bytes cannot be given: a pointer behind them would be null.
        match before.checked_add(pages).map(|end| end.checked_mul(PAGE)) {
            None => (core::ptr::null_mut(), 0, 0),
            Some(Some(_)) => (core::ptr::with_exposed_provenance_mut(before * PAGE), pages * PAGE, 0),
            Some(None) => (core::ptr::with_exposed_provenance_mut(before * PAGE), pages * PAGE - 16, 0),
        }
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        core::ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    /// The room is part of the memory that begins as zeros, as all that grows does.
    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE
    }
}

/// The allocator of a component.
pub(crate) struct Heap(UnsafeCell<Dlmalloc<Memory>>);

// SAFETY: a component has one thread.
unsafe impl Sync for Heap {}

impl Heap {
    pub(crate) const fn new() -> Heap {
        Heap(UnsafeCell::new(Dlmalloc::new_with_allocator(Memory)))
    }
}

// SAFETY: `Dlmalloc` gives places as `GlobalAlloc` wants them. There is one thread, and no call is made within another.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { (*self.0.get()).malloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as above; the caller got the place with this layout.
        unsafe { (*self.0.get()).free(place, layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { (*self.0.get()).calloc(layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; the caller got the place with this layout.
        unsafe { (*self.0.get()).realloc(place, layout.size(), layout.align(), size) }
    }
}
