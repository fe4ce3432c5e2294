//! A real browser without a window, driven by the WebDriver protocol.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, thread};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use twill::lab::{Netns, Process};

use crate::fabric::{PATIENCE, wait_for};

/// Says why, and gives up, where there is no browser.
macro_rules! need_browser {
    () => {
        $crate::fabric::need_namespaces!();
        if std::process::Command::new("chromedriver").arg("--version").output().is_err() {
            println!("SKIP: chromedriver is not installed");
            return;
        }
    };
}
pub(crate) use need_browser;

/// A browser in a network namespace, with one window. Its processes end with it.
#[derive(Debug)]
pub(crate) struct Browser {
    net: Netns,
    port: u16,
    session: String,
    driver: Process,
    /// Its profile; the path is on the command line of each of its processes, and of no others.
    profile: TempDir,
}

impl Browser {
    pub(crate) fn open(net: &Netns, width: u32, height: u32) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromedriver");
        // Whatever it needs a home for is thrown away with the profile.
        command.arg("--port=0").env("HOME", profile.path()).env("TMPDIR", profile.path());
        let driver =
            Process::spawn(net, "chromedriver", command, &profile.path().join("driver.log")).unwrap();
        let port = wait_for("the driver's port", || {
            let log = driver.log();
            let port = log
                .split("successfully on port ")
                .nth(1)
                .and_then(|rest| rest.split('.').next()?.parse().ok());
            port.ok_or(log)
        });
        let mut browser = Self { net: net.clone(), port, session: String::new(), driver, profile };
        let data = format!("--user-data-dir={}", browser.profile.path().join("data").display());
        let size = format!("--window-size={width},{height}");
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            &size,
            &data,
        ];
        let options = json!({ "alwaysMatch": {
            "goog:chromeOptions": { "args": args },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } });
        let session = browser.ask("POST", "/session", &json!({ "capabilities": options }));
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// Has the driver do something in the session.
    fn tell(&self, verb: &str, body: &Value) -> Value {
        self.ask("POST", &format!("/session/{}/{verb}", self.session), body)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = self.net.run(|| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(request.as_bytes())?;
            read(&mut stream)
        });
        let answer: Value = serde_json::from_slice(&answer.unwrap().unwrap()).unwrap();
        assert!(answer["value"]["error"].is_null(), "{method} {path}: {}", answer["value"]);
        answer["value"].clone()
    }

    pub(crate) fn go(&self, url: &str) {
        self.tell("url", &json!({ "url": url }));
    }

    /// What a script returns in the page.
    pub(crate) fn eval(&self, script: &str) -> Value {
        self.tell("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The text that a reader sees of what a selector finds first.
    pub(crate) fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({selector:?})?.innerText ?? ''");
        self.eval(&script).as_str().unwrap().to_owned()
    }

    /// Waits until a reader sees a text there.
    pub(crate) fn wait_text(&self, selector: &str, part: &str) {
        wait_for(part, || {
            let text = self.text(selector);
            text.contains(part).then_some(()).ok_or(text)
        });
    }

    /// Presses keys, in what has the focus.
    pub(crate) fn press(&self, keys: &str) {
        let strokes = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }))
        });
        let actions = json!([{ "type": "key", "id": "keys", "actions": strokes.collect::<Vec<_>>() }]);
        self.tell("actions", &json!({ "actions": actions }));
    }

    /// What only Chromium's own protocol can do.
    pub(crate) fn devtools(&self, command: &str, params: &Value) -> Value {
        self.tell("goog/cdp/execute", &json!({ "cmd": command, "params": params }))
    }

    pub(crate) fn prefers_dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": value }]);
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// Keeps a picture of the whole page as an artefact, and says where.
    pub(crate) fn screenshot(&self, name: &str) -> PathBuf {
        let taken = self.devtools("Page.captureScreenshot", &json!({ "captureBeyondViewport": true }));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
        fs::write(&path, STANDARD.decode(taken["data"].as_str().unwrap()).unwrap()).unwrap();
        println!("SCREENSHOT {}", path.display());
        path
    }

    /// What was logged since this was asked last: `browser` is the page's console.
    pub(crate) fn log(&self, of: &str) -> Vec<Value> {
        self.tell("se/log", &json!({ "type": of })).as_array().cloned().unwrap_or_default()
    }

    /// What the network did since this was asked last, each event of Chromium's protocol by itself.
    pub(crate) fn network(&self) -> Vec<Value> {
        let event = |entry: &Value| -> Value {
            serde_json::from_str::<Value>(entry["message"].as_str().unwrap()).unwrap()["message"].clone()
        };
        self.log("performance").iter().map(event).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.driver.signal(Signal::SIGKILL));
        // The driver's end does not end what it has started.
        let ours = self.profile.path().to_string_lossy().into_owned();
        while let Some(pid) = process_of(&ours) {
            kill(pid, Signal::SIGKILL).ok();
            thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// A process with this on its command line.
fn process_of(part: &str) -> Option<Pid> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&line).contains(part).then(|| Pid::from_raw(pid))
    })
}

/// The body of an answer; the connection need not end with it.
fn read(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 65_536]);
    loop {
        let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
            let length = text
                .split("content-length:")
                .nth(1)
                .and_then(|rest| rest.lines().next()?.trim().parse().ok());
            if length.is_some_and(|length: usize| bytes.len() >= head + length) {
                return Ok(bytes.split_off(head));
            }
        }
        match stream.read(&mut chunk)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            some => bytes.extend_from_slice(&chunk[..some]),
        }
    }
}
