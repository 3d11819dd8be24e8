//! The service manager's protocol (sd_notify(3) of systemd): a datagram to the socket that the environment names.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The environment's name for the socket.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// Says that the daemon is ready, if anybody wants to know.
pub(crate) fn ready() -> io::Result<()> {
    match std::env::var_os(VARIABLE) {
        Some(name) => send(&name, b"READY=1"),
        None => Ok(()),
    }
}

fn send(name: &OsStr, text: &[u8]) -> io::Result<()> {
    let address = match name.as_bytes() {
        // A name without a file.
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text, &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_by_a_file_or_a_name() {
        let path = std::env::temp_dir().join(format!("service-notify-{}", std::process::id()));
        drop(std::fs::remove_file(&path));
        let by_file = UnixDatagram::bind(&path).expect("a socket");
        let name = format!("service-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("is short");
        let by_name = UnixDatagram::bind_addr(&address).expect("a socket");
        for (socket, name) in [(by_file, path.clone().into_os_string()), (by_name, format!("@{name}").into())] {
            send(&name, b"READY=1").expect("is heard");
            let mut bytes = [0; 16];
            let count = socket.recv(&mut bytes).expect("has come");
            assert_eq!(&bytes[..count], b"READY=1");
        }
        std::fs::remove_file(&path).expect("is ours");
        assert!(send(path.as_os_str(), b"READY=1").is_err());
    }
}
