//! mysql, a client with a pool of connections, against MariaDB.

use mysql::prelude::Queryable;
use mysql::{Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts};
use trial::{expect, peer};

fn main() {
    let options = Opts::from_url(&peer("MYSQL")).expect("a URL");
    let limits = PoolConstraints::new(10, 200).expect("limits");
    let options =
        OptsBuilder::from_opts(options).pool_opts(PoolOpts::default().with_constraints(limits));
    let pool = Pool::new(options).expect("the server accepts connections");
    trial::client("mysql", 1000, move |middle| {
        let mut connection = pool.get_conn()?;
        expect(connection.query_first("SELECT SLEEP(0.1)")?, Some(0))?;
        middle();
        expect(connection.exec_first("SELECT ? + 1", (41,))?, Some(42))
    });
}
