//! Runs the examples as a user would: each in a process of its own, with clients on plain threads.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tungstenite::{Message, WebSocket};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs until this is dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(example(name));
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        // The rest of its output has no reader: the pipe is closed here.
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").expect("an address").trim().to_owned();
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes and reads to the end.
    fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // A server that has not read all resets the connection after its answer.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// An example, which cargo builds before its tests.
fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples").join(name)
}

fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(example(name)).args(arguments).output().unwrap()
}

/// The message of a program that refuses to start.
fn error_of(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// Files with a certificate and its key, and a client that trusts it.
fn certificate(folder: &str) -> (String, String, Agent) {
    let folder = std::env::temp_dir().join(format!("plainsong-{folder}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| folder.join(name));
    fs::write(&chain, cert.pem()).unwrap();
    fs::write(&key, signing_key.serialize_pem()).unwrap();
    let roots = RootCerts::new_with_certs(&[Certificate::from_der(cert.der()).to_owned()]);
    let config = Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .tls_config(TlsConfig::builder().root_certs(roots).build());
    let [chain, key] = [chain, key].map(|path| path.to_str().unwrap().to_owned());
    (chain, key, Agent::new_with_config(config.build()))
}

#[test]
fn https_answers_a_client_that_trusts_its_certificate() {
    let (chain, key, agent) = certificate("https");
    let server = Server::start("https", &["127.0.0.1:0", &chain, &key]);
    let url = format!("https://{}", server.address);
    // The second is answered over the same connection.
    for _ in 0..2 {
        let mut page = agent.get(&url).call().unwrap();
        assert_eq!(page.body_mut().read_to_string().unwrap(), "Hello, World!\n");
    }
    let text = "text ".repeat(50_000);
    let mut echo = agent.post(format!("{url}/echo")).send(&text).unwrap();
    assert!(echo.body_mut().read_to_string().unwrap() == text);
    assert_eq!(agent.get(format!("{url}/other")).call().unwrap().status(), 404);

    // A client without trust, and some without TLS, do not disturb the others.
    let stranger = Agent::new_with_defaults();
    let error = stranger.get(&url).call().unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    assert!(!server.exchange(b"GET / HTTP/1.1\r\n\r\n").contains("HTTP"));
    drop(server.connect());
    assert_eq!(agent.get(&url).call().unwrap().status(), 200);
}

#[test]
fn https_makes_a_certificate_of_its_own() {
    let server = Server::start("https", &["127.0.0.1:0"]);
    let tls = TlsConfig::builder().disable_verification(true).build();
    let agent = Agent::new_with_config(Agent::config_builder().tls_config(tls).build());
    let page = agent.get(format!("https://{}", server.address)).call().unwrap();
    assert_eq!(page.status(), 200);
}

#[test]
fn https_explains_a_mistake() {
    let (chain, key, _) = certificate("mistakes");
    assert!(error_of("https", &["127.0.0.1:0", &chain]).contains("usage: https"));
    let error = error_of("https", &["127.0.0.1:0", "/no/file", &key]);
    assert!(error.contains("no certificates from /no/file"), "{error}");
    let error = error_of("https", &["127.0.0.1:0", &chain, &chain]);
    assert!(error.contains("no private key from"), "{error}");
    let error = error_of("https", &["127.0.0.1:no-port"]);
    assert!(error.contains("127.0.0.1:no-port"), "{error}");
}

#[test]
fn fetch_has_fifty_pages_of_its_own_site() {
    let output = run("fetch", &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("50 pages in "), "{text}");
    assert!(text.contains(", 0 failed"), "{text}");
    assert_eq!(text.matches("200     1800 bytes").count(), 50, "{text}");
}

#[test]
fn fetch_names_what_it_cannot_have() {
    let (chain, key, _) = certificate("fetch");
    let server = Server::start("https", &["127.0.0.1:0", &chain, &key]);
    // A certificate that no one vouches for, a port where nobody listens, and no URL.
    let urls = [format!("https://{}/", server.address), "http://127.0.0.1:1/".into(), "?".into()];
    let output = run("fetch", &urls.each_ref().map(String::as_str));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success(), "{text}");
    for (url, error) in urls.iter().zip(["certificate", "127.0.0.1:1", "?"]) {
        let line = text.lines().find(|line| line.starts_with(&format!("failed: {url}: ")));
        assert!(line.is_some_and(|line| line.contains(error)), "{text}");
    }
    assert!(text.contains("0 pages in "), "{text}");
}

/// Enters the chat.
fn enter(server: &Server) -> WebSocket<TcpStream> {
    let url = format!("ws://{}/chat", server.address);
    tungstenite::client(url, server.connect()).unwrap().0
}

/// Reads until this comes.
fn reads(guest: &mut WebSocket<TcpStream>, text: &str) {
    while guest.read().unwrap() != Message::text(text) {}
}

#[test]
fn ws_chat_serves_its_page_and_passes_messages_on() {
    let server = Server::start("ws_chat", &["127.0.0.1:0"]);
    let page = server.exchange(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("</html>"), "{page}");

    let mut one = enter(&server);
    reads(&mut one, "*** guest 1 joined; others here: 0");
    let mut two = enter(&server);
    for guest in [&mut one, &mut two] {
        reads(guest, "*** guest 2 joined; others here: 1");
    }
    one.send(Message::text(" Hello <b>\n")).unwrap();
    two.send(Message::text("é♪")).unwrap();
    for guest in [&mut one, &mut two] {
        // Whichever came first.
        let said: Vec<_> = [guest.read().unwrap(), guest.read().unwrap()].into();
        assert!(said.contains(&Message::text("guest 1: Hello <b>")), "{said:?}");
        assert!(said.contains(&Message::text("guest 2: é♪")), "{said:?}");
    }
    one.send(Message::Ping("still there?".into())).unwrap();
    assert_eq!(one.read().unwrap(), Message::Pong("still there?".into()));

    // A guest breaks off in the middle of a frame, and another closes.
    let mut three = enter(&server);
    three.get_mut().write_all(&[0x81, 0xfe, 0x01]).unwrap();
    drop(three);
    reads(&mut one, "*** guest 3 left");
    two.close(None).unwrap();
    reads(&mut one, "*** guest 2 left");
    // A guest sends too much.
    let mut four = enter(&server);
    four.send(Message::text("x".repeat(5000))).unwrap();
    reads(&mut one, "*** guest 4 left");
}

#[test]
fn ws_chat_answers_what_is_no_websocket() {
    let server = Server::start("ws_chat", &["127.0.0.1:0"]);
    for (request, status) in [
        ("GET /chat HTTP/1.1\r\n\r\n", "426"),
        ("GET /other HTTP/1.1\r\n\r\n", "404"),
        ("POST / HTTP/1.1\r\n\r\n", "405"),
        ("\0\r\n\r\n", "400"),
    ] {
        let answer = server.exchange(request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    // It does not wait for the end of a request that has none.
    assert_eq!(server.exchange(&[b'x'; 9 * 1024]), "");
}
