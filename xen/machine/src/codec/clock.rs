//! The battery-backed clock's registers as a number of seconds (MC146818 data sheet).

/// Seconds since 1970-01-01 from year, month, day, hour, minute, second registers and status register B, which says
/// whether they are binary (bit 2) and hours run to 24 (bit 1). Years are of 2000 to 2099.
pub fn seconds_since_1970(fields: [u8; 6], status: u8) -> u64 {
    let number = |value: u8| {
        if status & 1 << 2 != 0 { u64::from(value) } else { u64::from(value >> 4) * 10 + u64::from(value & 15) }
    };
    let [year, month, day, hour, minute, second] = fields;
    let afternoon = status & 1 << 1 == 0 && hour & 0x80 != 0;
    let mut hours = number(hour & 0x7f);
    if status & 1 << 1 == 0 {
        hours = hours % 12 + if afternoon { 12 } else { 0 };
    }
    let days = days_since_1970(2000 + number(year), number(month).max(1), number(day).max(1));
    ((days * 24 + hours) * 60 + number(minute)) * 60 + number(second)
}

/// Days from 1970-01-01 to a date, counting years from March so that the leap day is the last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    // Days from 0000-03-01, of which the first is 1, to 1970-01-01.
    days - 719_469
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        // 2026-11-21 02:03:04, BCD, 24 hours.
        assert_eq!(seconds_since_1970([0x26, 0x11, 0x21, 0x02, 0x03, 0x04], 0b010), 1_795_226_584);
        // The same, binary.
        assert_eq!(seconds_since_1970([26, 11, 21, 2, 3, 4], 0b110), 1_795_226_584);
        // 2000-02-29 12:00:00, BCD, 12 hours, afternoon.
        assert_eq!(seconds_since_1970([0x00, 0x02, 0x29, 0x92, 0, 0], 0b000), 951_825_600);
        // Midnight in the 12-hour form.
        assert_eq!(seconds_since_1970([0x00, 0x03, 0x01, 0x12, 0, 0], 0b000), 951_868_800);
    }
}
