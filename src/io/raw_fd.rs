//! `FromRawFd` for the types that own a descriptor.

/// Implements std's trait for types that are made from an `OwnedFd`.
macro_rules! from_raw_fd {
    ($($type:ty),*) => {$(
        #[allow(unsafe_code)]
        impl std::os::fd::FromRawFd for $type {
            /// # Safety
            ///
            /// The descriptor must be open, and nothing else may own it.
            unsafe fn from_raw_fd(fd: std::os::fd::RawFd) -> Self {
                // SAFETY: it is open and not owned elsewhere, by the caller's promise.
                Self::from(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
            }
        }
    )*};
}

pub(crate) use from_raw_fd;
