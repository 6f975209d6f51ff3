//! Types that only this crate can make, and traits that only it can implement.

use std::io;

struct Mine;

impl plainsong::net::Listener for Mine { //~ E0277
    type Stream = ();
    type Address = ();

    fn accept_now(&self) -> io::Result<((), ())> {
        Ok(((), ()))
    }

    fn wait_for_connection(&self) -> io::Result<()> {
        Ok(())
    }

    fn accept_stream(&self) -> io::Result<()> {
        Ok(())
    }

    fn show(_: &()) -> String {
        String::new()
    }

    fn sibling(&self) -> io::Result<Self> {
        Ok(Mine)
    }

    fn another(_: &()) -> io::Result<()> {
        Ok(())
    }

    fn end_shared(_: &()) {}
}

impl plainsong::sync::select::Joined for Mine { //~ E0277
    type Item = ();
    type Output = ();

    fn handle(&mut self) -> &mut plainsong::JoinHandle<()> {
        unreachable!()
    }

    fn finish(self) {}
}

impl plainsong::task::Body<i32> for Mine {} //~ E0277

fn nobody_makes_these() {
    plainsong::time::Elapsed(()); //~ E0423
    plainsong::sync::BarrierWaitResult(true); //~ E0423
    plainsong::sync::WaitTimeoutResult(true); //~ E0423
    plainsong::sync::AcquireError(()); //~ E0423
    plainsong::CancellationToken(todo!()); //~ E0423
    plainsong::Handle(todo!()); //~ E0423
}
