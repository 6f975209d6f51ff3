//! scratch
#![allow(unsafe_code, missing_docs)]
use std::time::Instant;
fn yields(n: usize, turns: usize) -> f64 {
    plainsong::run(|| {
        let hs: Vec<_> = (0..n).map(|_| plainsong::spawn(move || for _ in 0..turns { plainsong::yield_now() })).collect();
        plainsong::yield_now();
        let t = Instant::now();
        for h in hs { h.join().unwrap(); }
        t.elapsed().as_nanos() as f64 / (n * (turns-1)) as f64
    })
}
struct St(corosensei::stack::StackPointer, corosensei::stack::StackPointer);
unsafe impl corosensei::stack::Stack for St { fn base(&self)->corosensei::stack::StackPointer{self.0} fn limit(&self)->corosensei::stack::StackPointer{self.1} }
fn bare(n: usize, turns: usize) -> f64 {
    let stride = 65*4096usize;
    let len = stride*n;
    let p = unsafe { libc::mmap(std::ptr::null_mut(), len, 3, libc::MAP_PRIVATE|libc::MAP_ANONYMOUS|libc::MAP_NORESERVE|libc::MAP_STACK, -1, 0) } as usize;
    let mut v: Vec<corosensei::Coroutine<(),(),(),St>> = (0..n).map(|i| {
        let b = p + i*stride + stride - (i%32)*64;
        corosensei::Coroutine::with_stack(St(b.try_into().unwrap(), (p+i*stride).try_into().unwrap()), move |y: &corosensei::Yielder<(),()>, ()| for _ in 0..turns { y.suspend(()) }) }).collect();
    for c in &mut v { c.resume(()); }
    let t = Instant::now();
    for _ in 1..turns { for c in &mut v { c.resume(()); } }
    let r = t.elapsed().as_nanos() as f64 / (n * (turns-1)) as f64;
    for c in &mut v { c.resume(()); }
    drop(v);
    unsafe { libc::munmap(p as *mut _, len); }
    r
}
fn spawn_join(n: usize) -> f64 {
    plainsong::run(|| {
        let t = Instant::now();
        for _ in 0..n { plainsong::spawn(|| ()).join().unwrap(); }
        t.elapsed().as_nanos() as f64 / n as f64
    })
}
fn bare_spawn(n: usize) -> f64 {
    let stride = 65*4096usize;
    let p = unsafe { libc::mmap(std::ptr::null_mut(), stride, 3, libc::MAP_PRIVATE|libc::MAP_ANONYMOUS|libc::MAP_NORESERVE|libc::MAP_STACK, -1, 0) } as usize;
    let mut st = Some(St((p+stride).try_into().unwrap(), p.try_into().unwrap()));
    let t = Instant::now();
    for _ in 0..n { let mut c = corosensei::Coroutine::<(),(),(),St>::with_stack(st.take().unwrap(), |_, ()| ()); std::hint::black_box(&mut c).resume(()); st = Some(c.into_stack()); }
    t.elapsed().as_nanos() as f64 / n as f64
}
fn main() {
    for _ in 0..3 {
    for n in [10, 1000, 10000] {
        let turns = 20_000_000/n/2;
        let turns = if n == 10000 { 500 } else {turns};
        println!("{n}: plainsong {:.1} bare {:.1}", yields(n, turns), bare(n, turns));
    }
    println!("spawn+join {:.1} bare {:.1}", spawn_join(3_000_000), bare_spawn(3_000_000));
    }
}
