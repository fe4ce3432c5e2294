//! The successor's first plan.

use super::take::{Inheritance, TakeOverError};
use crate::agent::{Agent, AgentError, World};

impl<W: World> Agent<W> {
    /// Goes on where another process stands: plans, carries frames, and then has it let go. Nothing was written when
    /// this fails.
    ///
    /// # Errors
    /// There is no plan to be made of what the other knows, or it does not let go; it goes on as before.
    pub async fn succeed(&mut self, inheritance: Inheritance) -> Result<(), AgentError> {
        let Inheritance { ready, known, parts, predecessor, .. } = inheritance;
        let now = crate::now();
        if let Some(known) = known {
            let memory =
                known.read(&mut self.tenure, now).map_err(|error| TakeOverError::Unfit(error.to_string()))?;
            self.memory = Some(memory.clone());
            self.know(memory, now);
            self.find_underlay(now).await;
            self.replan = false;
            self.prepare().await?;
            if self.plan.is_none() {
                let why = self.found.fault.as_ref().or(self.obstacle.as_ref());
                let why = why.map_or_else(|| "there is no plan".to_owned(), ToString::to_string);
                return Err(TakeOverError::Unfit(why).into());
            }
            self.carrying.adopt(parts);
        }
        predecessor.let_go().await?;
        predecessor.ended().await;
        self.ready.send_replace(ready);
        // Whoever asked the other asks this process from here on.
        let now = crate::now();
        self.judge(now);
        self.write_up_at_once(now);
        Ok(())
    }
}
