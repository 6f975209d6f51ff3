//! redcon, a server for the protocol of redis with a thread for each connection, against redis-cli
//! and redis-benchmark.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use trial::{Outcome, expect};

type Data = Mutex<HashMap<Vec<u8>, Vec<u8>>>;

fn answer(connection: &mut redcon::Conn, data: &Data, arguments: Vec<Vec<u8>>) {
    let name = arguments[0].to_ascii_lowercase();
    match (&name[..], &arguments[1..]) {
        (b"ping", []) => connection.write_string("PONG"),
        (b"set", [key, value]) => {
            data.lock().unwrap().insert(key.clone(), value.clone());
            connection.write_string("OK");
        }
        (b"get", [key]) => match data.lock().unwrap().get(key) {
            Some(value) => connection.write_bulk(value),
            None => connection.write_null(),
        },
        (b"wait", []) => {
            thread::sleep(trial::DELAY);
            connection.write_string("OK");
        }
        (b"panic", []) => std::panic::panic_any(trial::Planned),
        _ => connection.write_error("ERR unknown command"),
    }
}

fn tool(
    name: &str,
    port: &str,
    arguments: &[&str],
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let output = Command::new(name).args(["-p", port]).args(arguments).output()?;
    if !output.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn benchmark(port: &str, clients: &str, requests: &str, command: &[&str]) -> Outcome {
    let arguments = ["-c", clients, "-n", requests, "--csv"];
    let output = tool("redis-benchmark", port, &[&arguments, command].concat())?;
    expect(output.contains("\"test\""), true)
}

fn main() {
    trial::run("redcon", || {
        let mut server =
            redcon::listen("127.0.0.1:0", Data::default()).map_err(|error| error.to_string())?;
        server.command = Some(answer);
        let port = server.local_addr().port().to_string();
        thread::spawn(move || server.serve().map_err(|error| error.to_string()));

        expect(tool("redis-cli", &port, &["set", "key", "value"])?, "OK\n".into())?;
        trial::measure("redcon", || benchmark(&port, "100", "100", &["wait"]))?;
        for _ in 0..3 {
            // The connection ends.
            let _ = tool("redis-cli", &port, &["panic"]);
        }
        // A client leaves in the middle.
        let mut impatient = Command::new("redis-cli").args(["-p", &port, "wait"]).spawn()?;
        thread::sleep(Duration::from_millis(20));
        impatient.kill()?;
        impatient.wait()?;
        benchmark(&port, "1000", "20000", &["-t", "ping,set,get", "-P", "4"])?;
        expect(tool("redis-cli", &port, &["get", "key"])?, "value\n".into())?;
        println!("redcon: panics, a client that leaves, and 1,000 connections at once");
        Ok(())
    });
}
