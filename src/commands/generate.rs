//! `twill generate`: completions and manual pages, for packages.

use std::fs;
use std::path::Path;

use super::Outcome;
use crate::cli::{Generate, completions, manual};

/// Prints completions, or writes pages.
pub(super) fn run(what: Generate) -> Outcome {
    match what {
        Generate::Completions(shell) => Ok(String::from_utf8(completions(shell))?),
        Generate::Man { dir } => pages(&dir),
    }
}

fn pages(dir: &Path) -> Outcome {
    for page in manual()? {
        let file = dir.join(page.name);
        fs::write(&file, page.roff).map_err(|cause| {
            format!("cannot write {}: {cause}; next: make the folder first", file.display())
        })?;
    }
    Ok(String::new())
}
