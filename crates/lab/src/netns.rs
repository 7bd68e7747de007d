//! Hosts: anonymous network namespaces, each held by a thread and a descriptor and by nothing else.
//!
//! No name is mounted anywhere. When the process ends, however it ends, the descriptors close and the kernel takes the
//! namespaces down with all that is in them (network_namespaces(7), Linux 3.0).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sys;

/// The calling thread's network namespace.
const THIS_NETWORK: &str = "/proc/thread-self/ns/net";
/// What a host's thread may be asked to do.
type Task = Box<dyn FnOnce() + Send>;

/// A host: a network namespace with a thread in it.
///
/// The thread lives as long as the host. Children are started from it, so that they end with it: see [`Host::spawn`].
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: File,
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// Makes a host with nothing but a loopback, which is down.
    ///
    /// # Errors
    /// No permission to make network namespaces, or a kernel without them.
    pub fn new(name: &str) -> Result<Self> {
        let (tasks, orders) = channel::<Task>();
        let (opened, answer) = channel();
        let thread = thread::Builder::new()
            .name(format!("host {name}"))
            .spawn(move || match sys::unshare_network().and_then(|()| File::open(THIS_NETWORK)) {
                Ok(namespace) => {
                    if opened.send(Ok(namespace)).is_ok() {
                        serve(&orders);
                    }
                }
                Err(error) => drop(opened.send(Err(error))),
            })
            .context("can't start a thread")?;
        let namespace = answer.recv().expect("the thread answers before it ends").with_context(|| {
            format!("can't make a network namespace for host {name}; run as root, or allow user namespaces")
        })?;
        Ok(Self { name: name.to_owned(), namespace, tasks: Some(tasks), thread: Some(thread) })
    }

    /// What the scenario calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace itself, to be entered by threads of the caller's.
    #[must_use]
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Runs a closure on the host's own thread, and waits for it.
    ///
    /// # Errors
    /// An earlier closure panicked and took the thread with it, or this one did.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (done, answer) = channel();
        let task: Task = Box::new(move || {
            // The caller waits below; it can't be gone.
            drop(done.send(work()));
        });
        let sent = self.tasks.as_ref().is_some_and(|tasks| tasks.send(task).is_ok());
        match answer.recv() {
            Ok(value) if sent => Ok(value),
            _ => bail!("the thread of host {} is gone", self.name),
        }
    }

    /// Runs a closure on a new thread inside the host.
    ///
    /// # Errors
    /// No thread could be made.
    pub fn start<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<Result<T>>> {
        let namespace = self.namespace.try_clone().context("can't copy a descriptor")?;
        let inside = move || {
            enter(namespace.as_fd())?;
            Ok(work())
        };
        thread::Builder::new().name(self.name.clone()).spawn(inside).context("can't start a thread")
    }

    /// Starts a program inside the host. The kernel kills it when the host's thread ends, and with the lab at the latest.
    ///
    /// # Errors
    /// The program isn't there or can't be started.
    pub fn spawn(&self, mut command: Command) -> Result<Child> {
        sys::die_with_this_thread(&mut command);
        let program = command.get_program().to_string_lossy().into_owned();
        let spawned = self.run(move || command.spawn())?;
        spawned.with_context(|| format!("can't start {program} in host {}", self.name))
    }

    /// Sets one of the host's kernel settings: `path` is below `/proc/sys`.
    ///
    /// # Errors
    /// The kernel lacks the setting or refuses the value.
    pub fn set_sysctl(&self, path: &str, value: &str) -> Result<()> {
        let file = format!("/proc/sys/{path}");
        let (target, text) = (file.clone(), value.to_owned());
        self.run(move || fs::write(target, text))?
            .with_context(|| format!("can't write \"{value}\" to {file} in {}", self.name))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.tasks.take());
        if let Some(thread) = self.thread.take() {
            // A panic of a task was told where it was waited for.
            drop(thread.join());
        }
    }
}

/// Moves the calling thread into a network namespace.
///
/// # Errors
/// No permission.
pub fn enter(namespace: BorrowedFd<'_>) -> Result<()> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network)).context("can't enter a network namespace")
}

/// Gives a process without privileges the right to make network namespaces: it becomes root of a user namespace of its own.
/// Answers whether that was needed. Call it before any other thread is started (user_namespaces(7), Linux 3.8).
///
/// # Errors
/// User namespaces are forbidden on this host.
pub fn acquire_privileges() -> Result<bool> {
    if rustix::process::geteuid().is_root() {
        return Ok(false);
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mend = "run midmile lab as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone, \
                kernel.apparmor_restrict_unprivileged_userns)";
    sys::unshare_user().with_context(|| format!("can't make a user namespace; {mend}"))?;
    let written = map("setgroups", "deny")
        .and_then(|()| map("uid_map", &format!("0 {user} 1")))
        .and_then(|()| map("gid_map", &format!("0 {group} 1")));
    written.with_context(|| format!("can't become root of a user namespace; {mend}"))?;
    Ok(true)
}

fn map(file: &str, text: &str) -> io::Result<()> {
    fs::write(format!("/proc/self/{file}"), text)
}

fn serve(orders: &Receiver<Task>) {
    while let Ok(task) = orders.recv() {
        task();
    }
}
