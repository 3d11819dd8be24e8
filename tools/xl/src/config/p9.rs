//! One entry of `p9=`: a directory shared with the guest by 9pfs (xl.cfg(5), `p9`).

/// A share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct P9 {
    /// The name the guest mounts it by.
    pub tag: String,
    /// The directory in the backend domain.
    pub path: String,
    /// How ownership is mapped; `none` is the only model.
    pub security_model: String,
    /// Name of the backend domain; empty: the control domain.
    pub backend: String,
}

impl P9 {
    /// Reads an entry such as `tag=share,path=/srv/share,security_model=none`.
    pub fn parse(text: &str) -> Result<P9, String> {
        let mut share = P9::default();
        for part in text.split(',').map(|part| part.trim_start_matches(' ')).filter(|part| !part.is_empty()) {
            let Some((key, value)) = part.split_once('=') else {
                return Err(format!("`{part}' is not of the form key=value"));
            };
            let field = match key {
                "tag" => &mut share.tag,
                "path" => &mut share.path,
                "security_model" => &mut share.security_model,
                "backend" => &mut share.backend,
                _ => {
                    return Err(format!("unknown parameter `{key}'; there are tag, path, security_model and backend"));
                }
            };
            *field = value.into();
        }
        for (name, value) in [("tag", &share.tag), ("path", &share.path), ("security_model", &share.security_model)] {
            if value.is_empty() {
                return Err(format!("`{name}=' is missing"));
            }
        }
        Ok(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_entry() {
        let share = P9::parse("tag=share, path=/srv,security_model=none").expect("is complete");
        assert_eq!((share.tag.as_str(), share.path.as_str(), share.backend.as_str()), ("share", "/srv", ""));
        assert!(P9::parse("tag=share,path=/srv").is_err_and(|error| error.contains("security_model")));
        assert!(P9::parse("tag=share,dir=/srv").is_err_and(|error| error.contains("dir")));
    }
}
