//! A search of the memory of this process for references to objects.
//!
//! Each word that lies in memory that the process can write to counts as a reference, if its value
//! is an address in the object. So a reference that is a plain pointer is never missed, unless it
//! moves during the search; and a number that looks like one, or a pointer that was left behind in
//! memory that is not used any more, may count too. Only Linux says which memory there is.

use std::fs::{self, File};
use std::hint;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::param::page_size;

use crate::engine::order::sort_by_key;
use crate::engine::subject::Object;

const WORD: usize = size_of::<usize>();
/// As many pages are read at once.
const PAGES: usize = 256;
/// In an entry of `/proc/self/pagemap`: the page is in memory, or swapped out.
const IS_THERE: u64 = 1 << 63 | 1 << 62;
/// Below the stack pointer of a thread, this many bytes may be in use.
const RED_ZONE: usize = 128;

/// A part of the memory that does not count like the rest.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) memory: Range<usize>,
    /// The number of the coroutine that has it. `None` if nothing in it is in use.
    pub(super) owner: Option<usize>,
}

/// A reference that was found.
pub(super) struct Reference {
    /// The number of the object.
    pub(super) object: usize,
    /// The number of the coroutine that has it. `None` if it is elsewhere.
    pub(super) owner: Option<usize>,
}

/// Calls `f` with each reference to one of the objects, which are sorted. The `parts` do not
/// overlap.
///
/// # Errors
///
/// When the system does not say which memory there is.
pub(super) fn search(
    objects: &[Object],
    mut parts: Vec<Part>,
    f: &mut dyn FnMut(Reference),
) -> io::Result<()> {
    let mut pages = vec![0; PAGES * page_size()];
    let buffer = pages.as_ptr().addr();
    parts.push(Part { memory: buffer..buffer + pages.len(), owner: None });
    sort_by_key(&mut parts, |part| part.memory.start as u64);
    let owner = |address: usize| {
        let at = parts.partition_point(|part| part.memory.end <= address);
        let part = parts.get(at).filter(|part| part.memory.contains(&address));
        part.map_or(Some(None), |part| part.owner.map(Some))
    };
    let memory = File::open("/proc/self/mem")?;
    let table = File::open("/proc/self/pagemap")?;
    for run in regions()?.into_iter().flat_map(|region| Present { table: &table, left: region }) {
        let mut at = run.start;
        while at < run.end {
            let room = pages.len().min(run.end - at);
            // A page may have gone since, or be a guard.
            let read = memory.read_at(&mut pages[..room], at as u64).unwrap_or(0) / WORD * WORD;
            for (offset, word) in pages[..read].chunks_exact(WORD).enumerate() {
                let word = word.try_into().map_or(0, usize::from_ne_bytes);
                let Some(object) = Object::find(objects, word) else { continue };
                if let Some(owner) = owner(at + offset * WORD) {
                    f(Reference { object, owner });
                }
            }
            at += if read == 0 { page_size() } else { read };
        }
    }
    // The next search must not find the copies in here.
    pages.fill(0);
    hint::black_box(&pages);
    Ok(())
}

/// The memory that the process can write to, and does not share.
fn regions() -> io::Result<Vec<Range<usize>>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let region = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let wanted = words.next().is_some_and(|it| it.starts_with("rw") && it.ends_with('p'));
        wanted.then_some(address(start)?..address(end)?)
    };
    Ok(maps.lines().filter_map(region).collect())
}

fn address(hexadecimal: &str) -> Option<usize> {
    usize::from_str_radix(hexadecimal, 16).ok()
}

/// The stack pointer of a thread that is in a system call.
pub(super) fn stack_pointer(thread: i32) -> Option<usize> {
    let line = fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).ok()?;
    let pointer = line.split_ascii_whitespace().rev().nth(1)?;
    Some(address(pointer.strip_prefix("0x")?)?.saturating_sub(RED_ZONE))
}

/// The part of a thread's stack that is below an address of it, and so not in use.
pub(super) fn unused_stack(below: usize) -> Option<Part> {
    let region = regions().ok()?.into_iter().find(|region| region.contains(&below))?;
    Some(Part { memory: region.start..below, owner: None })
}

/// The parts of some memory that are there, in runs.
struct Present<'a> {
    table: &'a File,
    left: Range<usize>,
}

impl Iterator for Present<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        const ENTRY: usize = size_of::<u64>();
        let mut entries = [0; 512 * ENTRY];
        while !self.left.is_empty() {
            let start = self.left.start;
            let count = (self.left.len() / page_size()).min(entries.len() / ENTRY);
            let entries = &mut entries[..count * ENTRY];
            let offset = (start / page_size() * ENTRY) as u64;
            if self.table.read_exact_at(entries, offset).is_err() {
                // Then all of it may be there.
                return Some(std::mem::replace(&mut self.left, start..start));
            }
            let mut there = entries.chunks_exact(ENTRY).map(|entry| {
                entry.try_into().map_or(true, |entry| u64::from_ne_bytes(entry) & IS_THERE != 0)
            });
            let Some(first) = there.position(|it| it) else {
                self.left.start = start + count * page_size();
                continue;
            };
            let pages = 1 + there.take_while(|it| *it).count();
            let from = start + first * page_size();
            self.left.start = from + pages * page_size();
            return Some(from..self.left.start);
        }
        None
    }
}
