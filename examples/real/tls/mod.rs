//! rustls over a socket, and a certificate for a server that has none.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::sync::Arc;

use plainsong::net::TcpStream;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};

/// A certificate for this machine that the server has signed itself, and its key.
pub(crate) fn self_signed()
-> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names)?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der());
    Ok((cert.into(), key.expect("rcgen writes keys that rustls reads")))
}

/// The settings of a server with these certificates.
pub(crate) fn server(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The server's end of a connection. It shakes hands with the first read.
pub(crate) struct Tls {
    pub(crate) socket: TcpStream,
    // Borrowed during waits, which is right for a connection that one coroutine has.
    session: RefCell<ServerConnection>,
}

impl Tls {
    pub(crate) fn new(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Self { socket, session: RefCell::new(session) })
    }

    /// Calls `f` with the decrypted stream.
    fn with<T>(
        &self,
        f: impl FnOnce(&mut Stream<'_, ServerConnection, &TcpStream>) -> io::Result<T>,
    ) -> io::Result<T> {
        f(&mut Stream::new(&mut *self.session.borrow_mut(), &mut &self.socket))
    }

    /// Says that nothing more will be written.
    pub(crate) fn close(&self) -> io::Result<()> {
        self.with(|stream| {
            stream.conn.send_close_notify();
            stream.flush()
        })
    }

    pub(crate) fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.with(|stream| stream.read(bytes))
    }

    pub(crate) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.with(|stream| {
            stream.write_all(bytes)?;
            stream.flush()
        })
    }
}
