//! The memory after a million calls, in a process without other tests.

use std::future::ready;

use plainsong_tokio::{block_on, run};
use tokio::sync::oneshot;

#[test]
fn a_million_calls_leave_no_memory_behind() {
    fn resident() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }
    run(|| {
        let call = || {
            for n in 0..1000 {
                assert_eq!(block_on(ready(n)), n);
                let (sender, receiver) = oneshot::channel();
                sender.send(n).unwrap();
                assert_eq!(block_on(receiver), Ok(n));
            }
        };
        call();
        let before = resident();
        (0..500).for_each(|_| call());
        assert!(resident() < before + (8 << 20));
    })
    .unwrap();
}
