//! Five philosophers and five forks. If each takes its left fork first and then its right one, they
//! end in a deadlock, which `run` reports. If each takes the lower numbered fork first, all eat.
//!
//! ```text
//! cargo run --release --example dining_philosophers            # all eat
//! cargo run --release --example dining_philosophers -- wrong   # a deadlock, and its report
//! ```

mod args;

use std::rc::Rc;
use std::time::Duration;

use plainsong::Builder;
use plainsong::sync::Mutex;
use plainsong::time::sleep;

const NAMES: [&str; 5] = ["Socrates", "Hypatia", "Kant", "Arendt", "Confucius"];
const MEALS: u32 = 3;

fn main() {
    let wrong = args::optional("[wrong]")
        .is_some_and(|argument| argument == "wrong" || args::refuse("[wrong]"));
    plainsong::run_all(|| {
        let forks: Rc<[Mutex<u32>]> = NAMES.iter().map(|_| Mutex::new(0)).collect();
        for (seat, name) in NAMES.into_iter().enumerate() {
            let forks = Rc::clone(&forks);
            let (left, right) = (seat, (seat + 1) % NAMES.len());
            let order = if wrong { [left, right] } else { [left.min(right), left.max(right)] };
            let dine = move || {
                for _ in 0..MEALS {
                    let mut first = forks[order[0]].lock().unwrap();
                    sleep(Duration::from_millis(1));
                    let mut second = forks[order[1]].lock().unwrap();
                    // Eats.
                    *first += 1;
                    *second += 1;
                }
                println!("{name} has eaten");
            };
            Builder::new().name(name).spawn(dine).expect("there is room for five");
        }
    });
}
