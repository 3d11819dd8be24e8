//! Keeping a domain that has stopped under another name and UUID, so that a new one can take its place
//! (`on_…="rename-restart"`; libxl's `libxl_domain_preserve`).

use std::time::{SystemTime, UNIX_EPOCH};

use libxc::plan::nodes::format_uuid;
use libxc::xenstore::Permission;

use super::create::fresh_uuid;
use crate::failure::Outcome;
use crate::session::Session;
use crate::userdata::UserData;

/// Renames a domain to NAME-YYYYMMDDThhmmZ and gives it a fresh UUID. Its new name.
pub(super) fn preserve(session: &Session, domid: u16, name: &str, uuid: &[u8; 16]) -> Outcome<String> {
    let new_uuid = fresh_uuid()?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let new_name = format!("{name}-{}", time_stamp(seconds));
    session.handle.domain_set_uuid(domid, &new_uuid)?;
    let store = &session.store;
    let (domain, vm) = (format!("/local/domain/{domid}"), format!("/vm/{}", format_uuid(&new_uuid)));
    let readable = [Permission { domain: 0, letter: 'n' }, Permission { domain: domid, letter: 'r' }];
    store.transaction(|tx| {
        store.mkdir(tx, &vm)?;
        store.set_permissions(tx, &vm, &readable)?;
        store.write(tx, &format!("{vm}/uuid"), &format_uuid(&new_uuid))?;
        store.write(tx, &format!("{vm}/name"), &new_name)?;
        store.write(tx, &format!("{domain}/vm"), &vm)?;
        store.write(tx, &format!("{domain}/name"), &new_name)
    })?;
    UserData::new(domid, uuid).rename_all(&new_uuid)?;
    Ok(new_name)
}

/// A time in seconds since 1970 as YYYYMMDDThhmmZ.
fn time_stamp(seconds: u64) -> String {
    let (days, minutes) = (seconds / 86_400, seconds % 86_400 / 60);
    // Days to a date by years that start in March, so that the leap day is the last of a year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
    let year = era * 400 + year_of_era + year;
    format!("{year:04}{month:02}{day:02}T{:02}{:02}Z", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps_are_utc() {
        assert_eq!(time_stamp(0), "19700101T0000Z");
        assert_eq!(time_stamp(951_827_696), "20000229T1234Z");
        assert_eq!(time_stamp(1_795_228_913), "20261121T0241Z");
        assert_eq!(time_stamp(4_102_444_799), "20991231T2359Z");
    }
}
