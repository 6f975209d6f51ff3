//! How a thread asks a worker what its coroutines do.
//!
//! The question is on the asking thread's stack, and its address in a slot of the worker. Either
//! side takes it out of the slot with one exchange: the worker to answer, at its next turn or in a
//! signal handler, or the asking thread to withdraw it. The asking thread leaves only when it has
//! withdrawn the question, or has seen the answer.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::thread;

use super::super::defer::Defer;
use super::super::survey::Survey;

/// A question, and then its answer.
pub(crate) struct Question {
    // The worker's from the moment at which it has taken the question until `answered`.
    survey: UnsafeCell<Survey>,
    answered: AtomicBool,
}

// SAFETY: one side at a time uses the survey, as said above.
unsafe impl Sync for Question {}

impl Question {
    /// A question whose answer goes into `survey`.
    pub(crate) fn new(survey: Survey) -> Self {
        Self { survey: UnsafeCell::new(survey), answered: AtomicBool::new(false) }
    }

    /// The survey, and whether it is an answer.
    pub(crate) fn into_answer(self) -> (Survey, bool) {
        (self.survey.into_inner(), self.answered.into_inner())
    }
}

/// The place of a worker's question.
#[derive(Default, Debug)]
pub(super) struct Slot(AtomicPtr<Question>);

impl Slot {
    /// Asks. `None` if another thread's question is in the slot.
    pub(super) fn ask<'a>(&'a self, question: &'a Question) -> Option<Asked<'a>> {
        let place = ptr::from_ref(question).cast_mut();
        let none = ptr::null_mut();
        let asked = self.0.compare_exchange(none, place, Ordering::SeqCst, Ordering::SeqCst);
        asked.is_ok().then_some(Asked { slot: self, question })
    }

    /// Takes the question, if there is one, and has `f` answer it. Returns whether there was one.
    pub(super) fn answer(&self, f: impl FnOnce(&mut Survey)) -> bool {
        let question = self.0.swap(ptr::null_mut(), Ordering::SeqCst);
        // SAFETY: the question was in the slot, so the asking thread had not withdrawn it, and now
        // waits for `answered`. The side that takes it out of the slot has the survey alone.
        let taken = unsafe { question.as_ref().map(|it| (&it.answered, &mut *it.survey.get())) };
        let Some((answered, survey)) = taken else { return false };
        // The question may end from there on. The asking thread waits for this, so it must come
        // even if `f` unwinds.
        let _answered = Defer::new(|| answered.store(true, Ordering::Release));
        f(survey);
        true
    }
}

/// A question that has been asked. The drop withdraws it, or waits for an answer that is being
/// written.
pub(crate) struct Asked<'a> {
    slot: &'a Slot,
    question: &'a Question,
}

impl Asked<'_> {
    pub(crate) fn is_answered(&self) -> bool {
        self.question.answered.load(Ordering::Acquire)
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let ours = ptr::from_ref(self.question).cast_mut();
        let none = ptr::null_mut();
        if self.slot.0.compare_exchange(ours, none, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            while !self.is_answered() {
                thread::yield_now();
            }
        }
    }
}
