//! [`std::fs`](mod@::std::fs): calls are made on a thread of the blocking pool.

#[allow(deprecated)]
pub use ::plainsong::fs::soft_link;
pub use ::plainsong::fs::{
    DirBuilder, DirEntry, File, OpenOptions, ReadDir, TryLockError, canonicalize, copy, create_dir,
    create_dir_all, exists, hard_link, metadata, read, read_dir, read_link, read_to_string,
    remove_dir, remove_dir_all, remove_file, rename, set_permissions, symlink_metadata, write,
};
pub use ::std::fs::*;
