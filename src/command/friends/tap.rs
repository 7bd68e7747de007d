//! `midmile friends tap`: what friends say to each other, as lines or as a capture.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
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
mod output;
mod packets;
mod pipe;

use lines::Lines;
use output::Output;
use packets::Packets;
use pipe::Pipe;

/// How often the program in the kernel is told that somebody still watches.
const RENEW: Duration = Duration::from_secs(1);
/// How long a reader is waited for that doesn't read, once it's to end.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it waits for the program before it looks whether it's to end.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

pub(crate) fn run(args: &FriendsTapArgs) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Run(format!("can't wait for signals: {error}")))?;
    // Before it is ready: who was told so may end it at once.
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    // The file comes last: what's in it stays where nothing can be tapped.
    let told = |place: &str| -> Result<Told, Failure> {
        let into = Output::open(args.write.as_deref())?;
        Ok(Told { form: form(args.write.is_some(), place), text: Vec::new(), into })
    };
    if args.rings {
        let directory = directory::find(args.runtime_dir.as_deref())?;
        let place = directory.display().to_string();
        let pipe = Pipe::begin(&directory, &args.ports)?;
        return tell(&runtime, &mut signals, pipe, told(&place)?, &format!("directory={place}"));
    }
    let attachment = choose(args.cgroup.as_deref())?;
    let cgroup = attachment.path().display().to_string();
    let tap = attachment.tap(&args.ports).map_err(|error| super::failure(&error))?;
    tell(&runtime, &mut signals, Attached { attachment, tap }, told(&cgroup)?, &format!("cgroup={cgroup}"))
}

/// Tells what a source has, until a signal, its end, or the reader's.
fn tell(runtime: &Runtime, signals: &mut Signals, mut source: impl Source, mut told: Told, what: &str) -> Outcome {
    let is_ended = AtomicBool::new(false);
    if !told.flush(&mut Course::new(&mut source, &is_ended))? {
        return Ok(Exit::Done);
    }
    eprintln!("tapping {what}");
    let (tell, over) = oneshot::channel::<()>();
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut course = Course::new(&mut source, &is_ended);
            let watched = watch(&mut course, &mut told);
            drop(tell);
            if watched? { finish(&mut course, &mut told) } else { Ok(()) }
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

/// The forms in which it's told.
enum Form {
    Lines(Lines),
    Packets(Packets),
}

fn form(are_packets: bool, cgroup: &str) -> Form {
    if are_packets { Form::Packets(Packets::new(cgroup)) } else { Form::Lines(Lines::default()) }
}

/// How a source goes on while it's told.
struct Course<'a, S> {
    source: &'a mut S,
    renewed: Instant,
    is_ended: &'a AtomicBool,
    /// When it was first seen that it's to end.
    since: Option<Instant>,
}

impl<'a, S: Source> Course<'a, S> {
    fn new(source: &'a mut S, is_ended: &'a AtomicBool) -> Self {
        Self { source, renewed: Instant::now(), is_ended, since: None }
    }

    /// Has the source go on, if that is due; false: nothing more can come.
    fn renew(&mut self) -> Result<bool, Failure> {
        if self.renewed.elapsed() < RENEW || self.is_ended.load(Relaxed) {
            return Ok(true);
        }
        self.renewed = Instant::now();
        self.source.renew().map_err(failed)
    }

    /// Whether it was to end so long ago that a reader who doesn't read isn't waited for any more.
    fn is_late(&mut self) -> bool {
        self.is_ended.load(Relaxed) && self.since.get_or_insert_with(Instant::now).elapsed() > PATIENCE
    }

    fn lost(&self) -> Result<u64, Failure> {
        self.source.lost().map_err(|error| Failure::Run(format!("can't count what was lost: {error}")))
    }
}

fn failed(error: io::Error) -> Failure {
    Failure::Run(format!("can't go on with the tap: {error}"))
}

/// What is told, and how far it has got.
struct Told {
    form: Form,
    /// What waits to be written.
    text: Vec<u8>,
    into: Output,
}

impl Told {
    /// Takes what the tap has, at most as much as one drain is, and writes it; `None` if the reader has gone, else whether more may
    /// wait.
    fn take(&mut self, course: &mut Course<'_, impl Source>) -> Result<Option<bool>, Failure> {
        let Self { form, text, .. } = self;
        let taken = course.source.drain(|tapped| match form {
            Form::Lines(lines) => lines.tell(&tapped, text),
            Form::Packets(packets) => packets.tell(&tapped, text),
        });
        let taken = taken.map_err(|error| Failure::Run(format!("can't read what friends say: {error}")))?;
        let lost = course.lost()?;
        if let Form::Lines(lines) = form {
            lines.tell_lost(lost, text);
        }
        Ok(self.flush(course)?.then_some(taken > 0))
    }

    /// Writes what waits; false if its reader has gone away. One that doesn't read is waited for: friends go on telling meanwhile, and what finds no room
    /// is counted.
    fn flush(&mut self, course: &mut Course<'_, impl Source>) -> Result<bool, Failure> {
        if let Form::Packets(packets) = &mut self.form {
            packets.begin(&mut self.text);
        }
        let mut left = &self.text[..];
        while !left.is_empty() {
            match self.into.write(left) {
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if course.is_late() {
                        return Err(Failure::Run("who is to read what friends say doesn't: ended without".to_owned()));
                    }
                    course.renew()?;
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                Err(error) => return Err(Failure::Run(format!("can't write what friends say: {error}"))),
            }
        }
        self.text.clear();
        Ok(true)
    }
}

/// Tells until it is ended, nothing more can come, or the reader has gone; whether that is still there.
fn watch(course: &mut Course<'_, impl Source>, told: &mut Told) -> Result<bool, Failure> {
    while !course.is_ended.load(Relaxed) && course.renew()? {
        match told.take(course)? {
            None => return Ok(false),
            Some(true) => {}
            Some(false) => match poll(&mut [PollFd::new(course.source, PollFlags::IN)], Some(&PAUSE)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            },
        }
    }
    Ok(true)
}

/// Stops, tells what is still there, and says how much it was.
fn finish(course: &mut Course<'_, impl Source>, told: &mut Told) -> Result<(), Failure> {
    course.source.stop().map_err(|error| Failure::Run(format!("can't end the tap: {error}")))?;
    while told.take(course)? == Some(true) {}
    let lost = course.lost()?;
    let summary = match &mut told.form {
        Form::Lines(lines) => lines.finish(lost),
        Form::Packets(packets) => packets.finish(since_1970(), lost, &mut told.text),
    };
    if told.flush(course)? {
        eprintln!("{summary}");
    }
    Ok(())
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
