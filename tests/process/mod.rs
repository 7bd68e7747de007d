//! `midmile` as a child process: started, listened to, signalled, and killed at the end whatever happens.
#![expect(dead_code, reason = "each test program uses a part of it")]
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

pub(crate) mod ends;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before a test gives up. Long: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// By what the loops of the programs under test wait: `MIDMILE_TEST_WAIT_BY=io_uring` has the same tests run on the ring.
pub(crate) fn wait_by() -> Option<String> {
    std::env::var("MIDMILE_TEST_WAIT_BY").ok()
}

/// The command, with nothing of the caller's environment that changes what it says.
pub(crate) fn midmile(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_midmile"));
    command.args(args).env_remove("MIDMILE_LOG").env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
    if let Some(way) = wait_by().filter(|_| matches!(args.first(), Some(&("relay" | "mux")))) {
        command.args(["--wait-by", &way]);
    }
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    midmile(args).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Looks until `look` sees something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        thread::sleep(LOOK);
    }
}

/// A loopback address of its own, port 0: nobody else comes by a port there, not even by one that was closed.
pub(crate) fn own_loopback() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    (Ipv4Addr::new(127, 1 + NEXT.fetch_add(1, Relaxed) % 250, high, low), 0).into()
}

/// A running `midmile`.
pub(crate) struct Running {
    child: Child,
    ready: Mutex<Receiver<String>>,
    log: Arc<Mutex<String>>,
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::spawn(midmile(args))
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        Self::of(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// One that was started by other means, with pipes for what it says.
    pub(crate) fn of(mut child: Child) -> Self {
        let (tell, ready) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, into) = (BufReader::new(child.stderr.take().unwrap()), log.clone());
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = into.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, ready: Mutex::new(ready), log }
    }

    /// The next line of standard output.
    pub(crate) fn line(&self) -> String {
        let line = self.ready.lock().unwrap().recv_timeout(PATIENCE);
        line.unwrap_or_else(|_| panic!("no line on standard output; log:\n{}", self.log()))
    }

    /// The address in the next `ready` line.
    pub(crate) fn ready(&self) -> SocketAddr {
        let line = self.line();
        let listen =
            line.strip_prefix("ready listen=").and_then(|rest| rest.split_once(" to=")).map(|(listen, _)| listen);
        listen.and_then(|listen| listen.parse().ok()).unwrap_or_else(|| panic!("not a ready line: {line}"))
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until a line of the log contains `text`, and returns the line.
    pub(crate) fn logged(&self, text: &str) -> String {
        until(&format!("{text:?} in the log"), || {
            self.log().lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    /// Where the admin server listens, which the log says.
    pub(crate) fn admin(&self) -> SocketAddr {
        let line: serde_json::Value = serde_json::from_str(&self.logged("the admin server accepts")).unwrap();
        line["listen"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, and returns the exit code.
    pub(crate) fn code(&mut self) -> Option<i32> {
        self.end().code()
    }

    fn end(&mut self) -> ExitStatus {
        until("the end of the process", || self.child.try_wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        if thread::panicking() {
            // Shown where the test fails.
            println!("midmile, process {}: {ended:?}; its log:\n{}", self.child.id(), self.log());
        }
        if ended.is_ok_and(|ended| ended.is_none()) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// A server that greets with its letter and then sends back what it gets. It ends with the test program.
pub(crate) fn echo(letter: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || greet_and_echo(stream, letter));
        }
    });
    addr
}

fn greet_and_echo(mut stream: TcpStream, letter: u8) -> std::io::Result<()> {
    stream.write_all(&[letter])?;
    let mut back = stream.try_clone()?;
    std::io::copy(&mut stream, &mut back)?;
    back.shutdown(std::net::Shutdown::Write)
}

/// A connection to `addr`, and the letter with which it was greeted.
pub(crate) fn connect(addr: SocketAddr) -> (TcpStream, u8) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut letter = [0];
    stream.read_exact(&mut letter).unwrap();
    (stream, letter[0])
}

/// Sends `text` and expects it back.
pub(crate) fn exchange(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, text.as_bytes());
}

/// An answer of the admin server: status line and headers, and body.
pub(crate) fn get(addr: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: midmile\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

/// The admin server's status document.
pub(crate) fn status(addr: SocketAddr) -> serde_json::Value {
    serde_json::from_str(&get(addr, "/status.json").1).unwrap()
}

/// A file or directory of its own for one test, removed at the end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("midmile-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file, whole or not at all as far as readers see.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let (new, path) = (self.path("new"), self.path(name));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, Path::new(&path)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
