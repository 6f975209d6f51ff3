//! Behaviour that cuts across types: cancellation, unwinding, wakes, deadlocks, starvation, hostile
//! peers.

mod cancellation;
mod deadlock;
mod depth;
mod fairness;
mod generators;
mod given_up;
mod grow;
mod handover;
mod hostile;
mod overflow;
mod points;
mod random;
mod registration;
mod soundness;
mod unwinding;
mod wakes;
