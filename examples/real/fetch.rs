//! Fetches pages over HTTPS, all at once: ureq as it is, with its TLS, over sockets that park.
//!
//! Without arguments it fetches fifty pages of a site of its own, which take 0.2 s each.
//!
//! ```text
//! cargo run --release -p real_examples --example fetch [URL...]
//! cargo run --release -p real_examples --example fetch https://example.com/ https://example.org/
//! ```

#[path = "../args/mod.rs"]
mod args;
#[path = "../pages/mod.rs"]
mod pages;
mod tls;
mod transport;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use plainsong::net::TcpListener;
use plainsong::time::sleep;
use tls::Tls;
use ureq::Agent;
use ureq::config::Config;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// How long a page may take in all.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of our own site.
const PAGES: usize = 50;
const DELAY: Duration = Duration::from_millis(200);

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let urls = args::all("[URL...]");
    plainsong::run(|| {
        let (urls, roots) = if urls.is_empty() { own_site()? } else { (urls, RootCerts::WebPki) };
        let config = Config::builder()
            .timeout_global(Some(PATIENCE))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        let agent = transport::agent(config);
        Ok(pages::print_all(urls, move |url| fetch(&agent, url))?)
    })
}

/// Returns the status and the number of bytes of the page.
fn fetch(agent: &Agent, url: &str) -> Result<(u16, usize), ureq::Error> {
    let mut page = agent.get(url).call()?;
    let body = page.body_mut().read_to_vec()?;
    Ok((page.status().as_u16(), body.len()))
}

/// Starts a site whose pages take a while, and returns their addresses and the certificate.
fn own_site() -> Result<(Vec<String>, RootCerts), Box<dyn Error>> {
    let (certificate, key) = tls::self_signed()?;
    let roots = RootCerts::new_with_certs(&[Certificate::from_der(&certificate).to_owned()]);
    let config = tls::server(vec![certificate], key)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    plainsong::spawn(move || {
        listener.serve(move |conn| {
            let conn = Tls::new(conn, config.clone())?;
            let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"\r\n\r\n") {
                match conn.read(&mut chunk)? {
                    0 => return Ok(()),
                    n => request.extend_from_slice(&chunk[..n]),
                }
            }
            sleep(DELAY);
            let page = "A page of a site.\n".repeat(100);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close";
            let length = page.len();
            let answer = format!("{head}\r\nContent-Length: {length}\r\n\r\n{page}");
            conn.write_all(answer.as_bytes())?;
            conn.close()
        })
    });
    let urls = (1..=PAGES).map(|page| format!("https://{address}/{page}")).collect();
    Ok((urls, roots))
}
