//! `twill watch`: asks the agent once a second, and shows what it says for as long as somebody looks.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::Failure;
use crate::agent::socket::{Ask, ask};
use crate::cli::{Exit, Stream};
use crate::config::Site;
use crate::views::watch::{Key, Watch};

/// How often the agent is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How many keys may wait to be looked at.
const KEYS: usize = 64;

/// Shows the agent live on a terminal, until q is pressed; elsewhere, a line for each event, until the reader is gone.
pub(super) async fn run(site: &Site) -> Result<Exit, Failure> {
    if io::stdout().is_terminal() && io::stdin().is_terminal() {
        // It puts the terminal back if this panics, too.
        let mut terminal = ratatui::try_init()?;
        let shown = show(site, &mut terminal).await;
        ratatui::try_restore()?;
        shown?;
    } else {
        lines(site).await?;
    }
    Ok(Exit { text: String::new(), stream: Stream::Stdout, code: 0 })
}

async fn show(site: &Site, terminal: &mut DefaultTerminal) -> Result<(), Failure> {
    let (mut watch, mut every) = (Watch::default(), tokio::time::interval(EVERY));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut terminate, mut hang_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let (send, mut pressed) = mpsc::channel(KEYS);
    // A key is waited for in the kernel, and the thread ends with the process.
    std::thread::spawn(move || while event::read().is_ok_and(|event| send.blocking_send(event).is_ok()) {});
    let mut asking = None;
    loop {
        terminal.draw(|frame| watch.draw(frame))?;
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = hang_up.recv() => return Ok(()),
            event = pressed.recv() => match event {
                Some(event) if key(&event).is_none_or(|key| watch.press(key)) => {}
                Some(_) | None => return Ok(()),
            },
            _ = every.tick(), if asking.is_none() => asking = Some(Box::pin(answer(site))),
            answer = async { match &mut asking { Some(asking) => asking.await, None => std::future::pending().await } } => {
                asking = None;
                watch.saw(&time_of_day(), answer);
            }
        }
    }
}

async fn lines(site: &Site) -> Result<(), Failure> {
    let (mut watch, mut every) = (Watch::default(), tokio::time::interval(EVERY));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let events = watch.saw(&time_of_day(), answer(site).await);
        let text =
            events.iter().fold(String::new(), |text, event| format!("{text}{}  {event}\n", time_of_day()));
        let mut out = io::stdout();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
}

async fn answer(site: &Site) -> Result<Value, String> {
    ask(&site.socket(), Ask::Status).await.map_err(|error| error.to_string())
}

/// What an event of the terminal is for; `None` if for nothing but to draw again.
#[allow(clippy::wildcard_enum_match_arm, reason = "keyboards have many keys")]
fn key(event: &Event) -> Option<Key> {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else { return None };
    match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        KeyCode::Char('s') => Some(Key::Sort),
        KeyCode::Up | KeyCode::Char('k') => Some(Key::Up),
        KeyCode::Down | KeyCode::Char('j') => Some(Key::Down),
        KeyCode::PageUp => Some(Key::PageUp),
        KeyCode::PageDown | KeyCode::Char(' ') => Some(Key::PageDown),
        KeyCode::Home => Some(Key::Home),
        KeyCode::End => Some(Key::End),
        _ => None,
    }
}

/// The time of day, UTC.
fn time_of_day() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{:02}:{:02}:{:02}Z", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}
