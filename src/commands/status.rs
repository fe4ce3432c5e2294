//! `twill status`.

use std::error::Error;

use super::failed;
use crate::agent::socket::{Ask, ask};
use crate::agent::status::{State, Status};
use crate::cli::{Exit, Stream};
use crate::config::Site;

/// Prints what the agent says of itself. Exit 0 is ok, 1 degraded, 2 failed or no agent.
pub(super) async fn run(site: &Site, json: bool) -> Result<Exit, Box<dyn Error + Send + Sync>> {
    let answer = match ask(&site.socket(), Ask::Status).await {
        Ok(answer) => answer,
        Err(error) => return Ok(Exit { code: 2, ..failed(&error.into()) }),
    };
    let status: Status = serde_json::from_value(answer.clone())?;
    let code = match status.state {
        State::Ok => 0,
        State::Degraded => 1,
        State::Failed => 2,
    };
    let text = if json { format!("{answer}\n") } else { status.to_string() };
    Ok(Exit { text, stream: Stream::Stdout, code })
}
