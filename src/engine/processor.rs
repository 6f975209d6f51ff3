//! The instructions that Rust has no safe functions for.

#![allow(unsafe_code)]

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use std::arch::asm;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64;

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// Puts what each instruction finds into a place. Only for instructions that copy a register.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! copy {
    ($($instruction:literal => $place:expr),*) => {
        // SAFETY: this changes nothing but the places.
        unsafe {
            asm!($($instruction,)* $(out(reg) $place,)* options(nomem, nostack, preserves_flags));
        }
    };
}

/// The registers from which the frames of a stack can be found. Only backtraces read them, and
/// `link` only on processors that have it.
#[allow(dead_code)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Registers {
    pub(crate) instruction: usize,
    pub(crate) stack: usize,
    pub(crate) frame: usize,
    /// The return address, on processors that have it in a register.
    pub(crate) link: usize,
}

impl Registers {
    /// The registers here. Zeroes on processors that are not known.
    #[inline(always)]
    pub(crate) fn here() -> Self {
        #[allow(unused_mut)]
        let mut here = Self::default();
        #[cfg(target_arch = "x86_64")]
        copy!(
            "lea {}, [rip]" => here.instruction,
            "mov {}, rsp" => here.stack,
            "mov {}, rbp" => here.frame
        );
        #[cfg(target_arch = "aarch64")]
        copy!(
            "adr {}, ." => here.instruction,
            "mov {}, sp" => here.stack,
            "mov {}, x29" => here.frame,
            "mov {}, x30" => here.link
        );
        here
    }
}

/// The top of the stack. Null on processors that are not known.
#[inline(always)]
pub(crate) fn stack_top() -> *const u8 {
    #[allow(unused_mut, unused_assignments)]
    let mut top = std::ptr::null();
    #[cfg(target_arch = "x86_64")]
    copy!("mov {}, rsp" => top);
    #[cfg(target_arch = "aarch64")]
    copy!("mov {}, sp" => top);
    top
}

/// A counter that runs evenly. Zero where none is known.
#[inline]
pub(super) fn counter() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this architecture has the instruction.
    return unsafe { x86_64::_rdtsc() };
    #[allow(unused_mut, unused_assignments, unreachable_code)]
    {
        let mut count = 0;
        #[cfg(target_arch = "aarch64")]
        copy!("mrs {}, cntvct_el0" => count);
        count
    }
}

/// Prefetches the cache line at an address, which need not be valid.
#[inline]
pub(super) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: this changes nothing that a program could see, and does not fault.
    unsafe {
        x86_64::_mm_prefetch::<{ x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
