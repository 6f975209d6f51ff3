//! An HTTPS server: rustls as it is, below the HTTP/1.1 of the example `httpd`.
//!
//! Without a certificate it makes one for this machine. Clients do not trust it: curl needs `-k`.
//!
//! ```text
//! cargo run --release -p real_examples --example https [ADDR [CERTIFICATES KEY]]
//! curl -ki https://127.0.0.1:4915/
//! openssl s_client -connect 127.0.0.1:4915
//! ```

#[path = "../args/mod.rs"]
mod args;
#[path = "../httpd/http/mod.rs"]
mod http;
mod tls;

use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;

use http::{Connection, Limits, Reply, Request, Sent, Server};
use plainsong::io::stdout;
use plainsong::net::{TcpListener, TcpStream};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tls::Tls;

const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");

impl Connection for Tls {
    fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.read(bytes)
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn close(&self) -> io::Result<()> {
        self.close()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (address, config) = arguments()?;
    plainsong::run(|| {
        let listener = TcpListener::bind(address)?;
        // The server works also without a reader of its output.
        let _ = writeln!(stdout(), "listening on {}", listener.local_addr()?);
        let server = Server::new(Limits::default());
        listener.serve(move |conn| server.attend(&Tls::new(conn, config.clone())?, answer))?;
        Ok(())
    })
}

fn arguments() -> Result<(String, Arc<ServerConfig>), Box<dyn Error>> {
    let usage = "[ADDR [CERTIFICATES KEY]]";
    let arguments: Vec<_> = args::all(usage);
    let address = arguments.first().map_or("127.0.0.1:4915", String::as_str).to_owned();
    let config = match &arguments[..] {
        [] | [_] => {
            let (certificate, key) = tls::self_signed()?;
            tls::server(vec![certificate], key)?
        }
        [_, certificates, key] => {
            let (chain, key) = from_files(certificates, key)?;
            tls::server(chain, key)
                .map_err(|error| format!("{certificates} and its key do not do: {error}"))?
        }
        _ => args::refuse(usage),
    };
    Ok((address, config))
}

/// The certificates of a file, and the key of another.
fn from_files(
    certificates: &str,
    key: &str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Box<dyn Error>> {
    let chain = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect)
        .map_err(|error| format!("no certificates from {certificates}: {error}"))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| format!("no private key from {key}: {error}"))?;
    Ok((chain, key))
}

fn answer(request: &Request<'_>, reply: Reply<'_>) -> Sent {
    match (request.target.split('?').next(), request.method) {
        (Some("/"), "GET" | "HEAD") => reply.send(200, &[TEXT], b"Hello, World!\n"),
        (Some("/echo"), "POST") => {
            let kind = request.header("Content-Type").unwrap_or("application/octet-stream");
            reply.send(200, &[("Content-Type", kind)], request.body)
        }
        (Some("/"), _) => reply.send(405, &[TEXT, ("Allow", "GET, HEAD")], b"only GET here\n"),
        (Some("/echo"), _) => reply.send(405, &[TEXT, ("Allow", "POST")], b"only POST here\n"),
        _ => reply.send(404, &[TEXT], b"there is no such page\n"),
    }
}
