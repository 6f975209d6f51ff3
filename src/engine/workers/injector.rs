//! How plain threads hand jobs to a run.

use std::fmt;
use std::mem;
use std::sync::Arc;

use super::super::job::Job;
use super::super::mutex::Mutex;
use super::run::Workers;

/// Takes jobs from plain threads for the runs of one runtime. It outlives each run.
#[derive(Default)]
pub(crate) struct Injector(Mutex<State>);

#[derive(Default)]
struct State {
    runs: Vec<Arc<Workers>>,
    // For the next run.
    jobs: Vec<Job>,
    closed: bool,
}

impl Injector {
    /// Gives a job to the run, or keeps it for the next one, or drops it if there will be none.
    ///
    /// A run that is closing takes a job only from a thread for which it waits. That thread may
    /// wait for the job, and there is no next run before this one is over.
    pub(crate) fn push(&self, mut job: Job, waits_for_caller: Option<&Arc<Workers>>) {
        let mut state = self.0.lock();
        for run in &state.runs {
            let waits = waits_for_caller.is_some_and(|waiting| Arc::ptr_eq(waiting, run));
            if run.is_closing() && !waits {
                continue;
            }
            match run.push(None, job) {
                Ok(()) => return,
                Err(back) => job = back,
            }
        }
        if !state.closed {
            state.jobs.push(job);
            return;
        }
        // Its destructors are user code, which must not run under the lock.
        drop(state);
        drop(job);
    }

    /// A run begins, and gets the jobs that were waiting for it.
    pub(crate) fn begin(&self, run: &Arc<Workers>) {
        let mut state = self.0.lock();
        for job in mem::take(&mut state.jobs) {
            state.jobs.extend(run.push(None, job).err());
        }
        state.runs.push(Arc::clone(run));
    }

    /// A run has ended.
    pub(crate) fn end(&self, run: &Arc<Workers>) {
        self.0.lock().runs.retain(|other| !Arc::ptr_eq(other, run));
    }

    /// There will be no further run.
    pub(crate) fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        let jobs = mem::take(&mut state.jobs);
        drop(state);
        drop(jobs);
    }
}

impl fmt::Debug for Injector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injector").finish_non_exhaustive()
    }
}

/// A thread's place in a run: which worker of which run it is.
pub(crate) struct WorkerHandle {
    pub(crate) workers: Arc<Workers>,
    /// Where plain threads push jobs for the run.
    pub(crate) injector: Arc<Injector>,
    pub(crate) number: usize,
}
