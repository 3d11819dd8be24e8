//! `xl config-update`: a new configuration for the next time that the domain is built.

use libxc::verbs::domain::DomainInfo;

use crate::cli::ConfigUpdate;
use crate::commands::create;
use crate::config::text::Text;
use crate::failure::{Failure, Outcome};
use crate::output::{note, print};
use crate::session::Session;
use crate::userdata::{UPDATED, UserData};

pub(super) fn run(options: &ConfigUpdate, dry_run: bool) -> Outcome {
    // With Xen's xl this is no wrong use, which would be code 2.
    let Some(domain) = &options.domain else {
        return Err(Failure::new("xl config-update requires a domain argument"));
    };
    note(format_args!(
        "WARNING: xl now has better capability to manage domain configuration, avoid using this command when possible"
    ));
    let session = Session::open()?;
    let info = session.info(domain)?;
    let text = read(options)?;
    let config = create::check(&text, options.quiet)?;
    if options.debug || dry_run {
        print(create::describe(&config, config.uuid.unwrap_or(info.uuid))?)?;
    }
    if dry_run { Ok(()) } else { store(&info, &text) }
}

fn read(options: &ConfigUpdate) -> Outcome<Text> {
    let (settings, mut files): (Vec<String>, Vec<String>) =
        options.arguments.iter().cloned().partition(|argument| argument.contains('='));
    files.extend(options.file.clone());
    match files.as_slice() {
        [file] => {
            let content = std::fs::read(file)
                .map_err(|error| Failure::new(format!("Failed to read config file: {file}: {error}")))?;
            Ok(Text::new(file, &content, &settings))
        }
        [] => Err(Failure::new("Config file not specified")),
        _ => Err(Failure::new("config-update: one configuration file at a time").with_code(2)),
    }
}

fn store(info: &DomainInfo, text: &Text) -> Outcome {
    note(format_args!("setting dom{} configuration", info.domid));
    UserData::new(info.domid, &info.uuid).store(UPDATED, text.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_domain_the_code_is_xens() {
        let options = ConfigUpdate { domain: None, arguments: Vec::new(), file: None, debug: false, quiet: false };
        assert_eq!(run(&options, false).map_err(|failure| failure.code()), Err(1));
    }
}
