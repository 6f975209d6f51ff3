//! suppaftp, an FTP client, against pyftpdlib.

use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};

use suppaftp::FtpStream;
use trial::{expect, peer};

static FILES: AtomicUsize = AtomicUsize::new(0);

fn main() {
    let address = peer("FTP");
    trial::client("suppaftp", 200, move |middle| {
        let name = format!("file-{}", FILES.fetch_add(1, Ordering::Relaxed));
        let mut stream = FtpStream::connect(&address)?;
        stream.login("user", "password")?;
        stream.noop()?;
        stream.put_file(&name, &mut Cursor::new(&name))?;
        middle();
        let file = stream.retr_as_buffer(&name)?;
        expect(file.into_inner(), name.into_bytes())?;
        Ok(stream.quit()?)
    });
}
