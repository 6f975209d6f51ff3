"""An FTP server in the folder that is its argument, whose NOOP takes 100 ms. Prints its port."""

import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.log import config_logging
from pyftpdlib.servers import FTPServer


class Slow(FTPHandler):
    auth_failed_timeout = 0

    def ftp_NOOP(self, line):
        def answer():
            if not self._closed:
                self.respond("200 done nothing")

        self.ioloop.call_later(0.1, answer)


config_logging(level=50)
Slow.authorizer = DummyAuthorizer()
Slow.authorizer.add_user("user", "password", sys.argv[1], perm="elradfmw")
server = FTPServer(("127.0.0.1", 0), Slow, backlog=4096)
server.max_cons = 4096
print(server.address[1], flush=True)
server.serve_forever()
