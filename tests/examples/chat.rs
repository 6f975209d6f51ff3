//! `chat`, with guests that read, do not read, and send more than text; and `stdin_chat_client`.

use std::fs::File;
use std::io::{self, Write};

use super::{Client, PATIENCE, Program};

/// Enters an empty chat with three guests.
fn three_guests(address: &str) -> [Client; 3] {
    let mut ann = Client::connect(address);
    assert_eq!(ann.line(), "*** you are guest 1; others here: 0");
    let mut bob = Client::connect(address);
    assert_eq!(bob.line(), "*** you are guest 2; others here: 1");
    assert_eq!(ann.line(), "*** guest 2 joined");
    let mut cid = Client::connect(address);
    assert_eq!(cid.line(), "*** you are guest 3; others here: 2");
    assert_eq!(ann.line(), "*** guest 3 joined");
    assert_eq!(bob.line(), "*** guest 3 joined");
    [ann, bob, cid]
}

#[test]
fn chat_passes_each_line_to_all_others() {
    let (server, address) = Program::serve("chat");
    let [mut ann, mut bob, mut cid] = three_guests(&address);

    ann.send("hello\n");
    assert_eq!(bob.line(), "guest 1: hello");
    assert_eq!(cid.line(), "guest 1: hello");

    // As telnet sends it, in two pieces; and blank lines, which are nothing to pass on.
    bob.send("good ");
    bob.send("day\r\n\r\n\n");
    // This is also the next that Ann reads: her own line has not come back.
    assert_eq!(ann.line(), "guest 2: good day");
    assert_eq!(cid.line(), "guest 2: good day");

    // A last line without an end, and then the end.
    cid.send("bye");
    cid.end();
    for guest in [&mut ann, &mut bob] {
        assert_eq!(guest.line(), "guest 3: bye");
        assert_eq!(guest.line(), "*** guest 3 left");
    }
    assert!(cid.is_closed());

    drop(bob);
    assert_eq!(ann.line(), "*** guest 2 left");
    let mut dan = Client::connect(&address);
    assert_eq!(dan.line(), "*** you are guest 4; others here: 1");
    assert_eq!(ann.line(), "*** guest 4 joined");
    server.stop();
}

#[test]
fn chat_passes_on_a_long_line_in_pieces() {
    let (server, address) = Program::serve("chat");
    let [ann, mut bob, _cid] = three_guests(&address);
    ann.send(&"x".repeat(2500));
    ann.send("\nnext\n");
    for len in [1000, 1000, 500] {
        assert_eq!(bob.line(), format!("guest 1: {}", "x".repeat(len)));
    }
    assert_eq!(bob.line(), "guest 1: next");
    server.stop();
}

#[test]
fn chat_loses_nothing_of_a_burst_to_guests_that_read() {
    let (server, address) = Program::serve("chat");
    let [ann, mut bob, mut cid] = three_guests(&address);
    // More lines than wait for a guest, and fewer bytes than the sockets' buffers hold.
    ann.send(&(0..1000).map(|n| format!("{n}\n")).collect::<String>());
    for guest in [&mut bob, &mut cid] {
        (0..1000).for_each(|n| assert_eq!(guest.line(), format!("guest 1: {n}")));
    }
    server.stop();
}

/// Reads the numbered lines of guest 1. Each is in its place, or counted as lost in its place.
/// Returns how many were lost.
fn reads_or_loses(guest: &mut Client, lines: usize, padding: &str) -> usize {
    let (mut n, mut lost) = (0, 0);
    while n < lines {
        let line = guest.line();
        if let Some(count) = line.strip_prefix("*** ").and_then(|l| l.strip_suffix(" lines lost")) {
            let count: usize = count.parse().unwrap();
            assert!(count > 0);
            lost += count;
            n += count;
        } else {
            assert_eq!(line, format!("guest 1: {n} {padding}"));
            n += 1;
        }
    }
    assert_eq!(n, lines);
    lost
}

#[test]
fn chat_tells_a_guest_that_did_not_read_how_many_lines_it_lost() {
    const LINES: usize = 100_000;
    // Fewer than may wait for a guest: a guest that reads after each window loses nothing.
    const WINDOW: usize = 200;

    let (server, address) = Program::serve("chat");
    let [mut ann, mut bob, mut cid] = three_guests(&address);

    // Some 50 MB in all, while Cid does not read: far more than the sockets' buffers hold.
    let padding = "x".repeat(500);
    for first in (0..LINES).step_by(WINDOW) {
        let window: String = (first..first + WINDOW).map(|n| format!("{n} {padding}\n")).collect();
        ann.send(&window);
        for n in first..first + WINDOW {
            assert_eq!(bob.line(), format!("guest 1: {n} {padding}"));
        }
    }

    let lost = reads_or_loses(&mut cid, LINES, &padding);
    assert!(lost > LINES / 2, "only {lost} lines were lost: the others waited, or much is queued");

    // It is a guest like the others again.
    bob.send("welcome back\n");
    assert_eq!(cid.line(), "guest 2: welcome back");
    assert_eq!(ann.line(), "guest 2: welcome back");
    cid.send("thanks\n");
    assert_eq!(bob.line(), "guest 3: thanks");
    server.stop();
}

#[test]
fn chat_lets_guests_leave_that_have_much_unread() {
    let (server, address) = Program::serve("chat");
    let [mut ann, mut bob, cid] = three_guests(&address);
    bob.send(&format!("{}\n", "x".repeat(900)).repeat(20_000));
    drop(cid);
    assert_eq!(bob.line(), "*** guest 3 left");
    ann.end();
    assert_eq!(bob.line(), "*** guest 1 left");
    io::copy(&mut ann.0, &mut io::sink()).unwrap();
    server.stop();
}

#[test]
fn chat_keeps_everything_out_of_terminals_but_text() {
    let (server, address) = Program::serve("chat");
    let [ann, mut bob, mut cid] = three_guests(&address);
    for (line, text) in [
        ("\x1b[2Jclear\x07\n".as_bytes(), "[2Jclear"),
        ("\u{9b}2Jclear\n".as_bytes(), "2Jclear"),
        // Characters that reorder, hide or are not seen.
        ("\u{feff}a\u{200b}b\u{202e}c\u{2066}d\u{2028}e\u{ad}f\u{e0041}g\n".as_bytes(), "abcdefg"),
        // Letters and emoji of several characters stay whole.
        ("e\u{301} \u{1f469}\u{200d}\u{1f680}\n".as_bytes(), "e\u{301} \u{1f469}\u{200d}\u{1f680}"),
        // Commands of telnet, with and without an option.
        (b"\xff\xfb\x22one \xff\xf4two\xff\xff\xff\xfd\n three\r\n", "one two three"),
        // Not text at all.
        (b"\x80\xc3(\n", "\u{fffd}\u{fffd}("),
    ] {
        ann.0.get_ref().write_all(line).unwrap();
        assert_eq!(bob.line(), format!("guest 1: {text}"));
        assert_eq!(cid.line(), format!("guest 1: {text}"));
    }
    server.stop();
}

#[test]
fn chat_cuts_a_long_line_between_characters() {
    let (server, address) = Program::serve("chat");
    let [ann, mut bob, _cid] = three_guests(&address);
    for start in ["", "x", "xx", "xxx"] {
        for character in ["\u{e9}", "\u{20ac}", "\u{1d11e}"] {
            let line = format!("{start}{}", character.repeat(900));
            ann.send(&format!("{line}\n"));
            let mut seen = String::new();
            while seen.len() < line.len() {
                let piece = bob.line();
                let piece = piece.strip_prefix("guest 1: ").unwrap();
                assert!(piece.len() <= 1000, "{} bytes", piece.len());
                seen += piece;
            }
            assert_eq!(seen, line);
        }
    }
    // Bytes that only continue a character have no end: they are cut too.
    ann.0.get_ref().write_all(&[0x80; 5000]).unwrap();
    ann.send("\n");
    for _ in 0..5 {
        assert_eq!(bob.line().matches('\u{fffd}').count(), 1000);
    }
    server.stop();
}

#[test]
fn chat_writes_all_that_waits_for_a_guest_that_has_said_its_last() {
    const LINES: usize = 10_000;
    let (server, address) = Program::serve("chat");
    let [ann, mut bob, mut cid] = three_guests(&address);
    // Far more than the sockets' buffers hold, while Bob does not read.
    let padding = "x".repeat(900);
    for n in 0..LINES {
        ann.send(&format!("{n} {padding}\n"));
        assert_eq!(cid.line(), format!("guest 1: {n} {padding}"));
    }
    bob.end();
    assert_eq!(cid.line(), "*** guest 2 left");
    let lost = reads_or_loses(&mut bob, LINES, &padding);
    assert!(lost > 0, "all of it fits into the sockets' buffers");
    assert!(bob.is_closed());
    server.stop();
}

#[test]
fn stdin_chat_client_sends_and_prints_at_once() {
    let (server, address) = Program::serve("chat");
    let enter = || {
        let (reader, writer) = io::pipe().unwrap();
        (Program::start_reading("stdin_chat_client", &[&address], reader.into()), writer)
    };
    let heard = |client: &Program| client.stdout.recv_timeout(PATIENCE).unwrap();
    let (first, mut first_types) = enter();
    assert_eq!(heard(&first), "*** you are guest 1; others here: 0");
    let (second, mut second_types) = enter();
    assert_eq!(heard(&second), "*** you are guest 2; others here: 1");
    assert_eq!(heard(&first), "*** guest 2 joined");
    for n in 0..10 {
        // Each prints what comes while it waits for its keyboard.
        writeln!(first_types, "hello {n}").unwrap();
        assert_eq!(heard(&second), format!("guest 1: hello {n}"));
        writeln!(second_types, "answer {n}").unwrap();
        assert_eq!(heard(&first), format!("guest 2: answer {n}"));
    }
    drop(first_types);
    assert_eq!(first.output(), [""; 0]);
    assert_eq!(heard(&second), "*** guest 1 left");
    // The end of the server ends a client that still waits for its keyboard.
    server.stop();
    assert_eq!(second.output(), [""; 0]);
    drop(second_types);
}

#[test]
fn stdin_chat_client_survives_lines_that_are_not_text() {
    let (server, address) = Program::serve("chat");
    let mut guest = Client::connect(&address);
    assert_eq!(guest.line(), "*** you are guest 1; others here: 0");
    let (reader, mut types) = io::pipe().unwrap();
    let client = Program::start_reading("stdin_chat_client", &[&address], reader.into());
    assert_eq!(guest.line(), "*** guest 2 joined");
    types.write_all(b"\xfe\xfe\ngood\n").unwrap();
    assert_eq!(guest.line(), "guest 2: \u{fffd}\u{fffd}");
    assert_eq!(guest.line(), "guest 2: good");
    drop(types);
    assert_eq!(client.output(), ["*** you are guest 2; others here: 1"]);
    assert_eq!(guest.line(), "*** guest 2 left");
    server.stop();
}

#[test]
fn stdin_chat_client_ends_when_its_input_fails() {
    let (server, address) = Program::serve("chat");
    // A folder can be opened, and not be read.
    let folder = File::open("/").unwrap();
    let client = Program::start_reading("stdin_chat_client", &[&address], folder.into());
    let (code, stdout, stderr) = client.finish();
    assert_eq!((code, stdout.len()), (Some(0), 1));
    assert!(stderr.concat().starts_with("cannot send: "), "{stderr:?}");
    server.stop();
}
