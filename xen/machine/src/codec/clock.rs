//! The battery-backed clock's registers as a number of seconds (MC146818 data sheet).

/// Status register A: an update is in progress, and what is read is not to be trusted (bit 7).
const STATUS_A: u8 = 0x0a;
const UPDATING: u8 = 1 << 7;
const STATUS_B: u8 = 0x0b;
/// The registers of year, month, day, hour, minute, second.
const FIELDS: [u8; 6] = [9, 8, 7, 4, 2, 0];
/// Looks at a clock that is being updated before it is believed: an update takes 2 milliseconds at the most, a look some
/// microseconds. A clock that is never done, or is not there, shows what it shows.
const MOST_LOOKS: usize = 100_000;
/// Readings before two in a row that differ are believed.
const MOST_READINGS: usize = 16;

/// Reads the clock, whose registers `register` reads by number.
pub fn read(mut register: impl FnMut(u8) -> u8) -> u64 {
    let mut fields = || {
        let is_done = |_: &usize| register(STATUS_A) & UPDATING == 0;
        // Whether it was found done or not, there is nothing better to read.
        (0..MOST_LOOKS).find(is_done);
        FIELDS.map(&mut register)
    };
    // Two equal readings in a row cannot straddle an update.
    let mut last = fields();
    for _ in 0..MOST_READINGS {
        let again = fields();
        if again == last {
            break;
        }
        last = again;
    }
    seconds_since_1970(last, register(STATUS_B))
}

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
    fn a_clock_that_moves_on_is_read_whole() {
        // It moves from 23:59:59 to the next day in the middle of the first reading, as one that does not say so would.
        let (mut reads, mut seconds) = (0, 0x59);
        let value = read(|number| {
            reads += 1;
            if reads == 5 {
                seconds = 0;
            }
            match (number, seconds) {
                (9, _) => 0x26,
                (8, _) => 0x11,
                (7, 0) => 0x22,
                (7, _) => 0x21,
                (4, 0) | (2, 0) | (0, 0) => 0,
                (4, _) => 0x23,
                (2, _) | (0, _) => 0x59,
                (0x0b, _) => 0b010,
                _ => 0,
            }
        });
        assert_eq!(value, seconds_since_1970([0x26, 0x11, 0x22, 0, 0, 0], 0b010));
    }

    #[test]
    fn a_clock_that_is_stuck_or_mad_is_given_up() {
        // No clock at all: a bus without a device.
        read(|_| 0xff);
        let mut value = 0u8;
        read(|_| {
            value = value.wrapping_add(1);
            value & 0x7f
        });
    }

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
