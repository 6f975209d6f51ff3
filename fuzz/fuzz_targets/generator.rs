//! Generators against a model of what each step of the body does.

#![no_main]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use plainsong::generator::Generator;
use plainsong::{spawn, yield_now};

#[derive(Arbitrary, Debug)]
struct Program {
    body: Vec<Body>,
    uses: Vec<Use>,
}

#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
enum Body {
    Yield(u8),
    Receive,
    /// Yields the value that was received last.
    Echo,
    Wait,
    Nested,
    Panic,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Use {
    Send(u8),
    Close,
    /// From another coroutine.
    Move,
}

struct Scripted;

struct Model {
    body: Vec<Body>,
    at: usize,
    receives: bool,
    input: Option<u8>,
    last: u8,
    done: bool,
}

impl Model {
    /// The value that the generator returns, or an error if it panics.
    fn send(&mut self, value: u8) -> Result<Option<u8>, ()> {
        if self.done {
            return Ok(None);
        }
        self.input = Some(value);
        loop {
            let Some(step) = self.body.get(self.at) else {
                self.done = true;
                return Ok(None);
            };
            match step {
                Body::Receive => match self.input.take() {
                    Some(value) => (self.last, self.receives) = (value, false),
                    None => {
                        self.receives = true;
                        return Ok(None);
                    }
                },
                Body::Yield(value) => {
                    self.at += 1;
                    return Ok(Some(*value));
                }
                Body::Echo => {
                    self.at += 1;
                    return Ok(Some(self.last));
                }
                Body::Wait | Body::Nested => {}
                Body::Panic => {
                    self.done = true;
                    return Err(());
                }
            }
            self.at += 1;
        }
    }
}

fuzz_target!(|program: Program| {
    plainsong::run(|| {
        let Program { mut body, uses } = program;
        body.truncate(32);
        let (script, dropped) = (body.clone(), Rc::new(Cell::new(0)));
        let theirs = Rc::clone(&dropped);
        let mut generator = Generator::<u8, u8>::new(move |out| {
            let _end = End(theirs);
            let mut last = 0;
            for step in script {
                match step {
                    Body::Yield(value) => out.yield_(value),
                    Body::Echo => out.yield_(last),
                    Body::Wait => yield_now(),
                    Body::Nested => {
                        let inner = Generator::new(|out| (0..3).for_each(|n| out.yield_(n)));
                        assert_eq!(inner.take(2).sum::<u8>(), 1);
                    }
                    Body::Panic => resume_unwind(Box::new(Scripted)),
                    Body::Receive => match out.receive() {
                        Some(value) => last = value,
                        None => return,
                    },
                }
            }
        });
        let mut model = Model { body, at: 0, receives: false, input: None, last: 0, done: false };
        let mut began = false;
        for step in uses.into_iter().take(32) {
            match step {
                Use::Send(value) => {
                    began |= !model.done;
                    let sent = catch_unwind(AssertUnwindSafe(|| generator.send(value)));
                    assert_eq!(sent.map_err(drop), model.send(value));
                }
                Use::Move => {
                    // Another coroutine of this thread has the next value.
                    began |= !model.done;
                    let sent = spawn(move || {
                        let sent = catch_unwind(AssertUnwindSafe(|| generator.send(7)));
                        (sent.map_err(drop), generator)
                    });
                    let (sent, back) = sent.join().unwrap();
                    generator = back;
                    assert_eq!(sent, model.send(7));
                }
                Use::Close => {
                    generator.close();
                    model.done = true;
                }
            }
            assert_eq!(generator.is_done(), model.done);
            assert_eq!(dropped.get(), u32::from(model.done && began));
        }
        drop(generator);
        assert_eq!(dropped.get(), u32::from(began));
    });
});

struct End(Rc<Cell<u32>>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}
