//! scratch
fn main() { plainsong::run(|| { for _ in 0..10 { plainsong::spawn(|| loop { plainsong::yield_now() }); }
 for _ in 0..60_000_000 { plainsong::yield_now() } }) }
