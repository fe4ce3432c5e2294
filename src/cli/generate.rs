//! What a package has beside the program, made from the definition of the command line: completions and manual pages.
//!
//! # Why
//! The program itself writes them, by a command that its help does not name: so they fit it whoever packages it, and
//! neither a build script nor a second binary links the command line once more.

use std::io;

use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::VERSION;
use super::twill::definition;

/// Administration of a system, and daemons.
const SECTION: &str = "8";
const MANUAL: &str = "Twill's manual";

/// A shell whose completions are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CompletionShell {
    /// For `/usr/share/bash-completion/completions/twill`.
    Bash,
    /// For `_twill` in a folder of zsh's `fpath`.
    Zsh,
    /// For `twill.fish` in a folder of `vendor_completions.d`.
    Fish,
}

/// A manual page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its file's name, which ends in the section.
    pub name: String,
    /// For `man`.
    pub roff: Vec<u8>,
}

/// The completions of all subcommands and flags.
#[must_use]
pub fn completions(shell: CompletionShell) -> Vec<u8> {
    let shell = match shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    generate(shell, &mut definition(), "twill", &mut text);
    text
}

/// A page for the program and one for each of its subcommands.
///
/// # Errors
/// None in practice: they are written into memory.
pub fn manual() -> io::Result<Vec<Page>> {
    let mut program = definition();
    program.build();
    let mut pages = Vec::new();
    write(program, &mut pages)?;
    Ok(pages)
}

fn write(command: clap::Command, pages: &mut Vec<Page>) -> io::Result<()> {
    let inner: Vec<clap::Command> =
        command.get_subcommands().filter(|inner| !inner.is_hide_set()).cloned().collect();
    let man = Man::new(command).section(SECTION).manual(MANUAL).source(format!("twill {VERSION}"));
    let mut page = Page { name: man.get_filename(), roff: Vec::new() };
    man.render(&mut page.roff)?;
    pages.push(page);
    inner.into_iter().try_for_each(|command| write(command, pages))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{FLANNELD_FLAGS, TWILL_FLAGS};

    fn page(name: &str) -> String {
        let pages = manual().unwrap();
        let found = pages.iter().find(|page| page.name == name);
        let names: Vec<&str> = pages.iter().map(|page| page.name.as_str()).collect();
        let page = found.unwrap_or_else(|| panic!("no {name} among {names:?}"));
        String::from_utf8(page.roff.clone()).unwrap()
    }

    #[test]
    fn every_subcommand_has_a_page_and_the_agents_has_every_flag() {
        for name in
            ["twill", "twill-agent", "twill-status", "twill-migrate-check", "twill-bench", "twill-demo"]
        {
            let page = page(&format!("{name}.8"));
            assert!(page.contains(".TH ") && page.contains(".SH NAME"), "{page}");
        }
        let agent = page("twill-agent.8");
        for row in FLANNELD_FLAGS.iter().chain(TWILL_FLAGS) {
            let typed = format!("\\-\\-{}", row.name.replace('-', "\\-"));
            assert!(agent.contains(&typed), "{typed} is not in\n{agent}");
        }
        assert!(!manual().unwrap().iter().any(|page| page.name.contains("generate")));
    }

    #[test]
    fn completions_name_flags_of_every_depth_and_not_this_command() {
        for shell in [CompletionShell::Bash, CompletionShell::Zsh, CompletionShell::Fish] {
            let text = String::from_utf8(completions(shell)).unwrap();
            for word in ["migrate", "etcd-endpoints", "public-ip", "cni-conf-dir", "inner-source-check"] {
                assert!(text.contains(word), "{shell:?} lacks {word}");
            }
        }
    }
}
