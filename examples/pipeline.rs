//! Stages linked by channels with room for four items: a fast stage waits for the slow ones, so
//! nothing piles up. When the first stage ends, the others end one after the other.
//!
//! ```text
//! cargo run --release --example pipeline
//! ```

mod args;

use plainsong::spawn;
use plainsong::sync::channel::{Receiver, bounded};

fn main() {
    args::none();
    plainsong::run(|| {
        let (source, numbers) = bounded(4);
        spawn(move || {
            for n in 1..=1000_u64 {
                if source.send(n).is_err() {
                    break; // no receiver is left
                }
            }
        });
        let squares = stage(numbers, |n| Some(n * n));
        let odd = stage(squares, |n| (n % 2 == 1).then_some(n));
        let texts = stage(odd, |n| Some(n.to_string()));

        let palindromes: Vec<_> = texts.iter().filter(|text| is_palindrome(text)).collect();
        println!("odd squares that read the same backwards: {}", palindromes.join(", "));
    });
}

/// Spawns a coroutine that sends on what `f` makes of each item.
fn stage<A: 'static, B: 'static>(
    input: Receiver<A>,
    f: impl Fn(A) -> Option<B> + 'static,
) -> Receiver<B> {
    let (output, next) = bounded(4);
    spawn(move || {
        for item in input.into_iter().filter_map(f) {
            if output.send(item).is_err() {
                break;
            }
        }
    });
    next
}

fn is_palindrome(text: &str) -> bool {
    text.bytes().eq(text.bytes().rev())
}
