//! `Body`: the closures that coroutines run.

/// The closure of a coroutine: [`FnOnce() -> T`](FnOnce), by another name. So a compiler that is
/// given something else, such as a future, can say what to do about it.
///
/// All such closures and functions implement it, and nothing else can.
#[diagnostic::on_unimplemented(
    message = "a coroutine runs a closure without arguments, and `{Self}` is not one",
    label = "not a closure without arguments",
    note = "pass a closure: `move || …`",
    note = "to wait for a future, `move || plainsong::block_on(future)`: a future that the closure \
            merely returns never runs"
)]
pub trait Body<T>: FnOnce() -> T {}

// Otherwise the compiler would complain about `FnOnce`, and advise to return the future.
#[diagnostic::do_not_recommend]
impl<F: FnOnce() -> T, T> Body<T> for F {}
