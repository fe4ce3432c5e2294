//! How parts are had: from commands, files and folders, each in its time and size.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::Part;
use crate::style::Table;

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest part in bytes: the routes of 100,000 hosts are shorter.
const LONGEST: usize = 32 << 20;

/// What a command prints, as a file of this name.
pub async fn command(name: &str, words: &[&str]) -> Part {
    Part::new(name, words.join(" "), printed(words).await)
}

/// What a command prints.
///
/// # Errors
/// It is not installed, takes too long, or fails: says what it said.
pub async fn printed(words: &[&str]) -> Result<Vec<u8>, String> {
    let [program, args @ ..] = words else { return Err("no command".to_owned()) };
    let mut command = Command::new(program);
    command.args(args).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Err(_) => return Err(format!("no end within {} s", PATIENCE.as_secs())),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("`{program}` is not installed"));
        }
        Ok(Err(error)) => return Err(error.to_string()),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(cut(output.stdout));
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{}: {said}", output.status))
}

/// A file as it is.
#[must_use]
pub fn file(name: &str, path: &Path) -> Part {
    Part::new(name, path.display().to_string(), fs::read(path).map(cut))
}

/// The last so many bytes of a file, from the beginning of a line: half of a secret would not be known for one.
///
/// # Errors
/// As the file system answers.
pub fn tail(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(most);
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    if from > 0 {
        let line = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1);
        text.drain(..line);
    }
    Ok(text)
}

/// The files of folders: mode, owner, size, age in seconds, path.
#[must_use]
pub fn listing(folders: &[&Path]) -> String {
    let mut table = Table::default();
    table.row(["mode", "owner", "bytes", "age s", "path"].map(Into::into));
    for folder in folders {
        let mut paths: Vec<_> = match fs::read_dir(folder) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(error) => {
                table.row(["-", "-", "-", "-", &format!("{}: {error}", folder.display())].map(Into::into));
                continue;
            }
        };
        paths.sort();
        paths.insert(0, folder.to_path_buf());
        paths.iter().for_each(|path| table.row(row(path).map(Into::into)));
    }
    table.to_string()
}

fn row(path: &Path) -> [String; 5] {
    let Ok(file) = fs::symlink_metadata(path) else {
        return ["-", "-", "-", "-", &path.display().to_string()].map(str::to_owned);
    };
    let age = file.modified().ok().and_then(|at| at.elapsed().ok());
    [
        format!("{:o}", file.mode()),
        format!("{}:{}", file.uid(), file.gid()),
        file.len().to_string(),
        age.map_or_else(|| "-".to_owned(), |age| age.as_secs().to_string()),
        path.display().to_string(),
    ]
}

/// The rules of what `iptables-save` printed that are flanneld's, or ours in their place, and the chains they are in.
/// The rest is the host's own business.
#[must_use]
pub fn ours(saved: &[u8]) -> String {
    let text = String::from_utf8_lossy(saved);
    let is_ours = |line: &str| line.starts_with(['*', ':']) || line.to_ascii_lowercase().contains("flannel");
    text.lines().filter(|line| is_ours(line)).fold(String::new(), |text, line| text + line + "\n")
}

/// No more than fits, in whole lines, saying so.
fn cut(mut text: Vec<u8>) -> Vec<u8> {
    if text.len() > LONGEST {
        text.truncate(LONGEST);
        let line = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        text.truncate(line);
        text.extend_from_slice(b"... cut here: it is longer than a part may be\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_command_says_is_there_and_why_it_says_nothing() {
        let said = command("a", &["sh", "-c", "echo one; echo two >&2"]).await;
        assert_eq!(
            (said.content, said.source.as_str()),
            (Ok(b"one\n".to_vec()), "sh -c echo one; echo two >&2")
        );
        let failed = printed(&["sh", "-c", "echo why >&2; exit 3"]).await.unwrap_err();
        assert_eq!(failed, "exit status: 3: why");
        assert_eq!(
            printed(&["twill-no-such-program"]).await.unwrap_err(),
            "`twill-no-such-program` is not installed"
        );
    }

    #[test]
    fn a_tail_begins_with_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&path, 100).unwrap(), b"one\ntwo\nthree\n");
        assert_eq!(tail(&path, 8).unwrap(), b"three\n");
        assert_eq!(tail(&path, 3).unwrap(), b"");
        let part = file("x", &dir.path().join("none"));
        assert!(part.content.unwrap_err().contains("No such file"));
    }

    #[test]
    fn what_is_too_long_is_cut_after_a_line() {
        let long = cut(b"0123456789abcde\n".repeat(LONGEST / 16 + 1));
        assert!(long.ends_with(b"cde\n... cut here: it is longer than a part may be\n"));
        assert_eq!(cut(b"short".to_vec()), b"short");
    }

    #[test]
    fn folders_are_listed_and_one_that_is_not_there_says_so() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("node.json"), "{}").unwrap();
        let text = listing(&[dir.path(), Path::new("/nonexistent")]);
        assert!(
            text.contains("100644") && text.contains("node.json") && text.contains("/nonexistent: No such"),
            "{text}"
        );
    }

    #[test]
    fn rules_of_others_are_not_taken() {
        let saved = b"# by\n*filter\n:FORWARD DROP [0:0]\n:FLANNEL-FWD - [0:0]\n-A INPUT -s 203.0.113.1 -j DROP\n-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD\nCOMMIT\n";
        let want = "*filter\n:FORWARD DROP [0:0]\n:FLANNEL-FWD - [0:0]\n-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD\n";
        assert_eq!(ours(saved), want);
    }
}
