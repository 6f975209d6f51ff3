//! Backtraces: the frames of stacks that do not run, and their names.
//!
//! framehop finds the frames from a few registers and the unwind tables of the loaded objects. It
//! reads of a stack only the words where frames keep registers, so it touches no page that is not
//! in memory. It allocates nothing meanwhile, and so works in a signal handler.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, c_void};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;
use std::slice;
use std::sync::Arc;

use framehop::{
    CacheNative, ExplicitModuleSectionInfo, Module, MustNotAllocateDuringUnwind, UnwindRegsNative,
    Unwinder, UnwinderNative,
};

use super::frame::Frame;
use crate::engine::processor::Registers;
use crate::engine::survey::{Survey, Walk};

/// Copies, because an object may be unloaded at any time.
type Table = Arc<[u8]>;

/// The code and the unwind tables of the process.
struct Objects {
    unwinder: UnwinderNative<Table, MustNotAllocateDuringUnwind>,
    // The addresses of each object, and where it is loaded.
    places: Vec<(Range<usize>, usize, PathBuf)>,
}

/// Finds frames.
struct Walker {
    unwinder: UnwinderNative<Table, MustNotAllocateDuringUnwind>,
    cache: CacheNative<MustNotAllocateDuringUnwind>,
}

impl Objects {
    /// The objects that are loaded now.
    fn loaded() -> Self {
        let mut this = Self { unwinder: UnwinderNative::new(), places: Vec::new() };
        let data = ptr::from_mut(&mut this).cast();
        // SAFETY: the callback has the type that is asked for, and `data` is what it expects. It
        // does not unwind: it does nothing that panics.
        unsafe { libc::dl_iterate_phdr(Some(add), data) };
        this
    }

    /// Adds an object, with its unwind table if it has one in the usual form.
    fn add(&mut self, object: &Object<'_>) -> Option<()> {
        let base = object.base;
        let loaded = || object.loaded().map(|header| object.range(header));
        let start = loaded().map(|it| it.start).min()?;
        let end = loaded().map(|it| it.end).max()?;
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(object.name.to_bytes()));
        // The program itself has no name there.
        let path = if path.as_os_str().is_empty() && self.places.is_empty() {
            std::env::current_exe().unwrap_or_default()
        } else {
            path
        };
        self.places.push((start..end, base, path.clone()));
        let is_index = |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_GNU_EH_FRAME;
        let index = object.range(object.headers.iter().find(is_index)?);
        let index_bytes = object.bytes_from(index.start)?.get(..index.len())?;
        // The index begins with four bytes that say how the table's address is encoded: nearly
        // always as four bytes, relative to where they are.
        let &[1, 0x1b, _, _, a, b, c, d, ..] = index_bytes else { return None };
        let offset = i32::from_le_bytes([a, b, c, d]) as isize;
        let table = (index.start + 4).wrapping_add_signed(offset);
        let table_bytes = object.bytes_from(table)?;
        let table = table..table + table_bytes.len();
        let stated = |range: &Range<usize>| (range.start - base) as u64..(range.end - base) as u64;
        let sections = ExplicitModuleSectionInfo {
            eh_frame_hdr_svma: Some(stated(&index)),
            eh_frame_hdr: Some(index_bytes.into()),
            eh_frame_svma: Some(stated(&table)),
            eh_frame: Some(table_bytes.into()),
            ..ExplicitModuleSectionInfo::default()
        };
        let name = path.to_string_lossy().into_owned();
        let module = Module::new(name, start as u64..end as u64, base as u64, sections);
        self.unwinder.add_module(module);
        Some(())
    }

    /// Something that finds frames, for one worker.
    fn walker(&self) -> Box<dyn Walk> {
        Box::new(Walker { unwinder: self.unwinder.clone(), cache: CacheNative::new_in() })
    }

    /// The frame at an address, and the frames of the functions that were inlined into it, the
    /// innermost first.
    fn name(&self, address: usize, is_return: bool, frames: &mut Vec<Frame>) {
        // A return address may be that of the next function already.
        let inside = address - usize::from(is_return);
        let place = self.places.iter().find(|(range, ..)| range.contains(&inside));
        let object = place.map(|(_, _, path)| path.to_string_lossy().into_owned());
        let offset = place.map_or(inside, |(_, base, _)| inside - base);
        let before = frames.len();
        backtrace::resolve(ptr::without_provenance_mut::<c_void>(inside), |symbol| {
            frames.push(Frame {
                address,
                object: object.clone(),
                offset,
                function: symbol.name().map(|name| format!("{name:#}")),
                file: symbol.filename().map(|file| file.display().to_string()),
                line: symbol.lineno(),
            });
        });
        if frames.len() == before {
            let (function, file, line) = (None, None, None);
            frames.push(Frame { address, object, offset, function, file, line });
        }
    }
}

/// The backtraces of one dump. Coroutines that are at the same place share one.
pub(super) struct Backtraces {
    objects: Objects,
    known: HashMap<Vec<usize>, Arc<[Frame]>>,
    names: HashMap<(usize, bool), Vec<Frame>>,
}

impl Backtraces {
    pub(super) fn new() -> Self {
        Self { objects: Objects::loaded(), known: HashMap::new(), names: HashMap::new() }
    }

    /// A survey that finds the frames, too, with room for this many coroutines.
    pub(super) fn survey(&self, room: usize) -> Survey {
        let mut survey = Survey::with_capacity(room);
        survey.find_frames(self.objects.walker(), room);
        survey
    }

    /// The backtrace with these addresses, the innermost first.
    pub(super) fn of(&mut self, addresses: &[usize]) -> Arc<[Frame]> {
        if let Some(known) = self.known.get(addresses) {
            return Arc::clone(known);
        }
        let mut frames = Vec::new();
        for (number, &address) in addresses.iter().enumerate() {
            let is_return = number > 0;
            let named = self.names.entry((address, is_return)).or_insert_with(|| {
                let mut frames = Vec::new();
                self.objects.name(address, is_return, &mut frames);
                frames
            });
            frames.extend(named.iter().cloned());
        }
        let frames: Arc<[Frame]> = frames.into();
        self.known.insert(addresses.to_vec(), Arc::clone(&frames));
        frames
    }
}

impl Walk for Walker {
    fn walk(
        &mut self,
        from: Registers,
        read: &mut dyn FnMut(usize) -> Option<usize>,
        frames: &mut Vec<usize>,
        max: usize,
    ) {
        let (stack, frame) = (from.stack as u64, from.frame as u64);
        #[cfg(target_arch = "x86_64")]
        let registers = UnwindRegsNative::new(from.instruction as u64, stack, frame);
        #[cfg(target_arch = "aarch64")]
        let registers = UnwindRegsNative::new(from.link as u64, stack, frame);
        let mut read = |address: u64| read(address as usize).map(|word| word as u64).ok_or(());
        let Self { unwinder, cache } = self;
        let mut iter = unwinder.iter_frames(from.instruction as u64, registers, cache, &mut read);
        let mut left = max;
        // The last frame of a coroutine is followed by the stack of the loop, which `read` refuses.
        while let (1.., Ok(Some(frame))) = (left, iter.next()) {
            frames.push(frame.address() as usize);
            left -= 1;
        }
    }
}

/// An object, while the loader shows it.
struct Object<'a> {
    base: usize,
    headers: &'a [libc::Elf64_Phdr],
    // Empty for the program itself.
    name: &'a CStr,
}

impl<'a> Object<'a> {
    /// The addresses of a part of it.
    fn range(&self, header: &libc::Elf64_Phdr) -> Range<usize> {
        let start = self.base + header.p_vaddr as usize;
        start..start + header.p_memsz as usize
    }

    /// The parts that are mapped.
    fn loaded(&self) -> impl Iterator<Item = &'a libc::Elf64_Phdr> {
        self.headers.iter().filter(|header| header.p_type == libc::PT_LOAD)
    }

    /// The bytes from an address on, to the end of the mapped part that it is in. `None` if they
    /// cannot be read.
    fn bytes_from(&self, start: usize) -> Option<&'a [u8]> {
        let readable = self.loaded().filter(|header| header.p_flags & libc::PF_R != 0);
        let range = readable.map(|header| self.range(header)).find(|it| it.contains(&start))?;
        // SAFETY: it is a part of a segment that is mapped, and readable. The object stays loaded
        // until the loader has shown it.
        Some(unsafe { slice::from_raw_parts(start as *const u8, range.end - start) })
    }
}

/// Adds an object to the [`Objects`] that `data` points to.
///
/// # Safety
///
/// Only for `dl_iterate_phdr`, as [`Objects::loaded`] calls it. (SAFETY: see there.)
unsafe extern "C" fn add(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    data: *mut c_void,
) -> libc::c_int {
    // SAFETY: `Objects::loaded` passes its value, which nothing else uses meanwhile; and the loader
    // passes the description of an object, which stays loaded until this returns. The name is a C
    // string.
    let (objects, object) = unsafe {
        let info = &*info;
        if info.dlpi_phdr.is_null() {
            return 0;
        }
        let name = info.dlpi_name;
        let object = Object {
            base: info.dlpi_addr as usize,
            headers: slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()),
            name: if name.is_null() { c"" } else { CStr::from_ptr(name) },
        };
        (&mut *data.cast::<Objects>(), object)
    };
    objects.add(&object);
    0
}
