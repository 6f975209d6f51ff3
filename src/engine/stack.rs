//! Guarded stacks, carved from a few large reservations and used again.
//!
//! ```text
//!  arena:  |guard| stack 0 ........ top|guard| stack 1 ........ top| …
//!                                 ^ coloured: lowered by a multiple of 64 bytes
//! ```
//!
//! One `mmap` holds many stacks, so a million of them need tens of mappings and not two million:
//! Linux allows 65,530 by default. Guards are page-table markers (`MADV_GUARD_INSTALL`, Linux 6.13)
//! that split no mapping; where the kernel refuses them, `mprotect` does it, and the limit returns.
//!
//! Sizes are powers of two, so a stack and its guard take an odd number of pages. This spreads
//! neighbouring tops over the TLB's sets, and the colour spreads them over those of the L1 cache.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io;
use std::iter;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr;
use std::rc::Rc;

use corosensei::stack::{StackPointer, valgrind::ValgrindStackRegistration};

use super::bounds::Bounds;
use super::core_files;
use super::error::explained;
use super::mapping::{Guard, Mapping, explain, under_valgrind};
use super::shared::thread_local;

thread_local! {
    // Without a destructor, so that the signal handler may read it at any time.
    static ARENAS: Arenas = const { Arenas::new() };
}

/// Stacks smaller than this cannot hold a panic message with its backtrace.
pub(crate) const MIN_SIZE: usize = 16 * 1024;
/// Larger than any stack that is not a mistake in the units.
pub(crate) const MAX_SIZE: usize = 1 << 30;
/// The default size; `ARCHITECTURE.md` has the measurements behind it.
pub(crate) const DEFAULT_SIZE: usize = 256 * 1024;

/// Stacks in a size's first arena; each further arena doubles, up to [`ARENA_BYTES`].
const FIRST_ARENA_STACKS: usize = 16;
/// An arena does not grow past this much address space (unless one stack is larger).
const ARENA_BYTES: usize = 16 << 30;
/// Tops are lowered by `0..COLOURS` cache lines.
const COLOURS: usize = 32;
const CACHE_LINE: usize = 64;
/// Bytes that a free stack may keep resident: [`StackPool::trim`] gives deeper pages back.
const KEEP: usize = 16 * 1024;
/// Free stacks that may keep that much: those at the bottom of a longer list keep nothing.
const KEEP_STACKS: usize = 1024;
/// Stacks looked at in one [`StackPool::trim`], so that a turn stays short.
const TRIM_BATCH: usize = 64;

/// Checks a stack size and rounds it up to a power of two, so that there are few sizes to pool.
///
/// # Errors
///
/// `InvalidInput` outside of [`MIN_SIZE`]`..=`[`MAX_SIZE`].
pub(crate) fn check_size(size: usize) -> io::Result<usize> {
    if !(MIN_SIZE..=MAX_SIZE).contains(&size) {
        return Err(explained(
            io::ErrorKind::InvalidInput,
            format!(
                "a coroutine stack of {size} bytes is not possible: \
                 choose between {MIN_SIZE} (16 KiB) and {MAX_SIZE} bytes (1 GiB)"
            ),
        ));
    }
    Ok(size.next_power_of_two().max(page_size()))
}

fn page_size() -> usize {
    rustix::param::page_size()
}

/// The bytes of a guard: a page, because rustc's stack probes touch each page of a large frame.
fn guard_size() -> usize {
    // Under AddressSanitizer there are no probes, and a frame could skip a page.
    if cfg!(feature = "sanitizer") { 1 << 20 } else { page_size() }
}

/// The purpose of a pool of stacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Coroutines and generators, from their start to their end.
    Own,
    /// Calls that find too little left on their own.
    Grown,
    /// Short calls of coroutines, on a stack as large as their own.
    Lent,
}

/// One reservation of address space: `count` stacks of `size` bytes above a guard each.
#[derive(Debug)]
struct Arena {
    mapping: Mapping,
    size: usize,
    stride: usize,
    count: usize,
    carved: Cell<usize>,
    guard: Cell<Guard>,
    purpose: Purpose,
    // The next of this thread's arenas.
    next: Cell<*const Arena>,
    // Valgrind follows stack switches only onto registered stacks.
    valgrind: RefCell<Vec<ValgrindStackRegistration>>,
}

impl Arena {
    /// Reserves room for `count` stacks, or for as many as the system's limits leave.
    fn reserve(size: usize, count: usize, guard: Guard, purpose: Purpose) -> io::Result<Self> {
        let stride = size + guard_size();
        let mut count = count;
        loop {
            match Mapping::reserve(count * stride) {
                Ok(mapping) => {
                    return Ok(Self {
                        mapping,
                        size,
                        stride,
                        count,
                        carved: Cell::new(0),
                        guard: Cell::new(guard),
                        purpose,
                        next: Cell::new(ptr::null()),
                        valgrind: RefCell::default(),
                    });
                }
                // RLIMIT_AS and strict overcommit count address space: leave most to the program.
                Err(_) if count > FIRST_ARENA_STACKS => count = FIRST_ARENA_STACKS,
                Err(_) if count > 1 => count /= 2,
                Err(error) => return Err(explain(error, size)),
            }
        }
    }

    /// Carves the next stack, its guard in place.
    fn carve(self: &Rc<Self>) -> io::Result<Option<Stack>> {
        let index = self.carved.get();
        if index == self.count {
            return Ok(None);
        }
        let limit = self.mapping.start() + index * self.stride;
        let guard = self.mapping.guard(limit..limit + guard_size(), self.guard.get());
        self.guard.set(guard.map_err(|error| explain(error, self.size))?);
        self.carved.set(index + 1);
        let top = limit + self.stride - (index % COLOURS) * CACHE_LINE;
        // The registry is only kept under Valgrind: it costs 8 bytes a stack.
        if under_valgrind() {
            let registration = ValgrindStackRegistration::new(limit as *mut u8, self.stride);
            self.valgrind.borrow_mut().push(registration);
        }
        let Some(top) = NonZeroUsize::new(top) else { unreachable!("a mapping is not at zero") };
        Ok(Some(Stack { top, arena: Rc::clone(self) }))
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        ARENAS.with(|arenas| arenas.remove(self));
        self.valgrind.borrow_mut().clear();
    }
}

/// This thread's stack that has this address.
pub(crate) fn bounds_of(address: usize) -> Option<Bounds> {
    ARENAS.with(|arenas| arenas.bounds_of(address))
}

/// Bottom, size and purpose of this thread's stack that overflowed there. Async-signal-safe.
pub(super) fn overflowed(address: usize) -> Option<(usize, usize, Purpose)> {
    ARENAS.with(|arenas| arenas.overflowed(address))
}

/// Calls `f` with the memory of each of this thread's arenas, the size of the part that has stacks,
/// and their number. Async-signal-safe, if `f` is.
pub(crate) fn for_each_arena(mut f: impl FnMut(Range<usize>, usize, usize)) {
    ARENAS.with(|arenas| {
        arenas.iter().for_each(|arena| {
            let carved = arena.carved.get();
            f(arena.mapping.addresses(), carved * arena.stride, carved);
        });
    });
}

/// A thread's arenas, for its signal handler: a list that can be walked at any moment.
#[derive(Debug)]
struct Arenas(Cell<*const Arena>);

impl Arenas {
    const fn new() -> Self {
        Self(Cell::new(ptr::null()))
    }

    fn add(&self, arena: &Rc<Arena>) {
        arena.next.set(self.0.get());
        self.0.set(Rc::as_ptr(arena));
    }

    /// The arenas. While they are walked, none may be dropped.
    fn iter(&self) -> impl Iterator<Item = &Arena> {
        // SAFETY: an arena is in the list until its drop, which first calls `remove`, so all here
        // are alive. The callers drop none meanwhile.
        let arena = |at: &Cell<*const Arena>| unsafe { at.get().as_ref() };
        iter::successors(arena(&self.0), move |before| arena(&before.next))
    }

    fn remove(&self, gone: &Arena) {
        let mut links = iter::once(&self.0).chain(self.iter().map(|arena| &arena.next));
        if let Some(link) = links.find(|link| ptr::eq(link.get(), gone)) {
            link.set(gone.next.get());
        }
    }

    /// The arena of an address, and the offset of the address in it.
    fn find(&self, address: usize) -> Option<(&Arena, usize)> {
        let offset_in = |arena: &Arena| address.wrapping_sub(arena.mapping.start());
        let mut offsets = self.iter().map(|arena| (arena, offset_in(arena)));
        offsets.find(|(arena, offset)| *offset < arena.mapping.len())
    }

    fn overflowed(&self, address: usize) -> Option<(usize, usize, Purpose)> {
        let (arena, offset) = self.find(address)?;
        let into_stride = offset % arena.stride;
        let guard = arena.stride - arena.size;
        let bottom = address - into_stride + guard;
        (into_stride < guard).then_some((bottom, arena.size, arena.purpose))
    }

    fn bounds_of(&self, address: usize) -> Option<Bounds> {
        let last = address.checked_sub(1)?; // A top is the guard of the next stack.
        let (arena, offset) = self.find(last)?;
        let (index, end) = (offset / arena.stride, last - offset % arena.stride + arena.stride);
        // SAFETY: it is a stack of this thread, in an arena that is alive.
        Some(unsafe { Bounds::new(end - arena.size, end - index % COLOURS * CACHE_LINE) })
    }
}

/// Exclusive use of one guarded stack.
#[derive(Debug)]
pub(crate) struct Stack {
    top: StackPointer,
    arena: Rc<Arena>,
}

impl Stack {
    /// The usable bytes.
    pub(crate) fn size(&self) -> usize {
        self.arena.size
    }

    /// The first address of the guard. The stack's usable bytes start above it.
    pub(crate) fn guard(&self) -> usize {
        let base = self.arena.mapping.start();
        // The top may be the exact end of the stack, which is the next one's guard.
        let index = (self.top.get() - 1 - base) / self.arena.stride;
        base + index * self.arena.stride
    }

    /// The addresses of the usable bytes.
    pub(crate) fn bounds(&self) -> Range<usize> {
        self.guard() + guard_size()..self.top.get()
    }

    /// Gives back what lies deeper than `keep` bytes below the top, if any of it is resident.
    /// Returns whether it has done so.
    fn trim(&mut self, keep: usize) -> bool {
        let bottom = self.guard() + guard_size();
        let len = (self.guard() + self.arena.stride - bottom).saturating_sub(keep);
        // It was just used, so its first page is there: ask the kernel only about deeper ones.
        if len == 0 || keep > 0 && Bounds::resident_in(bottom..bottom + len) == 0 {
            return false;
        }
        self.arena.mapping.discard(bottom..bottom + len)
    }
}

// SAFETY: `base` and `limit` enclose a part of a mapping that `self` keeps alive, and that no other
// stack uses. Only `trim` discards pages of it, and borrows the stack mutably for that: a stack on
// which code runs, or waits, belongs to a coroutine, which lends it to nobody.
//
// A guard is at the limit since before this stack was made, and `MIN_SIZE` is above the trait's
// minimum.
// Both are aligned to a cache line, which is more than the 16 bytes that are asked for.
unsafe impl corosensei::stack::Stack for Stack {
    #[inline]
    fn base(&self) -> StackPointer {
        self.top
    }

    fn limit(&self) -> StackPointer {
        NonZeroUsize::new(self.guard()).unwrap_or(NonZeroUsize::MIN)
    }
}

/// Free stacks of one size, and the arena that new ones come from.
#[derive(Debug)]
struct Class {
    size: usize,
    // Last in, first out: the stack that is warm in the cache goes out first.
    free: Vec<Stack>,
    // `free[..looked]` have been trimmed since they were last used.
    looked: usize,
    arena: Option<Rc<Arena>>,
}

/// A thread's stacks, by size.
#[derive(Debug)]
pub(crate) struct StackPool {
    classes: RefCell<Vec<Class>>,
    guard: Cell<Guard>,
    // How often pages of a stack were given back.
    trimmed: Cell<u64>,
    purpose: Purpose,
}

impl StackPool {
    pub(crate) const fn new(purpose: Purpose) -> Self {
        Self {
            classes: RefCell::new(Vec::new()),
            guard: Cell::new(Guard::Marker),
            trimmed: Cell::new(0),
            purpose,
        }
    }

    /// A stack of `size` bytes, which [`check_size`] has passed.
    #[inline]
    pub(crate) fn take(&self, size: usize) -> io::Result<Stack> {
        let mut classes = self.classes.borrow_mut();
        if let Some(class) = classes.iter_mut().find(|class| class.size == size) {
            if let Some(stack) = class.free.pop() {
                class.looked = class.looked.min(class.free.len());
                return Ok(stack);
            }
        }
        self.grow(&mut classes, size)
    }

    #[cold]
    fn grow(&self, classes: &mut Vec<Class>, size: usize) -> io::Result<Stack> {
        let at = classes.iter().position(|class| class.size == size).unwrap_or_else(|| {
            classes.push(Class { size, free: Vec::new(), looked: 0, arena: None });
            classes.len() - 1
        });
        let arena = &mut classes[at].arena;
        let mut count = FIRST_ARENA_STACKS;
        if let Some(arena) = arena {
            if let Some(stack) = arena.carve()? {
                return Ok(stack);
            }
            count = (arena.count * 2).min(ARENA_BYTES / arena.stride).max(1);
        }
        let guard = if core_files::have_stacks() { Guard::Protect } else { self.guard.get() };
        let fresh = arena.insert(Rc::new(Arena::reserve(size, count, guard, self.purpose)?));
        ARENAS.with(|arenas| arenas.add(fresh));
        fresh.carve()?.ok_or_else(|| io::Error::other("a new arena has no stack"))
    }

    /// Takes a stack back.
    #[inline(always)]
    pub(crate) fn put(&self, stack: Stack) {
        let mut classes = self.classes.borrow_mut();
        if let Some(class) = classes.iter_mut().find(|class| class.size == stack.size()) {
            class.free.push(stack);
        }
    }

    /// Gives back pages of deep calls in a batch of used stacks. Returns whether more are left.
    pub(crate) fn trim(&self) -> bool {
        let mut left = TRIM_BATCH;
        for class in self.classes.borrow_mut().iter_mut() {
            let end = class.free.len().min(class.looked + left);
            let cold = class.free.len().saturating_sub(KEEP_STACKS);
            for (at, stack) in class.free.iter_mut().enumerate().take(end).skip(class.looked) {
                let trimmed = stack.trim(if at < cold { 0 } else { KEEP });
                self.trimmed.set(self.trimmed.get() + u64::from(trimmed));
            }
            left -= end - class.looked;
            class.looked = end;
            if end < class.free.len() {
                return true;
            }
        }
        false
    }

    /// How many stacks are kept for the next coroutines, and how often pages of one were given
    /// back. `None` if the pool is being changed at this moment. Async-signal-safe.
    pub(crate) fn try_count(&self) -> Option<(usize, u64)> {
        let classes = self.classes.try_borrow().ok()?;
        Some((classes.iter().map(|class| class.free.len()).sum(), self.trimmed.get()))
    }

    /// Calls `f` with the addresses of each free stack.
    pub(crate) fn for_each_free(&self, f: impl FnMut(Range<usize>)) {
        self.classes.borrow().iter().flat_map(|class| &class.free).map(Stack::bounds).for_each(f);
    }

    /// Whether [`trim`](Self::trim) has anything to look at.
    pub(crate) fn untrimmed(&self) -> bool {
        self.classes.borrow().iter().any(|class| class.looked < class.free.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::pipe;
    use std::os::fd::AsRawFd;

    const SIZE: usize = 64 * 1024;

    fn pool(guard: Guard) -> StackPool {
        let pool = StackPool::new(Purpose::Own);
        pool.guard.set(guard);
        pool
    }

    /// Runs `test` with each kind of guard that this system has.
    fn with_both(test: fn(&StackPool)) {
        test(&pool(Guard::Marker));
        test(&pool(Guard::Protect));
    }

    /// Whether the byte at `address` can be read: asks the kernel, which does not crash.
    fn readable(address: usize) -> bool {
        let (_reader, writer) = pipe().unwrap();
        // SAFETY: only the kernel reads the byte, and it answers EFAULT where it cannot.
        match unsafe { libc::write(writer.as_raw_fd(), address as *const _, 1) } {
            1 => true,
            _ => {
                let error = io::Error::last_os_error();
                assert_eq!(error.raw_os_error(), Some(libc::EFAULT), "{error}");
                false
            }
        }
    }

    /// Writes to every page from `depth` bytes below the top up to the top.
    fn touch(stack: &Stack, depth: usize) {
        let bounds = stack.bounds();
        assert!(depth <= bounds.len());
        for at in (bounds.end - depth..bounds.end).step_by(page_size()) {
            // SAFETY: the byte is in the stack, and no code runs on it.
            unsafe { (at as *mut u8).write_volatile(1) };
        }
    }

    /// The resident bytes of a stack.
    fn held(stack: &Stack) -> usize {
        let start = stack.bounds().start;
        let pages = (start..start + stack.size()).step_by(page_size());
        pages.map(|at| Bounds::resident_in(at..at + page_size())).sum()
    }

    fn trim_all(pool: &StackPool) {
        while pool.trim() {}
        assert!(!pool.untrimmed());
    }

    #[test]
    fn each_stack_has_a_guard_below_it_and_nothing_in_common_with_others() {
        with_both(|pool| {
            let mut stacks: Vec<_> = (0..200).map(|_| pool.take(SIZE).unwrap()).collect();
            stacks.sort_by_key(|stack| stack.top);
            for stack in &stacks {
                let bounds = stack.bounds();
                assert!(bounds.len() > SIZE - COLOURS * CACHE_LINE && bounds.len() <= SIZE);
                assert!(!readable(bounds.start - 1), "no guard");
                assert!(!readable(stack.guard()), "no guard");
                assert!(readable(bounds.start) && readable(bounds.end - 1), "no stack");
            }
            for two in stacks.windows(2) {
                assert!(two[0].bounds().end <= two[1].guard());
            }
        });
    }

    #[test]
    fn a_pool_keeps_to_the_guard_it_was_told() {
        let stack = pool(Guard::Protect).take(SIZE).unwrap();
        assert_eq!(stack.arena.guard.get(), Guard::Protect);
        // The kernel may refuse markers, so either kind may be left here.
        pool(Guard::Marker).take(SIZE).unwrap();
    }

    #[test]
    fn neighbours_have_tops_of_different_colours() {
        with_both(|pool| {
            let stacks: Vec<_> =
                (0..FIRST_ARENA_STACKS).map(|_| pool.take(SIZE).unwrap()).collect();
            let mut colours: Vec<_> = stacks
                .iter()
                .map(|stack| stack.guard() + stack.arena.stride - stack.top.get())
                .collect();
            assert!(colours.iter().all(|colour| colour % CACHE_LINE == 0));
            colours.sort_unstable();
            colours.dedup();
            assert_eq!(colours.len(), FIRST_ARENA_STACKS);
        });
    }

    #[test]
    fn what_comes_home_last_goes_out_first() {
        with_both(|pool| {
            let stacks: Vec<_> = (0..3).map(|_| pool.take(SIZE).unwrap()).collect();
            let tops: Vec<_> = stacks.iter().map(|stack| stack.top).collect();
            stacks.into_iter().for_each(|stack| pool.put(stack));
            let again: Vec<_> = (0..3).map(|_| pool.take(SIZE).unwrap()).collect();
            assert!(again.iter().map(|stack| stack.top).eq(tops.into_iter().rev()));
        });
    }

    #[test]
    fn sizes_do_not_mix() {
        with_both(|pool| {
            let small = pool.take(SIZE).unwrap();
            let top = small.top;
            pool.put(small);
            let large = pool.take(4 * SIZE).unwrap();
            assert_eq!(large.size(), 4 * SIZE);
            pool.put(large);
            assert_eq!(pool.take(SIZE).unwrap().top, top);
        });
    }

    #[test]
    fn what_a_deep_call_left_is_given_back_and_the_guard_stays() {
        with_both(|pool| {
            let stack = pool.take(SIZE).unwrap();
            let (bounds, guard) = (stack.bounds(), stack.guard());
            touch(&stack, bounds.len());
            assert_eq!(held(&stack), SIZE);
            pool.put(stack);
            assert!(pool.untrimmed());
            trim_all(pool);
            let stack = pool.take(SIZE).unwrap();
            assert_eq!(held(&stack), KEEP);
            assert!(!readable(guard), "the guard went with the pages");
            // And again: each use makes the pool look at it once more.
            touch(&stack, bounds.len());
            pool.put(stack);
            trim_all(pool);
            assert_eq!(held(&pool.take(SIZE).unwrap()), KEEP);
        });
    }

    #[test]
    fn a_shallow_stack_is_left_alone() {
        let pool = pool(Guard::Marker);
        let stack = pool.take(SIZE).unwrap();
        touch(&stack, page_size());
        let before = held(&stack);
        pool.put(stack);
        trim_all(&pool);
        assert_eq!(held(&pool.take(SIZE).unwrap()), before);
    }

    #[test]
    fn of_many_free_stacks_few_keep_anything() {
        let pool = pool(Guard::Marker);
        let count = KEEP_STACKS + 300;
        let stacks: Vec<_> = (0..count).map(|_| pool.take(SIZE).unwrap()).collect();
        for stack in stacks {
            touch(&stack, page_size());
            pool.put(stack);
        }
        let mut looks = 1;
        while pool.trim() {
            looks += 1;
        }
        assert_eq!(looks, count.div_ceil(TRIM_BATCH), "a look is a batch");
        let stacks: Vec<_> = (0..count).map(|_| pool.take(SIZE).unwrap()).collect();
        let warm = stacks.iter().filter(|stack| held(stack) > 0).count();
        assert_eq!(warm, KEEP_STACKS);
    }

    #[test]
    fn an_overflow_is_known_by_its_address_while_the_stack_exists() {
        with_both(|pool| {
            let overflowed = |at| super::overflowed(at).map(|(_, size, _)| size);
            let (small, large) = (pool.take(SIZE).unwrap(), pool.take(2 * SIZE).unwrap());
            let (first, last) = (small.guard(), small.bounds().start - 1);
            assert_eq!(overflowed(first), Some(SIZE));
            assert_eq!(overflowed(last), Some(SIZE));
            assert_eq!(overflowed(large.guard()), Some(2 * SIZE));
            for fine in [small.bounds().start, small.bounds().end - 1, 0, usize::MAX] {
                assert_eq!(overflowed(fine), None);
            }
            assert!(bounds_of(0).is_none() && bounds_of(usize::MAX).is_none());
            drop((small, large));
            pool.classes.take();
            assert_eq!(overflowed(first), None, "its arena is gone");
        });
    }

    #[test]
    fn sizes_are_checked_and_rounded_up() {
        assert_eq!(check_size(MIN_SIZE).unwrap(), MIN_SIZE);
        assert_eq!(check_size(MIN_SIZE + 1).unwrap(), 2 * MIN_SIZE);
        assert_eq!(check_size(100_000).unwrap(), 128 * 1024);
        assert_eq!(check_size(MAX_SIZE).unwrap(), MAX_SIZE);
        for size in [0, 1, MIN_SIZE - 1, MAX_SIZE + 1, usize::MAX] {
            let error = check_size(size).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&size.to_string()), "{error}");
        }
    }
}
