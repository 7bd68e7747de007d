//! `midmile friends off` and `on`, and what `midmile friends status` tells of ring friends: while programs run whose bytes are checked.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod process;
mod programs;
mod rings;
mod talk;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};

use process::{Running, run, text, until};
use programs::lacks;
use rings::{Friends, script};
use serde_json::Value;
use talk::Talk;

/// Bytes of a record that the client sends; its answer has one.
const RECORD: u64 = 100_000;

/// A client and a server that check each byte.
struct Flow {
    orders: ChildStdin,
    running: Running,
}

/// A connection of theirs.
struct Dialled {
    address: String,
    client: u64,
    server: u64,
}

impl Flow {
    fn start(friends: &Friends, options: &[&str]) -> Self {
        let mut command = script("flow.py");
        command.args(options);
        let mut command = friends.with(&command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self { orders: child.stdin.take().unwrap(), running: Running::of(child) }
    }

    fn order(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").unwrap();
        self.running.line()
    }

    fn dial(&mut self) -> Dialled {
        let said = self.order("dial");
        let parts: Vec<_> = said.split(' ').collect();
        let number = |part: &str| part.parse().unwrap_or_else(|_| panic!("{said}"));
        assert_eq!((parts.len(), parts[0]), (4, "dialled"), "{said}");
        Dialled { address: parts[1].to_owned(), client: number(parts[2]), server: number(parts[3]) }
    }

    fn run(&mut self) {
        assert_eq!(self.order("run"), "running");
    }

    /// Ends a run; how many records the connection has carried and had answered.
    fn stop(&mut self) -> u64 {
        let said = self.order("stop");
        said.strip_prefix("stopped ").and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{said}"))
    }

    fn quit(mut self) {
        writeln!(self.orders, "quit").unwrap();
        assert_eq!(self.running.code(), Some(0), "{}", self.running.log());
        assert_eq!(self.running.log(), "");
    }
}

fn status() -> Value {
    let output = run(&["friends", "status", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["rings"].clone()
}

impl Dialled {
    /// What the client's end sends, and what the server's does; none where it's no friend.
    fn ends(&self) -> Option<(Value, Value)> {
        let rings = status();
        let all = rings["connections"].as_array().unwrap();
        let of = |one: &&Value| one["ends"].as_array().unwrap().iter().any(|end| end["from"] == self.address.as_str());
        let ends = all.iter().find(of)?["ends"].as_array().unwrap().clone();
        let by = |pid: u64| ends.iter().find(|end| end["pid"] == pid).unwrap_or_else(|| panic!("{ends:?}")).clone();
        let (client, server) = (by(self.client), by(self.server));
        assert_eq!((&client["to"], &client["from"]), (&server["from"], &server["to"]));
        Some((client, server))
    }

    fn process(&self) -> Value {
        let rings = status();
        let all = rings["processes"].as_array().unwrap();
        all.iter().find(|one| one["pid"] == self.client).unwrap_or_else(|| panic!("{rings}")).clone()
    }
}

fn count(end: &Value, what: &str) -> u64 {
    end[what].as_u64().unwrap_or_else(|| panic!("{what} of {end}"))
}

fn switch(friends: &Friends, how: &str) -> String {
    let output = run(&["friends", how, "--runtime-dir", &friends.scratch.path("run")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn status_tells_each_byte_of_a_connection_and_by_which_way_it_went() {
    if lacks(&["python3"]) {
        return;
    }
    let friends = Friends::new("switch-status");
    let mut flow = Flow::start(&friends, &[]);
    let dialled = flow.dial();
    flow.run();
    let records = flow.stop();
    let (client, server) = dialled.ends().unwrap();
    assert_eq!(count(&client, "ring_bytes") + count(&client, "tcp_bytes"), records * RECORD, "{client}");
    assert_eq!(count(&server, "ring_bytes") + count(&server, "tcp_bytes"), records, "{server}");
    assert!(count(&client, "ring_bytes") > RECORD && count(&server, "ring_bytes") > 0, "{client} {server}");
    let (figures, process) = (dialled.process()["figures"].clone(), dialled.process());
    assert_eq!((count(&figures, "friends"), &process["off"]), (1, &Value::from(false)));
    assert_eq!(count(&figures, "ring_out_bytes"), count(&client, "ring_bytes"));
    let report = text(&run(&["friends", "status"]).stdout);
    assert!(report.contains(&format!("{} -> ", dialled.address)), "{report}");
    flow.quit();
    friends.went_by_ring(1);
    // Who has ended isn't told of.
    assert!(dialled.ends().is_none());
    assert!(status()["processes"].as_array().unwrap().iter().all(|one| one["pid"] != dialled.client));
}

#[test]
fn what_waits_is_told_by_the_way_that_it_went() {
    if lacks(&["python3"]) {
        return;
    }
    let friends = Friends::new("switch-waits");
    let mut talk = Talk::start(&friends);
    let near = format!("127.0.0.1:{}", talk.near);
    let end = || {
        let rings = status();
        let mut ends = rings["connections"].as_array().unwrap().iter().flat_map(|one| one["ends"].as_array().unwrap());
        ends.find(|end| end["from"] == near.as_str()).unwrap_or_else(|| panic!("{rings}")).clone()
    };
    let before = end();
    assert_eq!(before["to"], format!("127.0.0.1:{}", talk.far));
    talk.order("fill");
    let after = end();
    let more = |what: &str| count(&after, what) - count(&before, what);
    assert_eq!((more("ring_bytes"), more("tcp_bytes")), (256 * 1024, talk.sent[0] - 256 * 1024));
    assert_eq!((count(&after["returns"], "full"), &after["way"], &after["last"]), (1, &"tcp".into(), &false.into()));
    talk.order("read");
    talk.end();
}

/// Switches off while bytes flow, sees that they go by TCP in order, and that new connections may be friends after `on`.
fn off_and_on(name: &str, options: &[&str]) {
    if lacks(&["python3"]) {
        return;
    }
    let friends = Friends::new(name);
    let mut flow = Flow::start(&friends, options);
    let dialled = flow.dial();
    flow.run();
    let (client, _) = dialled.ends().unwrap();
    assert!(count(&client, "ring_bytes") > 0 && client["returns"].get("off").is_none(), "{client}");
    // The client's process, the server's, and the one that made the connection if that's another.
    let told = switch(&friends, "off");
    assert!(told.contains("2 processes go by TCP") || told.contains("3 processes go by TCP"), "{told}");
    let (client, server) = until("TCP both ways", || {
        dialled.ends().filter(|(client, server)| client["last"] == true && server["last"] == true)
    });
    assert_eq!((&client["way"], count(&client["returns"], "off")), (&"tcp".into(), 1), "{client}");
    // Still running, and by TCP alone; that isn't counted any more.
    flow.stop();
    flow.run();
    let records = flow.stop();
    let (after, answers) = dialled.ends().unwrap();
    assert_eq!(count(&after, "ring_bytes"), count(&client, "ring_bytes"), "{after}");
    assert_eq!(count(&answers, "ring_bytes"), count(&server, "ring_bytes"), "{answers}");
    assert!(count(&after, "ring_bytes") + count(&after, "tcp_bytes") < records * RECORD, "{after}");
    assert_eq!(dialled.process()["off"], true);
    if !options.contains(&"--fork") {
        let plain = flow.dial();
        assert!(plain.ends().is_none());
        assert!(count(&plain.process()["figures"], "plain_off") > 0);
        assert!(switch(&friends, "on").contains("2 processes"));
        assert!(count(&flow.dial().ends().unwrap().0, "ring_bytes") > 0);
    }
    flow.quit();
}

#[test]
fn switched_off_while_bytes_flow_all_go_by_tcp_in_order() {
    off_and_on("switch-off", &[]);
}

#[test]
fn switched_off_where_readiness_is_asked_for() {
    off_and_on("switch-off-epoll", &["--epoll"]);
}

#[test]
fn a_child_after_fork_hears_that_friends_are_off() {
    off_and_on("switch-off-fork", &["--fork"]);
}

#[test]
fn programs_that_start_while_friends_are_off_stay_plain() {
    if lacks(&["python3"]) {
        return;
    }
    let friends = Friends::new("switch-before");
    assert!(switch(&friends, "off").contains("0 processes"));
    switch(&friends, "off");
    let mut flow = Flow::start(&friends, &[]);
    let dialled = flow.dial();
    assert!(dialled.ends().is_none());
    flow.quit();
    assert_eq!((friends.figure("friends"), friends.figure("ring_out_bytes")), (0, 0));
    switch(&friends, "on");
    assert!(switch(&friends, "on").contains("0 processes"));
}

/// The boards that a process has open.
fn boards(pid: u64) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let is_board = |path: &PathBuf| {
        fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("/memfd:midmile-friends-board"))
    };
    entries.map(|entry| entry.unwrap().path()).filter(is_board).collect()
}

#[test]
fn a_board_full_of_garbage_harms_neither_the_program_nor_who_looks() {
    if lacks(&["python3"]) {
        return;
    }
    let friends = Friends::new("switch-garbage");
    let mut flow = Flow::start(&friends, &[]);
    let dialled = flow.dial();
    flow.run();
    let board = boards(dialled.client);
    assert_eq!(board.len(), 1);
    let file = OpenOptions::new().read(true).write(true).open(&board[0]).unwrap();
    let length = file.metadata().unwrap().len();
    // Nobody can take memory away beneath the program.
    assert!(file.set_len(0).is_err() && file.set_len(2 * length).is_err());
    // All but its first words: it's still a board, and what it says is nonsense.
    file.write_all_at(&vec![0xa5; usize::try_from(length).unwrap() - 32], 32).unwrap();
    let said = status();
    assert!(said["processes"].as_array().unwrap().iter().any(|one| one["pid"] == dialled.client), "{said}");
    assert!(run(&["friends", "status"]).status.success());
    // Nonsense isn't "on": it goes by TCP.
    flow.stop();
    file.write_all_at(&vec![0x5a; usize::try_from(length).unwrap()], 0).unwrap();
    assert!(status()["processes"].as_array().unwrap().iter().all(|one| one["pid"] != dialled.client));
    flow.run();
    flow.stop();
    flow.quit();
}

/// What calls itself a board and isn't one: empty, of garbage, of the right length, a pipe.
const FAKES: &str = r#"
import os, sys
def make(length, garbage):
    file = os.memfd_create("midmile-friends-board")
    os.truncate(file, length)
    if garbage:
        os.pwrite(file, os.urandom(min(length, 1 << 20)), 0)
    return file
length = int(sys.argv[1])
files = [make(each, garbage) for each in (0, 1, 4096, length - 1, length) for garbage in (False, True)]
print("ready", flush=True)
sys.stdin.readline()
"#;

#[test]
fn what_calls_itself_a_board_and_is_none_is_left_out() {
    if lacks(&["python3"]) {
        return;
    }
    let mut command = Command::new("python3");
    command.args(["-c", FAKES, "4198400"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let orders = child.stdin.take().unwrap();
    let mut fakes = Running::of(child);
    assert_eq!(fakes.line(), "ready");
    assert_eq!(boards(fakes.pid().into()).len(), 10);
    let all = status()["processes"].as_array().unwrap().clone();
    assert!(all.iter().all(|one| one["pid"] != fakes.pid()), "{all:?}");
    drop(orders);
    assert_eq!(fakes.code(), Some(0));
}

/// Puts a descriptor of its own where the board's stands, as programs do that choose their numbers, and is switched off all the same.
const IN_THE_WAY: &str = r#"
import os, socket
listening = socket.create_server(("127.0.0.1", 0))
near = socket.create_connection(listening.getsockname())
far, _ = listening.accept()
def exchange(count):
    for _ in range(count):
        near.sendall(b"x" * 1000)
        assert far.recv(1000, socket.MSG_WAITALL) == b"x" * 1000
def boards():
    found = {}
    for each in os.listdir("/proc/self/fd"):
        try:
            found[int(each)] = os.readlink("/proc/self/fd/" + each)
        except FileNotFoundError:
            pass
    return [number for number, name in found.items() if name.startswith("/memfd:midmile-friends-board")]
exchange(20)
[number] = boards()
os.dup2(near.fileno(), number)
assert len(boards()) == 1 and boards() != [number]
os.close(number)
os.closerange(number - 10, number + 10)
assert len(boards()) == 1
print("ready", os.getpid(), flush=True)
input()
exchange(20)
print("done", flush=True)
input()
"#;

#[test]
fn a_program_that_wants_the_boards_number_gets_it() {
    if lacks(&["python3"]) {
        return;
    }
    let friends = Friends::new("switch-number");
    let mut command = programs::client("python3");
    command.args(["-c", IN_THE_WAY]);
    let mut command = friends.with(&command);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut orders = child.stdin.take().unwrap();
    let mut program = Running::of(child);
    let said = program.line();
    let pid: u32 = said.strip_prefix("ready ").unwrap_or_else(|| panic!("{said}")).parse().unwrap();
    assert!(switch(&friends, "off").contains("1 process "));
    writeln!(orders).unwrap();
    assert_eq!(program.line(), "done", "{}", program.log());
    let rings = status();
    let ends: Vec<_> =
        rings["connections"].as_array().unwrap().iter().flat_map(|one| one["ends"].as_array().unwrap()).collect();
    let ours: Vec<_> = ends.iter().filter(|end| end["pid"] == pid).collect();
    assert!(!ours.is_empty() && ours.iter().any(|end| end["last"] == true && count(end, "ring_bytes") > 0), "{rings}");
    drop(orders);
    program.code();
    assert!(friends.figure("friends") > 0);
}

#[test]
fn killed_processes_leave_nothing_to_be_told() {
    if lacks(&["python3"]) {
        return;
    }
    let friends = Friends::new("switch-killed");
    let mut flow = Flow::start(&friends, &[]);
    let dialled = flow.dial();
    assert!(dialled.ends().is_some());
    let server = File::open(format!("/proc/{}/stat", dialled.server)).unwrap();
    for pid in [dialled.client, dialled.server] {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    flow.running.code();
    // Its parent is gone; whoever has it now reaps it.
    until("the server's end", || {
        let mut stat = [0; 1024];
        // From its start each time: at its end the file says nothing new.
        let read = server.read_at(&mut stat, 0);
        read.map_or(true, |length| text(&stat[..length]).contains(") Z ")).then_some(())
    });
    assert!(dialled.ends().is_none() && switch(&friends, "off").contains("0 processes"));
}
