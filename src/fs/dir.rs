//! Directories.

use std::ffi::OsString;
use std::fmt;
use std::fs::{FileType, Metadata};
use std::io;
use std::iter::FusedIterator;
use std::os::unix::fs::{DirBuilderExt, DirEntryExt};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};
use std::vec;

use super::call::call;

/// Entries that are fetched by one call.
const BATCH: usize = 128;

/// The entries of a directory; made by [`read_dir`](super::read_dir). They are fetched in batches.
pub struct ReadDir {
    // `None` once it has ended.
    inner: Option<std::fs::ReadDir>,
    batch: vec::IntoIter<io::Result<DirEntry>>,
}

impl ReadDir {
    pub(super) fn new(inner: std::fs::ReadDir) -> Self {
        Self { inner: Some(inner), batch: Vec::new().into_iter() }
    }

    fn fetch(&mut self) {
        let Some(inner) = &mut self.inner else { return };
        let fetched = call(|| {
            let entry = |inner: std::fs::DirEntry| {
                // Most file systems store it with the name. The others must be asked, which blocks.
                let file_type = inner.file_type().ok();
                DirEntry { inner, file_type }
            };
            Ok(inner.by_ref().take(BATCH).map(|next| next.map(entry)).collect::<Vec<_>>())
        });
        let batch = fetched.unwrap_or_else(|error| vec![Err(error)]);
        if batch.is_empty() {
            self.inner = None;
        }
        self.batch = batch.into_iter();
    }
}

impl Iterator for ReadDir {
    type Item = io::Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.batch.len() == 0 {
            self.fetch();
        }
        self.batch.next()
    }
}

impl FusedIterator for ReadDir {}

// As std's. A panic leaves no entry half-read.
impl UnwindSafe for ReadDir {}
impl RefUnwindSafe for ReadDir {}

impl fmt::Debug for ReadDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadDir").field(&self.inner).finish()
    }
}

/// An entry of a directory.
pub struct DirEntry {
    inner: std::fs::DirEntry,
    file_type: Option<FileType>,
}

impl DirEntry {
    /// The directory's path with the entry's name.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.inner.path()
    }

    /// The entry's name.
    #[must_use]
    pub fn file_name(&self) -> OsString {
        self.inner.file_name()
    }

    /// The metadata of the file, or of the link if it is one.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::DirEntry::metadata`].
    pub fn metadata(&self) -> io::Result<Metadata> {
        call(|| self.inner.metadata())
    }

    /// The kind of the file, or that it is a link; known from the directory.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::DirEntry::file_type`].
    pub fn file_type(&self) -> io::Result<FileType> {
        self.file_type.map_or_else(|| call(|| self.inner.file_type()), Ok)
    }
}

impl DirEntryExt for DirEntry {
    fn ino(&self) -> u64 {
        self.inner.ino()
    }
}

impl fmt::Debug for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Creates directories with options: [`std::fs::DirBuilder`].
#[derive(Debug)]
pub struct DirBuilder(std::fs::DirBuilder);

impl DirBuilder {
    /// Creates a single directory, with the default mode.
    #[allow(clippy::new_without_default)] // As std's.
    #[must_use]
    pub fn new() -> Self {
        Self(std::fs::DirBuilder::new())
    }

    /// Sets whether missing parents are created too. A directory that exists is no error then.
    pub fn recursive(&mut self, recursive: bool) -> &mut Self {
        self.0.recursive(recursive);
        self
    }

    /// Creates the directory.
    ///
    /// # Errors
    ///
    /// Those of [`std::fs::DirBuilder::create`].
    pub fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let path = path.as_ref();
        call(|| self.0.create(path))
    }
}

impl DirBuilderExt for DirBuilder {
    fn mode(&mut self, mode: u32) -> &mut Self {
        self.0.mode(mode);
        self
    }
}
