//! Calls that end early leave nothing behind. In a process of its own, whose descriptors and memory
//! no other test changes.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use plainsong::net::TcpListener;
use plainsong::sync::channel::unbounded;
use plainsong_tokio::block_on;

const MOMENT: Duration = Duration::from_millis(1);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// The coroutines and descriptors of this process.
fn alive() -> (usize, usize) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    (plainsong::inspect::dump().coroutines().count(), descriptors)
}

#[test]
fn requests_that_are_cancelled_or_timed_out_leave_nothing_behind() {
    plainsong_tokio::run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let answers = Rc::new(Cell::new(false));
        let (asked, requests) = unbounded();
        let theirs = answers.clone();
        plainsong::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, asked, answers) = (stream.unwrap(), asked.clone(), theirs.clone());
                plainsong::spawn(move || {
                    // Until the client closes its connection.
                    while stream.read(&mut [0; 1000]).is_ok_and(|len| len > 0) {
                        asked.send(()).unwrap();
                        if answers.get() {
                            stream.write_all(ANSWER).unwrap();
                        }
                    }
                });
            }
        });
        // A client that keeps no connection for later.
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let ask = || {
            let asked = client.get(&url).send();
            move || block_on(async { asked.await?.text().await })
        };
        let round = || {
            let asking = plainsong::spawn(ask());
            requests.recv().unwrap();
            asking.cancel();
            assert!(asking.join().unwrap_err().is_cancelled());
            assert!(plainsong::time::timeout(MOMENT, ask()).is_err());
            while requests.try_recv().is_ok() {}
        };
        let before = alive();
        let rounds = |count| {
            (0..count).for_each(|_| round());
            // The other side of a connection ends a little later.
            for _ in 0..10_000 {
                if alive() == before {
                    break;
                }
                plainsong::time::sleep(MOMENT);
            }
            assert_eq!(alive(), before);
        };
        rounds(100);
        let memory = resident();
        rounds(500);
        assert!(resident() < memory + (4 << 20));
        // The client is as good as new.
        answers.set(true);
        assert_eq!(ask()().unwrap(), "ok");
    })
    .unwrap();
}
