//! scratch
fn main() { plainsong::run(|| { for _ in 0..15_000_000 { plainsong::spawn(|| ()).join().unwrap(); } }) }
