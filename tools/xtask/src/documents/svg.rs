//! An SVG picture of a [`Scene`]: plain shapes and texts, colours as classes, no scripts and no fonts of its own.
//!
//! Before: [`super::scene`]. After: a file that browsers, GitHub and rsvg-convert show.

use std::fmt::Write;

use super::scene::{Area, Arrow, LINE_HEIGHT, LINE_SIZE, Scene, TITLE_SIZE, TITLE_TOP, UNIT};

/// The colours. A picture has its own background, so that it can be read on dark pages, too.
const STYLE: &str = "\
    text { font-family: 'DejaVu Sans', Verdana, Arial, sans-serif; fill: #1d2430; }
    .title { font-weight: bold; }
    .note, .label { fill: #46505f; }
    .label { stroke: #ffffff; stroke-width: 4px; stroke-linejoin: round; paint-order: stroke; }
    rect { stroke-width: 1.4px; }
    .group { fill-opacity: 0.45; }
    .control { fill: #dce9fb; stroke: #3f6fb5; }
    .guest { fill: #e2f3df; stroke: #4b8f43; }
    .core { fill: #fdeed2; stroke: #bd8420; }
    .machine { fill: #f9dcd6; stroke: #b8503c; }
    .hardware { fill: #e6e6ea; stroke: #6d7280; }
    .abi { fill: #ece1f6; stroke: #7d55a8; }
    .part { fill: #ffffff; stroke: #8a93a1; }
    path { fill: none; stroke: #46505f; stroke-width: 1.6px; }
    .data { stroke-dasharray: 6 4; }
    #head path { fill: #46505f; stroke: none; }
";

/// The picture as a file's text.
pub(super) fn draw(scene: &Scene) -> String {
    let (width, height) = (scene.size.0 * UNIT, scene.size.1 * UNIT);
    let title = escape(&scene.title);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n<defs><marker id=\"head\" viewBox=\"0 0 10 10\" \
         refX=\"9\" refY=\"5\" markerWidth=\"8\" markerHeight=\"8\" markerUnits=\"userSpaceOnUse\" \
         orient=\"auto-start-reverse\"><path d=\"M0 0L10 5L0 10z\"/></marker></defs>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for area in &scene.areas {
        draw_area(&mut out, area);
    }
    // Lines first, so that no line goes through a label.
    for arrow in &scene.arrows {
        let both = if arrow.style == "both" { " marker-start=\"url(#head)\"" } else { "" };
        let path = path(arrow);
        line(&mut out, &format!("<path class=\"{}\" d=\"{path}\" marker-end=\"url(#head)\"{both}/>", arrow.style));
    }
    for arrow in scene.arrows.iter().filter(|arrow| !arrow.label.is_empty()) {
        let [(x0, y0), (x1, y1)] = arrow.ends;
        let x = (x0 + x1) * UNIT / 2 + arrow.shift.0 * UNIT;
        let y = (y0 + y1) * UNIT / 2 + arrow.shift.1 * UNIT + LINE_SIZE / 3;
        text(&mut out, "label", (x, y), "middle", LINE_SIZE, &arrow.label);
    }
    for (x, y, words) in &scene.texts {
        text(&mut out, "note", (x * UNIT, y * UNIT), "start", LINE_SIZE, words);
    }
    out += "</svg>\n";
    out
}

fn draw_area(out: &mut String, area: &Area) {
    let [x, y, width, height] = area.place.map(|units| units * UNIT);
    let class = if area.is_group { format!("group {}", area.kind) } else { area.kind.clone() };
    line(out, &format!("<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>"));
    let (at, anchor) = if area.is_group { (x + 10, "start") } else { (x + width / 2, "middle") };
    // A box's text stands in its middle, a group's on top.
    let lines = i32::try_from(area.lines.len()).unwrap_or(0);
    let slack = if area.is_group { 0 } else { (height - TITLE_TOP - lines * LINE_HEIGHT - 6).max(0) / 2 };
    let mut down = y + TITLE_TOP + slack;
    text(out, "title", (at, down), anchor, TITLE_SIZE, &area.title);
    for words in &area.lines {
        down += LINE_HEIGHT;
        text(out, "note", (at, down), anchor, LINE_SIZE, words);
    }
}

/// Straight where that goes, else with a corner, or two in the middle.
fn path(arrow: &Arrow) -> String {
    let [(x0, y0), (x1, y1)] = arrow.ends.map(|(x, y)| (x * UNIT, y * UNIT));
    let corners = match arrow.is_vertical {
        _ if x0 == x1 || y0 == y1 => String::new(),
        [true, true] => format!("V{}H{x1}", (y0 + y1) / 2),
        [false, false] => format!("H{}V{y1}", (x0 + x1) / 2),
        [true, false] => format!("V{y1}"),
        [false, true] => format!("H{x1}"),
    };
    format!("M{x0} {y0}{corners}L{x1} {y1}")
}

fn text(out: &mut String, class: &str, at: (i32, i32), anchor: &str, size: i32, words: &str) {
    let (x, y) = at;
    let words = escape(words);
    line(
        out,
        &format!(
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" font-size=\"{size}\" text-anchor=\"{anchor}\">{words}</text>"
        ),
    );
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").ok();
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::scene;

    #[test]
    fn a_picture_has_all_that_is_described() {
        let text = "canvas 60 40 \"A & B\"\nbox a 1 1 20 6 core \"A <1>\" \"small\"\nbox b 30 20 20 6 part \"B\"\n\
                    arrow a.s b.w data \"goes\"\narrow a.e b.n both\n";
        let picture = draw(&scene::read(text).unwrap());
        assert!(picture.contains("<title>A &amp; B</title>"));
        assert!(picture.contains(">A &lt;1&gt;</text>") && picture.contains(">small</text>"));
        assert!(picture.contains("<path class=\"data\" d=\"M110 70V230L300 230\""), "{picture}");
        assert!(picture.contains("<path class=\"both\" d=\"M210 40H400L400 200\""), "{picture}");
        assert!(picture.contains(">goes</text>"));
        assert_eq!(picture.matches("marker-start").count(), 1);
        assert_eq!(picture.matches("<text").count(), picture.matches("</text>").count());
    }
}
