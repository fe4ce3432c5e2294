//! Following the directory: inotify says when to read it again, and so does the clock.
//!
//! # Why
//! inotify reports nothing that another machine does on a shared disk, drops what exceeds its queue, and the system
//! may refuse it. So it only makes things faster: every second the directory is read again anyway.

use std::pin::Pin;
use std::time::Duration;

use async_stream::stream;
use futures::{Stream, StreamExt};
use inotify::{EventMask, EventStream, Inotify, WatchMask};
use tokio::time::timeout;

use super::FileTable;
use super::dir::Dir;
use super::scan::Scan;
use crate::store::StoreError;
use crate::store::table::{Change, Table};

/// How long the directory stays unread at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// See [`Table::follow`].
pub(super) fn follow(table: &FileTable) -> impl Stream<Item = Change> + Send {
    stream! {
        let mut scan = Scan::default();
        let mut hints = Hints::default();
        let mut down = false;
        loop {
            match read(table, &mut scan).await {
                Ok(changes) => {
                    if std::mem::take(&mut down) {
                        yield Change::Up;
                    }
                    for change in changes {
                        yield change;
                    }
                }
                Err(error) => {
                    scan.forget();
                    hints = Hints::default();
                    if !std::mem::replace(&mut down, true) {
                        yield Change::Down(error);
                    }
                }
            }
            if !down && hints.watch(&table.dir, scan.inodes) {
                // What changed between the reading and the watching is read at once.
                continue;
            }
            hints.wait().await;
        }
    }
}

async fn read(table: &FileTable, scan: &mut Scan) -> Result<Vec<Change>, StoreError> {
    let mut moved = std::mem::take(scan);
    let work = move |dir: &Dir| {
        let changes = moved.changes(dir);
        Ok((moved, changes))
    };
    let (back, changes) = table.blocking("read the directory", work).await?;
    *scan = back;
    changes.map_err(|error| error.into_store(&table.name(), "read the directory"))
}

/// What inotify tells, if it tells anything.
#[derive(Default)]
struct Hints {
    events: Option<Pin<Box<EventStream<[u8; 4096]>>>>,
    inodes: (u64, u64),
}

impl Hints {
    /// Watches these directories, unless it does already; whether it began to.
    fn watch(&mut self, dir: &Dir, inodes: (u64, u64)) -> bool {
        if self.inodes == inodes {
            return false;
        }
        self.inodes = inodes;
        self.events = Self::start(dir)
            .inspect_err(|error| tracing::debug!(%error, "no inotify; the directory is read every second"))
            .ok();
        self.events.is_some()
    }

    fn start(dir: &Dir) -> std::io::Result<Pin<Box<EventStream<[u8; 4096]>>>> {
        let inotify = Inotify::init()?;
        let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVE | WatchMask::DELETE | WatchMask::CREATE;
        inotify.watches().add(dir.root(), mask)?;
        if dir.subnets().is_dir() {
            inotify.watches().add(dir.subnets(), mask)?;
        }
        Ok(Box::pin(inotify.into_event_stream([0; 4096])?))
    }

    /// Returns when something may have changed.
    async fn wait(&mut self) {
        let Some(events) = &mut self.events else { return tokio::time::sleep(INTERVAL).await };
        let told = async {
            loop {
                match events.next().await {
                    // Hidden files are the store's own, and a file just created has no content yet.
                    Some(Ok(event)) if is_hidden(event.name.as_deref()) || is_empty(event.mask) => {}
                    Some(Ok(_)) => return true,
                    Some(Err(_)) | None => return false,
                }
            }
        };
        match timeout(INTERVAL, told).await {
            Ok(true) => while let Ok(Some(Ok(_))) = timeout(Duration::ZERO, events.next()).await {},
            Ok(false) => self.events = None,
            Err(_) => {}
        }
    }
}

fn is_empty(mask: EventMask) -> bool {
    mask.contains(EventMask::CREATE) && !mask.contains(EventMask::ISDIR)
}

fn is_hidden(name: Option<&std::ffi::OsStr>) -> bool {
    name.is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}
