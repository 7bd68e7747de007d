//! `midmile friends tap`: what friends say to each other, as lines or as a capture.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use midmile_kernel::{Attachment, Holder, Tap, Tapped};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::cli::FriendsTapArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::friends::directory;
use crate::signals::Signals;

mod lines;
mod packets;
mod pipe;

use lines::Lines;
use packets::Packets;
use pipe::Pipe;

/// How often the program in the kernel is told that somebody still watches.
const RENEW: Duration = Duration::from_secs(1);
/// How long it waits for the program before it looks whether it's to end.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

pub(crate) fn run(args: &FriendsTapArgs) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Run(format!("can't wait for signals: {error}")))?;
    // Before it is ready: who was told so may end it at once.
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    let into = open(args.write.as_deref())?;
    if args.rings {
        let directory = directory::find(args.runtime_dir.as_deref())?;
        let place = directory.display().to_string();
        let told = Told { form: form(args.write.is_some(), &place), text: Vec::new(), into };
        let pipe = Pipe::begin(&directory, &args.ports)?;
        return tell(&runtime, &mut signals, pipe, told, &format!("directory={place}"));
    }
    let attachment = choose(args.cgroup.as_deref())?;
    let cgroup = attachment.path().display().to_string();
    let told = Told { form: form(args.write.is_some(), &cgroup), text: Vec::new(), into };
    let tap = attachment.tap(&args.ports).map_err(|error| super::failure(&error))?;
    tell(&runtime, &mut signals, Attached { attachment, tap }, told, &format!("cgroup={cgroup}"))
}

/// Tells what a source has, until a signal, its end, or the reader's.
fn tell(runtime: &Runtime, signals: &mut Signals, mut source: impl Source, mut told: Told, what: &str) -> Outcome {
    if !told.flush()? {
        return Ok(Exit::Done);
    }
    eprintln!("tapping {what}");
    let is_ended = AtomicBool::new(false);
    let (tell, over) = oneshot::channel::<()>();
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let watched = watch(&mut source, &mut told, &is_ended);
            drop(tell);
            if watched? { finish(&mut source, &mut told) } else { Ok(()) }
        });
        runtime.block_on(async {
            tokio::select! {
                () = signals.end.recv() => {}
                _ = over => {}
            }
        });
        is_ended.store(true, Relaxed);
        watching.join().expect("watching doesn't panic")
    })?;
    Ok(Exit::Done)
}

/// Where it's told from.
trait Source: AsFd + Send {
    /// Takes what was told, a bounded number of records; how many.
    fn drain(&mut self, tell: impl FnMut(Tapped<'_>)) -> io::Result<usize>;
    /// Records that found no room.
    fn lost(&self) -> io::Result<u64>;
    /// Has it go on for some seconds; false: nothing more can come.
    fn renew(&mut self) -> io::Result<bool>;
    /// Has it stop; what was told can still be taken.
    fn stop(&mut self) -> io::Result<()>;
}

/// The programs in the kernel.
struct Attached {
    attachment: Attachment,
    tap: Tap,
}

impl AsFd for Attached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }
}

impl Source for Attached {
    fn drain(&mut self, tell: impl FnMut(Tapped<'_>)) -> io::Result<usize> {
        Ok(self.tap.drain(tell))
    }

    fn lost(&self) -> io::Result<u64> {
        self.tap.lost()
    }

    fn renew(&mut self) -> io::Result<bool> {
        self.tap.renew()?;
        Ok(!matches!(self.attachment.holder(), Holder::Gone(_)) || self.attachment.ends() > 0)
    }

    fn stop(&mut self) -> io::Result<()> {
        self.tap.stop()
    }
}

/// The attachment that is meant.
fn choose(cgroup: Option<&Path>) -> Result<Attachment, Failure> {
    let mut found = Vec::new();
    for attachment in Attachment::all().map_err(|error| super::failure(&error))? {
        let is_meant = cgroup.map_or(Ok(true), |path| attachment.is_of(path));
        if is_meant.map_err(|error| super::failure(&error))? {
            found.push(attachment);
        }
    }
    // One that somebody holds before what is left over.
    found.sort_by_key(|attachment| matches!(attachment.holder(), Holder::Gone(_)));
    let is_one = cgroup.is_some() || found.len() < 2;
    let paths: Vec<_> = found.iter().map(|attachment| attachment.path().display().to_string()).collect();
    match found.into_iter().next() {
        Some(attachment) if is_one => Ok(attachment),
        Some(_) => Err(Failure::usage(format!("say which by --cgroup: friends are attached to {}", paths.join(", ")))),
        None => Err(Failure::Run("no friends are attached there; midmile friends status lists what is".to_owned())),
    }
}

/// Where it goes to. What others said is nobody else's to read.
fn open(path: Option<&Path>) -> Result<Box<dyn Write + Send>, Failure> {
    match path {
        Some(path) if path != Path::new("-") => {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
            let file = file.map_err(|error| Failure::Run(format!("can't write {}: {error}", path.display())))?;
            Ok(Box::new(file))
        }
        _ => Ok(Box::new(io::stdout())),
    }
}

/// The forms in which it's told.
enum Form {
    Lines(Lines),
    Packets(Packets),
}

fn form(are_packets: bool, cgroup: &str) -> Form {
    if are_packets { Form::Packets(Packets::new(cgroup)) } else { Form::Lines(Lines::default()) }
}

/// What is told, and how far it has got.
struct Told {
    form: Form,
    /// What waits to be written.
    text: Vec<u8>,
    into: Box<dyn Write + Send>,
}

impl Told {
    /// Takes what the tap has, at most as much as one drain is, and writes it; `None` if the reader has gone, else whether more may
    /// wait.
    fn take(&mut self, source: &mut impl Source) -> Result<Option<bool>, Failure> {
        let Self { form, text, .. } = self;
        let taken = source.drain(|tapped| match form {
            Form::Lines(lines) => lines.tell(&tapped, text),
            Form::Packets(packets) => packets.tell(&tapped, text),
        });
        let taken = taken.map_err(|error| Failure::Run(format!("can't read what friends say: {error}")))?;
        let lost = source.lost().map_err(|error| Failure::Run(format!("can't count what was lost: {error}")))?;
        if let Form::Lines(lines) = form {
            lines.tell_lost(lost, text);
        }
        Ok(self.flush()?.then_some(taken > 0))
    }

    /// Writes what waits; false if its reader has gone away.
    fn flush(&mut self) -> Result<bool, Failure> {
        if let Form::Packets(packets) = &mut self.form {
            packets.begin(&mut self.text);
        }
        let written = self.into.write_all(&self.text).and_then(|()| self.into.flush());
        self.text.clear();
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::Run(format!("can't write what friends say: {error}"))),
        }
    }
}

/// Tells until it is ended, nothing more can come, or the reader has gone; whether that is still there.
fn watch(source: &mut impl Source, told: &mut Told, is_ended: &AtomicBool) -> Result<bool, Failure> {
    let failed = |error: io::Error| Failure::Run(format!("can't go on with the tap: {error}"));
    let mut renewed = Instant::now();
    while !is_ended.load(Relaxed) {
        if renewed.elapsed() >= RENEW {
            renewed = Instant::now();
            if !source.renew().map_err(failed)? {
                break;
            }
        }
        match told.take(source)? {
            None => return Ok(false),
            Some(true) => {}
            Some(false) => match poll(&mut [PollFd::new(source, PollFlags::IN)], Some(&PAUSE)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            },
        }
    }
    Ok(true)
}

/// Stops, tells what is still there, and says how much it was.
fn finish(source: &mut impl Source, told: &mut Told) -> Result<(), Failure> {
    source.stop().map_err(|error| Failure::Run(format!("can't end the tap: {error}")))?;
    while told.take(source)? == Some(true) {}
    let lost = source.lost().map_err(|error| Failure::Run(format!("can't count what was lost: {error}")))?;
    let summary = match &mut told.form {
        Form::Lines(lines) => lines.finish(lost),
        Form::Packets(packets) => packets.finish(since_1970(), lost, &mut told.text),
    };
    if told.flush()? {
        eprintln!("{summary}");
    }
    Ok(())
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
