//! Values that need more than a shape: names from a list, UUIDs, CPU lists, modes that are a number or a name.
//!
//! Used by the rows of [`super::current`].

use super::super::cpus::CpuSet;
use super::super::domain::{Affinity, GuestType};
use super::super::value::{Value, number};

/// The entry of `names` that `text` names.
pub(super) fn choice<T: Copy>(text: &str, names: &[(T, &str)]) -> Result<T, String> {
    names.iter().find(|(_, name)| *name == text).map(|(value, _)| *value).ok_or_else(|| {
        let all: Vec<&str> = names.iter().map(|(_, name)| *name).collect();
        format!("`{}' is unknown; there are {}", text.escape_debug(), all.join(", "))
    })
}

/// A mode given by name or, as xl still allows, by number.
pub(super) fn mode<T: Copy>(value: &Value, names: &[(T, &str)]) -> Result<T, String> {
    let text = value.text().ok_or("it is a list but should be a name")?;
    match number(text) {
        Ok(index) => {
            let entry = usize::try_from(index).ok().and_then(|index| names.get(index));
            entry.map(|(value, _)| *value).ok_or_else(|| format!("{index} is no mode; the last is {}", names.len() - 1))
        }
        Err(_) => choice(text, names),
    }
}

/// The guest's type. `pv` is refused with the cure, since it is what xl takes when nothing is said.
pub(super) fn guest_type(text: &str) -> Result<GuestType, String> {
    match text {
        "pvh" => Ok(GuestType::Pvh),
        "hvm" => {
            Err("\"hvm\" guests are not built yet (planned with HVM guests); \"pvh\" boots the same kernels directly"
                .into())
        }
        "pv" => {
            Err("\"pv\" guests are not supported; write type=\"pvh\": Linux 4.11 and later boots the same way".into())
        }
        _ => Err(format!("`{}' is unknown; there is \"pvh\"", text.escape_debug())),
    }
}

/// `builder=`, the old spelling of `type=`.
pub(super) fn builder(text: &str) -> Result<(), String> {
    match text {
        "generic" => {
            Err("\"generic\" means a PV guest, which is not supported; replace the line with type=\"pvh\"".into())
        }
        "hvm" => guest_type(text).map(|_| ()),
        _ => Err(format!("`{}' is unknown, and builder= is obsolete; write type=\"pvh\"", text.escape_debug())),
    }
}

/// A UUID: 32 hexadecimal digits with hyphens anywhere between bytes, as xl takes it.
pub(in super::super) fn uuid(text: &str) -> Result<[u8; 16], String> {
    let malformed = || format!("`{}' is not a UUID such as 0bb1a8a2-7d7c-4c5a-9c1e-5a4f7f7f0c11", text.escape_debug());
    let mut bytes = [0; 16];
    let mut rest = text;
    for byte in &mut bytes {
        rest = rest.strip_prefix('-').unwrap_or(rest);
        let digits = rest.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let digits = digits.ok_or_else(malformed)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| malformed())?;
        rest = &rest[2..];
    }
    if rest.is_empty() { Ok(bytes) } else { Err(malformed()) }
}

/// A domain name: what xenstore can hold as a value and other commands can tell from a number.
pub(super) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("the name is empty".into());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("`{text}' is a number, which other commands would take for a domain id"));
    }
    if text.contains('/') || text.chars().any(char::is_control) {
        return Err(format!("`{}' contains a slash or a control character", text.escape_debug()));
    }
    Ok(text.into())
}

/// `cpus=` and `cpus_soft=`: one list for all vCPUs, or one for each.
pub(super) fn affinity(value: &Value) -> Result<Affinity, String> {
    if let Some(text) = value.text() {
        return CpuSet::parse(text).map(Affinity::All);
    }
    let sets: Result<Vec<_>, String> = value.list().unwrap_or_default().iter().map(one_affinity).collect();
    sets.map(Affinity::PerVcpu)
}

fn one_affinity(element: &Value) -> Result<CpuSet, String> {
    let text = element.text().ok_or("a list inside the list, where a string such as \"0-3\" should be")?;
    CpuSet::parse(text)
}
