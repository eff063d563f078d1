"""What connections inherit from the socket that listens."""

import socket

from specbeam.serve.http.connections import listening
from specbeam.serve.http.limits import Limits


def test_no_write_waits_for_the_acknowledgement_of_the_one_before() -> None:
    with listening("127.0.0.1", 0, Limits()) as bound, socket.create_connection(bound.getsockname()):
        accepted, _ = bound.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
