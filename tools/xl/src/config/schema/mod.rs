//! The schema: every key that xl.cfg(5) knows, one row each, and the pass that applies it.
//!
//! A row says what shape the value has, in which tier the key works (xen-abi.md §1.8), where its value goes, and what the
//! key is for. [`apply`] goes through all settings and reports everything that is wrong with any of them; checks between
//! keys are in [`relations`]. Comes after `parse`, before `create`.

mod current;
mod later;
mod read;
mod relations;

pub(super) use read::uuid;

use super::domain::DomainConfig;
use super::parse::{Setting, Settings};
use super::report::{Place, Report};
use super::text::Text;
use super::value::{NotANumber, Value, number};

/// When a key works: the stages of the project, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// PVH guests: works now.
    T1,
    /// HVM guests and passed-through devices.
    T2,
    /// Saving and migrating.
    T3,
    /// Everything else.
    T4,
}

/// The shape of a key's value, and what is done with it.
#[derive(Clone, Copy)]
pub enum Use {
    /// A string.
    Text(fn(&mut DomainConfig, &str) -> Result<(), String>),
    /// A number within bounds, both included.
    Number(i64, i64, fn(&mut DomainConfig, i64)),
    /// A number read as yes (not 0) or no (0).
    Flag(fn(&mut DomainConfig, bool) -> Result<(), String>),
    /// A list of strings; called once for each.
    EachText(fn(&mut DomainConfig, &str) -> Result<(), String>),
    /// A shape of its own.
    Own(fn(&mut DomainConfig, &Value) -> Result<(), String>),
    /// Understood and without effect on a PVH guest; the text says why. A warning.
    NoEffect(&'static str),
    /// A guest built without it would not be what was asked for; the text says why. An error, unless the value switches
    /// the thing off.
    Refused(&'static str),
}

/// One row of the schema.
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// When it works.
    pub tier: Tier,
    /// The value's shape and what is done with it.
    pub usage: Use,
    /// What it is for.
    pub purpose: &'static str,
}

/// All rows, those that work now first.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    current::KEYS.iter().chain(later::KEYS)
}

/// Applies the schema to all settings.
pub fn apply(settings: &Settings, text: &Text, report: &mut Report) -> DomainConfig {
    let mut config = DomainConfig::default();
    for setting in settings.iter() {
        match keys().find(|key| key.name == setting.key) {
            Some(key) => apply_key(key, setting, &mut config, report),
            None => report.error(&setting.place, unknown(&setting.key)),
        }
    }
    relations::check(&config, settings, text, report);
    config
}

fn apply_key(key: &Key, setting: &Setting, config: &mut DomainConfig, report: &mut Report) {
    let value = &setting.value;
    let name = key.name;
    let outcome = match key.usage {
        Use::Text(set) => match value.text() {
            Some(text) => set(config, text),
            None => Err("it is a list but should be a string".into()),
        },
        Use::Number(least, most, set) => read_number(setting, least, most).map(|number| set(config, number)),
        Use::Flag(set) => read_number(setting, i64::MIN, i64::MAX).and_then(|number| set(config, number != 0)),
        Use::EachText(set) => return each_text(name, value, set, config, report),
        Use::Own(set) => set(config, value),
        Use::NoEffect(why) => {
            // What is of a later tier still only because nobody needs it is left without a promise.
            let note = if key.tier < Tier::T4 { later_note(key.tier) } else { "" };
            report.warning(&setting.place, format!("{name}: has no effect: {why}{note}"));
            Ok(())
        }
        Use::Refused(_) if value.is_off() => Ok(()),
        Use::Refused(why) => Err(format!("{why}{}", later_note(key.tier))),
    };
    if let Err(message) = outcome {
        report.error(&value_place(key, setting), format!("{name}: {message}"));
    }
}

/// A refusal is about the key; everything else is about the value, which has no one place once `+=` had a part in it.
fn value_place(key: &Key, setting: &Setting) -> Place {
    match key.usage {
        Use::Refused(_) => setting.place.clone(),
        _ if setting.appended => setting.place.clone(),
        _ => setting.value.place.clone(),
    }
}

fn later_note(tier: Tier) -> &'static str {
    match tier {
        Tier::T1 => "",
        Tier::T2 => " (planned with HVM guests and PCI passthrough)",
        Tier::T3 => " (planned with save, restore and migration)",
        Tier::T4 => " (planned for later)",
    }
}

fn each_text(
    name: &str,
    value: &Value,
    set: fn(&mut DomainConfig, &str) -> Result<(), String>,
    config: &mut DomainConfig,
    report: &mut Report,
) {
    let Some(values) = value.list() else {
        report.error(&value.place, format!("{name}: it is a single value but should be a list: {name} = [ {value} ]"));
        return;
    };
    for element in values {
        let outcome = match element.text() {
            Some(text) => set(config, text),
            None => Err("a list inside the list, where a string should be".into()),
        };
        if let Err(message) = outcome {
            report.error(&element.place, format!("{name}: {message}"));
        }
    }
}

fn read_number(setting: &Setting, least: i64, most: i64) -> Result<i64, String> {
    if setting.appended {
        return Err("`+=' cannot be used with a number".into());
    }
    let text = setting.value.text().ok_or("it is a list but should be a number")?;
    let number = number(text).map_err(|error| match error {
        NotANumber::Malformed => format!("`{}' is not a number", text.escape_debug()),
        NotANumber::TooLarge => format!("{text} is too large for a number"),
    })?;
    if number < least {
        return Err(format!("{number} is too small, the least is {least}"));
    }
    if number > most {
        return Err(format!("{number} is too large, the most is {most}"));
    }
    Ok(number)
}

/// The message for a key that is not in the schema, with the nearest one that is.
fn unknown(key: &str) -> String {
    let near = nearest(key, keys().map(|row| row.name)).and_then(|near| keys().find(|row| row.name == near));
    match near {
        Some(row) => format!("{key}: unknown key; did you mean `{}' ({})?", row.name, row.purpose),
        None => format!("{key}: unknown key; xl.cfg(5) has the list"),
    }
}

/// The name that was meant by `key`, if one is near enough.
pub fn nearest(key: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let (distance, name) =
        names.map(|name| (strsim::damerau_levenshtein(key, name), name)).min_by_key(|(distance, _)| *distance)?;
    // A third of the letters wrong is still a slip; more is another word.
    (distance * 3 <= key.len().max(3)).then_some(name)
}
