//! The echo server among the examples, on each backend.

mod driven;

use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::time::Duration;

use driven::{Ground, noise};

const BYTES: usize = 1 << 20;

#[test]
fn what_is_sent_comes_back() {
    for ground in Ground::all() {
        let example = ground.start("echo", &[]);
        let mut stream = ground.connect(example.at());
        let bytes = noise(BYTES);
        let (mut writer, said) = (stream.try_clone().unwrap(), bytes.clone());
        // Nothing is read until so much is written that the program has to wait.
        let writing = std::thread::spawn(move || {
            writer.write_all(&said).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        writing.join().unwrap();
        assert!(heard == bytes, "on {}: {} bytes of {BYTES} came back, or others", ground.backend(), heard.len());
        example.end();
        ground.check_device();
    }
}

#[test]
fn datagrams_come_back() {
    for ground in Ground::all() {
        let example = ground.start("echo", &[]);
        let socket = ground.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.connect(example.at()).unwrap();
        let mut heard = [0; 2000];
        for len in (0..1400).step_by(37) {
            let said = noise(len);
            socket.send(&said).unwrap();
            let len = socket.recv(&mut heard).unwrap();
            assert!(heard[..len] == said, "on {}: {len} bytes", ground.backend());
        }
        example.end();
    }
}
