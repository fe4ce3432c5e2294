//! `twill watch` on a terminal and in a pipe, while a fabric is broken under it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use crate::dump;
use crate::fabric::{Fabric, Families, command, files, need_namespaces, wait_for};

const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const ROWS: u16 = 24;
const COLUMNS: u16 = 80;

/// A `twill watch` on a terminal of 80 times 24 characters, and what is on that.
struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<vt100::Parser>>,
    /// Keeps the terminal after the program has ended.
    end: OwnedFd,
}

impl Terminal {
    fn open(fabric: &Fabric) -> Self {
        let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        let side = || Stdio::from(slave.try_clone().unwrap());
        let mut run = command(&fabric.agents[0], &files(&fabric.lab), &["watch"]);
        run.stdin(side()).stdout(side()).stderr(side());
        let child = fabric.lab.hosts[0].net.run(|| run.spawn()).unwrap().unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let (keys, mut shown) = (File::from(master.try_clone().unwrap()), File::from(master));
        let drawn = Arc::clone(&screen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = shown.read(&mut bytes) {
                drawn.lock().unwrap().process(&bytes[..read]);
            }
        });
        Self { child, keys, screen, end: slave }
    }

    fn contents(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    fn wait_shows(&self, part: &str) {
        wait_for(part, || {
            let contents = self.contents();
            contents.contains(part).then_some(()).ok_or(contents)
        });
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// It ends well, and leaves the terminal as it was.
    fn assert_left(&mut self) {
        let status = wait_for("the end", || self.child.try_wait().unwrap().ok_or(()));
        assert!(status.success(), "{status:?}");
        let flags = tcgetattr(self.end.as_fd()).unwrap().local_flags;
        assert!(flags.contains(LocalFlags::ICANON | LocalFlags::ECHO), "{flags:?}");
        wait_for("the screen from before", || {
            let screen = self.screen.lock().unwrap();
            let screen = screen.screen();
            let left = !screen.alternate_screen() && !screen.hide_cursor();
            left.then_some(()).ok_or_else(|| screen.contents())
        });
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn key(fabric: &Fabric, index: usize) -> String {
    fabric.status(index)["lease"]["key"].as_str().unwrap().to_owned()
}

/// Deletes the route to the second host, which the agent repairs.
fn break_a_route(fabric: &Fabric) {
    let peer = fabric.subnet(1, false);
    dump::run(&fabric.lab.hosts[0].net, &format!("ip route del {peer}"));
}

#[test]
fn a_terminal_shows_what_happens_and_is_given_back() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, VXLAN, &[]);
    let keys = [key(&fabric, 1), key(&fabric, 2)];
    let mut terminal = Terminal::open(&fabric);
    for part in ["twill ok", &keys[0], &keys[1], "2 peers", "sort: worst", "state ok, 2 peers"] {
        terminal.wait_shows(part);
    }
    break_a_route(&fabric);
    terminal.wait_shows("repaired 1");
    terminal.press("s");
    terminal.wait_shows("sort: key");
    // A host is cut off for good: it is gone, and so is its lease.
    fabric.agents[2].kill(Signal::SIGKILL).unwrap();
    fabric.agents[0].twill(&["lease", "release"], &[&keys[1]]).unwrap();
    terminal.wait_shows(&format!("peer {} went", keys[1]));
    terminal.wait_shows("1 peers");
    fabric.agents[0].signal(Signal::SIGKILL).unwrap();
    terminal.wait_shows("the agent does not answer");
    terminal.press("\x1b[B\x1b[A");
    terminal.press("q");
    terminal.assert_left();
}

#[test]
fn a_signal_gives_the_terminal_back_too() {
    need_namespaces!();
    let fabric = Fabric::new(Families::V4, VXLAN, &[]);
    let mut terminal = Terminal::open(&fabric);
    terminal.wait_shows("twill ok");
    kill(Pid::from_raw(terminal.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    terminal.assert_left();
}

#[test]
fn in_a_pipe_each_event_is_a_line() {
    need_namespaces!();
    let fabric = Fabric::new(Families::V4, VXLAN, &[]);
    let mut run = command(&fabric.agents[0], &files(&fabric.lab), &["watch"]);
    run.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = fabric.lab.hosts[0].net.run(|| run.spawn()).unwrap().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    assert!(first.contains("  state ok, 2 peers: "), "{first}");
    break_a_route(&fabric);
    // What is measured of the peers meanwhile is told as well.
    let repaired = lines.find(|line| line.contains("  repaired 1, ")).unwrap();
    assert!(!(first + &repaired).contains('\x1b'), "{repaired}");
    drop(lines);
    // Nobody reads on, which the next event finds out.
    let left = wait_for("the end", || {
        break_a_route_again(&fabric);
        child.try_wait().unwrap().ok_or(())
    });
    assert!(left.success(), "{left:?}");
}

/// The same once it is there again; until then there is nothing to delete.
fn break_a_route_again(fabric: &Fabric) {
    let peer = fabric.subnet(1, false);
    dump::sh(&fabric.lab.hosts[0].net, &format!("ip route del {peer} 2>/dev/null || true; sleep 0.2"));
}
