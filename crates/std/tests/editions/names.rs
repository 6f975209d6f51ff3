//! Names, methods and traits of std, as std has them, all of which plainsong-std has under the same
//! names. That this compiles is the test. Its `std` is plainsong-std.

#![allow(deprecated)]

fn is<T: ?Sized>() {}

/// Asserts that a type has these traits.
macro_rules! has {
    ($type:ty: $($bound:tt)*) => {{
        fn has<T: ?Sized + $($bound)*>() {}
        has::<$type>();
    }};
}

#[test]
fn methods_of_net_tcp_stream() {
    type T = std::net::TcpStream;
    let _ = (
        T::connect::<&str>,
        T::connect_timeout,
        T::peer_addr,
        T::local_addr,
        T::shutdown,
        T::try_clone,
        T::set_read_timeout,
        T::set_write_timeout,
        T::read_timeout,
        T::write_timeout,
        T::peek,
        T::set_nodelay,
        T::nodelay,
        T::set_ttl,
        T::ttl,
        T::take_error,
        T::set_nonblocking,
    );
}

#[test]
fn methods_of_net_tcp_listener() {
    type T = std::net::TcpListener;
    let _ = (
        T::bind::<&str>,
        T::local_addr,
        T::try_clone,
        T::accept,
        T::incoming,
        T::set_ttl,
        T::ttl,
        T::take_error,
        T::set_nonblocking,
    );
}

#[test]
fn methods_of_net_udp_socket() {
    type T = std::net::UdpSocket;
    let _ = (
        T::bind::<&str>,
        T::recv_from,
        T::peek_from,
        T::send_to::<&str>,
        T::peer_addr,
        T::local_addr,
        T::try_clone,
        T::set_read_timeout,
        T::set_write_timeout,
        T::read_timeout,
        T::write_timeout,
        T::set_broadcast,
        T::broadcast,
        T::set_multicast_loop_v4,
        T::multicast_loop_v4,
        T::set_multicast_ttl_v4,
        T::multicast_ttl_v4,
        T::set_multicast_loop_v6,
        T::multicast_loop_v6,
        T::set_ttl,
        T::ttl,
        T::join_multicast_v4,
        T::join_multicast_v6,
        T::leave_multicast_v4,
        T::leave_multicast_v6,
        T::take_error,
        T::connect::<&str>,
        T::send,
        T::recv,
        T::peek,
        T::set_nonblocking,
    );
}

#[test]
fn methods_of_os_unix_net_unix_stream() {
    type T = std::os::unix::net::UnixStream;
    let _ = (
        T::connect::<&str>,
        T::connect_addr,
        T::pair,
        T::try_clone,
        T::local_addr,
        T::peer_addr,
        T::set_read_timeout,
        T::set_write_timeout,
        T::read_timeout,
        T::write_timeout,
        T::set_nonblocking,
        T::take_error,
        T::shutdown,
    );
}

#[test]
fn methods_of_os_unix_net_unix_listener() {
    type T = std::os::unix::net::UnixListener;
    let _ = (
        T::bind::<&str>,
        T::bind_addr,
        T::accept,
        T::try_clone,
        T::local_addr,
        T::set_nonblocking,
        T::take_error,
        T::incoming,
    );
}

#[test]
fn methods_of_os_unix_net_unix_datagram() {
    type T = std::os::unix::net::UnixDatagram;
    let _ = (
        T::bind::<&str>,
        T::bind_addr,
        T::unbound,
        T::pair,
        T::connect::<&str>,
        T::connect_addr,
        T::try_clone,
        T::local_addr,
        T::peer_addr,
        T::recv_from,
        T::recv,
        T::send_to::<&str>,
        T::send_to_addr,
        T::send,
        T::set_read_timeout,
        T::set_write_timeout,
        T::read_timeout,
        T::write_timeout,
        T::set_nonblocking,
        T::take_error,
        T::shutdown,
    );
}

#[test]
fn methods_of_sync_mutex() {
    type T = std::sync::Mutex<i32>;
    let _ =
        (T::new, T::lock, T::try_lock, T::is_poisoned, T::clear_poison, T::into_inner, T::get_mut);
}

#[test]
fn methods_of_sync_rw_lock() {
    type T = std::sync::RwLock<i32>;
    let _ = (
        T::new,
        T::read,
        T::try_read,
        T::write,
        T::try_write,
        T::is_poisoned,
        T::clear_poison,
        T::into_inner,
        T::get_mut,
    );
}

#[test]
fn methods_of_sync_rw_lock_write_guard() {
    type T = std::sync::RwLockWriteGuard<'static, i32>;
    let _ = (T::downgrade,);
}

#[test]
fn methods_of_sync_condvar() {
    type T = std::sync::Condvar;
    let _ = (
        T::new,
        T::wait::<i32>,
        T::wait_while::<i32, fn(&mut i32) -> bool>,
        T::wait_timeout::<i32>,
        T::wait_timeout_ms::<i32>,
        T::wait_timeout_while::<i32, fn(&mut i32) -> bool>,
        T::notify_one,
        T::notify_all,
    );
}

#[test]
fn methods_of_sync_wait_timeout_result() {
    type T = std::sync::WaitTimeoutResult;
    let _ = (T::timed_out,);
}

#[test]
fn methods_of_sync_barrier() {
    type T = std::sync::Barrier;
    let _ = (T::new, T::wait);
}

#[test]
fn methods_of_sync_barrier_wait_result() {
    type T = std::sync::BarrierWaitResult;
    let _ = (T::is_leader,);
}

#[test]
fn methods_of_sync_once_lock() {
    type T = std::sync::OnceLock<i32>;
    let _ = (
        T::new,
        T::get,
        T::get_mut,
        T::wait,
        T::set,
        T::get_or_init::<fn() -> i32>,
        T::into_inner,
        T::take,
    );
}

#[test]
fn methods_of_sync_lazy_lock() {
    type T = std::sync::LazyLock<i32>;
    let _ = (T::new, T::force, T::force_mut);
}

#[test]
fn methods_of_sync_once() {
    type T = std::sync::Once;
    let _ = (
        T::new,
        T::call_once::<fn()>,
        T::call_once_force::<fn(&std::sync::OnceState)>,
        T::is_completed,
        T::wait,
        T::wait_force,
    );
}

#[test]
fn methods_of_sync_mpsc_sender() {
    type T = std::sync::mpsc::Sender<i32>;
    let _ = (T::send,);
}

#[test]
fn methods_of_sync_mpsc_sync_sender() {
    type T = std::sync::mpsc::SyncSender<i32>;
    let _ = (T::send, T::try_send);
}

#[test]
fn methods_of_sync_mpsc_receiver() {
    type T = std::sync::mpsc::Receiver<i32>;
    let _ = (T::recv, T::try_recv, T::recv_timeout, T::iter, T::try_iter);
}

#[test]
fn methods_of_thread_join_handle() {
    type T = std::thread::JoinHandle<i32>;
    let _ = (T::join, T::thread, T::is_finished);
}

#[test]
fn methods_of_thread_builder() {
    type T = std::thread::Builder;
    let _ = (T::new, T::name, T::stack_size);
}

#[test]
fn methods_of_thread_thread() {
    type T = std::thread::Thread;
    let _ = (T::id, T::name, T::unpark);
}

#[test]
fn methods_of_fs_file() {
    type T = std::fs::File;
    let _ = (
        T::open::<&str>,
        T::create::<&str>,
        T::create_new::<&str>,
        T::options,
        T::sync_all,
        T::sync_data,
        T::lock,
        T::lock_shared,
        T::try_lock,
        T::try_lock_shared,
        T::unlock,
        T::set_len,
        T::metadata,
        T::try_clone,
        T::set_permissions,
        T::set_times,
        T::set_modified,
    );
}

#[test]
fn methods_of_fs_open_options() {
    type T = std::fs::OpenOptions;
    let _ = (
        T::new,
        T::read,
        T::write,
        T::append,
        T::truncate,
        T::create,
        T::create_new,
        T::open::<&str>,
    );
}

#[test]
fn methods_of_fs_dir_entry() {
    type T = std::fs::DirEntry;
    let _ = (T::path, T::metadata, T::file_type, T::file_name);
}

#[test]
fn methods_of_fs_dir_builder() {
    type T = std::fs::DirBuilder;
    let _ = (T::new, T::recursive, T::create::<&str>);
}

#[test]
fn methods_of_process_command() {
    type T = std::process::Command;
    let _ = (
        T::new::<&str>,
        T::arg::<&str>,
        T::args::<[&str; 1], &str>,
        T::env::<&str, &str>,
        T::envs::<[(&str, &str); 1], &str, &str>,
        T::env_remove::<&str>,
        T::env_clear,
        T::current_dir::<&str>,
        T::stdin::<std::process::Stdio>,
        T::stdout::<std::process::Stdio>,
        T::stderr::<std::process::Stdio>,
        T::spawn,
        T::output,
        T::status,
        T::get_program,
        T::get_args,
        T::get_envs,
        T::get_current_dir,
    );
}

#[test]
fn methods_of_process_child() {
    type T = std::process::Child;
    let _ = (T::kill, T::id, T::wait, T::try_wait, T::wait_with_output);
}

#[test]
fn methods_of_io_stdin() {
    type T = std::io::Stdin;
    let _ = (T::lock, T::read_line, T::lines);
}

#[test]
fn methods_of_io_stdout() {
    type T = std::io::Stdout;
    let _ = (T::lock,);
}

#[test]
fn methods_of_io_stderr() {
    type T = std::io::Stderr;
    let _ = (T::lock,);
}

#[test]
fn functions() {
    use std::{fs, io, process, sync, thread};
    let _ = (
        thread::spawn::<fn(), ()>,
        thread::current,
        thread::yield_now,
        thread::panicking,
        thread::sleep,
        thread::sleep_ms,
        thread::park,
        thread::park_timeout,
        thread::park_timeout_ms,
        thread::available_parallelism,
    );
    let _ = (
        fs::read::<&str>,
        fs::read_to_string::<&str>,
        fs::write::<&str, &str>,
        fs::remove_file::<&str>,
        fs::metadata::<&str>,
        fs::symlink_metadata::<&str>,
        fs::rename::<&str, &str>,
        fs::copy::<&str, &str>,
        fs::hard_link::<&str, &str>,
        fs::soft_link::<&str, &str>,
        fs::read_link::<&str>,
        fs::canonicalize::<&str>,
        fs::create_dir::<&str>,
        fs::create_dir_all::<&str>,
        fs::remove_dir::<&str>,
        fs::remove_dir_all::<&str>,
        fs::read_dir::<&str>,
        fs::set_permissions::<&str>,
        fs::exists::<&str>,
    );
    let _ = (
        io::stdin,
        io::stdout,
        io::stderr,
        io::pipe,
        io::read_to_string::<&[u8]>,
        io::copy::<&[u8], Vec<u8>>,
        io::empty,
        io::sink,
        io::repeat,
    );
    let _ = (process::exit, process::abort, process::id);
    let _ = (sync::mpsc::channel::<i32>, sync::mpsc::sync_channel::<i32>);
}

#[test]
fn types() {
    use std::{fs, io, net, process, sync, thread, time};
    is::<thread::ThreadId>();
    is::<thread::Scope<'static, 'static>>();
    is::<thread::ScopedJoinHandle<'static, i32>>();
    is::<thread::LocalKey<i32>>();
    is::<thread::AccessError>();
    is::<net::Incoming<'static>>();
    is::<net::Shutdown>();
    is::<net::AddrParseError>();
    is::<net::SocketAddr>();
    is::<net::IpAddr>();
    is::<sync::MutexGuard<'static, i32>>();
    is::<sync::RwLockReadGuard<'static, i32>>();
    is::<sync::RwLockWriteGuard<'static, i32>>();
    is::<sync::PoisonError<i32>>();
    is::<sync::TryLockError<i32>>();
    is::<sync::LockResult<i32>>();
    is::<sync::TryLockResult<i32>>();
    is::<sync::OnceState>();
    is::<sync::Weak<i32>>();
    is::<sync::Arc<i32>>();
    is::<sync::mpsc::Iter<'static, i32>>();
    is::<sync::mpsc::TryIter<'static, i32>>();
    is::<sync::mpsc::IntoIter<i32>>();
    is::<sync::mpsc::SendError<i32>>();
    is::<sync::mpsc::RecvError>();
    is::<sync::mpsc::TryRecvError>();
    is::<sync::mpsc::RecvTimeoutError>();
    is::<sync::mpsc::TrySendError<i32>>();
    is::<fs::ReadDir>();
    is::<fs::Metadata>();
    is::<fs::Permissions>();
    is::<fs::FileType>();
    is::<fs::FileTimes>();
    is::<fs::TryLockError>();
    is::<process::ChildStdin>();
    is::<process::ChildStdout>();
    is::<process::ChildStderr>();
    is::<process::ExitStatus>();
    is::<process::ExitCode>();
    is::<process::Stdio>();
    is::<process::Output>();
    is::<process::CommandArgs<'static>>();
    is::<process::CommandEnvs<'static>>();
    is::<io::StdinLock<'static>>();
    is::<io::StdoutLock<'static>>();
    is::<io::StderrLock<'static>>();
    is::<io::PipeReader>();
    is::<io::PipeWriter>();
    is::<io::BufReader<&'static [u8]>>();
    is::<io::Cursor<i32>>();
    is::<io::Error>();
    is::<io::ErrorKind>();
    is::<io::Result<i32>>();
    is::<io::IoSlice<'static>>();
    is::<io::Lines<&'static [u8]>>();
    is::<time::Duration>();
    is::<time::Instant>();
    is::<time::SystemTime>();
}

#[test]
fn traits() {
    use std::{fs, io, net, os, process, sync, thread};
    has!(net::TcpStream: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::io::Read + std::io::Write + std::os::fd::AsFd + std::os::fd::AsRawFd + std::os::fd::FromRawFd + std::os::fd::IntoRawFd + From<std::os::fd::OwnedFd>);
    has!(net::TcpListener: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::os::fd::AsFd + std::os::fd::AsRawFd + std::os::fd::FromRawFd + std::os::fd::IntoRawFd + From<std::os::fd::OwnedFd>);
    has!(net::UdpSocket: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::os::fd::AsFd + std::os::fd::AsRawFd + std::os::fd::FromRawFd + std::os::fd::IntoRawFd + From<std::os::fd::OwnedFd>);
    has!(os::unix::net::UnixStream: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::io::Read + std::io::Write + std::os::fd::AsFd + std::os::fd::AsRawFd + std::os::fd::FromRawFd + std::os::fd::IntoRawFd + From<std::os::fd::OwnedFd>);
    has!(os::unix::net::UnixListener: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::os::fd::AsFd + std::os::fd::AsRawFd + std::os::fd::FromRawFd + std::os::fd::IntoRawFd + From<std::os::fd::OwnedFd>);
    has!(os::unix::net::UnixDatagram: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::os::fd::AsFd + std::os::fd::AsRawFd + std::os::fd::FromRawFd + std::os::fd::IntoRawFd + From<std::os::fd::OwnedFd>);
    has!(sync::Mutex<i32>: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + Default + From<i32>);
    has!(sync::RwLock<i32>: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + Default + From<i32>);
    has!(sync::RwLockWriteGuard<i32>: Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug);
    has!(sync::Condvar: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + Default);
    has!(sync::WaitTimeoutResult: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + Copy + PartialEq + Eq);
    has!(sync::Barrier: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug);
    has!(sync::BarrierWaitResult: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug);
    has!(sync::OnceLock<i32>: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + Default + From<i32> + Clone + PartialEq + Eq);
    has!(sync::LazyLock<i32>: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + Default + std::ops::Deref);
    has!(sync::Once: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug);
    has!(sync::mpsc::Sender<i32>: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + Clone);
    has!(sync::mpsc::SyncSender<i32>: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + Clone);
    has!(sync::mpsc::Receiver<i32>: Send + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + IntoIterator);
    has!(thread::JoinHandle<i32>: Send + Sync + Unpin + std::fmt::Debug);
    has!(thread::Builder: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug);
    has!(thread::Thread: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + Clone);
    has!(fs::File: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::io::Read + std::io::Write + std::io::Seek + std::os::unix::fs::FileExt + std::os::fd::AsFd + std::os::fd::AsRawFd + std::os::fd::FromRawFd + std::os::fd::IntoRawFd + From<std::os::fd::OwnedFd> + Into<std::process::Stdio> + std::io::IsTerminal);
    has!(fs::OpenOptions: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + Clone + std::os::unix::fs::OpenOptionsExt);
    has!(fs::DirEntry: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::os::unix::fs::DirEntryExt);
    has!(fs::DirBuilder: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::os::unix::fs::DirBuilderExt);
    has!(process::Command: Send + Sync + Unpin + std::fmt::Debug + std::os::unix::process::CommandExt);
    has!(process::Child: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug);
    has!(io::Stdin: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::io::Read + std::io::IsTerminal + std::os::fd::AsFd + std::os::fd::AsRawFd);
    has!(io::Stdout: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::io::Write + std::io::IsTerminal + std::os::fd::AsFd + Into<std::process::Stdio>);
    has!(io::Stderr: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::io::Write + std::io::IsTerminal + std::os::fd::AsFd + Into<std::process::Stdio>);
    has!(net::Incoming<'static>: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + Iterator + std::iter::FusedIterator);
    has!(sync::MutexGuard<'static,i32>: Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::fmt::Display + std::ops::DerefMut);
    has!(sync::RwLockReadGuard<'static,i32>: Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::fmt::Display);
    has!(sync::RwLockWriteGuard<'static,i32>: Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::fmt::Display + std::ops::DerefMut);
    has!(sync::mpsc::IntoIter<i32>: Send + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + Iterator);
    has!(sync::mpsc::Iter<'static,i32>: Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + Iterator);
    has!(sync::mpsc::TryIter<'static,i32>: Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + Iterator);
    has!(thread::ThreadId: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + Copy + Eq + std::hash::Hash);
    has!(thread::ScopedJoinHandle<'static,i32>: Send + Sync + Unpin + std::fmt::Debug);
    has!(thread::Scope<'static,'static>: Send + Sync + Unpin + std::panic::RefUnwindSafe + std::fmt::Debug);
    has!(fs::ReadDir: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + Iterator);
    has!(process::ChildStdin: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::io::Write + std::os::fd::AsFd + std::os::fd::AsRawFd + std::os::fd::IntoRawFd + From<std::os::fd::OwnedFd> + Into<std::process::Stdio>);
    has!(process::ChildStdout: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::io::Read + std::os::fd::AsFd + std::os::fd::AsRawFd + std::os::fd::IntoRawFd + From<std::os::fd::OwnedFd> + Into<std::process::Stdio>);
    has!(process::ChildStderr: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::io::Read + std::os::fd::AsFd + std::os::fd::AsRawFd + std::os::fd::IntoRawFd + From<std::os::fd::OwnedFd> + Into<std::process::Stdio>);
    has!(io::StdinLock<'static>: Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::io::Read + std::io::BufRead + std::io::IsTerminal + std::os::fd::AsFd);
    has!(io::StdoutLock<'static>: Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::io::Write + std::io::IsTerminal + std::os::fd::AsFd);
    has!(io::StderrLock<'static>: Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + std::fmt::Debug + std::io::Write + std::io::IsTerminal + std::os::fd::AsFd);
    has!(&'static net::TcpStream: std::io::Read + std::io::Write);
    has!(&'static os::unix::net::UnixStream: std::io::Read + std::io::Write);
    has!(&'static fs::File: std::io::Read + std::io::Write + std::io::Seek);
    has!(&'static io::Stdin: std::io::Read);
    has!(&'static io::Stdout: std::io::Write);
    has!(&'static io::Stderr: std::io::Write);
    has!(&'static process::ChildStdin: std::io::Write);
    has!(&'static os::unix::net::UnixListener: IntoIterator);
    has!(&'static sync::mpsc::Receiver<i32>: IntoIterator);
}
