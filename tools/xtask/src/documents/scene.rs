//! The description of a drawing: a text with a line for each thing, read into a [`Scene`].
//!
//!     canvas WIDTH HEIGHT "title"
//!     group NAME X Y WIDTH HEIGHT KIND "title"
//!     box NAME X Y WIDTH HEIGHT KIND "title" "small line"...
//!     arrow NAME.SIDE[+SHIFT] NAME.SIDE[+SHIFT] STYLE ["label" [DX DY]]
//!     text X Y "line"
//!
//! Units are ten pixels. A side is n, e, s or w, and an arrow begins in its middle, shifted along it. Nothing may overlap or leave the
//! canvas but a box inside of a group, and texts must fit. Before: `docs/architecture.drawing`. After: [`super::svg`].

use anyhow::{Context, Result, bail, ensure};

use crate::qemu::command::split_words;

/// Pixels of a unit.
pub(super) const UNIT: i32 = 10;

/// A rectangle with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) name: String,
    pub(super) is_group: bool,
    /// Left, top, width and height in units.
    pub(super) place: [i32; 4],
    /// Which colours it has; a class in the SVG.
    pub(super) kind: String,
    pub(super) title: String,
    pub(super) lines: Vec<String>,
}

/// A line from one area's edge to another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arrow {
    /// Both ends in units.
    pub(super) ends: [(i32, i32); 2],
    /// Both sides: whether the line leaves an edge vertically.
    pub(super) is_vertical: [bool; 2],
    pub(super) style: String,
    pub(super) label: String,
    /// How far the label stands from the middle, in units.
    pub(super) shift: (i32, i32),
}

/// Everything that is drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scene {
    pub(super) size: (i32, i32),
    pub(super) title: String,
    pub(super) areas: Vec<Area>,
    pub(super) arrows: Vec<Arrow>,
    pub(super) texts: Vec<(i32, i32, String)>,
}

/// The kinds of areas and the styles of arrows that there are.
const KINDS: [&str; 7] = ["control", "guest", "core", "machine", "hardware", "abi", "part"];
const STYLES: [&str; 3] = ["call", "data", "both"];

/// Widths of letters in hundredths of the font's size, of DejaVu Sans, one of the widest.
const TITLE_WIDTH: i32 = 69;
const LINE_WIDTH: i32 = 62;
/// Sizes of the fonts in pixels, and of lines.
pub(super) const TITLE_SIZE: i32 = 14;
pub(super) const LINE_SIZE: i32 = 11;
pub(super) const LINE_HEIGHT: i32 = 15;
/// From an area's top to its title's line.
pub(super) const TITLE_TOP: i32 = 19;

/// Reads a description.
///
/// # Errors
/// A line that is not understood, and whatever does not fit; the line's number is in the message.
pub(super) fn read(text: &str) -> Result<Scene> {
    let mut scene = Scene::default();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        add(&mut scene, line).with_context(|| format!("line {}: `{line}`", number + 1))?;
    }
    ensure!(!scene.title.is_empty(), "there is no canvas");
    Ok(scene)
}

fn add(scene: &mut Scene, line: &str) -> Result<()> {
    let words = split_words(line)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["canvas", width, height, title] => {
            scene.size = (number(width)?, number(height)?);
            scene.title = (*title).to_owned();
        }
        [what @ ("group" | "box"), name, x, y, width, height, kind, title, lines @ ..] => {
            let area = Area {
                name: (*name).to_owned(),
                is_group: *what == "group",
                place: [number(x)?, number(y)?, number(width)?, number(height)?],
                kind: known(kind, &KINDS)?,
                title: (*title).to_owned(),
                lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            };
            check(scene, &area)?;
            scene.areas.push(area);
        }
        ["arrow", from, to, style, rest @ ..] => {
            let ((start, from_side), (end, to_side)) = (end_of(scene, from)?, end_of(scene, to)?);
            let (label, shift) = match rest {
                [] => ("", (0, 0)),
                [label] => (*label, (0, 0)),
                [label, x, y] => (*label, (number(x)?, number(y)?)),
                _ => bail!("too many words"),
            };
            scene.arrows.push(Arrow {
                ends: [start, end],
                is_vertical: [from_side, to_side],
                style: known(style, &STYLES)?,
                label: label.to_owned(),
                shift,
            });
        }
        ["text", x, y, text] => scene.texts.push((number(x)?, number(y)?, (*text).to_owned())),
        _ => bail!("it is neither canvas, group, box, arrow nor text, or has too few words"),
    }
    Ok(())
}

fn number(word: &str) -> Result<i32> {
    word.parse().with_context(|| format!("`{word}' is no number"))
}

fn known(word: &str, words: &[&str]) -> Result<String> {
    ensure!(words.contains(&word), "`{word}' is unknown; there are {}", words.join(", "));
    Ok(word.to_owned())
}

/// Whether an area is where it may be, and its texts fit.
fn check(scene: &Scene, area: &Area) -> Result<()> {
    let [x, y, width, height] = area.place;
    ensure!(width > 0 && height > 0, "it has no size");
    let is_inside = x >= 0 && y >= 0 && x + width <= scene.size.0 && y + height <= scene.size.1;
    ensure!(is_inside, "it leaves the canvas");
    for other in &scene.areas {
        ensure!(other.name != area.name, "there is another `{}'", area.name);
        let [left, top, wide, high] = other.place;
        let apart = x >= left + wide || left >= x + width || y >= top + high || top >= y + height;
        let within = other.is_group && x > left && y > top && x + width < left + wide && y + height < top + high;
        ensure!(apart || within, "it overlaps `{}'", other.name);
    }
    let room = width * UNIT - 12;
    let long = |text: &str, size: i32, letter: i32| {
        i32::try_from(text.chars().count()).unwrap_or(i32::MAX).saturating_mul(size * letter) / 100 > room
    };
    ensure!(!long(&area.title, TITLE_SIZE, TITLE_WIDTH), "the title is too long");
    if let Some(line) = area.lines.iter().find(|line| long(line, LINE_SIZE, LINE_WIDTH)) {
        bail!("`{line}' is too long");
    }
    let lines = i32::try_from(area.lines.len()).unwrap_or(i32::MAX);
    ensure!(TITLE_TOP + lines.saturating_mul(LINE_HEIGHT) + 6 <= height * UNIT, "there are too many lines");
    Ok(())
}

/// Where `NAME.SIDE+SHIFT` is, and whether a line leaves it vertically.
fn end_of(scene: &Scene, word: &str) -> Result<((i32, i32), bool)> {
    let (name, rest) = word.split_once('.').context("an end is NAME.SIDE")?;
    let area = scene.areas.iter().find(|area| area.name == name).with_context(|| format!("there is no `{name}'"))?;
    let [x, y, width, height] = area.place;
    let (side, shift) = rest.split_at_checked(1).context("the side is missing")?;
    let shift = if shift.is_empty() { 0 } else { number(shift)? };
    Ok(match side {
        "n" => ((x + width / 2 + shift, y), true),
        "s" => ((x + width / 2 + shift, y + height), true),
        "w" => ((x, y + height / 2 + shift), false),
        "e" => ((x + width, y + height / 2 + shift), false),
        _ => bail!("`{side}' is no side: n, e, s or w"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANVAS: &str = "canvas 100 50 \"A drawing\"\n";

    fn error_of(lines: &str) -> String {
        format!("{:#}", read(&format!("{CANVAS}{lines}")).unwrap_err())
    }

    #[test]
    fn a_scene_is_read() {
        let text = "# Two.\ngroup g 1 1 50 30 core \"Group\"\nbox a 3 5 20 6 part \"A\" \"small\"\n\
                    box b 3 15 20 6 part \"B\"\narrow a.s b.n+2 call \"does\" 4 0\ntext 60 3 \"note\"\n";
        let scene = read(&format!("{CANVAS}{text}")).unwrap();
        assert_eq!((scene.areas.len(), scene.size, scene.title.as_str()), (3, (100, 50), "A drawing"));
        let arrow = &scene.arrows[0];
        assert_eq!((arrow.ends, arrow.is_vertical), ([(13, 11), (15, 15)], [true, true]));
        assert_eq!((arrow.label.as_str(), arrow.shift), ("does", (4, 0)));
        assert_eq!(scene.texts, [(60, 3, "note".to_owned())]);
    }

    #[test]
    fn what_does_not_fit_is_an_error_with_its_line() {
        assert!(error_of("box a 90 1 20 6 part \"A\"\n").contains("line 2"));
        assert!(error_of("box a 90 1 20 6 part \"A\"\n").contains("leaves the canvas"));
        assert!(error_of("box a 1 1 5 6 part \"A long title\"\n").contains("title is too long"));
        assert!(error_of("box a 1 1 9 6 part \"A\" \"a line too long\"\n").contains("is too long"));
        assert!(error_of("box a 1 1 9 4 part \"A\" \"1\" \"2\"\n").contains("too many lines"));
        let two = "box a 1 1 20 6 part \"A\"\nbox b 5 3 20 6 part \"B\"\n";
        assert!(error_of(two).contains("overlaps `a'"));
        assert!(error_of(&two.replace("box b", "box a").replace("5 3", "5 13")).contains("another `a'"));
    }

    #[test]
    fn unknown_words_are_errors() {
        assert!(error_of("circle 1 1\n").contains("neither"));
        assert!(error_of("box a 1 1 20 6 nice \"A\"\n").contains("`nice' is unknown"));
        assert!(error_of("arrow a.s b.n call\n").contains("no `a'"));
        assert!(error_of("box a 1 1 20 6 part \"A\"\narrow a.x a.n call\n").contains("no side"));
        assert!(read("").is_err(), "no canvas");
    }
}
