//! The serial console's settings as the command line gives them, in Xen's words: `console=com1 com1=115200,8n1,0x3f8,4`.

/// What to program into a 16550.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// First port.
    pub base: u16,
    /// Divisor of 115200 baud; `None` leaves the firmware's speed.
    pub divisor: Option<u16>,
    /// The line control register: data bits, parity, stop bits.
    pub line_control: u8,
}

const BASE_RATE: u32 = 115_200;
/// Ports that a 16550 takes.
const PORTS: u16 = 8;

impl Settings {
    /// The settings of the port that `console=` names. `None` if it names none, as when there is no such option.
    pub fn from_command_line(text: &str) -> Option<Self> {
        let console = last_value(text, "console=")?;
        let (option, base) = match console.split(',').find(|name| name.starts_with("com"))? {
            "com1" => ("com1=", 0x3f8),
            "com2" => ("com2=", 0x2f8),
            _ => return None,
        };
        let mut settings = Self { base, divisor: None, line_control: 0b11 };
        settings.apply(last_value(text, option).unwrap_or(""));
        Some(settings)
    }

    /// Takes over the comma-separated parts: rate, frame, base. Parts that make no sense leave the default.
    fn apply(&mut self, text: &str) {
        let mut parts = text.split(',');
        let rate = parts.next().unwrap_or("").split('/').next().unwrap_or("");
        self.divisor = rate
            .parse::<u32>()
            .ok()
            .filter(|rate| *rate > 0)
            .and_then(|rate| u16::try_from(BASE_RATE / rate).ok())
            .filter(|divisor| *divisor > 0);
        if let Some([bits @ b'5'..=b'8', parity, stop @ b'1'..=b'2']) = parts.next().map(str::as_bytes) {
            let parity = match parity {
                b'o' => 0b001,
                b'e' => 0b011,
                b'm' => 0b101,
                b's' => 0b111,
                _ => 0b000,
            };
            self.line_control = (bits - b'5') | (stop - b'1') << 2 | parity << 3;
        }
        if let Some(base) = parts.next().and_then(parse_port).filter(|base| base.checked_add(PORTS - 1).is_some()) {
            self.base = base;
        }
    }
}

fn parse_port(text: &str) -> Option<u16> {
    match text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn last_value<'a>(text: &'a str, option: &str) -> Option<&'a str> {
    text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(option)).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xen_style_options() {
        let parse = Settings::from_command_line;
        assert_eq!(parse("loglvl=all"), None);
        assert_eq!(parse("console=vga"), None);
        let plain = Settings { base: 0x3f8, divisor: Some(1), line_control: 3 };
        assert_eq!(parse("console=com1 com1=115200,8n1"), Some(plain));
        assert_eq!(parse("console=vga,com1 com1=115200,8n1"), Some(plain));
        assert_eq!(
            parse("console=com2 com2=9600,7e2,0x2e8"),
            Some(Settings { base: 0x2e8, divisor: Some(12), line_control: 0b0001_1110 })
        );
        assert_eq!(parse("console=com1"), Some(Settings { base: 0x3f8, divisor: None, line_control: 3 }));
        assert_eq!(parse("console=com1 com1=115200,8n1,0xfff8").map(|s| s.base), Some(0xfff8));
        assert_eq!(parse("console=com1 com1=115200,8n1,0xfff9"), Some(plain), "not all of its ports would exist");
        assert_eq!(parse("console=com1 com1=auto,9z3,zzz").map(|s| (s.base, s.divisor)), Some((0x3f8, None)));
    }
}
