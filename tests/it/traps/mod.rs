//! Behaviour that cuts across types: cancellation, unwinding, wakes, deadlocks, starvation, hostile
//! peers.

mod cancellation;
mod deadlock;
mod depth;
mod fairness;
mod handover;
mod hostile;
mod overflow;
mod random;
mod registration;
mod unwinding;
mod wakes;
