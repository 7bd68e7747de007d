//! Sockets of a program's own, taken in by the engine and given back.

#![expect(clippy::unwrap_used, reason = "a test ends where its own set-up fails")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use midmile_engine::kernel::Kernel;
use midmile_engine::{Config, ConnError, ConnId, Core, Cx, Handler, MeterId, ReleaseError};

/// Takes three bytes at a time, and sends them back.
#[derive(Default)]
struct Threes {
    got: Vec<u8>,
    ended: bool,
}

impl Handler<Kernel> for Threes {
    fn on_data(&mut self, cx: &mut Cx<Kernel>, conn: ConnId, _: u64, bytes: &[u8]) -> usize {
        let used = bytes.len() / 3 * 3;
        self.got.extend_from_slice(&bytes[..used]);
        cx.send(conn, &bytes[..used]);
        used
    }

    fn on_peer_close(&mut self, _: &mut Cx<Kernel>, _: ConnId, _: u64) {
        self.ended = true;
    }

    fn on_error(&mut self, _: &mut Cx<Kernel>, _: ConnId, _: u64, _: ConnError) {
        self.ended = true;
    }
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

fn goes_and_comes_back(near: OwnedFd, far: &mut (impl Read + Write)) -> OwnedFd {
    let mut core = Core::new(Kernel::new().unwrap(), Config::default(), Threes::default());
    let conn = core.parts().1.adopt(near, 7, MeterId::NONE).unwrap();
    core.parts().1.read(conn);
    far.write_all(b"abcdefgh").unwrap();
    while core.parts().0.got.len() < 6 {
        core.turn().unwrap();
    }
    let mut echo = [0; 6];
    far.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"abcdef");
    let (fd, left_over) = core.parts().1.release(conn).unwrap();
    assert_eq!(left_over, b"gh");
    assert_eq!(core.parts().1.release(conn).unwrap_err(), ReleaseError::NotStanding);
    // What comes now is nobody's here any more.
    far.write_all(b"ijk").unwrap();
    core.parts().1.set_alarm(std::time::Duration::from_millis(1));
    core.turn().unwrap();
    assert!(core.parts().0.got == b"abcdef" && !core.parts().0.ended);
    fd
}

#[test]
fn a_tcp_socket_is_taken_in_and_given_back_with_what_was_left_over() {
    let (near, mut far) = tcp();
    let mut near = TcpStream::from(goes_and_comes_back(near.into(), &mut far));
    let mut rest = [0; 3];
    near.read_exact(&mut rest).unwrap();
    assert_eq!(&rest, b"ijk");
    // It blocks: the answer comes after the read has begun, or before.
    let asking = std::thread::spawn(move || near.read(&mut [0; 8]).unwrap());
    far.write_all(b"l").unwrap();
    assert_eq!(asking.join().unwrap(), 1);
}

#[test]
fn so_is_a_unix_socket() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let near = UnixStream::from(goes_and_comes_back(near.into(), &mut far));
    drop(near);
    assert_eq!(far.read(&mut [0; 8]).unwrap_or(0), 0);
}

#[test]
fn what_is_no_socket_isnt_taken_in_nor_more_than_there_is_room_for() {
    let mut core = Core::new(Kernel::new().unwrap(), Config { conns_max: 1, ..Config::default() }, Threes::default());
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(core.parts().1.adopt(file, 0, MeterId::NONE).is_err());
    let (near, far) = tcp();
    let conn = core.parts().1.adopt(near, 0, MeterId::NONE).unwrap();
    assert_eq!(core.parts().1.adopt(far, 0, MeterId::NONE).unwrap_err().raw_os_error(), Some(23));
    assert!(core.parts().1.release(conn).is_ok());
    assert!(core.parts().1.adopt(tcp().0, 0, MeterId::NONE).is_ok());
}

#[test]
fn one_that_is_forwarded_stays() {
    let mut core = Core::new(Kernel::new().unwrap(), Config::default(), Threes::default());
    let (a, b) = tcp();
    let (_, cx) = core.parts();
    let (a, b) = (cx.adopt(a, 0, MeterId::NONE).unwrap(), cx.adopt(b, 0, MeterId::NONE).unwrap());
    cx.forward(a, b);
    assert_eq!(cx.release(a).unwrap_err(), ReleaseError::Tied);
    assert_eq!(cx.release(b).unwrap_err(), ReleaseError::Tied);
    cx.pause(a);
    assert!(cx.release(b).is_ok());
}
