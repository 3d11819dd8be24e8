//! The drawing of the architecture: `docs/architecture.drawing` is the source, `docs/architecture.svg` what is made of it.
//!
//! Used by `cargo xtask drawing` and by `cargo xtask lint`, which complains when the picture is not what its source says.

use std::path::Path;

use anyhow::{Context, Result};

use super::{scene, svg};

/// The text.
pub(crate) const SOURCE: &str = "docs/architecture.drawing";
/// The picture.
pub(crate) const PICTURE: &str = "docs/architecture.svg";

/// The picture that the source makes.
///
/// # Errors
/// The source cannot be read, or says what cannot be drawn.
pub(crate) fn draw(root: &Path) -> Result<String> {
    let text = std::fs::read_to_string(root.join(SOURCE)).with_context(|| format!("cannot read {SOURCE}"))?;
    let scene = scene::read(&text).with_context(|| SOURCE.to_owned())?;
    Ok(svg::draw(&scene))
}

/// Whether the picture is the one that its source makes.
///
/// # Errors
/// As [`draw`].
pub(crate) fn is_current(root: &Path) -> Result<bool> {
    let drawn = draw(root)?;
    Ok(std::fs::read_to_string(root.join(PICTURE)).is_ok_and(|picture| picture == drawn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Paths;

    #[test]
    fn the_picture_is_what_its_source_says() {
        let root = Paths::find().unwrap().root;
        assert!(is_current(&root).unwrap(), "{PICTURE} is behind {SOURCE}: run cargo xtask drawing");
    }

    #[test]
    fn a_changed_source_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
        std::fs::create_dir(root.path().join("docs")).unwrap();
        write(SOURCE, "canvas 40 20 \"A\"\nbox a 1 1 20 6 core \"A\"\n");
        assert!(!is_current(root.path()).unwrap(), "no picture");
        write(PICTURE, &draw(root.path()).unwrap());
        assert!(is_current(root.path()).unwrap());
        write(SOURCE, "canvas 40 20 \"A\"\nbox a 1 1 20 6 core \"B\"\n");
        assert!(!is_current(root.path()).unwrap());
    }
}
