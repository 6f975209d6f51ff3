//! Files. Most of this is taken from std's own tests of `std::fs`.

use std::collections::HashSet;
use std::fs as std_fs;
use std::io::{BufRead, BufReader, ErrorKind, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    DirBuilderExt, DirEntryExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt,
};
use std::path::Path;
use std::time::{Duration, SystemTime};

use plainsong::fs::{DirBuilder, File, FileTimes, OpenOptions, Permissions, TryLockError};
use plainsong::{fs, scope, spawn, yield_now};

use crate::util;
use crate::util::{Folder, both, kind, until_parked};

#[test]
fn what_is_written_is_read() {
    both(|| {
        let dir = Folder::new();
        let path = dir.join("file");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"it's alright. have a good time").unwrap();
        assert_eq!(file.write_vectored(&[IoSlice::new(b", "), IoSlice::new(b"all")]).unwrap(), 5);
        file.flush().unwrap();
        drop(file);
        let mut text = String::new();
        File::open(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "it's alright. have a good time, all");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(fs::read(&path).unwrap(), text.as_bytes());
        fs::write(&path, "shorter").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"shorter");
    });
}

#[test]
fn what_does_not_exist() {
    both(|| {
        let dir = Folder::new();
        let path = dir.join("file_that_does_not_exist.txt");
        assert_eq!(kind(File::open(&path)), ErrorKind::NotFound);
        assert_eq!(kind(fs::remove_file(&path)), ErrorKind::NotFound);
        assert_eq!(kind(fs::metadata(&path)), ErrorKind::NotFound);
        assert_eq!(kind(fs::read_dir(&path)), ErrorKind::NotFound);
        assert_eq!(kind(fs::canonicalize(&path)), ErrorKind::NotFound);
        assert_eq!(kind(fs::rename(&path, dir.join("other"))), ErrorKind::NotFound);
        assert!(!fs::exists(&path).unwrap());
        fs::write(&path, []).unwrap();
        assert!(fs::exists(&path).unwrap());
    });
}

#[test]
fn seeking_and_telling() {
    both(|| {
        let dir = Folder::new();
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).open(dir.join("f")).unwrap();
        file.write_all(b"foobarbaz").unwrap();
        assert_eq!(file.seek(SeekFrom::Start(3)).unwrap(), 3);
        let mut bytes = [0; 3];
        file.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"bar");
        assert_eq!(file.stream_position().unwrap(), 6);
        file.write_all(b"BAZ").unwrap();
        assert_eq!(file.seek(SeekFrom::End(-4)).unwrap(), 5);
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"rBAZ");
        assert_eq!(file.seek(SeekFrom::Current(-2)).unwrap(), 7);
        assert_eq!(kind(file.seek(SeekFrom::Current(-8))), ErrorKind::InvalidInput);
        assert_eq!(file.read(&mut []).unwrap(), 0);
    });
}

#[test]
fn reading_and_writing_at() {
    both(|| {
        let dir = Folder::new();
        let file = File::create_new(dir.join("f")).unwrap();
        assert_eq!(file.write_at(b"asdf", 0).unwrap(), 4);
        assert_eq!(file.write_at(b"qwer", 8).unwrap(), 4);
        let mut bytes = [1; 12];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"asdf\0\0\0\0qwer");
        // The position has not moved.
        assert_eq!((&file).stream_position().unwrap(), 0);
        assert_eq!(file.read_at(&mut bytes, 12).unwrap(), 0);
        assert_eq!(kind(file.read_exact_at(&mut bytes, 8)), ErrorKind::UnexpectedEof);
        // The system takes this offset for the current position.
        assert_eq!(kind(file.read_at(&mut bytes, u64::MAX)), ErrorKind::InvalidInput);
        assert_eq!((&file).stream_position().unwrap(), 0);
        assert_eq!(kind(File::create_new(dir.join("f"))), ErrorKind::AlreadyExists);
    });
}

#[test]
fn flavours_of_opening() {
    both(|| {
        let dir = Folder::new();
        let path = dir.join("f");
        let options = OpenOptions::new;
        assert_eq!(kind(options().open(&path)), ErrorKind::InvalidInput);
        assert_eq!(kind(options().read(true).truncate(true).open(&path)), ErrorKind::InvalidInput);
        assert_eq!(kind(options().write(true).open(&path)), ErrorKind::NotFound);
        let mut file = options().append(true).create(true).mode(0o600).open(&path).unwrap();
        file.write_all(b"one").unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(b"two").unwrap();
        assert_eq!(kind(file.read(&mut [0; 1])), kind(std_fs_read_of(&path)));
        assert_eq!(fs::read(&path).unwrap(), b"onetwo");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(options().write(true).truncate(true).open(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        let no_dir = libc::O_DIRECTORY;
        assert_eq!(
            kind(options().read(true).custom_flags(no_dir).open(&path)),
            ErrorKind::NotADirectory
        );
        assert_eq!(kind(File::create(&dir.0)), ErrorKind::IsADirectory);
    });
}

/// Std's result of reading from a file that is open for writing only.
fn std_fs_read_of(path: &Path) -> std::io::Result<usize> {
    std_fs::OpenOptions::new().append(true).open(path).unwrap().read(&mut [0; 1])
}

#[test]
fn a_files_length_times_and_permissions() {
    both(|| {
        let dir = Folder::new();
        let path = dir.join("f");
        let file = File::create(&path).unwrap();
        file.set_len(10).unwrap();
        file.sync_all().unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 10);
        assert!(file.metadata().unwrap().is_file());
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(12_345);
        file.set_times(FileTimes::new().set_accessed(then)).unwrap();
        file.set_modified(then).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.accessed().unwrap(), metadata.modified().unwrap()), (then, then));
        file.set_permissions(Permissions::from_mode(0o640)).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o640);
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(fs::metadata(&path).unwrap().permissions().readonly());
    });
}

#[test]
fn clones_share_the_position() {
    both(|| {
        let dir = Folder::new();
        fs::write(dir.join("f"), "hello world").unwrap();
        let mut file = File::open(dir.join("f")).unwrap();
        let mut clone = file.try_clone().unwrap();
        let (mut one, mut two) = ([0; 6], [0; 5]);
        file.read_exact(&mut one).unwrap();
        clone.read_exact(&mut two).unwrap();
        assert_eq!((&one, &two), (b"hello ", b"world"));
        let file = std_fs::File::from(file);
        let fd = OwnedFd::from(File::from(file));
        assert_eq!(File::from(fd).metadata().unwrap().len(), 11);
    });
}

#[test]
fn links() {
    both(|| {
        let dir = Folder::new();
        let (file, soft, hard) = (dir.join("file"), dir.join("soft"), dir.join("hard"));
        fs::write(&file, "x").unwrap();
        fs::symlink(&file, &soft).unwrap();
        fs::hard_link(&file, &hard).unwrap();
        assert_eq!(fs::read_link(&soft).unwrap(), file);
        assert_eq!(kind(fs::read_link(&file)), ErrorKind::InvalidInput);
        assert!(fs::symlink_metadata(&soft).unwrap().is_symlink());
        assert!(fs::metadata(&soft).unwrap().is_file());
        assert_eq!(fs::metadata(&hard).unwrap().nlink(), 2);
        assert_eq!(fs::canonicalize(&soft).unwrap(), fs::canonicalize(&file).unwrap());
        fs::remove_file(&soft).unwrap();
        assert!(fs::exists(&file).unwrap());
    });
}

#[test]
fn copying_and_renaming() {
    both(|| {
        let dir = Folder::new();
        let (one, two) = (dir.join("one"), dir.join("two"));
        fs::write(&one, "hello").unwrap();
        fs::set_permissions(&one, Permissions::from_mode(0o444)).unwrap();
        assert_eq!(fs::copy(&one, &two).unwrap(), 5);
        assert!(fs::metadata(&two).unwrap().permissions().readonly());
        assert_eq!(kind(fs::copy(&dir.0, dir.join("three"))), ErrorKind::InvalidInput);
        fs::rename(&one, dir.join("three")).unwrap();
        assert!(!fs::exists(&one).unwrap());
        assert_eq!(fs::read(dir.join("three")).unwrap(), b"hello");
    });
}

#[test]
fn directories_are_made_and_removed() {
    both(|| {
        let dir = Folder::new();
        let deep = dir.join("a/b/c");
        assert_eq!(kind(fs::create_dir(&deep)), ErrorKind::NotFound);
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(kind(fs::create_dir(&deep)), ErrorKind::AlreadyExists);
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(dir.join("d/e")).unwrap();
        assert_eq!(fs::metadata(dir.join("d/e")).unwrap().mode() & 0o777, 0o700);
        fs::write(deep.join("f"), "x").unwrap();
        fs::symlink(dir.join("d"), deep.join("link")).unwrap();
        assert_eq!(kind(fs::remove_dir(&deep)), ErrorKind::DirectoryNotEmpty);
        fs::remove_dir_all(dir.join("a")).unwrap();
        // Links are not followed.
        assert!(fs::exists(dir.join("d/e")).unwrap());
        fs::remove_dir(dir.join("d/e")).unwrap();
        assert!(!fs::exists(dir.join("d/e")).unwrap());
    });
}

#[test]
fn the_entries_of_a_directory() {
    both(|| {
        let dir = Folder::new();
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
        // More entries than are read at once.
        for n in 0..300 {
            fs::write(dir.join(format!("file-{n}")), n.to_string()).unwrap();
        }
        fs::create_dir(dir.join("dir")).unwrap();
        fs::symlink("dir", dir.join("link")).unwrap();
        let mut names = HashSet::new();
        for entry in fs::read_dir(&dir.0).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let kind = entry.file_type().unwrap();
            assert_eq!(kind.is_dir(), name == "dir");
            assert_eq!(kind.is_symlink(), name == "link");
            assert_eq!(entry.path(), dir.join(&name));
            assert_eq!(entry.ino(), entry.metadata().unwrap().ino());
            assert!(names.insert(name));
        }
        assert_eq!(names.len(), 302);
        let mut entries = fs::read_dir(dir.join("dir")).unwrap();
        assert!(entries.next().is_none() && entries.next().is_none());
    });
}

#[test]
fn locks_exclude_other_locks() {
    both(|| {
        let dir = Folder::new();
        fs::write(dir.join("f"), "").unwrap();
        let (one, two) = (File::open(dir.join("f")).unwrap(), File::open(dir.join("f")).unwrap());
        one.lock_shared().unwrap();
        two.try_lock_shared().unwrap();
        assert!(matches!(two.try_lock(), Err(TryLockError::WouldBlock)));
        one.unlock().unwrap();
        two.try_lock().unwrap();
        assert!(matches!(one.try_lock_shared(), Err(TryLockError::WouldBlock)));
        drop(two);
        one.lock().unwrap();
    });
}

#[test]
fn one_that_waits_for_a_lock_parks() {
    util::run(|| {
        let dir = Folder::new();
        fs::write(dir.join("f"), "").unwrap();
        let (one, two) = (File::open(dir.join("f")).unwrap(), File::open(dir.join("f")).unwrap());
        one.lock().unwrap();
        let waiting = spawn(move || two.lock());
        until_parked(&waiting);
        one.unlock().unwrap();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn the_holder_of_a_lock_works_while_more_wait_than_the_pool_has_threads() {
    util::run(|| {
        let dir = Folder::new();
        fs::write(dir.join("f"), "").unwrap();
        let holder = File::open(dir.join("f")).unwrap();
        holder.lock().unwrap();
        let waiting: Vec<_> = (0..600)
            .map(|_| {
                let file = File::open(dir.join("f")).unwrap();
                spawn(move || file.lock_shared())
            })
            .collect();
        waiting.iter().for_each(until_parked);
        assert_eq!(holder.metadata().unwrap().len(), 0);
        holder.unlock().unwrap();
        for waiting in waiting {
            waiting.join().unwrap().unwrap();
        }
    });
}

#[test]
fn lines_of_a_file_with_others_at_their_own() {
    util::run(|| {
        let dir = Folder::new();
        let text: String = (0..5000).map(|n| format!("line {n}\n")).collect();
        scope(|s| {
            for n in 0..20 {
                let (path, text) = (dir.join(n.to_string()), &text);
                s.spawn(move || {
                    fs::write(&path, text).unwrap();
                    let lines = BufReader::new(File::open(&path).unwrap()).lines();
                    assert_eq!(lines.map(|line| line.unwrap() + "\n").collect::<String>(), *text);
                });
            }
        });
    });
}

#[test]
fn a_reader_of_what_is_in_memory_lets_others_run() {
    util::run(|| {
        let dir = Folder::new();
        fs::write(dir.join("f"), "x").unwrap();
        let file = File::open(dir.join("f")).unwrap();
        let other = spawn(|| ());
        let mut reads = 0;
        while !other.is_finished() {
            assert_eq!(file.read_at(&mut [0; 1], 0).unwrap(), 1);
            reads += 1;
            assert!(reads < 10_000, "the others starve");
        }
    });
}

#[test]
fn what_system_files_cannot_do_at_once_is_done_later() {
    // Neither has a page cache, and the first has no end.
    both(|| {
        let mut bytes = [1; 100];
        File::open("/dev/zero").unwrap().read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [0; 100]);
        let mut status = String::new();
        let mut file = File::open("/proc/self/status").unwrap();
        while Read::by_ref(&mut file).take(10).read_to_string(&mut status).unwrap() > 0 {}
        assert!(status.contains("Pid:"));
    });
}

#[test]
fn a_cancelled_write_has_been_made_or_not() {
    util::run(|| {
        let dir = Folder::new();
        for round in 0..200 {
            let path = dir.join(round.to_string());
            let child = spawn({
                let path = path.clone();
                move || {
                    let mut file = File::create(path).unwrap();
                    while file.write(&[7; 1000]).unwrap() == 1000 {}
                }
            });
            for _ in 0..round {
                yield_now();
            }
            child.cancel();
            assert!(child.join().unwrap_err().is_cancelled());
            let len = fs::metadata(path).map_or(0, |metadata| metadata.len());
            assert_eq!(len % 1000, 0);
        }
    });
}
