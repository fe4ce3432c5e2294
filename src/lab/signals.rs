//! Ctrl-C, and the other ways of being told to end.

use std::thread;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::lab::{Cancel, LabError};

/// From here on SIGINT, SIGTERM and SIGHUP cancel, so that everything is taken down in order.
pub(super) fn watch(cancel: &Cancel) -> Result<(), LabError> {
    let attempt = || LabError::io(|| "listen for Ctrl-C".to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(attempt())?;
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [interrupt, terminate, hangup] = {
        let _guard = runtime.enter();
        kinds.map(signal)
    };
    let mut signals =
        [interrupt.map_err(attempt())?, terminate.map_err(attempt())?, hangup.map_err(attempt())?];
    let cancel = cancel.clone();
    let wait = move || {
        runtime.block_on(any(&mut signals));
        cancel.cancel();
        // Further signals are taken and ignored: taking down is under way.
        loop {
            runtime.block_on(any(&mut signals));
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait).map(drop).map_err(attempt())
}

async fn any([interrupt, terminate, hangup]: &mut [Signal; 3]) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}
