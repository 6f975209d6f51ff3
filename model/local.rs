//! Methods and values that the thread-locals of the model checkers lack.

/// Methods of std's thread-locals that those of model checkers lack.
pub(crate) trait LocalCell<T> {
    fn get(&'static self) -> T;
    fn set(&'static self, value: T);
    fn replace(&'static self, value: T) -> T;
}

/// The initial value of a thread-local without a destructor. In the model, the end of a thread
/// destroys the thread-local all the same, and it then reads as this value.
pub(crate) trait Initial {
    const INITIAL: Self;
}

impl Initial for bool {
    const INITIAL: Self = false;
}

impl Initial for u32 {
    const INITIAL: Self = 0;
}

impl Initial for u64 {
    const INITIAL: Self = 0;
}

impl Initial for usize {
    const INITIAL: Self = 0;
}

impl<T> Initial for Option<T> {
    const INITIAL: Self = None;
}

impl<T> Initial for *const T {
    const INITIAL: Self = std::ptr::null();
}
