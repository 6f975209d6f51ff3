//! postgres, against PostgreSQL. It has tokio inside, whose waits plainsong-std does not replace.
//! So its calls are made on threads.

use std::plainsong::blocking;

use postgres::{Client, NoTls};
use trial::{expect, peer};

fn main() {
    let server = peer("POSTGRES");
    trial::client("postgres", 200, move |middle| {
        let mut client = blocking(|| Client::connect(&server, NoTls))?;
        blocking(|| client.execute("select pg_sleep(0.1)", &[]))?;
        middle();
        let row = blocking(|| client.query_one("select 42", &[]))?;
        expect(row.get(0), 42)?;
        blocking(|| client.close())?;
        Ok(())
    });
}
