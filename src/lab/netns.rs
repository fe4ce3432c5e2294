//! A network namespace as a value: code, sockets and processes can be put into it, and it ends with its last handle.
//!
//! # Why a thread per namespace
//!
//! A thread, not a process, is in a namespace. Each [`Netns`] keeps one thread that made the namespace and never
//! leaves it. Netlink requests run there on a small runtime, and processes are started from it: they inherit the
//! namespace, and because a parent-death signal follows the *thread* that forked, they cannot outlive it.

use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::LabError;

/// Where `ip netns` looks for named namespaces.
pub(crate) const NAMED: &str = "/run/netns";
/// The calling thread's network namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// One network namespace. Clones are handles to the same one; it ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Netns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    file: File,
    /// Set when the namespace is visible to `ip netns`.
    mounted: Option<PathBuf>,
    /// `None` only while dropping: closing the channel ends the thread.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What the namespace's own thread has at hand.
struct Worker {
    runtime: tokio::runtime::Runtime,
    netlink: rtnetlink::Handle,
}

type Job = Box<dyn FnOnce(&Worker) + Send>;

impl Netns {
    /// Makes an empty namespace with `lo` up. With `visible`, `ip netns exec NAME` finds it.
    pub fn new(name: &str, visible: bool) -> Result<Self, LabError> {
        let (jobs, queue) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&tell, &queue))
            .map_err(LabError::io(|| format!("start the thread of namespace {name}")))?;
        let file =
            told.recv().map_err(|_gone| LabError::Ended(name.to_owned()))?.map_err(LabError::Namespace)?;
        let mut inner =
            Inner { name: name.to_owned(), file, mounted: None, jobs: Some(jobs), thread: Some(thread) };
        if visible {
            let path = Path::new(NAMED).join(name);
            inner.call(|_worker| bind(&path).map(|()| path))?.map(|path| inner.mounted = Some(path))?;
        }
        let netns = Self(Arc::new(inner));
        netns.link_up("lo")?;
        Ok(netns)
    }

    /// The name it was made with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The descriptor that holds the namespace, for moving devices into it.
    pub(super) fn file(&self) -> &File {
        &self.0.file
    }

    /// Runs `work` in the namespace, on a thread of its own, and waits for it. A panic in `work` goes on here.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let joined = thread::scope(|scope| scope.spawn(|| self.enter().map(|()| work())).join());
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts `work` in the namespace, on a thread of its own, and does not wait. The thread does not keep the
    /// namespace's handle, but the kernel keeps the namespace as long as a thread is in it.
    pub fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T, LabError>>, LabError> {
        let netns = self.clone();
        thread::Builder::new()
            .name(self.0.name.clone())
            .spawn(move || {
                netns.enter()?;
                drop(netns);
                Ok(work())
            })
            .map_err(LabError::io(|| format!("start a thread in namespace {}", self.0.name)))
    }

    /// Runs a command to its end in the namespace and returns what it wrote to stdout.
    ///
    /// # Errors
    /// A program that is missing, or that ends with another status than 0: the message has its stderr.
    pub fn exec(&self, argv: &[&str]) -> Result<String, LabError> {
        let Some((program, args)) = argv.split_first() else { return Ok(String::new()) };
        let mut command = Command::new(program);
        command.args(args);
        self.output(command)
    }

    /// [`Netns::exec`] for a command that needs more than arguments.
    pub fn output(&self, mut command: Command) -> Result<String, LabError> {
        let what = shown(&command);
        let output = self.run(|| command.output())?.map_err(LabError::io(|| format!("run {what}")))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        Err(LabError::Exited {
            what,
            status: output.status.to_string(),
            output: format!(" {}", text(&output.stderr)),
        })
    }

    /// Runs `work` on the namespace's own thread: what is forked there dies when the namespace does.
    pub(super) fn on_own_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LabError> {
        self.0.call(move |_worker| work())
    }

    /// Runs a netlink exchange in the namespace.
    pub(super) fn netlink<T, F>(
        &self,
        work: impl FnOnce(rtnetlink::Handle) -> F + Send + 'static,
    ) -> Result<T, LabError>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        self.0.call(move |worker| worker.runtime.block_on(work(worker.netlink.clone())))
    }

    /// Moves the calling thread into the namespace; only for threads that end soon after.
    fn enter(&self) -> Result<(), LabError> {
        setns(&self.0.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| LabError::io(|| format!("enter namespace {}", self.0.name))(errno.into()))
    }
}

impl Inner {
    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Worker) -> T + Send + 'static,
    ) -> Result<T, LabError> {
        let ended = || LabError::Ended(self.name.clone());
        let (tell, told) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |worker| drop(tell.send(work(worker))));
        self.jobs.as_ref().ok_or_else(ended)?.send(job).map_err(|_closed| ended())?;
        told.recv().map_err(|_gone| ended())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(path) = &self.mounted {
            unbind(path);
        }
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::debug!(namespace = self.name, "the namespace's thread had panicked");
        }
    }
}

/// The life of a namespace's own thread: make it, say so, do what is asked until nobody can ask.
fn work(tell: &Sender<io::Result<File>>, queue: &Receiver<Job>) {
    let made = make();
    let answer = made.as_ref().map_err(clone_error).map(|_worker| ());
    if tell.send(answer.and_then(|()| File::open(OWN))).is_err() {
        return;
    }
    if let Ok(worker) = made {
        for job in queue {
            job(&worker);
        }
    }
}

fn make() -> io::Result<Worker> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let netlink = {
        let _guard = runtime.enter();
        let (connection, handle, _messages) = rtnetlink::new_connection()?;
        runtime.spawn(connection);
        handle
    };
    Ok(Worker { runtime, netlink })
}

/// A command line as a person would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args()).map(|word| word.to_string_lossy());
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+%@".contains(c);
    let quoted =
        words.map(|word| if word.chars().all(plain) { word.into_owned() } else { format!("'{word}'") });
    quoted.collect::<Vec<_>>().join(" ")
}

fn clone_error(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

/// Makes the calling thread's namespace visible at `path`, as `ip netns add` does.
fn bind(path: &Path) -> Result<(), LabError> {
    let attempt = |verb: &str| format!("{verb} {}", path.display());
    fs::create_dir_all(NAMED).map_err(LabError::io(|| attempt("create the folder of")))?;
    File::create_new(path).map_err(LabError::io(|| attempt("create")))?;
    mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|errno| {
        drop(fs::remove_file(path));
        LabError::io(|| attempt("mount the namespace at"))(errno.into())
    })
}

/// Takes a name away again; the namespace itself lives on while something holds it.
pub(crate) fn unbind(path: &Path) {
    if let Err(errno) = umount2(path, MntFlags::MNT_DETACH) {
        tracing::debug!(path = %path.display(), %errno, "could not unmount a namespace's name");
    }
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(path = %path.display(), %error, "could not remove a namespace's name");
    }
    // Only an empty folder goes: others may have names in it, or iproute2 may have mounted it.
    drop(fs::remove_dir(NAMED));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_typed() {
        let mut command = Command::new("/usr/bin/twill");
        command.args(["config", "set", "{\"Network\":\"10.1.0.0/16\"}"]);
        assert_eq!(shown(&command), "twill config set '{\"Network\":\"10.1.0.0/16\"}'");
    }
}
