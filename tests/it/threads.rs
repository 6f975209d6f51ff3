//! Sockets that several threads use at once, each with a runtime of its own.
