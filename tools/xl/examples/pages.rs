//! Writes xl's manual pages and shell completions, made from the declarations that its arguments are parsed with.
//!
//! `cargo xtask docs` runs it; the only argument is the directory: `man/xl.1` and a page for each command, `completions/` for bash,
//! fish and zsh. The tables of docs/xl-for-xen-users.md are made anew, too.

use std::io::Error;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/xl-for-xen-users.md");

fn main() -> Result<(), Error> {
    let Some(directory) = std::env::args_os().nth(1) else {
        return Err(Error::other("give the directory for the pages"));
    };
    let directory = Path::new(&directory);
    let (pages, completions) = (directory.join("man"), directory.join("completions"));
    std::fs::create_dir_all(&pages)?;
    std::fs::create_dir_all(&completions)?;
    let mut command = xl::cli::Cli::command();
    command.build();
    write_page(&pages, "xl", command.clone())?;
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        let name = format!("xl-{}", inner.get_name());
        write_page(&pages, &name, inner.clone().display_name(name.clone()))?;
    }
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut command, "xl", &completions)?;
    }
    let text = std::fs::read_to_string(DOCUMENT)?;
    std::fs::write(DOCUMENT, xl::document::refresh(&text).map_err(Error::other)?)
}

fn write_page(directory: &Path, name: &str, command: clap::Command) -> Result<(), Error> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    std::fs::write(directory.join(format!("{name}.1")), page)
}
