//! A wait works at any depth: it is an ordinary call.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Read, Write};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

use plainsong::time::sleep;
use plainsong::{spawn, yield_now};

use crate::util::{OnDrop, pair, run};

/// Several kinds of waits, one after the other.
fn wait_all() {
    yield_now();
    sleep(Duration::from_nanos(1));
    spawn(yield_now).join().unwrap();
    let (mut ours, mut theirs) = pair();
    spawn(move || theirs.write_all(b"x"));
    ours.read_exact(&mut [0]).unwrap();
}

/// Runs `f` in three coroutines at once, so that each keeps frames on its own stack.
fn thrice(f: fn()) {
    run(move || {
        let children = [(); 3].map(|()| spawn(f));
        for child in children {
            child.join().unwrap();
        }
    });
}

#[test]
fn in_recursion() {
    fn fibonacci(n: u32) -> u32 {
        if n < 2 {
            if n == 1 {
                yield_now();
            }
            return n;
        }
        fibonacci(n - 1) + fibonacci(n - 2)
    }
    thrice(|| {
        assert_eq!(fibonacci(12), 144);
        wait_all();
    });
}

#[test]
fn in_iterator_closures() {
    thrice(|| {
        let sum: u32 = (0..10)
            .map(|n| {
                wait_all();
                n + 1
            })
            .filter(|n| {
                yield_now();
                n % 2 == 1
            })
            .flat_map(|n| {
                sleep(Duration::from_nanos(1));
                [n, n]
            })
            .sum();
        assert_eq!(sum, 50);
    });
}

#[test]
fn behind_trait_objects() {
    trait Step {
        fn step(&self, rest: &[Box<dyn Step>]) -> usize;
    }
    struct Waits;
    impl Step for Waits {
        fn step(&self, rest: &[Box<dyn Step>]) -> usize {
            wait_all();
            rest.split_first().map_or(0, |(next, rest)| 1 + next.step(rest))
        }
    }
    thrice(|| {
        let steps: Vec<Box<dyn Step>> = (0..10).map(|_| Box::new(Waits) as _).collect();
        assert_eq!(Waits.step(&steps), 10);
    });
}

#[test]
fn in_a_comparator() {
    thrice(|| {
        let mut numbers: Vec<u32> = (0..50).map(|n| n * 7919 % 50).collect();
        numbers.sort_by(|a, b| {
            yield_now();
            if a % 10 == 0 {
                sleep(Duration::from_nanos(1));
            }
            a.cmp(b)
        });
        assert!(numbers.is_sorted());
        numbers.sort_unstable_by_key(|&n| {
            yield_now();
            std::cmp::Reverse(n)
        });
        assert!(numbers.is_sorted_by(|a, b| a > b));
    });
}

#[test]
fn in_a_comparator_that_panics() {
    run(|| {
        let child = spawn(|| {
            let mut left = 20;
            let mut items: Vec<_> = (0..50).rev().map(|n| (n, Rc::new(n))).collect();
            items.sort_by(|a, b| {
                yield_now();
                left -= 1;
                if left == 0 {
                    resume_unwind(Box::new("in the middle of a sort"));
                }
                a.0.cmp(&b.0)
            });
        });
        assert!(child.join().unwrap_err().is_panic());
    });
}

#[test]
fn in_drop() {
    thrice(|| {
        let done = Cell::new(0);
        {
            let _second = OnDrop(|| {
                wait_all();
                done.set(done.get() + 1);
            });
            let _first = OnDrop(|| {
                wait_all();
                done.set(done.get() + 1);
            });
        }
        assert_eq!(done.get(), 2);
    });
}

#[test]
fn in_drop_while_unwinding() {
    run(|| {
        let done = Rc::new(Cell::new(0));
        let children: Vec<_> = (0..3)
            .map(|_| {
                let done = Rc::clone(&done);
                spawn(move || {
                    let _guard = OnDrop(|| {
                        yield_now();
                        sleep(Duration::from_nanos(1));
                        spawn(yield_now).join().unwrap();
                        done.set(done.get() + 1);
                    });
                    resume_unwind(Box::new(()));
                })
            })
            .collect();
        for child in children {
            assert!(child.join().unwrap_err().is_panic());
        }
        assert_eq!(done.get(), 3);
        assert!(!std::thread::panicking());
    });
}

#[test]
fn under_a_borrow_and_a_buffered_reader() {
    run(|| {
        let (ours, mut theirs) = pair();
        let lines = RefCell::new(Vec::new());
        let writer = spawn(move || {
            for n in 0..100 {
                writeln!(theirs, "line {n}").unwrap();
                yield_now();
            }
        });
        for line in BufReader::new(&ours).lines().take(100) {
            lines.borrow_mut().push(line.unwrap());
        }
        writer.join().unwrap();
        assert_eq!(lines.borrow()[99], "line 99");
    });
}

#[test]
fn in_a_formatter() {
    struct Slow(u32);
    impl std::fmt::Display for Slow {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            wait_all();
            write!(f, "{}", self.0)
        }
    }
    thrice(|| assert_eq!(format!("{}-{}", Slow(1), Slow(2)), "1-2"));
}

#[test]
fn in_a_nested_catch() {
    thrice(|| {
        let caught = std::panic::catch_unwind(|| {
            wait_all();
            let inner = std::panic::catch_unwind(|| {
                wait_all();
                resume_unwind(Box::new(1));
            });
            wait_all();
            assert!(inner.is_err());
            resume_unwind(Box::new(2));
        });
        wait_all();
        assert_eq!(*caught.unwrap_err().downcast::<i32>().unwrap(), 2);
    });
}
