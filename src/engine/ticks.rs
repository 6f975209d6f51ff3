//! A clock that is cheap to read, for what is measured at each turn: the processor's own counter,
//! where the kernel trusts it, too.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::processor::counter;

/// How long the counter is compared with the system's clock, once for a process.
const CALIBRATION: Duration = Duration::from_millis(10);
/// Bits of a time that its short form lacks. With it, the short form lasts for more than a minute.
pub(crate) const SHORT: u32 = if cfg!(target_arch = "aarch64") { 3 } else { 6 };

// Whether the processor's counter is used.
static COUNTER: AtomicBool = AtomicBool::new(false);

/// How ticks are converted to nanoseconds.
#[derive(Debug)]
pub(crate) struct Scale {
    // Nanoseconds of a tick, times 2^32.
    factor: u64,
    // For the system's clock, which needs an origin.
    origin: Instant,
}

static SCALE: OnceLock<Scale> = OnceLock::new();

impl Scale {
    /// The scale of this process. The first call blocks the thread for [`CALIBRATION`].
    pub(crate) fn get() -> &'static Self {
        SCALE.get_or_init(|| {
            let origin = Instant::now();
            if !is_trusted() {
                return Self { factor: 1 << 32, origin };
            }
            let first = counter();
            thread::sleep(CALIBRATION);
            let (ticks, nanos) = (counter() - first, origin.elapsed().as_nanos());
            COUNTER.store(true, Ordering::Relaxed);
            let factor = (nanos << 32) / u128::from(ticks.max(1));
            Self { factor: factor as u64, origin }
        })
    }

    /// So many ticks in nanoseconds.
    #[inline]
    pub(crate) fn nanos(&self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.factor)) >> 32) as u64
    }

    /// A duration in ticks.
    pub(crate) fn ticks(&self, time: Duration) -> u64 {
        let ticks = (time.as_nanos() << 32) / u128::from(self.factor.max(1));
        ticks.try_into().unwrap_or(u64::MAX)
    }
}

/// The time, in ticks. [`Scale::get`] must have been called before.
#[inline]
pub(crate) fn now() -> u64 {
    if COUNTER.load(Ordering::Relaxed) { counter() } else { clock() }
}

#[cold]
fn clock() -> u64 {
    SCALE.get().map_or(0, |scale| scale.origin.elapsed().as_nanos() as u64)
}

/// A time, or a time that has passed, in its short form. It wraps around.
#[inline]
pub(crate) fn short(ticks: u64) -> u32 {
    (ticks >> SHORT) as u32
}

/// The ticks of which this is the short form.
#[inline]
pub(crate) fn long(short: u32) -> u64 {
    u64::from(short) << SHORT
}

/// Whether the counter runs evenly, and is the same on all processors. On x86-64 the kernel watches
/// it, and offers it as a clock as long as that is so.
fn is_trusted() -> bool {
    const CLOCKS: &str = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    let offered = || {
        let clocks = std::fs::read_to_string(CLOCKS).unwrap_or_default();
        clocks.split_whitespace().any(|clock| clock == "tsc")
    };
    cfg!(target_arch = "aarch64") || cfg!(target_arch = "x86_64") && offered()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_pass_as_the_system_clock_does() {
        let scale = Scale::get();
        let (before, start) = (now(), Instant::now());
        thread::sleep(Duration::from_millis(20));
        let (least, ticks) = (start.elapsed(), now() - before);
        let measured = Duration::from_nanos(scale.nanos(ticks));
        assert!(measured >= least * 9 / 10, "{measured:?} of {least:?}");
        let back = Duration::from_nanos(scale.nanos(scale.ticks(least)));
        assert!(back.abs_diff(least) < Duration::from_micros(1), "{back:?} for {least:?}");
    }

    #[test]
    fn a_short_form_is_the_same_time_but_for_its_last_bits() {
        let time = 0x1234_5678;
        assert!(time - long(short(time)) < 1 << SHORT);
        assert_eq!(short(u64::MAX).wrapping_add(1), short(0));
    }
}
