//! One entry of `vif=`: a network interface (xl-network-configuration(5)).

/// How the interface appears in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VifType {
    /// Paravirtual only.
    Vif,
    /// An emulated card beside the paravirtual one; HVM only.
    Ioemu,
}

/// Transmit rate limit: `bytes` may be sent in every `interval_us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bytes per interval.
    pub bytes: u64,
    /// Length of the interval in microseconds.
    pub interval_us: u32,
}

/// A network interface. Empty strings and `None` mean that nothing was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vif {
    /// The kind; `None`: by the guest's type.
    pub kind: Option<VifType>,
    /// MAC address; `None`: chosen at creation.
    pub mac: Option<[u8; 6]>,
    /// Bridge to join; empty: `xenbr0`.
    pub bridge: String,
    /// Interface that routes for the guest (routed set-ups).
    pub gateway_dev: String,
    /// The guest's addresses, for the hotplug script.
    pub ip: String,
    /// The hotplug script; empty: `vif-bridge`.
    pub script: String,
    /// Name of the backend domain; empty: the control domain.
    pub backend: String,
    /// Name of the interface in the backend domain; empty: `vifDOMID.DEVID`.
    pub name: String,
    /// Model of the emulated card.
    pub model: String,
    /// Rate limit.
    pub rate: Option<Rate>,
    /// Whether the guest trusts the backend; `None`: it does.
    pub trusted: Option<bool>,
    /// Largest packet; `None`: as the bridge has it.
    pub mtu: Option<u32>,
}

impl Vif {
    /// Reads an entry such as `mac=00:16:3e:00:00:01,bridge=br0`. An empty entry is an interface with all defaults.
    pub fn parse(text: &str) -> Result<Vif, String> {
        let mut vif = Vif::default();
        for part in text.split(',').map(|part| part.trim_start_matches(' ')).filter(|part| !part.is_empty()) {
            vif.parameter(part)?;
        }
        Ok(vif)
    }

    fn parameter(&mut self, part: &str) -> Result<(), String> {
        match part {
            "trusted" => self.trusted = Some(true),
            "untrusted" => self.trusted = Some(false),
            _ => {
                let Some((key, value)) = part.split_once('=') else {
                    return Err(format!("`{part}' is not of the form key=value"));
                };
                return self.key_value(key, value);
            }
        }
        Ok(())
    }

    fn key_value(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "type" => {
                self.kind = Some(match value {
                    "vif" => VifType::Vif,
                    "ioemu" => VifType::Ioemu,
                    _ => {
                        return Err(format!("type `{value}' is unknown; there are vif and ioemu"));
                    }
                });
            }
            "mac" => self.mac = Some(parse_mac(value)?),
            "bridge" => self.bridge = value.into(),
            "gatewaydev" | "netdev" => self.gateway_dev = value.into(),
            "ip" => self.ip = value.into(),
            "script" => self.script = value.into(),
            "backend" => self.backend = value.into(),
            "vifname" => self.name = value.into(),
            "model" => self.model = value.into(),
            "rate" => self.rate = Some(parse_rate(value)?),
            "mtu" => self.mtu = Some(value.parse().map_err(|_| format!("mtu `{value}' is not a number"))?),
            "devid" | "accel" => {
                return Err(format!("`{key}=' is chosen by the toolstack and cannot be given"));
            }
            _ if key.starts_with("colo") || key == "forwarddev" => {
                return Err(format!("`{key}' belongs to COLO replication, which this toolstack does not have"));
            }
            _ => {
                return Err(format!("unknown parameter `{key}'; see xl-network-configuration(5)"));
            }
        }
        Ok(())
    }
}

/// Reads a MAC address such as `00:16:3e:01:02:03`, which is not a multicast address.
pub fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let malformed = || format!("mac `{text}' is not of the form 00:16:3e:01:02:03");
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| matches!(part.len(), 1 | 2)).ok_or_else(malformed)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
    }
    if parts.next().is_some() {
        return Err(malformed());
    }
    if mac[0] & 1 != 0 {
        return Err(format!("mac `{text}' is a multicast address (the lowest bit of its first byte is set)"));
    }
    Ok(mac)
}

/// Reads `RATE[@INTERVAL]`, for example `10Mb/s` or `250KB/s@20ms`; without an interval it is 50 ms.
fn parse_rate(text: &str) -> Result<Rate, String> {
    let (rate, interval) = text.split_once('@').unwrap_or((text, "50ms"));
    let bytes_per_second = parse_bytes_per_second(rate)
        .ok_or_else(|| format!("rate `{rate}' is not of the form 10Mb/s, 250KB/s or 1GB/s"))?;
    let interval_us = parse_interval(interval)
        .ok_or_else(|| format!("interval `{interval}' is not of the form 20ms, 500us or 1s"))?;
    let bytes =
        bytes_per_second.checked_mul(u64::from(interval_us)).ok_or_else(|| format!("rate `{text}' is too large"))?
            / 1_000_000;
    Ok(Rate { bytes, interval_us })
}

fn parse_bytes_per_second(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let (factor, bits) = match unit {
        "B/s" => (1, false),
        "b/s" => (1, true),
        "KB/s" => (1_000, false),
        "Kb/s" => (1_000, true),
        "MB/s" => (1_000_000, false),
        "Mb/s" => (1_000_000, true),
        "GB/s" => (1_000_000_000, false),
        "Gb/s" => (1_000_000_000, true),
        _ => return None,
    };
    let number = u32::try_from(number).ok().filter(|&number| number != 0)?;
    let rate = u64::from(number) * factor;
    Some(if bits { rate / 8 } else { rate })
}

fn parse_interval(text: &str) -> Option<u32> {
    let (number, unit) = split_number(text)?;
    let factor = match unit {
        "us" | "u" => 1,
        "ms" | "m" => 1_000,
        "s" | "" => 1_000_000,
        _ => return None,
    };
    number.checked_mul(factor).and_then(|us| u32::try_from(us).ok()).filter(|&us| us != 0)
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_entry() {
        let vif = Vif::parse("mac=00:16:3e:00:00:01, bridge=br0,rate=10Mb/s@20ms").expect("is well formed");
        assert_eq!(vif.mac, Some([0, 0x16, 0x3e, 0, 0, 1]));
        assert_eq!(vif.bridge, "br0");
        assert_eq!(vif.rate, Some(Rate { bytes: 25_000, interval_us: 20_000 }));
        assert_eq!(Vif::parse(""), Ok(Vif::default()));
    }

    #[test]
    fn mistakes_are_named() {
        for bad in [
            "mac=1:2:3",
            "mac=01:00:00:00:00:00",
            "mac=00:16:3e:00:00:001",
            "rate=10",
            "rate=0B/s",
            "bridge",
            "brigde=x",
        ] {
            assert!(Vif::parse(bad).is_err(), "{bad}");
        }
    }
}
