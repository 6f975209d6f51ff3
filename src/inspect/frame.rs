//! A frame of a backtrace.

/// A frame of a backtrace. Several frames have one address, if functions were inlined.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Frame {
    /// The address to which the frame returns, or at which it is.
    pub address: usize,
    /// The program or library.
    pub object: Option<String>,
    /// An address in the call or at it, in the object. For an object without symbols,
    /// `addr2line -fie OBJECT OFFSET` finds them in a copy that has some.
    pub offset: usize,
    /// The function, if its symbol is known.
    pub function: Option<String>,
    /// The file in the source, if it is known.
    pub file: Option<String>,
    /// The line in that file.
    pub line: Option<u32>,
}
