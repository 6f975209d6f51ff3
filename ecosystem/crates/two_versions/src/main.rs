//! Two versions of one crate: version 3 of ureq has plainsong-std as its std, version 2 has not.

use std::plainsong::blocking;
use std::thread;
use std::time::Duration;

use trial::{DELAY, Outcome, expect, peer};

fn main() {
    let url = format!("http://{}/", peer("HTTP"));
    trial::run("two versions of ureq", move || {
        let new: fn(&str) -> Outcome =
            |url| expect(new::get(url).call()?.body_mut().read_to_string()?, "plainsong".into());
        let old: fn(&str) -> Outcome =
            |url| expect(old::get(url).call()?.into_string()?, "plainsong".into());
        let parks = worst_gap(&url, new)?;
        let blocks = worst_gap(&url, old)?;
        println!(
            "two versions of ureq: the one with plainsong-std holds the others up for {:.1} ms, the \
             other for {:.1} ms",
            parks.as_secs_f64() * 1e3,
            blocks.as_secs_f64() * 1e3
        );
        expect(blocks >= DELAY, true)?;
        let elsewhere = worst_gap(&url, move |url| blocking(|| old(url)))?;
        println!(
            "two versions of ureq: the other, by `blocking`, for {:.1} ms",
            elsewhere.as_secs_f64() * 1e3
        );
        Ok(())
    });
}

/// The longest time in which a ticker could not run while both requests were made.
fn worst_gap(
    url: &str,
    get: impl Fn(&str) -> Outcome + Copy + Send + 'static,
) -> Result<Duration, Box<dyn std::error::Error + Send + Sync>> {
    let (ticker, worst) = trial::ticker();
    // The ticker is running.
    thread::sleep(DELAY / 10);
    let both = [0, 1].map(|_| {
        let url = url.to_owned();
        thread::spawn(move || get(&url))
    });
    for request in both {
        request.join().map_err(|_| "a panic")??;
    }
    thread::sleep(DELAY / 10);
    ticker.cancel();
    let worst = *worst.lock().unwrap();
    Ok(worst)
}
